"""What solvers that minimise latency ask: how long the requests of a GPU content take."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from solvers.base import Problem
from solvers.objectives.min_latency import MinLatency
from twin import simulate_requests


@dataclass(frozen=True)
class GpuLatency:
    """What an oracle says of one GPU.

    Attributes
    ----------
    starved : bool
        Or a memory error.
    latency_ms : float
        Mean of the metric; infinity when nothing is served.
    weight : float
        What the mean is over: requests, or tokens.
    """

    starved: bool
    latency_ms: float
    weight: float


class LatencyOracle(ABC):
    """Answers for GPU contents: a sorted tuple of workload indices, at a `max_loras`.

    Attributes
    ----------
    calls : int
        (content, `max_loras`) pairs asked about so far.
    """

    def __init__(self, problem: Problem) -> None:
        self.workload = problem.workload
        self.profile = problem.profile
        self.calls = 0
        self._known: dict[tuple[tuple[int, ...], int], GpuLatency] = {}

    def ask(self, adapters: tuple[int, ...], max_loras: int) -> GpuLatency:
        """Latency of a GPU; an empty one weighs nothing."""
        if not adapters:
            return GpuLatency(starved=False, latency_ms=0.0, weight=0.0)
        key = (adapters, max_loras)
        if key not in self._known:
            self.calls += 1
            self._known[key] = self._ask(adapters, max_loras)
        return self._known[key]

    def slots(self, adapters: tuple[int, ...]) -> int:
        """A slot for each adapter, as far as the engine starts with so many: then no request waits for one."""
        if not adapters:
            return 1
        most = self.profile.largest_max_loras(int(self.workload.ranks[list(adapters)].max()))
        return max(1, min(len(adapters), most))

    @abstractmethod
    def _ask(self, adapters: tuple[int, ...], max_loras: int) -> GpuLatency: ...


class TwinLatency(LatencyOracle):
    """The twin with the workload's own requests, the ones that placements are scored with.

    Parameters
    ----------
    problem : Problem
        Its objective says which latency counts, if it is `MinLatency`; otherwise the end-to-end latency does.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.metric = problem.objective.metric if isinstance(problem.objective, MinLatency) else "e2e_ms"

    def _ask(self, adapters: tuple[int, ...], max_loras: int) -> GpuLatency:
        mine = np.asarray(adapters)
        result = simulate_requests(
            self.workload.requests_of(mine),
            self.workload.ranks[mine],
            self.profile,
            max_loras,
            duration_s=self.workload.duration_s,
        )
        latency = getattr(result, self.metric.removesuffix("_ms")).mean_ms
        weight = result.output_tokens - result.finished if self.metric == "itl_ms" else result.finished
        if result.memory_error or not math.isfinite(latency):
            return GpuLatency(bool(result.starved), math.inf if result.arrived else 0.0, float(result.arrived))
        return GpuLatency(bool(result.starved), float(latency), float(weight))
