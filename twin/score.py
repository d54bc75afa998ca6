"""The score of a placement: the twin's results of its GPUs, put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from twin.simulate import simulate_placement

if TYPE_CHECKING:
    from collections.abc import Callable

    from twin.placement import Placement
    from twin.profile import ServingProfile
    from twin.results import GpuResult
    from twin.workload import Workload


@dataclass(frozen=True)
class Score:
    """What the twin says of a whole placement.

    Attributes
    ----------
    gpus, starved_gpus, memory_errors : int
        GPUs used; of these, how many starve (memory errors included), how many do not start.
    starved_adapters : int
        Adapters that get less than 90 % of their offered throughput, on whichever GPU.
    throughput, offered_throughput : float
        Tokens per second summed over the GPUs.
    itl_ms, ttft_ms, e2e_ms : float
        Means over all tokens (ITL) and over all finished requests; NaN if nothing finished.
    headroom : float
        The smallest over the GPUs of throughput / offered - 0.9; negative when one starves.
    results : tuple of GpuResult
        One per GPU, in the placement's order.
    """

    gpus: int
    starved_gpus: int
    memory_errors: int
    starved_adapters: int
    throughput: float
    offered_throughput: float
    itl_ms: float
    ttft_ms: float
    ttft_p99_ms: float
    e2e_ms: float
    headroom: float
    results: tuple[GpuResult, ...]

    @property
    def feasible(self) -> bool:
        """No GPU starves and none has a memory error."""
        return self.starved_gpus == 0


def score_results(results: list[GpuResult]) -> Score:
    """Put the results of a placement's GPUs together."""
    offered = [result.offered_throughput for result in results]
    ratios = [
        0.0 if r.memory_error else (r.throughput / o if o else 1.0) for r, o in zip(results, offered, strict=True)
    ]
    return Score(
        gpus=len(results),
        starved_gpus=sum(result.starved for result in results),
        memory_errors=sum(result.memory_error for result in results),
        starved_adapters=sum(len(result.starved_adapters) for result in results),
        throughput=sum(result.throughput for result in results),
        offered_throughput=sum(offered),
        itl_ms=_weighted(results, lambda r: r.itl.mean_ms, lambda r: r.output_tokens - r.finished),
        ttft_ms=_weighted(results, lambda r: r.ttft.mean_ms, lambda r: r.finished),
        ttft_p99_ms=max((r.ttft.p99_ms for r in results if r.finished), default=float("nan")),
        e2e_ms=_weighted(results, lambda r: r.e2e.mean_ms, lambda r: r.finished),
        headroom=min(ratios, default=1.0) - 0.9,
        results=tuple(results),
    )


def _weighted(
    results: list[GpuResult], value: Callable[[GpuResult], float], weight: Callable[[GpuResult], int]
) -> float:
    pairs = [(value(result), weight(result)) for result in results if weight(result) > 0]
    if not pairs:
        return float("nan")
    values, weights = np.array(pairs, dtype=float).T
    return float((values * weights).sum() / weights.sum())


def score_placement(workload: Workload, placement: Placement, profile: ServingProfile, *, threads: int = 2) -> Score:
    """Simulate every GPU of a placement with the workload's requests and put the results together."""
    return score_results(simulate_placement(workload, placement, profile, threads=threads))
