"""An estimated serving profile: kernel tables for the GPU, shape for the model, constants of the measured servers for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.estimating.constants import (
    BY_BYTES,
    BY_LAYERS,
    MEMORY_SHARE,
    OF_THE_HOST,
    Constants,
    activation_bytes,
    version_numbers,
)
from bench.estimating.gpus import GIB, MEASURED_CARD, Gpu
from bench.estimating.shape import ModelShape
from bench.estimating.steps import GRAPH_TOKENS, KernelFit, fit_kernels
from bench.estimating.tables import DTYPES, kernel_times
from twin import UserError
from twin.moved import MEAN_ABSOLUTE
from twin.profile import STEP_TERMS, KvCapacity, ServingProfile, Uncertainty

#: What `--max-lora-rank` takes, and values of `max_loras` between which the KV cache is a straight line.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
SLOTS = (1, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 512, 640, 768, 1024)
#: Mean absolute error in per cent of steps of a model that the constants were not taken from: results/profiles/transfer.csv, which
#: `python -m bench.profile runs=DIR` makes, the larger of its two directions.
STEP_ERROR_PCT = 18.1
#: The same after one measured point of the server, and that of the KV cache.
ONE_POINT_ERROR_PCT, KV_ERROR_PCT = 10.9, 1.0
#: First versions with asynchronous scheduling by default, and (of those whose scheduler was compared step by step, no earlier than this)
#: with admission by the whole prompt.
SCHEDULES_AHEAD, RESERVES_FULL_PROMPT = (0, 14), (0, 20)
#: First version in which adapters whose last token is on its way count against `max_loras` (`make conformance-next`).
COUNTS_RUNNING = (0, 33)
_BLOCK = 16


@dataclass(frozen=True)
class ServerShape:
    """How the model is served.

    Attributes
    ----------
    gpu : Gpu
    tp : int
        GPUs that share each layer.
    dtype : {"bf16", "fp8"}
        Of the weights.
    version : str
        Of vLLM.
    max_num_seqs, max_num_batched_tokens, max_model_len : int
        vLLM's flags of these names.
    """

    gpu: Gpu
    tp: int
    dtype: str
    version: str
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int


@dataclass(frozen=True)
class EstimatedProfile:
    """A profile, and how well its terms follow the tables."""

    profile: ServingProfile
    kernels: KernelFit


def estimate_profile(
    name: str, shape: ModelShape, server: ServerShape, constants: Constants, *, seed: int = 0
) -> EstimatedProfile:
    """Put the profile together.

    Parameters
    ----------
    name : str
        Of the profile.
    shape, server, constants
    seed : int
        Of the steps that the tables are asked about.

    Raises
    ------
    UserError
        If the model does not fit onto the GPUs, or the tables do not know it.
    """
    kv = kv_capacity(shape, server, constants)
    times, tabled = kernel_times(shape, server.gpu, tp=server.tp, dtype=server.dtype)
    kernels = fit_kernels(times, kv_tokens=kv.without_lora_tokens, experts=shape.experts > 0, seed=seed)
    others = other_terms(shape, server.gpu, constants)
    if kernels.eager_above_tokens != GRAPH_TOKENS:
        others[STEP_TERMS.index("eager_step")] = 0.0
    steps = kernels.step_ms + others
    ranks = kv.max_lora_rank
    load_ms = round(constants.load_ms * shape.layers, 3)
    disk = {rank: round(constants.disk_ms_per_byte * rank * shape.slot_bytes(1), 3) for rank in ranks}
    measured = constants.profiles[0]
    profile = ServingProfile(
        name=name,
        model=shape.name,
        gpu=server.gpu.name if server.tp == 1 else f"{server.tp}x {server.gpu.name}",
        engine="vllm",
        engine_version=server.version,
        kv=kv,
        step_ms=tuple(float(f"{value:.6g}") for value in steps),
        scheduler_ms=measured.scheduler_ms,
        load_ms=tuple((most, own, load_ms) for most in ranks for own in ranks if own <= most),
        disk_load_ms=tuple(disk.items()),
        max_num_seqs=server.max_num_seqs,
        max_num_batched_tokens=server.max_num_batched_tokens,
        max_model_len=server.max_model_len,
        tensor_parallel_size=server.tp,
        eager_above_tokens=kernels.eager_above_tokens,
        reserve_full_prompt=version_numbers(server.version) >= RESERVES_FULL_PROMPT,
        async_scheduling=version_numbers(server.version) >= SCHEDULES_AHEAD,
        prefix_caching=True,
        count_running_adapters=version_numbers(server.version) >= COUNTS_RUNNING,
        request_overhead_ms=round(float(np.mean([known.request_overhead_ms for known in constants.profiles])), 2),
        uncertainty=transfer_uncertainty(
            STEP_ERROR_PCT, "step times of a measured model, estimated from the other one"
        ),
        provenance=_provenance(name, server, constants, kernels, tabled, seed),
    )
    return EstimatedProfile(profile, kernels)


def transfer_uncertainty(error_pct: float, source: str, *, kv_pct: float = KV_ERROR_PCT) -> Uncertainty:
    """The distribution of an estimate: its steps are off as a whole, by as much as those of measured models were.

    Parameters
    ----------
    error_pct, kv_pct : float
        Mean absolute errors of step time and KV cache.
    source : str
    """
    steps, kv = (round(error / 100 / MEAN_ABSOLUTE, 4) for error in (error_pct, kv_pct))
    return Uncertainty(steps, (0.0,) * len(STEP_TERMS), kv, steps, f"{source} (results/profiles)")


def _provenance(  # noqa: PLR0913  # all that a profile was made of
    name: str, server: ServerShape, constants: Constants, kernels: KernelFit, tabled: str, seed: int
) -> dict[str, Any]:
    model = name.split("/", maxsplit=1)[0]
    return {
        "estimated": True,
        "source": (
            f"kernel tables of aiconfigurator-core for {server.gpu.tables} and vLLM {tabled}, the model's shape, and host time, LoRA "
            f"kernels and memory as in {' and '.join(known.name for known in constants.profiles)}"
        ),
        "command": (
            f"python -m bench.profile model={model} gpu={server.gpu.name} tp={server.tp} dtype={server.dtype} vllm={server.version} "
            f"max_model_len={server.max_model_len} seed={seed}"
        ),
        "step_time_error_pct_estimated": STEP_ERROR_PCT,
        "kernel_fit_error_pct": round(kernels.error_pct, 2),
        "kernel_fit_error_p95_pct": round(kernels.error_p95_pct, 2),
    }


def other_terms(shape: ModelShape, gpu: Gpu, constants: Constants) -> np.ndarray:
    """Step terms of host and LoRA kernels in ms, shape (len(STEP_TERMS),).

    LoRA kernels wait for memory, as those of decoding do: they take the bandwidth's share of what was measured.
    """
    slower = MEASURED_CARD.bandwidth / gpu.bandwidth
    values = {"constant": constants.host_ms, "running": constants.host_per_request_ms}
    values |= {term: constants.terms[term] * shape.layers for term in OF_THE_HOST}
    values |= {term: constants.terms[term] * shape.layers * slower for term in BY_LAYERS}
    values |= {term: constants.terms[term] * shape.slot_bytes(1) * slower for term in BY_BYTES}
    return np.array([values.get(term, 0.0) for term in STEP_TERMS])


def kv_capacity(shape: ModelShape, server: ServerShape, constants: Constants) -> KvCapacity:
    """KV cache of every `max_loras` and `max_lora_rank`, from first principles.

    Raises
    ------
    UserError
        If the weights leave no room for one request of `max_model_len`, or the heads cannot be split.
    """
    gpu, tp = server.gpu, server.tp
    if shape.heads % tp or (shape.kv_heads % tp and tp % shape.kv_heads):
        raise UserError(
            f"tp={tp}: does not divide the {shape.heads} heads and {shape.kv_heads} KV heads of {shape.name}"
        )
    free = (
        MEMORY_SHARE * gpu.memory_gib * GIB
        - shape.weight_bytes(DTYPES[server.dtype][1], tp)
        - activation_bytes(shape, server.max_num_batched_tokens, tp)
        - constants.memory_bytes
        - constants.logits_bytes * server.max_num_seqs * shape.vocabulary
    )

    def tokens(slots: int, rank: int) -> int:
        slot = rank * shape.slot_bytes(tp) + shape.new_words_bytes(version_numbers(server.version))
        left = (free - slots * slot) / shape.kv_bytes(tp)
        whole = int(left // _BLOCK) * _BLOCK
        return whole if whole >= server.max_model_len else 0

    if not tokens(1, 1):
        raise UserError(
            f"model={shape.name} gpu={gpu.name} tp={tp} dtype={server.dtype}: "
            f"{max(0.0, free) / shape.kv_bytes(tp):.0f} tokens of KV cache are left, less than one request of "
            f"max_model_len={server.max_model_len}; more GPUs (tp), fp8 or a shorter max_model_len would be right"
        )
    ranks = tuple(rank for rank in RANKS if tokens(1, rank))
    table = tuple(tuple(tokens(slots, rank) for slots in SLOTS) for rank in ranks)
    return KvCapacity(SLOTS, ranks, table, int(free // shape.kv_bytes(tp)))
