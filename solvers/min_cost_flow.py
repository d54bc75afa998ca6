"""Baseline: minimum-cost flow, the other algorithm of NVIDIA Dynamo's LoRA controller."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import min_cost_flow as flow

from solvers.base import Problem, Solution, Tags
from solvers.fleet import FleetSolver
from solvers.limits import OutOfTimeError
from solvers.spreading.controller import Workers, preferred, worker_slots
from twin import Placement, UserError

#: Workers of an adapter's order that an arc leads to, if it does not want more (`candidate_m` of the controller).
CANDIDATES = 16
#: Seconds that a flow takes for each arc, on a slow machine: 1.6 million arcs took 7 to 9 s. OR-Tools does not stop it half-way, so it
#: is begun only when there is time for it.
S_PER_ARC = 1e-5


class ControllerFlow(FleetSolver):
    """One minimum-cost flow for all adapters, as NVIDIA Dynamo's LoRA controller decides on a first tick, with the true rates.

    Replicas are wanted as in `hrw`; adapters without load want one. An arc from an adapter to a worker costs the worker's
    place in the adapter's hash order, and what loading costs, which is the same everywhere on a first tick. There
    is no term for load. Candidates are the first 16 of the order, or as many as are wanted; all workers, if some replicas
    find no slot that way while slots are free. A replica that finds none is left out; an adapter that gets none at all goes to
    the first worker of its order with a free slot, or to the first. Requests go evenly to the replicas.

    Parameters
    ----------
    slots_per_gpu : int, optional
        As in `RendezvousHashing`.
    search : bool
        As in `FleetSolver`.
    """

    name: ClassVar[str] = "min_cost_flow"
    spread_tags: ClassVar[Tags] = Tags(deterministic=False, needs_fleet=True, uses_replicas=True)

    def __init__(self, slots_per_gpu: int | None = None, *, search: bool = False) -> None:
        super().__init__(search=search)
        if slots_per_gpu is not None and slots_per_gpu < 1:
            raise UserError(f"solver.slots_per_gpu={slots_per_gpu} of solver {self.name}: must be 1 or more")
        self.slots_per_gpu = slots_per_gpu

    def spread(self, problem: Problem) -> Solution:
        """Solve one flow, or two."""
        if not problem.workload.n_adapters:
            return Solution("unchecked", Placement(()))
        workers = Workers(problem, worker_slots(problem, self.slots_per_gpu))
        wanted = np.where(workers.rates > 0, workers.replicas, 1)
        adapters = workers.by_name[wanted[workers.by_name] > 0]
        demand = wanted[adapters]
        placed = _flow(workers, adapters, demand, np.maximum(CANDIDATES, demand))
        missing = int(demand.sum()) - len(placed)
        if missing and workers.n_workers > CANDIDATES and workers.n_workers * workers.slots > len(placed):
            placed = _flow(workers, adapters, demand, np.full(len(adapters), workers.n_workers))
            missing = int(demand.sum()) - len(placed)
        for place, worker in placed.tolist():
            workers.take(int(adapters[place]), [worker])
        found = np.zeros(len(adapters), dtype=bool)
        found[placed[:, 0]] = True
        workers.pin(adapters[~found].tolist())
        workers.pin(workers.out_of_budget())
        details = {"slots_per_gpu": workers.slots, "overflow": missing}
        return Solution("unchecked", workers.placement(), details=details)


def _flow(
    workers: Workers, adapters: NDArray[np.int64], demand: NDArray[np.int64], candidates: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The replicas that find a slot, at the least sum of places: (place in `adapters`, worker), shape (n, 2)."""
    n_workers, n_adapters = workers.n_workers, len(adapters)
    candidates = np.minimum(candidates, n_workers)
    if candidates.sum() * S_PER_ARC > workers.deadline.left_s:
        raise OutOfTimeError
    heads = np.empty(int(candidates.sum()), dtype=np.int64)
    ends = np.cumsum(candidates)
    for (_, scores), last, most in zip(
        workers.scores(adapters.tolist()), ends.tolist(), candidates.tolist(), strict=True
    ):
        heads[last - most : last] = preferred(scores, most)
    tails = np.repeat(np.arange(n_adapters), candidates)
    costs = np.arange(len(heads)) - np.repeat(ends - candidates, candidates)
    if candidates.sum() * S_PER_ARC > workers.deadline.left_s:
        raise OutOfTimeError
    network = flow.SimpleMinCostFlow()
    sink = n_adapters + n_workers
    arcs = network.add_arcs_with_capacity_and_unit_cost(tails, n_adapters + heads, np.ones(len(heads), np.int64), costs)
    network.add_arcs_with_capacity_and_unit_cost(
        n_adapters + np.arange(n_workers),
        np.full(n_workers, sink),
        np.full(n_workers, workers.slots),
        np.zeros(n_workers, np.int64),
    )
    # Dearer than any chain of replicas that move on to make room, as the controller's 10^12 is, and faster to solve.
    network.add_arcs_with_capacity_and_unit_cost(
        np.arange(n_adapters), np.full(n_adapters, sink), demand, np.full(n_adapters, 2 * n_workers * n_workers + 1)
    )
    network.set_nodes_supplies(np.append(np.arange(n_adapters), sink), np.append(demand, -demand.sum()))
    if network.solve() != network.OPTIMAL:
        raise ArithmeticError("the flow has no solution")
    used = np.flatnonzero(network.flows(arcs) > 0)
    return np.column_stack([tails[used], heads[used]])
