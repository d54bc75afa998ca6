"""NVIDIA Dynamo's LoRA controller over time: window, smoothing, replicas and cooldown, with either of its algorithms.

The first tick is that of `solvers.hrw` and `solvers.min_cost_flow`, with which it shares the hash and the replica counts. It moves adapters
over a fleet of fixed size; Dynamo leaves the number of workers to another controller.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import min_cost_flow as flow

from solvers.controllers.base import Controller, Fleet, Seen, Task
from solvers.spreading.controller import hashes, replica_counts, worker_slots
from twin import GpuPlan, UserError

#: Weight of a new load in the smoothed one, and ticks that a shrinking waits.
ALPHA, COOLDOWN_TICKS = 0.3, 3
#: Costs of an arc beside its place in the hash order: a new home, and one that is kept; first workers of the order that are candidates.
NEW_HOME, KEPT_HOME, CANDIDATES = 1000, -250, 16
#: The controller's own cost of a replica that finds no slot.
OVERFLOW = 10**12


class DynamoController(Controller):
    """What both algorithms share.

    Parameters
    ----------
    window_s : float
        Arrivals of so many seconds are the load, in whole ticks; Dynamo's window is 30 of its ticks of 3 s.
    slots_per_gpu : int, optional
        `max_loras` of every worker; by default as `solvers.hrw`.
    """

    def __init__(self, window_s: float = 90.0, slots_per_gpu: int | None = None) -> None:
        if not window_s > 0:
            raise UserError(f"controller.{self.name}.window_s={window_s} must be above 0")
        if slots_per_gpu is not None and slots_per_gpu < 1:
            raise UserError(f"controller.{self.name}.slots_per_gpu={slots_per_gpu} must be 1 or more")
        self.window_s, self.slots_per_gpu = window_s, slots_per_gpu

    def begin(self, task: Task) -> Fleet:
        """A first tick with the rates at the start."""
        problem = task.problem(task.workload.rates, max_gpus=task.gpus)
        self._n_workers, self._slots = task.gpus, worker_slots(problem, self.slots_per_gpu)
        ids = np.asarray(task.workload.ids)
        self._by_name = np.argsort(ids, kind="stable")
        self._order = np.argsort(-hashes(problem.seed, ids, task.gpus), axis=1, kind="stable")
        ticks = max(1, int(np.ceil(self.window_s / task.tick_s)))
        self._window: deque[NDArray[np.int64]] = deque(maxlen=ticks)
        self._load = task.workload.rates * ticks * task.tick_s
        self._homes: list[list[int]] = [[] for _ in ids]
        self._replicas = np.zeros(len(ids), dtype=np.int64)
        self._waiting = np.full(len(ids), -1, dtype=np.int64)
        self._place(self._wanted(self._load))
        return self._fleet()

    def tick(self, seen: Seen) -> Fleet | None:
        """Load, replicas, cooldown, and who goes where."""
        self._window.append(seen.arrivals)
        counted = np.sum(self._window, axis=0)
        self._load = np.where(counted > 0, ALPHA * counted + (1 - ALPHA) * self._load, 0.0)
        wanted = self._cooled(self._wanted(self._load))
        if (wanted == self._replicas).all():
            return None
        before = [list(homes) for homes in self._homes]
        self._place(wanted)
        return self._fleet() if before != self._homes else None

    def _wanted(self, load: NDArray[np.float64]) -> NDArray[np.int64]:
        """Replicas by share of the load; one for an adapter without, or without a slot in the budget."""
        wanted = np.zeros(len(load), dtype=np.int64)
        wanted[self._by_name] = replica_counts(load[self._by_name], self._n_workers, self._slots * self._n_workers)
        return np.maximum(wanted, 1)

    def _cooled(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Growing at once; shrinking after a cooldown that the adapter's first wish begins and every shrinking begins again."""
        shrinking = wanted < self._replicas
        self._waiting = np.where(shrinking, np.where(self._waiting < 0, COOLDOWN_TICKS, self._waiting - 1), -1)
        ripe = shrinking & (self._waiting <= 0)
        self._waiting[ripe] = COOLDOWN_TICKS
        return np.where(shrinking & ~ripe, self._replicas, wanted)

    @abstractmethod
    def _place(self, wanted: NDArray[np.int64]) -> None:
        """Set the homes of every adapter and count them."""

    def _count(self) -> None:
        """Replicas that there are; those that found no slot are tried again at the next tick."""
        self._replicas = np.array([len(homes) for homes in self._homes])

    def _held(self) -> NDArray[np.int64]:
        """Adapters of each worker."""
        return np.bincount([home for homes in self._homes for home in homes], minlength=self._n_workers)

    def _free(self, adapter: int, count: int, held: NDArray[np.int64]) -> list[int]:
        """The first workers of an adapter's order with a free slot, those it has first; the first of all where every one is full."""
        order = self._order[adapter]
        mine = [home for home in order.tolist() if home in self._homes[adapter]]
        others = [home for home in order[held[order] < self._slots].tolist() if home not in mine]
        return (mine + others)[:count] or order[:count].tolist()

    def _fleet(self) -> Fleet:
        found: dict[int, list[int]] = {}
        for adapter, homes in enumerate(self._homes):
            for home in homes:
                found.setdefault(home, []).append(adapter)
        parts = {gpu: tuple(1.0 / len(self._homes[a]) for a in held) for gpu, held in found.items()}
        return {
            gpu: GpuPlan(tuple(held), self._slots, None if set(parts[gpu]) <= {1.0} else parts[gpu])
            for gpu, held in sorted(found.items())
        }


class DynamoHrw(DynamoController):
    """Rendezvous hashing, the default: adapters by name, each to the first workers of its order with a free slot."""

    name: ClassVar[str] = "dynamo_hrw"

    def _place(self, wanted: NDArray[np.int64]) -> None:
        held = np.zeros(self._n_workers, dtype=np.int64)
        for adapter in self._by_name.tolist():
            homes = self._free(adapter, int(wanted[adapter]), held)
            held[homes] += 1
            self._homes[adapter] = homes
        self._count()


class DynamoMinCostFlow(DynamoController):
    """One flow for the adapters whose number of replicas has changed: places in the hash order, and what a move costs."""

    name: ClassVar[str] = "dynamo_min_cost_flow"

    def _place(self, wanted: NDArray[np.int64]) -> None:
        changed = self._by_name[(wanted != self._replicas)[self._by_name]]
        kept = [list(homes) for homes in self._homes]
        for adapter in changed.tolist():
            self._homes[adapter] = []
        room = np.maximum(self._slots - self._held(), 0)
        candidates = [
            list(dict.fromkeys([*self._order[a][: max(CANDIDATES, int(wanted[a]))].tolist(), *kept[a]]))
            for a in changed
        ]
        homes = self._flow(changed, wanted[changed], candidates, kept, room)
        if sum(map(len, homes)) < wanted[changed].sum() and room.sum() > sum(map(len, homes)):
            homes = self._flow(changed, wanted[changed], [self._order[a].tolist() for a in changed], kept, room)
        for adapter, found in zip(changed.tolist(), homes, strict=True):
            self._homes[adapter] = found
        held = self._held()
        for adapter in changed.tolist():
            if not self._homes[adapter]:
                self._homes[adapter] = self._free(adapter, 1, held)
                held[self._homes[adapter]] += 1
        self._count()

    def _flow(
        self,
        adapters: NDArray[np.int64],
        demand: NDArray[np.int64],
        candidates: list[list[int]],
        kept: list[list[int]],
        room: NDArray[np.int64],
    ) -> list[list[int]]:
        """Homes of each of the adapters at the least cost, fewer than wanted where there is no room."""
        n_adapters = len(adapters)
        tails = np.repeat(np.arange(n_adapters), [len(row) for row in candidates])
        heads = np.array([worker for row in candidates for worker in row], dtype=np.int64)
        costs = np.empty(len(heads), dtype=np.int64)
        for arc, (place, worker) in enumerate(zip(tails.tolist(), heads.tolist(), strict=True)):
            adapter = int(adapters[place])
            order = int(np.flatnonzero(self._order[adapter] == worker)[0])
            costs[arc] = order + (KEPT_HOME if worker in kept[adapter] else NEW_HOME)
        network, sink = flow.SimpleMinCostFlow(), n_adapters + self._n_workers
        arcs = network.add_arcs_with_capacity_and_unit_cost(
            tails, n_adapters + heads, np.ones(len(heads), np.int64), costs
        )
        workers = np.arange(self._n_workers)
        network.add_arcs_with_capacity_and_unit_cost(
            n_adapters + workers, np.full(len(workers), sink), room, np.zeros(len(workers), np.int64)
        )
        places = np.arange(n_adapters)
        network.add_arcs_with_capacity_and_unit_cost(
            places, np.full(n_adapters, sink), demand, np.full(n_adapters, OVERFLOW)
        )
        network.set_nodes_supplies(np.append(places, sink), np.append(demand, -demand.sum()))
        if network.solve() != network.OPTIMAL:
            raise ArithmeticError("the flow has no solution")
        found: list[list[int]] = [[] for _ in range(n_adapters)]
        for arc in np.flatnonzero(network.flows(arcs) > 0).tolist():
            found[int(tails[arc])].append(int(heads[arc]))
        return found
