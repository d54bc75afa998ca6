"""The score of a placement: the twin's results of its GPUs, put together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from twin.service import PUBLISHED, STARVATION_SHARE, ServiceLevel
from twin.simulate import simulate_placement

if TYPE_CHECKING:
    from collections.abc import Callable

    from twin.fleet import Fleet
    from twin.placement import Placement
    from twin.profile import ServingProfile
    from twin.results import GpuResult
    from twin.workload import Workload


@dataclass(frozen=True)
class Score:
    """What the twin says of a whole placement.

    Attributes
    ----------
    gpus, failed_gpus, starved_gpus, memory_errors : int
        GPUs used; of these, how many fail the service level, how many starve by the published rule (both with memory errors),
        how many do not start.
    failing_adapters, starved_adapters : int
        Adapters for which the service level is not kept, and those that get less than 90 % of their offered throughput, on
        whichever GPU.
    throughput, offered_throughput : float
        Tokens per second summed over the GPUs.
    itl_ms, ttft_ms, e2e_ms : float
        Means over all tokens (ITL) and over all finished requests; NaN if nothing finished.
    headroom : float
        The smallest over the GPUs of what the service level looks at (under the published rule throughput / offered) less
        what it must be (0.9); negative when a GPU fails.
    goodput, worst_gpu_goodput, worst_adapter_goodput : float, optional
        Judged requests that met the limits over all that were judged: of all GPUs, the least of one GPU, and of one adapter
        on a GPU with enough judged requests to tell; None where requests were not judged.
    cost : float
        Sum of the prices of the GPUs used; without a fleet, GPUs.
    results : tuple of GpuResult
        One per GPU, in the placement's order.
    """

    gpus: int
    failed_gpus: int
    starved_gpus: int
    memory_errors: int
    failing_adapters: int
    starved_adapters: int
    throughput: float
    offered_throughput: float
    itl_ms: float
    ttft_ms: float
    ttft_p99_ms: float
    e2e_ms: float
    headroom: float
    goodput: float | None
    worst_gpu_goodput: float | None
    worst_adapter_goodput: float | None
    cost: float
    results: tuple[GpuResult, ...]

    @property
    def feasible(self) -> bool:
        """Every GPU keeps the service level, and none has a memory error."""
        return self.failed_gpus == 0

    def worst_ms(self, latency: str, percentile: int) -> float:
        """The largest percentile of a latency over the GPUs, in milliseconds; NaN if nothing finished.

        Parameters
        ----------
        latency : {"ttft", "tpot", "itl", "e2e"}
        percentile : {50, 90, 95, 99}
        """
        values = [getattr(getattr(result, latency), f"p{percentile}_ms") for result in self.results if result.finished]
        return max((value for value in values if not math.isnan(value)), default=math.nan)


def score_results(results: list[GpuResult], cost: float | None = None) -> Score:
    """Put the results of a placement's GPUs together.

    Parameters
    ----------
    results : list of GpuResult
    cost : float, optional
        Of the GPUs; by default 1 for each.
    """
    judgements = [result.judgement for result in results if result.judgement is not None]
    judged = sum(int(judgement.judged.sum()) for judgement in judgements)
    met = sum(int(judgement.met.sum()) for judgement in judgements)
    return Score(
        gpus=len(results),
        failed_gpus=sum(result.fails for result in results),
        starved_gpus=sum(result.starved for result in results),
        memory_errors=sum(result.memory_error for result in results),
        failing_adapters=sum(len(result.failing_adapters) for result in results),
        starved_adapters=sum(len(result.starved_adapters) for result in results),
        throughput=sum(result.throughput for result in results),
        offered_throughput=sum(result.offered_throughput for result in results),
        itl_ms=_weighted(results, lambda r: r.itl.mean_ms, lambda r: r.output_tokens - r.finished),
        ttft_ms=_weighted(results, lambda r: r.ttft.mean_ms, lambda r: r.finished),
        ttft_p99_ms=max((r.ttft.p99_ms for r in results if r.finished), default=float("nan")),
        e2e_ms=_weighted(results, lambda r: r.e2e.mean_ms, lambda r: r.finished),
        headroom=min((result.headroom for result in results), default=1.0 - STARVATION_SHARE),
        goodput=(met / judged if judged else 1.0) if judgements else None,
        worst_gpu_goodput=min((judgement.goodput for judgement in judgements), default=None),
        worst_adapter_goodput=min((judgement.worst_adapter for judgement in judgements), default=None),
        cost=float(len(results)) if cost is None else cost,
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


def score_placement(  # noqa: PLR0913  # what is scored, and by what
    workload: Workload,
    placement: Placement,
    profile: ServingProfile,
    *,
    threads: int = 2,
    service: ServiceLevel = PUBLISHED,
    shown: ServiceLevel | None = None,
    fleet: Fleet | None = None,
) -> Score:
    """Simulate every GPU of a placement with the workload's requests and put the results together.

    Parameters
    ----------
    workload, placement, profile
    threads : int
        GPUs that are simulated at the same time.
    service : ServiceLevel
        By which GPUs fail.
    shown : ServiceLevel, optional
        What goodput is counted by where `service` is the published rule; otherwise none is.
    fleet : Fleet, optional
        Whose types the placement names: each GPU is simulated with the profile of its type, `profile` is not looked at.
    """
    results = simulate_placement(
        workload, placement, profile, threads=threads, service=service, shown=shown, fleet=fleet
    )
    return score_results(results, None if fleet is None else fleet.cost(placement))
