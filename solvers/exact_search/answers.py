"""Answers from above: placements that an exact search finds, each for a share of the time."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np

from solvers.contents.orders import decreasing_order, describe, zigzag_order
from solvers.contents.published_figures import backbone_tokens_per_s
from solvers.exact_search.greedy_answers import FirstAnswer, greedy_answer
from solvers.exact_search.state import SearchState
from solvers.filling.model import FillModel
from solvers.filling.one_by_one import fill_gpus
from solvers.limits import Deadline, NoPlacementError, OutOfTimeError
from solvers.mending.exchanges import fewer_on_twin
from solvers.mending.hot import check_each_alone, check_each_starts, hot_parts
from solvers.mending.replicas import REPLICATED, fewer_with_replicas
from solvers.oracles.twin import TwinOracle
from solvers.spreading.even import spread_feasibly
from twin import GpuPlan, Placement

#: Offered load, in terms of what the backbone serves without LoRA, with which one GPU for all is not tried. No GPU serves more than
#: with one adapter, and 90 % of the offered load must be served: above 1.1 the answer is known, the rest is room for error.
FAR_TOO_MUCH = 3.0
#: Adapters up to which every `max_loras` of one GPU for all is asked about by itself, and the share of the time that may be spent on it. By
#: hand: a question takes milliseconds. With more, spans of values are asked about (`solvers.oracles.spans`).
MOST_CERTAIN, SETTLED = 128, 1 / 8
#: Moves and swaps that are proposed for one number of GPUs: five times those of `ffd_plus`, whose other steps need
#: the time. By hand; it ends as soon as all GPUs are accepted.
ANNEALING_PROPOSALS = 100_000
#: Shares of the time left: for a first answer where an adapter is divided, by hand; for each of two greedy ones, a quarter, as half raised
#: no answer and lowered bounds (results/bounds/ablation.csv); for exchanges on the twin, with many
#: types (there is little left to do afterwards) and with few; for spreads with prices a little off; for annealing.
FIRST, SECOND, EXCHANGES, OTHERWISE, ANNEALED = 1 / 2, 1 / 4, (0.8, 0.5), 1 / 4, 1 / 4
#: Spreads with prices a little off, how far off (spread of the logarithm), and the share of their GPUs that may be refused. By hand, as in
#: `solvers.mending.checked`; here there are prices of a bound to start from, and more time.
OFF_ATTEMPTS, OFF_NOISE, OFF_REFUSED = 50, 0.1, 0.5


class Answers:
    """Ways to place; what they find goes into the progress of the search.

    Parameters
    ----------
    state : SearchState
    """

    def __init__(self, state: SearchState) -> None:
        self.state = state
        #: What a learned model says, for when there is no time to ask the twin about it.
        self.unchecked: Placement | None = None
        self._fleets_tried: set[int] = set()
        self._searches = 0

    def one_gpu(self) -> None:
        """One GPU for all: the only content there is then, so the answer needs no assumption where each `max_loras` is asked about."""
        oracle, progress = self.state.oracle, self.state.progress
        everything = tuple(range(self.state.problem.workload.n_adapters))
        if self._far_too_much():
            return
        self.state.hint = oracle.find_max_loras(everything)
        if self.state.hint is None and (len(everything) > 1 or self.state.replicas):
            self._two_at_least(everything)
        if self.state.hint:
            progress.keep(Placement((GpuPlan(everything, self.state.hint),)))
            progress.raise_bound(1, certain=True)

    def _two_at_least(self, everything: tuple[int, ...]) -> None:
        """What is known of one GPU at all `max_loras` together, for a share of the time."""
        oracle = self.state.oracle
        every_value = len(everything) <= MOST_CERTAIN
        before, oracle.deadline = oracle.deadline, Deadline.after(SETTLED * self.state.deadline.left_s)
        try:
            verdict = oracle.verdict(everything, every_value=every_value)
        except OutOfTimeError:
            return
        finally:
            oracle.deadline = before
        self.state.hint = verdict.max_loras
        if verdict.rejected:
            self.state.progress.one_gpu_fails = True
            self.state.progress.raise_bound(2, certain=every_value, by="one GPU for all")

    def _far_too_much(self) -> bool:
        """Whether one GPU for all is out of the question; simulating that would take long."""
        workload = self.state.problem.workload
        offered = workload.total_rate * workload.lengths.mean_total_tokens
        return offered > FAR_TOO_MUCH * backbone_tokens_per_s(self.state.problem.profile, workload.lengths)

    def look_for_hot(self) -> None:
        """Which adapters no GPU holds alone.

        Raises
        ------
        NoneThereError
            For one that no GPU can hold at all, or none alone where replicas are ruled out.
        """
        state = self.state
        if not isinstance(state.oracle, TwinOracle):
            return
        check_each_starts(state.problem)
        if state.replicas:
            state.hot_parts = hot_parts(state.problem, state.deadline)
        else:
            check_each_alone(state.problem, state.oracle)

    def replicated(self) -> None:
        """Fewer GPUs with replicas, for a share of the time that is left; more of it where there is no placement yet."""
        state, progress = self.state, self.state.progress
        if not state.replicas or progress.proven:
            return
        share = REPLICATED if progress.best is not None else FIRST
        placement, calls = fewer_with_replicas(
            state.problem,
            progress.best,
            Deadline.after(share * state.deadline.left_s),
            least=progress.lower_bound,
            weights=state.weights,
            counts=state.hot_parts,
        )
        state.other_calls += calls
        if placement is not None:
            progress.keep(placement)

    def at_once(self) -> None:
        """A placement before anything else, so that there is one whatever the time limit."""
        first = FirstAnswer(self.state)
        self.unchecked = first.unchecked
        placement = first.accepted()
        self.state.other_calls += first.calls
        if placement is not None:
            self.state.progress.keep(placement)
        else:
            self.unchecked = None

    def first_answer(self) -> None:
        """A good answer, with most of the time left for what follows."""
        if self.state.has_hot:
            self.replicated()
            if self.state.progress.best is None:
                self._fast_answer(self.state.deadline)
            if self.state.progress.best is None:
                hot = describe(self.state.problem.workload, int(np.argmax(np.asarray(self.state.hot_parts) > 1)))
                raise NoPlacementError(f"{hot} is too much for a GPU alone, and no placement was found that shares it")
            return
        with contextlib.suppress(OutOfTimeError):
            self._fast_answer(Deadline.after(SECOND * self.state.deadline.left_s))
        if self.state.progress.best is None:
            try:
                self._greedy(self.state.deadline)
            except NoPlacementError:
                # An adapter that a GPU of its own refuses, for the window's end, may be shared.
                self.replicated()
                if self.state.progress.best is None:
                    raise

    def greedily(self) -> None:
        """GPUs filled one after the other, in two orders: seconds at most where the oracle is a learned model."""
        self._greedy(self.state.deadline)

    def _greedy(self, deadline: Deadline) -> None:
        limitless = replace(self.state.problem, max_gpus=None)
        for order in (decreasing_order, zigzag_order):
            self.state.progress.keep(
                fill_gpus(order(self.state.problem.workload), limitless, self.state.oracle, deadline)
            )
            if self.state.progress.proven:
                return

    def _fast_answer(self, deadline: Deadline) -> None:
        """Filled by the learned model, checked and mended by the twin, where a model is shipped for the profile."""
        placement, calls = greedy_answer(
            self.state.problem, self.state.oracle, deadline, self.state.deadline, replicas=self.state.replicas
        )
        self.state.other_calls += calls
        if placement is not None:
            self.state.progress.keep(placement)

    def second_answer(self) -> None:
        """GPUs as full as the twin lets them be; where an adapter is divided, what `ffd_plus` makes of it."""
        other = self._fast_answer if self.state.has_hot else self._greedy
        with contextlib.suppress(OutOfTimeError, NoPlacementError):
            other(Deadline.after(SECOND * self.state.deadline.left_s))
        if not self.state.progress.proven:
            self.spread()

    def spread(self, *, afresh: bool = False) -> None:
        """Even spreads over fewer GPUs than the greedy needed, weighed by the prices of the bound.

        Parameters
        ----------
        afresh : bool
            On fleets that were tried before as well: finer prices may spread better.
        """
        weights = self.state.weights
        if weights is None or self.state.has_hot:
            return
        if afresh:
            self._fleets_tried.clear()
        while not self.state.progress.proven:
            # Half-way between the bounds: a success rules out all above, a failure says little.
            low, high = self.state.progress.lower_bound, self.state.progress.gpus
            for fleet in range((low + high) // 2, high):
                if fleet in self._fleets_tried:
                    continue
                self._fleets_tried.add(fleet)
                placement = spread_feasibly(
                    weights, fleet, self.state.oracle, self.state.deadline, hint=self.state.hint
                )
                if placement is not None:
                    self.state.progress.keep(placement)
                    break
            else:
                return

    def searched(self) -> None:
        """With the twin, exchange adapters between the GPUs of a fleet of one less, for half of the time that is left or more."""
        oracle = self.state.oracle
        best = self.state.progress.best
        if self.state.weights is None or best is None or not isinstance(oracle, TwinOracle) or self.state.has_hot:
            return
        share = EXCHANGES[0 if self.state.many_types else 1]
        deadline = Deadline.after(share * self.state.deadline.left_s)
        placement = fewer_on_twin(
            best,
            self.state.weights,
            oracle,
            deadline,
            self.state.problem.seed + self._searches,
            least=self.state.progress.lower_bound,
        )
        # Another search next time.
        self._searches += 1
        self.state.progress.keep(placement)

    def spread_otherwise(self) -> None:
        """Spread over one GPU less with prices a little off, for a quarter of the time that is left."""
        weights = self.state.weights
        if weights is None or self.state.has_hot:
            return
        deadline = Deadline.after(OTHERWISE * self.state.deadline.left_s)
        generator = np.random.default_rng(self.state.problem.seed)
        for _ in range(OFF_ATTEMPTS):
            noisy = weights * np.exp(OFF_NOISE * generator.standard_normal(len(weights)))
            try:
                placement = spread_feasibly(
                    noisy,
                    self.state.progress.gpus - 1,
                    self.state.oracle,
                    deadline,
                    hint=self.state.hint,
                    most_refused=OFF_REFUSED,
                )
            except OutOfTimeError:
                return
            if placement is not None:
                self.state.progress.keep(placement)
                if self.state.progress.proven:
                    return

    def annealed(self) -> None:
        """Anneal all adapters onto one GPU less, where the oracle is a learned model and thousands of contents cost little."""
        model = FillModel(self.state.problem, distilled=self.state.oracle.name == "distilled")
        deadline = Deadline.after(ANNEALED * self.state.deadline.left_s)
        while not self.state.progress.proven and deadline.left_s:
            filling, _ = model.annealed(self.state.progress.gpus - 1, deadline, proposals=ANNEALING_PROPOSALS)
            plans = []
            for group in filling.groups():
                slots = self.state.oracle.find_max_loras(tuple(group), self.state.hint) if group else None
                if group and slots is None:
                    return
                if slots is not None:
                    plans.append(GpuPlan(tuple(group), slots))
            self.state.progress.keep(Placement(tuple(plans)))
