"""Baseline: rendezvous hashing over GPUs with a slot limit."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem, Solution, Tags
from solvers.contents.replicas import placement_of_shares
from solvers.fleet import FleetSolver
from solvers.limits import Deadline
from twin import UserError


class RendezvousHashing(FleetSolver):
    """Highest-random-weight hashing with replicas in proportion to demand, as NVIDIA Dynamo's LoRA controller places.

    Every adapter has a hash with every GPU. The busiest adapters choose first: as many GPUs with the highest
    hashes and a free slot as the adapter's share of the demand is of the fleet, at least one. Requests are spread evenly.

    Parameters
    ----------
    slots_per_gpu : int, optional
        Slot limit, and `max_loras` at most; by default the most with which the engine starts at the workload's largest rank.
    search : bool
        As in `FleetSolver`.
    """

    name: ClassVar[str] = "hrw"
    spread_tags: ClassVar[Tags] = Tags(deterministic=False, needs_fleet=True, uses_replicas=True)

    def __init__(self, slots_per_gpu: int | None = None, *, search: bool = False) -> None:
        super().__init__(search=search)
        if slots_per_gpu is not None and slots_per_gpu < 1:
            raise UserError(f"solver.slots_per_gpu={slots_per_gpu} of solver hrw: must be 1 or more")
        self.slots_per_gpu = slots_per_gpu

    def spread(self, problem: Problem) -> Solution:
        """Hash with the problem's seed."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        workload, n_gpus = problem.workload, problem.max_gpus
        if not workload.n_adapters:
            return Solution("unchecked", placement_of_shares(np.zeros((1, 0)), lambda count: count))
        limit = self.slots_per_gpu or problem.profile.largest_max_loras(int(workload.ranks.max()))
        wanted = np.ones(workload.n_adapters, dtype=np.int64)
        if workload.total_rate > 0:
            wanted = np.clip(np.rint(workload.rates / workload.total_rate * n_gpus), 1, n_gpus).astype(np.int64)
        deadline = Deadline.after(problem.time_limit_s)
        shares = np.zeros((n_gpus, workload.n_adapters))
        free = np.full(n_gpus, limit)
        ids = np.asarray(workload.ids)
        for adapter in np.argsort(-workload.rates, kind="stable").tolist():
            deadline.check()
            ranking = np.argsort(-hashes(problem.seed, int(ids[adapter]), n_gpus), kind="stable")
            chosen = ranking[free[ranking] > 0][: wanted[adapter]]
            if not len(chosen):
                return Solution(
                    "infeasible",
                    message=f"{workload.n_adapters} adapters do not fit into {n_gpus} GPUs with {limit} slots each",
                )
            shares[chosen, adapter] = 1 / len(chosen)
            free[chosen] -= 1
        return Solution("unchecked", placement_of_shares(shares, lambda count: count))


def hashes(seed: int, identity: int, n_gpus: int) -> NDArray[np.float64]:
    """Hash of an adapter with each GPU, uniform in [0, 1): independent of which other GPUs and adapters there are."""
    with np.errstate(over="ignore"):
        state = np.arange(1, n_gpus + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state ^= np.uint64(identity) * np.uint64(0xD1B54A32D192ED03) + np.uint64(seed) * np.uint64(0x8CB92BA72F3D8DD7)
        # The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state / 2.0**64
