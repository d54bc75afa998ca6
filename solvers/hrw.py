"""Baseline: rendezvous hashing, the default of NVIDIA Dynamo's LoRA controller."""

from __future__ import annotations

from typing import ClassVar

from solvers.base import Problem, Solution, Tags
from solvers.fleet import FleetSolver
from solvers.spreading.controller import Workers, preferred, worker_slots
from twin import Placement, UserError


class RendezvousHashing(FleetSolver):
    """Highest-random-weight hashing as NVIDIA Dynamo's LoRA controller decides on a first tick, with the true rates.

    Every adapter has an order of the workers, by its hash with each. An adapter gets replicas by its share of the load
    times all slots (`solvers.spreading.controller`). Adapters go by name, each to the first workers of its order that have
    a free slot; fewer than wanted are accepted, and where every worker is full it goes to the first of its order all the
    same. Then adapters without load go to the first of their order, whatever its slots, and those that the slots
    do not suffice for to the first with a free one. Requests go evenly to the replicas.

    Parameters
    ----------
    slots_per_gpu : int, optional
        Slots of each worker. By default half more slots in the fleet than adapters, and at most so many on a GPU as
        the engine starts with at the workload's largest rank. A GPU with fewer adapters gets `max_loras` for those alone.
    search : bool
        As in `FleetSolver`.
    """

    name: ClassVar[str] = "hrw"
    spread_tags: ClassVar[Tags] = Tags(deterministic=False, needs_fleet=True, uses_replicas=True)

    def __init__(self, slots_per_gpu: int | None = None, *, search: bool = False) -> None:
        super().__init__(search=search)
        if slots_per_gpu is not None and slots_per_gpu < 1:
            raise UserError(f"solver.slots_per_gpu={slots_per_gpu} of solver {self.name}: must be 1 or more")
        self.slots_per_gpu = slots_per_gpu

    def spread(self, problem: Problem) -> Solution:
        """Hash with the problem's seed."""
        if not problem.workload.n_adapters:
            return Solution("unchecked", Placement(()))
        workers = Workers(problem, worker_slots(problem, self.slots_per_gpu))
        by_name = workers.by_name
        for adapter, scores in workers.scores(by_name[workers.replicas[by_name] > 0].tolist()):
            workers.take(adapter, workers.with_free_slots(scores, int(workers.replicas[adapter])))
        for adapter, scores in workers.scores(by_name[workers.rates[by_name] == 0].tolist()):
            workers.take(adapter, preferred(scores, 1))
        workers.pin(workers.out_of_budget())
        return Solution("unchecked", workers.placement(), details={"slots_per_gpu": workers.slots})
