"""What rules a plan out whoever solves it, and what an adapter asks of one GPU that it does not give."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.planning.adapters import Adapter, Traffic, workload_of
from twin import PUBLISHED, GpuResult, ServiceLevel, ServingProfile, simulate_gpu

# An adapter that asks for more GPUs than these alone is none that replicas are a hint for.
_MOST_REPLICAS = 1000


def nothing_starts(adapters: Sequence[Adapter], profile: ServingProfile) -> str | None:
    """Why no server starts that could serve some adapter, if none does.

    Returns
    -------
    str or None
        Proven: a server for the adapter has at least its rank.
    """
    for rank in sorted({adapter.rank for adapter in adapters}):
        served_by = [known for known in profile.ranks if known >= rank]
        if served_by and not any(profile.largest_max_loras(known) for known in served_by):
            most = max(profile.kv.lookup(profile.kv.max_loras[0], known) for known in served_by)
            name = next(adapter.name for adapter in adapters if adapter.rank == rank)
            return (
                f"no server of profile {profile.name} starts with adapter {name} of rank {rank} (memory error): its KV cache holds "
                f"{most:,} tokens at most, a request may have max_model_len={profile.max_model_len:,}"
            )
    return None


def hot_adapter(
    adapters: Sequence[Adapter], traffic: Traffic, profile: ServingProfile, service: ServiceLevel = PUBLISHED
) -> str | None:
    """A hint where the adapter with the most tokens asks for more than one GPU gives.

    Returns
    -------
    str or None
        Solvers that split the requests of an adapter over GPUs may find what others cannot.
    """
    lengths = traffic.lengths

    def tokens(adapter: Adapter) -> float:
        prompt = adapter.prompt_tokens or lengths.prompt.mean_tokens + (adapter.shared_prompt_tokens or 0)
        return adapter.rate * (prompt + (adapter.output_tokens or lengths.output.mean_tokens))

    hot = max(adapters, key=tokens)
    if not hot.rate:
        return None

    def simulated(share: float) -> GpuResult:
        return simulate_gpu(workload_of([hot], traffic, profile, factor=share), (0,), profile, 1, service=service)

    alone = simulated(1.0)
    if alone.memory_error or not alone.fails or alone.throughput <= 0:
        return None
    if alone.judgement is not None and not alone.starved:
        return (
            f"adapter {hot.name} keeps the limits for {alone.judgement.goodput:.0%} of its requests on a GPU of its own, which serves all "
            "of them: they are long for these limits; looser ones (service.ttft_ms, service.tpot_ms) may have a placement"
        )
    gpus = max(2, math.ceil(alone.offered_throughput / alone.throughput))
    while service.judges_requests and simulated(1 / gpus).fails:
        gpus += max(1, gpus // 4)
        if gpus > _MOST_REPLICAS:
            return None
    what = f"{alone.offered_throughput:.0f} tokens/s, of which one gives {alone.throughput:.0f}"
    if alone.judgement is not None:
        what += f" and keeps the limits for {alone.judgement.goodput:.0%} of the requests"
    return (
        f"adapter {hot.name} asks for more than one GPU serves ({what}): solvers that split its requests over GPUs may find a "
        f"placement, for instance 'solver=[hrw,lora_serve]' gpus={gpus} or more"
    )
