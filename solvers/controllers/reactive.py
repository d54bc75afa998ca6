"""Reactive: a number of GPUs in proportion to the load, and adapters moved from the most to the least loaded GPU."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.controllers.base import Controller, Fleet, Seen, Task
from solvers.controllers.capacity import Capacity, planned
from solvers.controllers.rates import SmoothedRates
from twin import GpuPlan, UserError

Floats = NDArray[np.float64]


class Reactive(Controller):
    """As a horizontal autoscaler with a least-loaded balancer does: no prediction of what a content does.

    The load of an adapter is its measured rate times the share of a GPU that a request per second of its rank takes. GPUs are added as
    soon as the load asks for them and given back once it has not for a while. Where the most loaded GPU is `imbalance` above the mean,
    its busiest adapters go to the least loaded one until it is not; a GPU that is given back deals its adapters to the least loaded.

    Parameters
    ----------
    target : float
        Mean load of a GPU that is aimed at.
    stabilisation_s : float
        So long the load must ask for fewer GPUs before one is given back; 300 s is the default of Kubernetes' autoscaler.
    imbalance : float
    memory_s : float
        Of the smoothed rates.
    """

    name: ClassVar[str] = "reactive"

    def __init__(
        self, target: float = 0.7, stabilisation_s: float = 300.0, imbalance: float = 0.2, memory_s: float = 180.0
    ) -> None:
        if not (target > 0 and stabilisation_s >= 0 and imbalance > 0 and memory_s > 0):
            raise UserError(
                f"controller.reactive: target={target}, imbalance={imbalance} and memory_s={memory_s} must be above 0, "
                f"stabilisation_s={stabilisation_s} 0 or more"
            )
        self.target, self.stabilisation_s = target, stabilisation_s
        self.imbalance, self.memory_s = imbalance, memory_s

    def begin(self, task: Task) -> Fleet:
        """Plan for the rates at the start and the aim."""
        self._capacity = Capacity(task)
        self._measured = SmoothedRates(task.workload.rates, self.memory_s, task.tick_s)
        self._fewer_since_s: float | None = None
        fleet = planned(task, self._capacity, self._measured.rates / self.target)
        self._slots = int(np.median([plan.max_loras for plan in fleet.values()])) if fleet else 1
        return fleet

    def tick(self, seen: Seen) -> Fleet | None:
        """Add, give back, balance."""
        self._measured.count(seen.arrivals)
        weights = self._capacity.weights(self._measured.rates)
        shares = {gpu: _shares(plan) for gpu, plan in seen.fleet.items()}
        slots = {gpu: plan.max_loras for gpu, plan in seen.fleet.items()}
        wanted = max(1, int(np.ceil(weights.sum() / self.target)))
        changed = wanted > len(shares)
        while wanted > len(shares):
            fresh = max(shares) + 1
            shares[fresh], slots[fresh] = {}, self._slots
        if wanted >= len(shares):
            self._fewer_since_s = None
        elif self._fewer_since_s is None:
            self._fewer_since_s = seen.time_s
        elif seen.time_s - self._fewer_since_s >= self.stabilisation_s:
            self._drain(shares, weights)
            self._fewer_since_s, changed = None, True
        changed |= self._balance(shares, weights)
        if not changed:
            return None
        return {gpu: _plan(held, slots[gpu]) for gpu, held in shares.items() if held}

    def _drain(self, shares: dict[int, dict[int, float]], weights: Floats) -> None:
        victim = min(shares, key=lambda gpu: (_load(shares[gpu], weights), gpu))
        for adapter, share in shares.pop(victim).items():
            target = min(shares, key=lambda gpu: (_load(shares[gpu], weights), gpu))
            shares[target][adapter] = shares[target].get(adapter, 0.0) + share

    def _balance(self, shares: dict[int, dict[int, float]], weights: Floats) -> bool:
        changed = False
        loads = {gpu: _load(held, weights) for gpu, held in shares.items()}
        for _ in range(len(weights)):
            high, low = max(loads, key=lambda gpu: loads[gpu]), min(loads, key=lambda gpu: loads[gpu])
            mean = sum(loads.values()) / len(loads)
            gap = loads[high] - loads[low]
            if loads[high] <= (1 + self.imbalance) * max(mean, self.target):
                break
            movable = [(weights[a] * part, a) for a, part in shares[high].items() if weights[a] * part < gap]
            if not movable:
                break
            load, adapter = max(movable)
            part = shares[high].pop(adapter)
            shares[low][adapter] = shares[low].get(adapter, 0.0) + part
            loads[high] -= load
            loads[low] += load
            changed = True
        return changed


def _shares(plan: GpuPlan) -> dict[int, float]:
    return dict(zip(plan.adapters, plan.shares or (1.0,) * len(plan.adapters), strict=True))


def _load(held: dict[int, float], weights: Floats) -> float:
    return float(sum(weights[adapter] * share for adapter, share in held.items()))


def _plan(held: dict[int, float], slots: int) -> GpuPlan:
    adapters = tuple(sorted(held))
    shares = tuple(min(1.0, held[adapter]) for adapter in adapters)
    return GpuPlan(adapters, slots, None if set(shares) <= {1.0} else shares)
