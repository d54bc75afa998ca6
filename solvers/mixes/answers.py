"""Answers for a fleet of several types: what the solvers tagged `mixed_fleets` say there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem, Solution
from solvers.contents.divided import DividedWorkload, divided, in_order_of_gpus, with_shares
from solvers.contents.orders import decreasing_order, zigzag_order
from solvers.limits import Deadline, NoneThereError, NoPlacementError, OutOfTimeError, no_placement_status
from solvers.mending.best_service import TIME_SHARE, BestService
from solvers.mending.exchanges import Loaded
from solvers.mending.hot import hot_parts
from solvers.mixes.bound import MixBound
from solvers.mixes.filling import filled, on_cheaper_types
from solvers.mixes.search import cheaper
from solvers.mixes.twins import TypeTwins
from twin import Fleet, Placement, Workload

#: Shares of the time left: for the bounds of the types by themselves, for the first search for cheaper mixes, and for each turn of
#: bound and search after that. By hand.
FIRST_BOUND, FIRST_SEARCH, TURN = 0.25, 0.35, 0.4
#: Share of the time after which no more orders are filled in. By hand.
FILLING = 0.15
#: Questions about each type before the first search.
FIRST_ROUNDS = 6

Order = Callable[[Workload], NDArray[np.int64]]


@dataclass(frozen=True)
class MixOptions:
    """How far a solver goes.

    Attributes
    ----------
    orders : sequence of callable
        In which adapters are filled in.
    search : bool
        Try cheaper mixes, with adapters exchanged between their GPUs.
    proof : bool
        Prove a bound on cost.
    replicas : bool
        Divide adapters that no type holds.
    best_service : bool
        In the end, choose `max_loras` and exchange adapters between GPUs of a type for the service of the worst one.
    """

    orders: Sequence[Order] = (zigzag_order, decreasing_order)
    search: bool = True
    proof: bool = False
    replicas: bool = True
    best_service: bool = True


def mixed_answer(problem: Problem, options: MixOptions) -> Solution:
    """Place on a fleet of several types for the least cost.

    Parameters
    ----------
    problem : Problem
    options : MixOptions
    """
    if not problem.workload.n_adapters:
        bounds: dict[str, Any] = {"lower_bound": 0, "cost_bound": 0.0} if options.proof else {}
        return Solution("optimal" if options.proof else "feasible", Placement(()), **bounds)
    return _Answer(problem, options).solution()


class _Answer:
    """One solve: its time, its bound, its best placement so far."""

    def __init__(self, problem: Problem, options: MixOptions) -> None:
        self.problem = problem
        self.options = options
        self.deadline = Deadline.after(problem.time_limit_s)
        self.searching = Deadline.after(problem.time_limit_s * (1 - TIME_SHARE * options.best_service))
        self.bound = MixBound(problem, self.searching) if options.proof else None
        self.twins: TypeTwins | None = None
        self.parts: DividedWorkload | None = None
        self.more_calls = 0

    def solution(self) -> Solution:
        """The best placement found, with what is proven."""
        try:
            gpus = self._first()
            if self.bound is not None:
                gpus = self._with_proof(gpus, self.bound)
            elif self.options.search:
                gpus = self._cheaper(gpus, self.searching)
            placement = self._placement(gpus)
        except NoPlacementError as why:
            return self._without(why)
        except OutOfTimeError:
            return self._without(None)
        return self._finished(placement)

    # --- placements

    def _first(self) -> list[Loaded]:
        """The cheapest of the fillings in some orders."""
        why: NoPlacementError | None = None
        for workload, parts in self._divisions():
            self.parts = parts
            self.twins = TypeTwins(self.problem, workload, self.searching)
            try:
                return min(self._fillings(self.twins), key=self.twins.cost)
            except NoneThereError:
                raise
            except NoPlacementError as error:
                why = why or error
        raise why or NoPlacementError("no adapters")

    def _divisions(self) -> Iterator[tuple[Workload, DividedWorkload | None]]:
        """The workload with adapters divided that no type holds; then those that some type does not hold, as others may run out."""
        workload = self.problem.workload
        if not self.options.replicas:
            yield workload, None
            return
        each = _parts(self.problem, self.searching)
        least: NDArray[np.int64] = np.min(each, axis=0)
        most: NDArray[np.int64] = np.max(each, axis=0)
        for counts in (least, most) if (most > least).any() else (least,):
            if (counts == 1).all():
                yield workload, None
                continue
            # Twice as many as a GPU holds one of: what one draw of requests allows another may not.
            parts = divided(workload, np.where(counts > 1, 2 * counts, counts))
            yield parts, parts

    def _fillings(self, twins: TypeTwins) -> list[list[Loaded]]:
        """Fillings in some orders: for their price, or where the GPUs run out for few GPUs.

        Raises
        ------
        NoPlacementError
        OutOfTimeError
        """
        found: list[list[Loaded]] = []
        why: NoPlacementError | None = None
        # The heaviest first, while there are some left of the types that hold them.
        orders = [*(order(twins.workload) for order in self.options.orders), np.argsort(-twins.weights, kind="stable")]
        for by_gpu in (False, True):
            for order in orders:
                try:
                    gpus = filled(order, twins, self.searching, by_gpu=by_gpu)
                    found.append(on_cheaper_types(gpus, twins, self.searching))
                except NoneThereError:
                    raise
                except NoPlacementError as error:
                    why = error
                except OutOfTimeError:
                    if not found:
                        raise
                if found and (len(self.options.orders) == 1 or not self.searching.leaves(1 - FILLING)):
                    return found
            if found:
                return found
        raise why or NoPlacementError("no adapters")

    def _cheaper(self, gpus: list[Loaded], deadline: Deadline) -> list[Loaded]:
        assert self.twins is not None  # noqa: S101  # they were asked about the GPUs
        possible = self.bound.possible if self.bound is not None else lambda _: True
        return cheaper(gpus, self.twins, deadline, 0, possible=possible)

    def _with_proof(self, gpus: list[Loaded], bound: MixBound) -> list[Loaded]:
        """Bound from below and search from above by turns, until they meet or nothing moves."""
        assert self.twins is not None  # noqa: S101  # they were asked about the GPUs
        bound.start(Deadline.after(FIRST_BOUND * self.searching.left_s), rounds=FIRST_ROUNDS)
        if self.options.search:
            gpus = self._cheaper(gpus, Deadline.after(FIRST_SEARCH * self.searching.left_s))
        while self.searching.left_s and not self._met(gpus, bound):
            before = bound.cost, self.twins.cost(gpus)
            bound.run(Deadline.after(TURN * self.searching.left_s), self.twins.cost(gpus))
            if self._met(gpus, bound):
                break
            if self.options.search:
                gpus = self._cheaper(gpus, Deadline.after(TURN * self.searching.left_s))
            if bound.exhausted and before == (bound.cost, self.twins.cost(gpus)):
                break
        return gpus

    def _met(self, gpus: list[Loaded], bound: MixBound) -> bool:
        assert self.twins is not None  # noqa: S101  # they were asked about the GPUs
        return bound.cost >= self.twins.cost(gpus) * (1 - 1e-9)

    def _placement(self, gpus: list[Loaded]) -> Placement:
        """The placement of adapters; of their parts, with each GPU asked again about the requests that are routed to it.

        Raises
        ------
        NoPlacementError
            If a GPU fails with these.
        """
        assert self.twins is not None  # noqa: S101  # they were asked about the GPUs
        placement = self.twins.placement(gpus)
        if self.parts is None:
            return placement
        kinds = [gpu.kind for gpu in gpus if gpu.content]
        names = [plan.gpu_type for plan in placement.gpus]
        ordered = in_order_of_gpus(self.parts, placement)
        plans = []
        for number, (plan, kind) in enumerate(zip(ordered.gpus, kinds, strict=True)):
            slots = self.twins.oracles[kind].find_max_loras(plan.adapters, plan.max_loras)
            if slots is None:
                raise NoPlacementError(f"GPU {number} fails with the shares of divided adapters that are routed to it")
            plans.append(replace(plan, max_loras=slots))
        shared = with_shares(self.parts, Placement(tuple(plans)))
        return Placement(tuple(replace(plan, gpu_type=name) for plan, name in zip(shared.gpus, names, strict=True)))

    # --- what is said of them

    def _finished(self, placement: Placement) -> Solution:
        fleet = self.problem.mixed_fleet
        assert fleet is not None  # noqa: S101  # this is about fleets
        cost = fleet.cost(placement)
        proven = self.bound is not None and self.bound.cost >= cost * (1 - 1e-9)
        if self.options.best_service and self.parts is None:
            placement, calls = _best_service(self.problem, fleet, placement, self.deadline)
            self.more_calls += calls
        return Solution(
            "optimal" if proven else "feasible",
            placement,
            oracle_calls=self._calls,
            details=self._details() | {"mix": dict(zip(_names(fleet), fleet.mix(placement), strict=True))},
            **self._bounds(cost, placement.n_gpus),
        )

    def _bounds(self, cost: float, gpus: int) -> dict[str, Any]:
        if self.bound is None:
            return {}
        # Rounding must not put a bound above what it is met by.
        return {"cost_bound": min(self.bound.cost, cost), "lower_bound": min(self.bound.gpus, gpus)}

    def _without(self, why: NoPlacementError | None) -> Solution:
        bounds: dict[str, Any] = {}
        if self.bound is not None:
            with contextlib.suppress(OutOfTimeError):
                self.bound.start(Deadline.after(FIRST_BOUND * self.searching.left_s), rounds=FIRST_ROUNDS)
            if self.bound.impossible:
                why = NoneThereError(
                    "no mix of the fleet is enough: that is proven by the twin's contents of each type"
                )
            else:
                bounds = {"cost_bound": self.bound.cost, "lower_bound": self.bound.gpus}
        return Solution(
            "time_limit" if why is None else no_placement_status(why),
            oracle_calls=self._calls,
            message="no placement within the time limit" if why is None else str(why),
            details=self._details(),
            **bounds,
        )

    @property
    def _calls(self) -> int:
        twins = 0 if self.twins is None else self.twins.calls
        return twins + self.more_calls + (0 if self.bound is None else self.bound.calls)

    def _details(self) -> dict[str, Any]:
        details: dict[str, Any] = {"oracle": "twin", "replicas": self.options.replicas}
        if self.bound is not None:
            details |= {
                "mixes_ruled_out_by": len(self.bound.needed),
                "zones": [len(zones.table) for zones in self.bound.zones],
                "monotonicity_needed": bool(self.bound.needed),
                "interchangeability_needed": False,
            }
        return details


def _names(fleet: Fleet) -> list[str]:
    return [kind.name for kind in fleet.types]


def _parts(problem: Problem, deadline: Deadline) -> list[NDArray[np.int64]]:
    """In how many parts each adapter must be divided for each type to hold one of them."""
    fleet = problem.mixed_fleet
    assert fleet is not None  # noqa: S101  # this is about fleets
    return [hot_parts(replace(problem, profile=kind.profile, fleet=None), deadline) for kind in fleet.types]


def _best_service(problem: Problem, fleet: Fleet, placement: Placement, deadline: Deadline) -> tuple[Placement, int]:
    """The placement with better service on the same GPUs; adapters are exchanged between GPUs of one type."""
    plans, calls = [], 0
    ours = Deadline.after(min(deadline.left_s, TIME_SHARE * problem.time_limit_s))
    for place, kind in enumerate(fleet.types):
        mine = Placement(tuple(replace(p, gpu_type=None) for p in placement.gpus if p.gpu_type == kind.name))
        if not mine.gpus:
            continue
        share = Deadline.after(ours.left_s / (len(fleet.types) - place))
        search = BestService(replace(problem, profile=kind.profile, fleet=None), share)
        plans += [replace(plan, gpu_type=kind.name) for plan in search.improved(mine).gpus]
        calls += search.calls
    return Placement(tuple(plans)), calls
