"""Figures that the published baselines need of a serving profile: given for two of them, measured on the twin for others.

From the repository of arXiv 2602.24044 (vLLM 0.8.5 on one H100): the backbone's best throughput without LoRA, the
operating points of LoRAServe (arXiv 2511.22880), and KV cache and size of an adapter in KV-cache tokens for dLoRA (OSDI'24).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from twin import Lengths, ServingProfile, Workload, simulate_requests

BACKBONE_TOKENS_PER_S = {"llama-3.1-8b/h100-64gb": 17814.5, "qwen-2.5-7b/h100-64gb": 17940.0}
OPERATING_POINTS_TOKENS_PER_S = {
    "llama-3.1-8b/h100-64gb": {8: 15063.6, 16: 14731.5, 32: 14496.4},
    "qwen-2.5-7b/h100-64gb": {8: 15633.4, 16: 15537.1, 32: 15536.1},
}
KV_CACHE_TOKENS = {"llama-3.1-8b/h100-64gb": 310160, "qwen-2.5-7b/h100-64gb": 711200}
ADAPTER_KV_TOKENS = {
    "llama-3.1-8b/h100-64gb": {8: 632, 16: 1020, 32: 1726},
    "qwen-2.5-7b/h100-64gb": {8: 1298, 16: 2044, 32: 3466},
}

#: Offered load of the measurement, far beyond what a GPU serves (five times the published figures), and its window, long enough
#: for the start not to count.
_OVERLOAD_TOKENS_PER_S, _WINDOW_S = 100_000.0, 600.0


@lru_cache(maxsize=64)
def saturated_tokens_per_s(profile: ServingProfile, lengths: Lengths, rank: int, n_adapters: int) -> float:
    """Throughput of one overloaded GPU in the twin, prompt and output tokens per second."""
    rate = _OVERLOAD_TOKENS_PER_S / lengths.mean_total_tokens / n_adapters
    workload = Workload(np.full(n_adapters, rank), np.full(n_adapters, rate), lengths, duration_s=_WINDOW_S)
    result = simulate_requests(workload.requests, workload.ranks, profile, n_adapters, duration_s=_WINDOW_S)
    return result.throughput


def backbone_tokens_per_s(profile: ServingProfile, lengths: Lengths) -> float:
    """Best throughput of the backbone without LoRA; for other profiles, that of the twin with a single small adapter."""
    known = BACKBONE_TOKENS_PER_S.get(profile.name)
    return known if known is not None else saturated_tokens_per_s(profile, lengths, profile.ranks[0], 1)


def operating_point_tokens_per_s(profile: ServingProfile, lengths: Lengths, rank: int) -> float:
    """Throughput that LoRAServe plans for on a GPU with adapters of a rank; for other profiles, that of eight adapters in the twin."""
    server = profile.server_rank(rank)
    known = OPERATING_POINTS_TOKENS_PER_S.get(profile.name, {}).get(server)
    if known is not None:
        return known
    return saturated_tokens_per_s(profile, lengths, server, min(8, profile.largest_max_loras(server)))


def kv_cache_tokens(profile: ServingProfile) -> float:
    """KV-cache tokens of a GPU without LoRA that dLoRA counts with; for other profiles, those of the profile."""
    return float(KV_CACHE_TOKENS.get(profile.name, profile.kv.without_lora_tokens))


def adapter_kv_tokens(profile: ServingProfile, rank: int) -> float:
    """KV-cache tokens that an adapter takes the place of; for other profiles, what the KV table loses per adapter slot."""
    server = profile.server_rank(rank)
    known = ADAPTER_KV_TOKENS.get(profile.name, {}).get(server)
    if known is not None:
        return float(known)
    most = profile.largest_max_loras(server)
    if most < 2:
        return float(profile.kv_tokens(most, server))
    return (profile.kv_tokens(1, server) - profile.kv_tokens(most, server)) / (most - 1)
