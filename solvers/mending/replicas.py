"""Replicas: adapters on several GPUs, where one cannot hold them, or where fewer GPUs do.

Whatever places adapters places parts of them as well (`solvers.contents.divided`). What one GPU cannot hold is divided before anything is
placed. In the end one GPU less is tried with the busiest adapters divided: filled in turn, GPUs then share an adapter where one ends
and the next begins.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.contents.divided import DividedWorkload, divided, in_order_of_gpus, with_shares
from solvers.contents.published_figures import backbone_tokens_per_s
from solvers.limits import Deadline, OutOfTimeError
from solvers.oracles.twin import TwinOracle
from solvers.spreading.even import spread_feasibly
from twin import GpuPlan, Placement, Workload

# All of these are by hand; none can make an answer wrong, as the twin accepts every GPU of it.

#: Share of what the backbone serves alone from which an adapter is asked about alone, and of which a part is, of those that are divided.
HEAVY, PART = 0.25, 1 / 24
#: Parts of one adapter up to which a number is looked for that a GPU holds one of.
MOST_PARTS = 4096
#: Where no adapter takes so much of a GPU none is divided to save one: whole ones fill GPUs as well. And parts in all, at most.
LEAST_SHARE, MOST_PARTS_IN_ALL = 0.02, 3000
#: How often the levels of GPUs are evened out, and the shortfall of a GPU in the mean beyond which that is given up.
EVENED, HOPELESS = 12, 0.5


def tokens_per_s(workload: Workload) -> NDArray[np.float64]:
    """Offered load of each adapter by its rate, shape (n_adapters,)."""
    return workload.rates * workload.lengths.mean_total_tokens


def hot_parts(problem: Problem, deadline: Deadline) -> NDArray[np.int64]:
    """In how many parts each adapter must be divided for a GPU to hold one of them; 1 where it holds the adapter.

    Parameters
    ----------
    problem : Problem
    deadline : Deadline

    Raises
    ------
    OutOfTimeError
    """
    workload = problem.workload
    counts = np.ones(workload.n_adapters, dtype=np.int64)
    capacity = backbone_tokens_per_s(problem.profile, workload.lengths)
    heavy = np.flatnonzero(tokens_per_s(workload) > HEAVY * capacity)
    if not len(heavy):
        return counts
    oracle = TwinOracle(workload, problem.profile, service=problem.service)
    oracle.deadline = deadline
    for adapter in heavy.tolist():
        alone = (adapter,)
        if oracle.slots(alone) and oracle.find_max_loras(alone) is None and not oracle.is_cut_off(alone, 1):
            counts[adapter] = _parts_of(problem, adapter, deadline)
    return counts


def _parts_of(problem: Problem, adapter: int, deadline: Deadline) -> int:
    """The fewest parts, by doubling and halving, the first of which a GPU holds alone."""

    def holds(count: int) -> bool:
        parts = divided(alone, np.array([count]))
        oracle = TwinOracle(parts, problem.profile, service=problem.service)
        oracle.deadline = deadline
        return oracle.find_max_loras((0,)) is not None

    workload = problem.workload
    alone = only(workload, adapter)
    low, high = 1, 2
    while not holds(high):
        low, high = high, 2 * high
        if high > MOST_PARTS:
            return 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def only(workload: Workload, adapter: int) -> Workload:
    """One adapter of a workload, with its requests."""
    mine = np.array([adapter])
    return replace(
        workload,
        ranks=workload.ranks[mine],
        rates=workload.rates[mine],
        ids=np.asarray(workload.ids)[mine],
        trace=None if workload.trace is None else workload.requests_of(mine),
    )


def finer(problem: Problem, least: NDArray[np.int64]) -> DividedWorkload | None:
    """The workload with its busy adapters in small parts; None where there are none, or too many parts.

    Parameters
    ----------
    problem : Problem
    least : array of shape (n_adapters,)
        Parts that each adapter has at least.
    """
    workload = problem.workload
    part = PART * backbone_tokens_per_s(problem.profile, workload.lengths)
    counts = np.maximum(1, np.ceil(tokens_per_s(workload) / part).astype(np.int64))
    # Whole multiples, so that a part that is known to fit is made up of these.
    counts = np.where(least > 1, least * -(-counts // least), counts)
    if (counts == 1).all() or counts.sum() > MOST_PARTS_IN_ALL:
        return None
    return divided(workload, counts)


def settled(workload: DividedWorkload, placement: Placement, oracle: TwinOracle) -> tuple[Placement | None, list[int]]:
    """A placement of parts as it is routed: parts numbered by the order of GPUs, `max_loras` found anew where that changes anything.

    Parameters
    ----------
    workload : DividedWorkload
    placement : Placement
    oracle : TwinOracle
        Of the divided workload.

    Returns
    -------
    placement : Placement or None
        Of adapters, with shares; None where a GPU fails.
    failing : list of int
        GPUs that do.
    """
    ordered = in_order_of_gpus(workload, placement)
    plans, failing = [], []
    for number, plan in enumerate(ordered.gpus):
        slots = oracle.find_max_loras(plan.adapters, plan.max_loras)
        if slots is None:
            failing.append(number)
        plans.append(GpuPlan(plan.adapters, slots or plan.max_loras))
    return (None, failing) if failing else (with_shares(workload, Placement(tuple(plans))), [])


def fewer_with_replicas(  # noqa: PLR0913  # a start and the limits of a search
    problem: Problem,
    placement: Placement | None,
    deadline: Deadline,
    *,
    least: int = 1,
    weights: NDArray[np.float64] | None = None,
    counts: NDArray[np.int64] | None = None,
) -> tuple[Placement | None, int]:
    """A placement with replicas on fewer GPUs than a given one, as long as one is found.

    Parameters
    ----------
    problem : Problem
    placement : Placement, optional
        None where there is none yet: then on as few GPUs as are found.
    deadline : Deadline
    least : int
        GPUs below which nothing is tried.
    weights : array of shape (n_adapters,), optional
        What an adapter takes of a GPU; by default its load.
    counts : array of shape (n_adapters,), optional
        Parts that each adapter has at least (`hot_parts`).

    Returns
    -------
    placement : Placement or None
        The best known.
    calls : int
    """
    workload = problem.workload
    weights = tokens_per_s(workload) if weights is None else weights
    total = float(weights.sum())
    if total <= 0 or (placement is not None and placement.n_gpus <= least):
        return placement, 0
    if placement is not None and weights.max() * placement.n_gpus < LEAST_SHARE * total:
        return placement, 0
    parts = finer(problem, np.ones(workload.n_adapters, dtype=np.int64) if counts is None else counts)
    if parts is None:
        return placement, 0
    oracle = TwinOracle(parts, problem.profile, service=problem.service)
    oracle.deadline = deadline
    search = _Search(parts, (weights / parts.counts)[parts.owners], oracle, deadline)
    try:
        if placement is None:
            start = max(least, math.ceil(float(tokens_per_s(workload).sum()) / backbone_of(problem)))
            placement = search.upwards(start)
        while placement is not None and placement.n_gpus > least:
            better = search.on(placement.n_gpus - 1)
            if better is None:
                break
            placement = better
    except OutOfTimeError:
        placement = search.best if search.best is not None else placement
    return placement, oracle.calls


def backbone_of(problem: Problem) -> float:
    """What a GPU serves without LoRA, in tokens per second."""
    return backbone_tokens_per_s(problem.profile, problem.workload.lengths)


class _Search:
    """Parts on a number of GPUs, filled in turn and evened out by what the twin says of each GPU."""

    def __init__(
        self, parts: DividedWorkload, weights: NDArray[np.float64], oracle: TwinOracle, deadline: Deadline
    ) -> None:
        self.parts, self.weights, self.oracle, self.deadline = parts, weights, oracle, deadline
        self.best: Placement | None = None

    def upwards(self, start: int) -> Placement | None:
        """The first fleet that serves, from one number of GPUs on: by one more each time, then by tenths."""
        fleet, most = start, len(self.parts.owners)
        while fleet <= most:
            placement = self.on(fleet)
            if placement is not None:
                return placement
            fleet += max(1, fleet // 10)
        return None

    def on(self, n_gpus: int) -> Placement | None:
        """A placement on so many GPUs, or None if none was found."""
        for order in self._orders():
            placement = self._evened(order, n_gpus)
            if placement is None:
                continue
            self.best = placement
            return placement
        spread = spread_feasibly(self.weights, n_gpus, self.oracle, self.deadline)
        if spread is not None:
            settled_one, _ = settled(self.parts, spread, self.oracle)
            if settled_one is not None:
                self.best = settled_one
            return settled_one
        return None

    def _orders(self) -> list[NDArray[np.int64]]:
        """The parts of an adapter one after the other; by rank first, by load first, and light adapters between heavy ones."""
        whole, owners = self.parts.whole, self.parts.owners
        load = tokens_per_s(whole)
        busiest = np.argsort(-load, kind="stable")
        mixed = np.empty_like(busiest)
        half = (len(busiest) + 1) // 2
        mixed[0::2], mixed[1::2] = busiest[:half], busiest[half:][::-1]
        by_rank = np.lexsort((-load, -whole.ranks))
        orders = []
        for adapters in (mixed, by_rank, busiest):
            place = np.empty(len(adapters), dtype=np.int64)
            place[adapters] = np.arange(len(adapters))
            orders.append(np.argsort(place[owners], kind="stable"))
        return orders

    def _evened(self, order: NDArray[np.int64], n_gpus: int) -> Placement | None:
        """GPUs filled in turn, each to a level of its own: lower where it fell short, higher where the others have room."""
        level = np.ones(n_gpus)
        for _ in range(EVENED):
            self.deadline.check()
            contents = self._in_turn(order, level)
            shortfall = np.zeros(n_gpus)
            plans = []
            for gpu, content in enumerate(contents):
                if not content:
                    continue
                slots = self.oracle.find_max_loras(content)
                shortfall[gpu] = self._spare(content, slots)
                plans.append(GpuPlan(content, slots or 1))
            if (shortfall >= 0).all():
                placement, _ = settled(self.parts, Placement(tuple(plans)), self.oracle)
                return placement
            if shortfall.mean() < -HOPELESS or n_gpus == 1:
                return None
            # Those that fall short get less, the others what is left over.
            level *= 1.0 + np.clip(shortfall - shortfall.mean(), -0.2, 0.2)
        return None

    def _spare(self, content: tuple[int, ...], slots: int | None) -> float:
        """What the service level looks at, less what it must be, at the best `max_loras` known; not negative where one is accepted."""
        if slots is not None:
            return max(0.0, self.oracle.share(content, slots) - self.oracle.service.share)
        known = [self.oracle.both_shares(content, value)[1] for value in self.oracle.slots(content)]
        return min(max(known, default=-1.0) - self.oracle.service.share, -1e-3)

    def _in_turn(self, order: NDArray[np.int64], level: NDArray[np.float64]) -> list[tuple[int, ...]]:
        """Slices of an order whose weights are in proportion to the levels."""
        reached = np.cumsum(self.weights[order]) - self.weights[order] / 2
        edges = np.cumsum(level) / level.sum() * float(self.weights.sum())
        gpu = np.minimum(np.searchsorted(edges, reached), len(level) - 1)
        return [tuple(np.sort(order[gpu == number]).tolist()) for number in range(len(level))]
