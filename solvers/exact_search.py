"""The search behind the exact solver: greedy and even placements from above, the frontier from below, then cuts."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.adapter_types import adapter_types, single_types
from solvers.assignment_loop import AssignmentLoop, worth_trying
from solvers.base import Problem, Solution
from solvers.cut_loop import CutLoop
from solvers.fast_answer import fast_answer
from solvers.fill_model import FillModel
from solvers.frontier import Boxes, FrontierBound, frontier_bound
from solvers.load_limits import FAST_GRAIN, GRAINS, LoadLimits
from solvers.monotone_check import MonotoneSample, sample_monotonicity
from solvers.oracle import Oracle
from solvers.packing import Deadline, OutOfTimeError, decreasing_order, fill_gpus, zigzag_order
from solvers.progress import Progress
from solvers.published_figures import backbone_tokens_per_s
from solvers.spread import spread_feasibly
from solvers.twin_oracle import TwinOracle
from solvers.zone_bound import ZoneBound
from twin import GpuPlan, Placement

#: Up to so many adapters the bound is proven on each adapter's own requests, not on the average of its type.
MOST_SINGLE_ADAPTERS = 3000
#: Up to so many types the frontier's cover is solved for the types, and contents are counted by type.
MOST_TYPES = 150
#: Up to so many adapters the first answer is the greedy's, every GPU as full as the twin lets it be.
MOST_GREEDY = 200
#: Rounds of questions before the first answer.
FIRST_ROUNDS = 3
#: Offered load, in terms of what the backbone serves without LoRA, with which one GPU for all is not tried.
FAR_TOO_MUCH = 3.0
#: Moves and swaps that are proposed for one number of GPUs.
ANNEALING_PROPOSALS = 100_000


class ExactSearch:
    """State of one solve.

    Parameters
    ----------
    problem : Problem
    oracle : Oracle
    deadline : Deadline
    workers : int
        Search threads of CP-SAT.
    """

    def __init__(self, problem: Problem, oracle: Oracle, deadline: Deadline, workers: int) -> None:
        self.problem = problem
        self.oracle = oracle
        self.deadline = deadline
        self.workers = workers
        self.progress = Progress(problem.max_gpus, oracle.name)
        self.types = adapter_types(problem.workload, by_requests=not oracle.interchangeable)
        self.demands = oracle.demands(self.types)
        self.loop: CutLoop | None = None
        self.assignment: AssignmentLoop | None = None
        self.stopped = ""
        self.monotone = MonotoneSample(0, 0)
        self.zones: ZoneBound | None = None
        self.bound: FrontierBound | None = None
        self.boxes: Boxes | None = None
        #: Price of each adapter by the best bound so far.
        self.weights: NDArray[np.float64] | None = None
        #: Contents that other solvers asked about.
        self.other_calls = 0
        self._limits: LoadLimits | None = None
        self._filled_fast = False
        self._hint: int | None = None
        self._bound_needs: set[str] = set()
        self._fleets_tried: set[int] = set()
        self._started_s = time.perf_counter()

    def run(self) -> None:
        """Place, bound, and close the gap, until the bounds meet or the time is up.

        Raises
        ------
        NoPlacementError
            When there is none within the GPU limit.
        OutOfTimeError
        """
        steps = [self._one_gpu, self._first_bound, self._first_answer, self._frontier, self._raise_by_zones]
        steps += [self._annealed, self._second_answer, self._spread_otherwise, self._assign, self._cut_loop]
        for step in steps:
            step()
            if self.progress.proven:
                return

    def _one_gpu(self) -> None:
        """One GPU for all: the only content there is then, so the answer needs no assumption."""
        everything = tuple(range(self.problem.workload.n_adapters))
        if self._far_too_much():
            return
        self._hint = self.oracle.find_max_loras(everything)
        if self._hint:
            self.progress.keep(Placement((GpuPlan(everything, self._hint),)))
            self.progress.raise_bound(1, certain=True)
        elif len(everything) > 1:
            self.progress.raise_bound(2, certain=True)

    def _far_too_much(self) -> bool:
        """Whether one GPU for all is out of the question; simulating that would take long."""
        workload = self.problem.workload
        offered = workload.total_rate * workload.lengths.mean_total_tokens
        return offered > FAR_TOO_MUCH * backbone_tokens_per_s(self.problem.profile, workload.lengths)

    # --- answers from above

    def _first_answer(self) -> None:
        """An answer for any time limit, with most of the time left for what follows."""
        if self.zones is None:
            self._greedy(self.deadline)
            return
        fast = self.problem.workload.n_adapters > MOST_GREEDY and len(self.types) > MOST_TYPES
        for answer in (self._fast_answer, self._greedy) if fast else (self._greedy, self._fast_answer):
            try:
                answer(Deadline.after(self.deadline.left_s / 2))
            except OutOfTimeError:
                continue
            if self.progress.best is not None:
                return
        # The oracle remembers what the greedy asked before it ran out of time.
        self._greedy(self.deadline)

    def _greedy(self, deadline: Deadline) -> None:
        limitless = replace(self.problem, max_gpus=None)
        for order in (decreasing_order, zigzag_order):
            self.progress.keep(fill_gpus(order(self.problem.workload), limitless, self.oracle, deadline))
            if self.progress.proven:
                return

    def _fast_answer(self, deadline: Deadline) -> None:
        """Filled by the learned model, checked and mended by the twin, where a model is shipped for the profile."""
        self._filled_fast = True
        placement, calls = fast_answer(self.problem, self.oracle, deadline, self.deadline)
        self.other_calls += calls
        if placement is not None:
            self.progress.keep(placement)

    def _second_answer(self) -> None:
        """The other of the two ways to a first answer."""
        if self.zones is None:
            return
        with contextlib.suppress(OutOfTimeError):
            if self._filled_fast:
                self._greedy(Deadline.after(self.deadline.left_s / 2))
            else:
                self._fast_answer(Deadline.after(self.deadline.left_s / 4))
        if not self.progress.proven:
            self._spread()

    def _largest_load(self) -> float:
        """A load that a GPU takes, or what is not far from it."""
        if self.progress.best is None:
            return 0.5 * backbone_tokens_per_s(self.problem.profile, self.problem.workload.lengths)
        load = np.empty(self.problem.workload.n_adapters)
        for members, value in zip(self.types.members, self.demands.load, strict=True):
            load[members] = value
        return max(float(load[list(plan.adapters)].sum()) for plan in self.progress.best.gpus)

    # --- bounds from below

    def _first_bound(self) -> None:
        """With the twin, a bound in seconds, from made-up contents and a few rounds of questions about real ones."""
        if not isinstance(self.oracle, TwinOracle):
            return
        self.zones = ZoneBound(self.oracle)
        deadline = Deadline.after(self.deadline.left_s / 8)
        self._limits = LoadLimits(self.oracle, self.demands, self.types.counts, guess=self._largest_load())
        grain = FAST_GRAIN if len(self.types) > MOST_TYPES else GRAINS[0]
        with contextlib.suppress(OutOfTimeError):
            self.boxes = self._limits.boxes(grain, deadline)
        for rank, sums in self._limits.points():
            self.zones.rule_out(rank, sums[len(self._limits.ranks) - 1 :])
        self.zones.run(Deadline.after(self.deadline.left_s / 10), rounds=FIRST_ROUNDS)
        self._learn_zones()

    def _raise_by_zones(self) -> None:
        """Ask about the contents that the cheapest cover uses, and spread by what the adapters turn out to cost."""
        if self.zones is None:
            return
        share = 1 / 2 if len(self.types) > MOST_TYPES else 1 / 3
        self.zones.run(Deadline.after(share * self.deadline.left_s), self.progress.gpus)
        self._learn_zones()
        if not self.progress.proven:
            self._fleets_tried.clear()
            self._spread()

    def _learn_zones(self) -> None:
        zones = self.zones
        assert zones is not None  # noqa: S101  # only called with zones
        if zones.value > self.progress.fractional_bound:
            self.progress.fractional_bound = zones.value
            self.weights = zones.prices
        if zones.gpus > self.progress.lower_bound:
            self._bound_needs = {"monotonicity"}
        self.progress.raise_bound(zones.gpus)

    def _frontier(self) -> None:
        """Raise the bound by what made-up contents prove, from coarse to fine; for as many types as a cover is solved for fast."""
        deadline = self.deadline
        if self.zones is not None:
            if len(self.types) > MOST_TYPES:
                return
            deadline = Deadline.after(self.deadline.left_s / 2)
        if self._limits is None:
            self._limits = LoadLimits(self.oracle, self.demands, self.types.counts, guess=self._largest_load())
        try:
            self._frontier_until(self._limits, deadline)
        except OutOfTimeError:
            self.deadline.check()

    def _frontier_until(self, limits: LoadLimits, deadline: Deadline) -> None:
        for grain in GRAINS:
            # The last grain is for bounds a little below a whole number.
            if self.bound is not None and grain is GRAINS[-1] and math.ceil(self.bound.value * 1.03) == self.bound.gpus:
                break
            self.boxes = limits.boxes(grain, deadline)
            self.bound = frontier_bound(
                self.demands, self.types.counts, self.types.ranks, self.boxes,
                target=self.progress.gpus, deadline=deadline,
            )  # fmt: skip
            self._learn_bound(self.bound, self.boxes)
            self._fleets_tried.clear()  # finer prices may spread better
            self._spread()
            if self.progress.proven:
                break

    def _learn_bound(self, bound: FrontierBound, boxes: Boxes) -> None:
        """Take note of a bound for the types; if it is news, prove it on single adapters where these differ."""
        if self.weights is None or bound.value > self.progress.fractional_bound:
            self.weights = self._price_of_adapters(bound)
        if bound.gpus <= self.progress.lower_bound:
            self.progress.fractional_bound = max(self.progress.fractional_bound, bound.value)
            return
        exchanged = not self.oracle.interchangeable
        if exchanged and self.problem.workload.n_adapters <= MOST_SINGLE_ADAPTERS:
            bound, exchanged = self._on_single_adapters(bound, boxes), False
        self.progress.fractional_bound = max(self.progress.fractional_bound, bound.value)
        if bound.gpus > self.progress.lower_bound:
            self._bound_needs = {"monotonicity"} | ({"interchangeability"} if exchanged else set())
        self.progress.raise_bound(bound.gpus)

    def _on_single_adapters(self, by_type: FrontierBound, boxes: Boxes) -> FrontierBound:
        """The bound with each adapter's own load and activity, from the prices of its type."""
        singles = single_types(self.problem.workload)
        demands = self.oracle.demands(singles)
        kind = np.empty(len(singles), dtype=np.int64)
        for number, members in enumerate(self.types.members):
            kind[members] = number
        typical = np.maximum(self.demands.load[kind], 1e-12)
        # An adapter busier than its type is worth more, by its load or half of it (the rest being its activity).
        starts = [by_type.prices[kind] * (1 - part + part * demands.load / typical) for part in (1.0, 0.75, 0.5)]
        bounds = [
            frontier_bound(demands, singles.counts, singles.ranks, boxes, start=start, max_rounds=1) for start in starts
        ]
        best = max(bounds, key=lambda bound: bound.value)
        if best.gpus >= by_type.gpus:
            return best
        more = frontier_bound(
            demands, singles.counts, singles.ranks, boxes, start=best.prices, target=by_type.gpus,
            max_rounds=20, deadline=self.deadline,
        )  # fmt: skip
        return max(best, more, key=lambda bound: bound.value)

    def _spread(self) -> None:
        """Even spreads over fewer GPUs than the greedy needed, weighed by the prices of the bound."""
        weights = self.weights
        if weights is None:
            return
        while not self.progress.proven:
            # Half-way between the bounds: a success rules out all above, a failure says little.
            low, high = self.progress.lower_bound, self.progress.gpus
            for fleet in range((low + high) // 2, high):
                if fleet in self._fleets_tried:
                    continue
                self._fleets_tried.add(fleet)
                placement = spread_feasibly(weights, fleet, self.oracle, self.deadline, hint=self._hint)
                if placement is not None:
                    self.progress.keep(placement)
                    break
            else:
                return

    def _spread_otherwise(self) -> None:
        """Spread over one GPU less with prices a little off, for a quarter of the time that is left."""
        weights = self.weights
        if weights is None:
            return
        deadline = Deadline.after(self.deadline.left_s / 4)
        generator = np.random.default_rng(self.problem.seed)
        for _ in range(50):
            noisy = weights * np.exp(0.1 * generator.standard_normal(len(weights)))
            try:
                placement = spread_feasibly(
                    noisy, self.progress.gpus - 1, self.oracle, deadline, hint=self._hint, most_refused=0.5
                )
            except OutOfTimeError:
                return
            if placement is not None:
                self.progress.keep(placement)
                if self.progress.proven:
                    return

    def _annealed(self) -> None:
        """Anneal all adapters onto one GPU less, where the oracle is a learned model and thousands of contents cost little."""
        if self.oracle.name not in ("predictor", "distilled"):
            return
        model = FillModel(self.problem, distilled=self.oracle.name == "distilled")
        deadline = Deadline.after(self.deadline.left_s / 4)
        while not self.progress.proven and deadline.left_s:
            filling, _ = model.annealed(self.progress.gpus - 1, deadline, proposals=ANNEALING_PROPOSALS)
            plans = []
            for group in filling.groups():
                slots = self.oracle.find_max_loras(tuple(group), self._hint) if group else None
                if group and slots is None:
                    return
                if slots is not None:
                    plans.append(GpuPlan(tuple(group), slots))
            self.progress.keep(Placement(tuple(plans)))

    def _assign(self) -> None:
        """With few adapters, ask whether one GPU less will do, for half of the time that is left."""
        workload, boxes = self.problem.workload, self.boxes
        if boxes is None or self.weights is None:
            return
        if not worth_trying(workload.n_adapters, self.progress.gpus, self.progress.fractional_bound):
            return
        singles = single_types(workload)
        demands = self.oracle.demands(singles)
        prices = [
            frontier_bound(
                demands, singles.counts, singles.ranks, boxes, start=start, max_rounds=rounds, deadline=self.deadline
            ).prices
            for start, rounds in ((self.weights, 20), (demands.load / demands.load.sum(), 1))
        ]
        if self.zones is not None:
            prices.append(self.zones.prices)
        deadline = Deadline.after(self.deadline.left_s / 2)
        self.assignment = AssignmentLoop(self.oracle, self.progress, deadline, self.workers, prices)
        try:
            self.assignment.run()
        except OutOfTimeError:
            self.stopped = "the time for assigning single adapters was used up"

    def _cut_loop(self) -> None:
        """Cuts and columns over adapters counted by type, as long as there are few types."""
        if self.bound is None or self.boxes is None:
            self.stopped = "what the cover by fractions of contents uses is accepted, or the time was used up"
            return
        self.loop = CutLoop(self.oracle, self.types, self.demands, self.progress, self.deadline, self.workers)
        self.stopped = self.loop.run(self.boxes, self.bound.prices)

    def _price_of_adapters(self, bound: FrontierBound) -> NDArray[np.float64]:
        weights = np.empty(self.problem.workload.n_adapters)
        for members, price in zip(self.types.members, bound.prices, strict=True):
            weights[members] = price
        return weights

    # --- the answer

    @property
    def _needs(self) -> set[str]:
        """What the bound rests on."""
        loops = (self.loop, self.assignment)
        return self._bound_needs.union(*(loop.needs for loop in loops if loop is not None))

    def sample_monotonicity(self) -> None:
        """Test what the bound rests on, on the oracle in use, if it rests on it; a second of extra time at most."""
        needs = self._needs
        if needs and self.progress.best is not None:
            self.monotone = sample_monotonicity(
                self.oracle, self.progress.best, self.problem.seed, Deadline.after(min(1.0, self.problem.time_limit_s))
            )

    def details(self) -> dict[str, Any]:
        """What the result says about its proof."""
        needs = set() if self.progress.refuted else self._needs
        loop = {"cuts": len(self.loop.cuts), "patterns": len(self.loop.patterns)} if self.loop else {}
        if self.assignment:
            loop |= {"assignments": self.assignment.rounds, "covers": len(self.assignment.covers)}
        if self.zones:
            loop |= {"zones": len(self.zones.table), "zone_cuts": len(self.zones.cuts)}
        return {
            "oracle": self.oracle.name,
            "types": len(self.types),
            **self.progress.details(),
            **loop,
            "monotonicity_refuted": self.progress.refuted,
            "monotonicity_needed": "monotonicity" in needs,
            "monotonicity_pairs": self.monotone.pairs,
            "monotonicity_violations": self.monotone.violations,
            "interchangeability_needed": "interchangeability" in needs,
            "stopped": "the bounds met" if self.progress.proven else self.stopped,
        }

    def solution(self) -> Solution:
        """The best placement with its bound."""
        calls, limit, best = self.oracle.calls + self.other_calls, self.problem.max_gpus, self.progress.best
        if best is None or (limit is not None and best.n_gpus > limit):
            found = "" if best is None else f"; the best found needs {best.n_gpus} GPUs"
            return Solution(
                "time_limit",
                lower_bound=self.progress.lower_bound,
                oracle_calls=calls,
                message=f"no placement within the limits{found}",
                details=self.details(),
            )
        proven = self.progress.proven
        return Solution(
            "optimal" if proven else "feasible",
            best,
            lower_bound=self.progress.lower_bound,
            oracle_calls=calls,
            message="" if proven else f"not proven: {self.stopped}",
            details=self.details(),
        )
