"""Replicas: adapters on several GPUs, where one cannot hold them, or where fewer GPUs do.

Whatever places adapters places parts of them as well (`solvers.contents.divided`). What one GPU cannot hold is divided before anything is
placed. In the end one GPU less is tried with the busiest adapters divided: filled in turn, GPUs then share an adapter where one ends
and the next begins.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.contents.divided import DividedWorkload, divided, in_order_of_gpus, with_shares
from solvers.contents.orders import describe
from solvers.contents.published_figures import backbone_tokens_per_s
from solvers.limits import Deadline, NoPlacementError, OutOfTimeError
from solvers.mending.hot import backbone_of, tokens_per_s
from solvers.oracles.base import nearest_first
from solvers.oracles.draws import twin_of
from solvers.oracles.twin import TwinOracle
from solvers.spreading.even import spread_feasibly
from twin import GpuPlan, Placement

# All of these are by hand; none can make an answer wrong, as the twin accepts every GPU of it.

#: What a part of a divided adapter is at most, as a share of what the backbone serves alone.
PART = 1 / 24
#: Where no adapter takes so much of a GPU none is divided to save one: whole ones fill GPUs as well. And parts in all, at most.
LEAST_SHARE, MOST_PARTS_IN_ALL = 0.02, 3000
#: Share of a solver's time left that one GPU less may take: most tries end much sooner.
REPLICATED = 1 / 6
#: How often the levels of GPUs are evened out, the gain that is worth another round, rounds without it, and the mean shortfall of GPUs
#: beyond which that is given up: of throughput, and of goodput, which falls from all to little within a few per cent of the load.
EVENED, LITTLE, PATIENCE, HOPELESS = 16, 2e-4, 3, (0.03, 0.3)


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
        slots: int | None = plan.max_loras
        if not oracle.accepts(plan.adapters, plan.max_loras):
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
    oracle = twin_of(problem, parts)
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


def with_replicas(
    problem: Problem,
    placement: Placement | None,
    parts: DividedWorkload | None,
    deadline: Deadline,
    *,
    search: bool = True,
) -> tuple[Placement, int]:
    """A placement of adapters, divided where that saves GPUs, from one of adapters or of parts that GPUs hold.

    Parameters
    ----------
    problem : Problem
    placement : Placement, optional
        Of `parts` if there are any; None where none was found.
    parts : DividedWorkload, optional
        As `divided_if_hot` made it.
    deadline : Deadline
    search : bool
        Try one GPU less; otherwise only where adapters had to be divided and the outcome fails.

    Returns
    -------
    placement : Placement
    calls : int

    Raises
    ------
    NoPlacementError
        Where none was found that the twin accepts.
    """
    found = placement
    calls = 0
    if parts is not None and placement is not None:
        oracle = twin_of(problem, parts)
        found, _ = settled(parts, placement, oracle)
        calls = oracle.calls
    if search or found is None:
        ours = Deadline.after((REPLICATED if found is not None else 1.0) * deadline.left_s)
        found, more = fewer_with_replicas(
            problem, found, ours, counts=None if parts is None else parts.counts
        )  # fmt: skip
        calls += more
    if found is None:
        raise none_shared(problem, parts)
    return found, calls


def none_shared(problem: Problem, parts: DividedWorkload | None) -> NoPlacementError:
    """That no placement was found which shares what a GPU cannot hold, with the first such adapter."""
    hot = 0 if parts is None else int(np.argmax(parts.counts > 1))
    who = describe(problem.workload, hot)
    return NoPlacementError(f"{who} is too much for a GPU alone, and no placement was found that shares it among GPUs")


class _Search:
    """Parts on a number of GPUs, filled in turn and evened out by what the twin says of each GPU."""

    def __init__(
        self, parts: DividedWorkload, weights: NDArray[np.float64], oracle: TwinOracle, deadline: Deadline
    ) -> None:
        self.parts, self.weights, self.oracle, self.deadline = parts, weights, oracle, deadline
        self.best: Placement | None = None
        self.hopeless = HOPELESS[oracle.service.judges_requests]

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
        level, least = np.ones(n_gpus), 1.2 * n_gpus / len(order)
        nearest, idle, hints = -math.inf, 0, [64] * n_gpus
        for _ in range(EVENED):
            spare = np.zeros(n_gpus)
            plans = []
            for gpu, content in enumerate(self._in_turn(order, level)):
                self.deadline.check()
                if content:
                    hints[gpu], spare[gpu] = self._asked(content, hints[gpu])
                    plans.append(GpuPlan(content, hints[gpu]))
            if (spare >= 0).all():
                placement, _ = settled(self.parts, Placement(tuple(plans)), self.oracle)
                return placement
            missing = float(np.minimum(spare, 0.0).mean())
            idle = 0 if missing > nearest + LITTLE else idle + 1
            if missing < -self.hopeless or idle > PATIENCE or n_gpus == 1:
                return None
            nearest = max(nearest, missing)
            # Those that fall short get less, by a part at least, and the others what is left over.
            level *= 1.0 - np.where(spare < 0, np.clip(-spare, least, 0.2), 0.0)
        return None

    def _asked(self, content: tuple[int, ...], hint: int) -> tuple[int, float]:
        """The best `max_loras` near a hint, and what the service level looks at there, less what it must be."""
        oracle = self.oracle
        candidates = list(oracle.slots(content))
        if not candidates:
            return 1, -1.0
        share = oracle.service.share
        place = candidates.index(nearest_first(candidates, hint)[0])
        best = oracle.share(content, candidates[place]) - share
        for step in (1, -1):
            while best < 0 and 0 <= place + step < len(candidates):
                trial = oracle.share(content, candidates[place + step]) - share
                if trial <= best:
                    break
                best, place = trial, place + step
        return candidates[place], best

    def _in_turn(self, order: NDArray[np.int64], level: NDArray[np.float64]) -> list[tuple[int, ...]]:
        """Slices of an order whose weights are in proportion to the levels."""
        reached = np.cumsum(self.weights[order]) - self.weights[order] / 2
        edges = np.cumsum(level) / level.sum() * float(self.weights.sum())
        gpu = np.minimum(np.searchsorted(edges, reached), len(level) - 1)
        return [tuple(np.sort(order[gpu == number]).tolist()) for number in range(len(level))]
