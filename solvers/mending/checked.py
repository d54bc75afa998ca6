"""What the twin makes of GPUs that a learned model has filled: checked, mended, and made fewer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.contents.orders import decreasing_order, zigzag_order
from solvers.filling.model import Filling, FillModel
from solvers.filling.one_by_one import fill_gpus, not_alone
from solvers.limits import Deadline, NoPlacementError, OutOfTimeError
from solvers.mending.exchanges import fewer_on_twin
from solvers.oracles.base import nearest_first
from solvers.oracles.draws import twin_of
from solvers.oracles.twin import TwinOracle
from solvers.spreading.even import Contents, spread_feasibly
from twin import GpuPlan, Placement

# By hand where no other reason is given: no measurement that chose them is on record. No answer is wrong for them, only later or on more
# GPUs.

#: From so many GPUs on, GPUs are sampled and mended by themselves; below, all of them together. One GPU is 1.6 % of such a fleet:
#: less than the twin says of a sample.
LARGE_FLEET = 64
#: Up to so many adapters every `max_loras` is tried on the twin: with more, a refusal would cost up to 21 simulations.
MOST_ALL_SLOTS = 150
#: `max_loras` that are tried for a GPU of a large fleet, and the shortfall beyond which no other is: neighbours on the
#: grid are taken to differ by less. More tries find a few more contents accepted, and fewer GPUs get checked in time.
TRIES, HOPELESS = 4, 0.05
#: GPUs of a large fleet that are asked about to see how full the twin lets them be, and how many of these it accepts. With
#: 16 the share is known to a tenth; a share of 1 would let one unlucky GPU of the sample empty all of them.
SAMPLE, ACCEPTED_SHARE = 16, 0.9
#: Adapters that fill the GPUs to be sampled: enough for more GPUs than are looked at, few enough to fill in seconds.
MOST_SAMPLED = 5000
#: Stretches of the contributions (`FillModel.filled`) that are tried: four halvings of the interval leave 3 %, less than
#: the sample tells apart.
LEAST_STRETCH, MOST_STRETCH, STRETCH_STEPS = 0.85, 1.3, 4
#: GPUs that an adapter is put on, one after the other, when it is refused on its own: each costs a simulation.
JOINED = 64
#: Share of its weight that a refused GPU of a large fleet gives away at a time. More overshoots and leaves room unused, less asks
#: more often.
SHED = 0.04
#: Most weight for each GPU of a fleet that is worth trying: the predictor errs on the safe side. On nine
#: of ten instances of the benchmark tier the weights sum to at most 1.29 for each GPU of the best placement known (median 1.02).
HEAVIEST = 1.35
#: Share of the time left that exchanges may take: the rest is for what follows.
SEARCHED = 0.85
#: Spreads with weights a little off that are tried on one GPU less, and their spread (of the
#: logarithm): less gives the same spreads again, more gives uneven ones.
ATTEMPTS, NOISE = 12, 0.1
#: Share of a fleet's GPUs that the twin may refuse for a spread to be mended, and moves for each GPU that may mend a filling. More mends
#: what is far off, for a simulation or two each.
MOST_REFUSED, MOVES_PER_GPU = 0.4, 4
#: Share of the GPUs, and of the weights' sum, below which no spread is tried.
LEAST_FLEET = 0.8
#: Proposals of the annealing on one GPU less, a fifth of those of `FillModel`: its outcome is mended anyway.
START_PROPOSALS = 4000
#: Shares of the time left for filling GPUs with all `max_loras`, for the last search, and of that for annealing; and of the whole time that
#: sampling must leave to check a large fleet.
THOROUGH, LAST, ANNEALED, LEFT_TO_CHECK = 1 / 4, 1 / 2, 1 / 4, 0.7


class QuickTwin(TwinOracle):
    """The twin, asked about a few `max_loras` only: a large fleet has thousands of contents."""

    def find_max_loras(self, adapters: tuple[int, ...], hint: int | None = None) -> int | None:
        """As `Oracle.find_max_loras`, for the values nearest to the hint."""
        candidates = nearest_first(self.slots(adapters), hint or min(len(adapters), 64))
        for value in candidates[:TRIES]:
            share = self.share(adapters, value)
            if share >= self.service.share:
                return value
            if 0 <= share < self.service.share - HOPELESS:
                return None
        return None


@dataclass(frozen=True)
class CheckedPlacement:
    """A placement after the twin has looked at it.

    Attributes
    ----------
    placement : Placement
    twin_calls : int
    unchecked_gpus : int
        GPUs that there was no time to simulate.
    """

    placement: Placement
    twin_calls: int
    unchecked_gpus: int = 0


def checked(  # noqa: PLR0913  # what is filled, and how far to go
    problem: Problem,
    model: FillModel,
    filling: Filling,
    deadline: Deadline,
    tighter: Filling | None = None,
    *,
    twin_search: bool = True,
) -> CheckedPlacement:
    """A placement that the twin accepts, as far as there is time.

    Parameters
    ----------
    problem : Problem
    model : FillModel
    filling : Filling
        Mended GPU by GPU, which always ends; not used for a large fleet.
    deadline : Deadline
    tighter : Filling, optional
        On fewer GPUs: taken instead if the twin accepts most of it, and moves mend the rest.
    twin_search : bool
        Search on simulations for fewer GPUs in the end (`solvers.mending.exchanges`); not in a large fleet.

    Raises
    ------
    NoPlacementError
        For an adapter that starves a GPU of its own.
    """
    one_by_one = _OneByOne(problem, model, deadline)
    if filling.n_gpus >= LARGE_FLEET and deadline.left_s:
        return one_by_one.filled_and_checked()
    answer = one_by_one.checked(filling, model.orders()[0])
    placement, oracle = answer.placement, one_by_one.oracle
    if answer.unchecked_gpus:
        return answer
    weights = _weights_of_requests(model)
    try:
        if tighter is not None and tighter.n_gpus < placement.n_gpus:
            placement = _moved(tighter, weights, oracle, deadline) or placement
        placement = _fewer(placement, weights, oracle, deadline)
    except OutOfTimeError as out:
        placement = out.args[0] if out.args else placement
    calls = 0
    if isinstance(oracle, QuickTwin):
        calls, oracle = oracle.calls, twin_of(problem)
        oracle.deadline = deadline
        placement = _filled_thoroughly(placement, problem, oracle, deadline)
    if twin_search:
        placement = fewer_on_twin(placement, weights, oracle, Deadline.after(SEARCHED * deadline.left_s), problem.seed)
    placement = _one_fewer(placement, model, weights, oracle, deadline)
    return CheckedPlacement(placement, calls + oracle.calls)


def _filled_thoroughly(placement: Placement, problem: Problem, oracle: TwinOracle, deadline: Deadline) -> Placement:
    """Fewer GPUs by filling them one after the other with every `max_loras` tried on the twin."""
    ours = Deadline.after(THOROUGH * deadline.left_s)
    for order in (zigzag_order, decreasing_order):
        if placement.n_gpus == 1:
            break
        fewer = replace(problem, max_gpus=placement.n_gpus - 1)
        with contextlib.suppress(OutOfTimeError, NoPlacementError):
            placement = fill_gpus(order(problem.workload), fewer, oracle, ours)
    return placement


def _weights_of_requests(model: FillModel) -> NDArray[np.float64]:
    """Weights by the load that adapters really send: with few requests chance matters."""
    requests, count = model.workload.requests, model.workload.n_adapters
    tokens = np.bincount(requests.adapter, requests.prompt_tokens + requests.requested_tokens, count)
    rates = model.workload.rates
    expected = rates / max(float(rates.sum()), 1e-300) * max(float(tokens.sum()), 1.0)
    return model.weights * np.clip(tokens / np.maximum(expected, 1e-300), 0.5, 2.0)


def _moved(filling: Filling, weights: NDArray[np.float64], oracle: TwinOracle, deadline: Deadline) -> Placement | None:
    """Move adapters from the GPUs that starve, if they are few, to others."""
    contents = Contents(filling.groups(), weights, oracle, deadline)
    if not contents.ask(filling.slots.tolist(), most_refused=max(1, filling.n_gpus // 2)):
        return None
    return contents.repaired(MOVES_PER_GPU * filling.n_gpus)


def _fewer(placement: Placement, weights: NDArray[np.float64], oracle: TwinOracle, deadline: Deadline) -> Placement:
    """Even spreads over fewer GPUs, not far below what the weights ask for, as long as there is time."""
    low = max(1, math.floor(LEAST_FLEET * min(float(weights.sum()), placement.n_gpus)))
    try:
        while low < placement.n_gpus:
            fleet = (low + placement.n_gpus) // 2
            better = spread_feasibly(weights, fleet, oracle, deadline, most_refused=MOST_REFUSED)
            if better is None:
                low = fleet + 1
            else:
                placement = better
    except OutOfTimeError:
        raise OutOfTimeError(placement) from None
    return placement


def _one_fewer(
    placement: Placement, model: FillModel, weights: NDArray[np.float64], oracle: TwinOracle, deadline: Deadline
) -> Placement:
    """Annealed and uneven starts on one GPU less, until none of them can be mended."""
    generator = np.random.default_rng(model.seed)
    # The rest of the time is for those who have more of it than this needs.
    ours = Deadline.after(LAST * deadline.left_s)
    # Out of time is how this search ends: what it has by then is the answer.
    with contextlib.suppress(OutOfTimeError):
        while placement.n_gpus > 1:
            better = _on(placement.n_gpus - 1, model, weights, oracle, ours, generator)
            if better is None:
                break
            placement = better
    return placement


def _on(  # noqa: PLR0913  # one step of a search
    fleet: int,
    model: FillModel,
    weights: NDArray[np.float64],
    oracle: TwinOracle,
    deadline: Deadline,
    generator: np.random.Generator,
) -> Placement | None:
    if weights.sum() > HEAVIEST * fleet:
        return None
    filling, _ = model.annealed(fleet, Deadline.after(ANNEALED * deadline.left_s), proposals=START_PROPOSALS)
    placement = _moved(filling, weights, oracle, deadline)
    if placement is not None:
        return placement
    for _ in range(ATTEMPTS):
        noisy = weights * np.exp(NOISE * generator.standard_normal(len(weights)))
        placement = spread_feasibly(noisy, fleet, oracle, deadline, most_refused=MOST_REFUSED)
        if placement is not None:
            return placement
    return None


class _OneByOne:
    """GPUs looked at one by one: those that starve give adapters away, which get GPUs of their own."""

    def __init__(self, problem: Problem, model: FillModel, deadline: Deadline) -> None:
        self.problem = problem
        self.model = model
        self.deadline = deadline
        quick = problem.workload.n_adapters > MOST_ALL_SLOTS
        self.oracle = twin_of(problem, kind=QuickTwin if quick else TwinOracle)
        self.oracle.deadline = deadline
        self.plans: list[GpuPlan] = []

    def filled_and_checked(self) -> CheckedPlacement:
        """Fill a large fleet as full as the twin lets GPUs be, and check them all."""
        order, filling, stretch = self._filled()
        return self.checked(filling, order, stretch)

    def checked(self, filling: Filling, order: NDArray[np.int64], stretch: float = 1.0) -> CheckedPlacement:
        """Check a filling; what has to leave a GPU is filled in, in an order and with a stretch, and checked too."""
        groups, slots = filling.groups(), filling.slots.tolist()
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        unchecked = 0
        while groups:
            pool: list[int] = []
            for group, hint in zip(groups, slots, strict=True):
                if not group:
                    continue
                content, found, shed = self._mended(tuple(group), hint)
                pool.extend(shed)
                unchecked += found is None
                if content:
                    self.plans.append(GpuPlan(content, found or hint))
            chosen = np.sort(np.array(pool, dtype=np.int64))
            if not pool:
                break
            refill = self.model.filled(chosen[np.argsort(place[chosen])], stretch)
            groups = [[int(chosen[a]) for a in group] for group in refill.groups()]
            slots = refill.slots.tolist()
        return CheckedPlacement(Placement(tuple(self.plans)), self.oracle.calls, unchecked)

    def _filled(self) -> tuple[NDArray[np.int64], Filling, float]:
        """All GPUs, as full as the twin lets nearly all of those be that a part of the adapters fills."""
        generator = np.random.default_rng(self.problem.seed)
        chosen = generator.permutation(self.problem.workload.n_adapters)[:MOST_SAMPLED]
        parts = [order[np.isin(order, chosen)] for order in self.model.orders()]
        better = int(np.argmin([self.model.filled(part).n_gpus for part in parts]))
        low, stretch, high = LEAST_STRETCH, 1.0, MOST_STRETCH
        for _ in range(STRETCH_STEPS):
            accepted = self._sample_accepted(parts[better], stretch, generator)
            if accepted is None:
                break
            if accepted:
                high = stretch
            else:
                low = stretch
            stretch = math.sqrt(low * high)
        # What was accepted, or else, where the last answers were refusals, what lies half-way to a wide margin.
        stretch = high if high < MOST_STRETCH else stretch
        order = self.model.orders()[better]
        return order, self.model.filled(order, stretch), stretch

    def _sample_accepted(self, part: NDArray[np.int64], stretch: float, generator: np.random.Generator) -> bool | None:
        """Whether the twin accepts nearly all GPUs of a sample; None when there is no time to ask."""
        filling = self.model.filled(part, stretch)
        ascending = np.sort(part)
        groups = [tuple(ascending[group].tolist()) for group in filling.groups()]
        # The last GPUs hold what was left over.
        candidates = max(1, len(groups) - 2)
        chosen = generator.choice(candidates, min(SAMPLE, candidates), replace=False)
        refused = 0
        for gpu in chosen.tolist():
            # Sampling must leave the time to check all.
            if not self.deadline.leaves(LEFT_TO_CHECK):
                return None
            try:
                refused += self.oracle.find_max_loras(groups[gpu], int(filling.slots[gpu])) is None
            except OutOfTimeError:
                return None
            if refused > (1 - ACCEPTED_SHARE) * len(chosen):
                return False
        return True

    def _mended(self, content: tuple[int, ...], hint: int) -> tuple[tuple[int, ...], int | None, Sequence[int]]:
        """What stays on a GPU, the `max_loras` that the twin accepts (None: no time to ask), and what has to leave."""
        shed: list[int] = []
        with contextlib.suppress(OutOfTimeError):
            while self.deadline.left_s:
                found = self.oracle.find_max_loras(content, hint)
                if found is not None:
                    return content, found, shed
                if len(content) == 1:
                    # Few values were tried; before giving up all of them are.
                    found = TwinOracle.find_max_loras(self.oracle, content, hint)
                    if found is None:
                        self._join(content[0])
                        return (), 1, shed
                    return content, found, shed
                leaving = self._lightened(content)
                shed.extend(leaving)
                content = tuple(a for a in content if a not in leaving)
        return content, None, shed

    def _join(self, adapter: int) -> None:
        """Put an adapter that is refused on a GPU of its own beside others, where the end of the window cuts off less of it."""
        if self.oracle.is_cut_off((adapter,), 1):
            for number, plan in list(enumerate(self.plans))[-JOINED:]:
                content = tuple(sorted((*plan.adapters, adapter)))
                slots = self.oracle.find_max_loras(content, plan.max_loras) if self.deadline.left_s else None
                if slots is not None:
                    self.plans[number] = GpuPlan(content, slots)
                    return
        raise not_alone(self.problem, self.oracle, adapter)

    def _lightened(self, content: tuple[int, ...]) -> set[int]:
        """Adapters of about `SHED` of a GPU's weight, the heaviest that fit in first."""
        weights = self.model.weights[list(content)]
        budget = SHED * float(weights.sum())
        leaving: set[int] = set()
        for place in np.argsort(-weights, kind="stable").tolist():
            if weights[place] <= budget:
                leaving.add(content[place])
                budget -= float(weights[place])
        return leaving or {content[int(np.argmin(weights))]}
