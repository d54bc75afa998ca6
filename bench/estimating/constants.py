"""What kernel tables and a model's shape do not say, from the measured profiles: host time, LoRA kernels, memory.

Each constant is for a size of the model (a layer, a byte of an adapter), so that it can be carried to another; the mean over
the measured models is carried. `python -m bench.profile runs=DIR` measures how far a model is from what the other one says of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from bench.estimating.gpus import GIB, MEASURED_CARD
from bench.estimating.shape import BYTES_16_BIT, ModelShape, load_shape
from bench.estimating.tables import StepTime, kernel_times
from twin import UserError
from twin.profile import STEP_TERMS, ServingProfile
from twin.profile_files import load_profile

#: Profiles that were fitted to runs on a GPU.
MEASURED = ("llama-3.1-8b", "qwen-2.5-7b")
#: Decoding requests and tokens in the context of each, at which measured and tabled steps without adapters are compared:
#: from an idle server to a full one.
DECODES, CONTEXTS = (1, 8, 32, 64, 128, 256, 400, 512), (200, 400, 1000)
#: Share of a GPU's memory that vLLM takes (`--gpu-memory-utilization`, its default).
MEMORY_SHARE = 0.9
#: LoRA terms that grow with the model's layers, and with the bytes of an adapter.
BY_LAYERS = ("adapters", "tokens_x_adapters", "max_loras", "tokens_x_max_loras")
BY_BYTES = ("rank", "max_loras_x_rank", "adapters_x_rank", "tokens_x_rank", "tokens_x_max_loras_x_rank")
#: Terms of the host's work, which another GPU does not change; they grow with the layers too.
OF_THE_HOST = ("eager_step", "loads", "loads_x_adapters")


@dataclass(frozen=True)
class Constants:
    """Means over the measured profiles.

    Attributes
    ----------
    host_ms, host_per_request_ms : float
        What a step takes on top of its kernels, and of that for each request.
    terms : dict
        LoRA and host terms of `STEP_TERMS`, in ms for each layer (`BY_LAYERS`, `OF_THE_HOST`) or byte of an adapter's rank (`BY_BYTES`),
        on the measured card.
    load_ms, disk_ms_per_byte : float
        Time of a load from host memory for each layer, and of one from disk for each byte.
    memory_bytes, logits_bytes : float
        Memory that is neither weights, KV cache, adapters nor activations: on each GPU, and for each sequence and word of the vocabulary.
    profiles : tuple of ServingProfile
        What they were taken from.
    """

    host_ms: float
    host_per_request_ms: float
    terms: dict[str, float]
    load_ms: float
    disk_ms_per_byte: float
    memory_bytes: float
    logits_bytes: float
    profiles: tuple[ServingProfile, ...]


def measured_constants(names: Sequence[str] = MEASURED) -> Constants:
    """The constants, by the measured profiles named."""
    profiles = tuple(load_profile(name) for name in names)
    shapes = [load_shape(name) for name in names]
    hosts = [
        _host(profile, kernel_times(shape, MEASURED_CARD)[0]) for profile, shape in zip(profiles, shapes, strict=True)
    ]
    terms = {}
    for term in (*BY_LAYERS, *OF_THE_HOST, *BY_BYTES):
        place = STEP_TERMS.index(term)
        terms[term] = float(np.mean([
            profile.step_ms[place] / (shape.slot_bytes(1) if term in BY_BYTES else shape.layers)
            for profile, shape in zip(profiles, shapes, strict=True)
        ]))  # fmt: skip
    memory_bytes, logits_bytes = _memory(profiles, shapes)
    both = list(zip(profiles, shapes, strict=True))
    return Constants(
        host_ms=float(np.mean([constant for constant, _ in hosts])),
        host_per_request_ms=float(np.mean([each for _, each in hosts])),
        terms=terms,
        load_ms=float(np.mean([np.mean([ms for *_, ms in profile.load_ms]) / shape.layers for profile, shape in both])),
        disk_ms_per_byte=float(np.mean([
            np.mean([ms / (rank * shape.slot_bytes(1)) for rank, ms in profile.disk_load_ms]) for profile, shape in both
        ])),
        memory_bytes=memory_bytes,
        logits_bytes=logits_bytes,
        profiles=profiles,
    )  # fmt: skip


def version_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, (0, 24, 0) of "0.24.0".

    Raises
    ------
    UserError
        If it has none.
    """
    found = re.match(r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", version)
    if found is None:
        raise UserError(f"vllm={version}: must be a version such as 0.24.0")
    return tuple(int(part or 0) for part in found.groups())


def activation_bytes(shape: ModelShape, max_num_batched_tokens: int, tp: int) -> float:
    """Memory of the widest activations of a step: gate and up beside the hidden states."""
    wide = shape.intermediate / tp
    return max_num_batched_tokens * (2 * wide + 4 * shape.hidden) * BYTES_16_BIT


def _host(profile: ServingProfile, kernels: StepTime) -> tuple[float, float]:
    """Constant and share of a request in what measured steps without adapters take on top of the kernels."""
    cases = [(decodes, context) for decodes in DECODES for context in CONTEXTS]
    per_step, running, _, token, _, kv_token, eager_step, eager_token, *_ = profile.step_coefficients(
        0, profile.ranks[0]
    )
    above = profile.eager_above_tokens
    measured = np.array([
        per_step + (running + token) * d + kv_token * d * c + (d > above) * (eager_step + eager_token * (d - above))
        for d, c in cases
    ])  # fmt: skip
    tabled = np.array([kernels(1, d, c) for d, c in cases])
    terms = np.column_stack([np.ones(len(cases)), [float(d) for d, _ in cases]])
    (constant, each), _ = nnls(terms / measured[:, None], 1 - tabled / measured)
    return float(constant), float(each)


def _memory(profiles: Sequence[ServingProfile], shapes: Sequence[ModelShape]) -> tuple[float, float]:
    """Memory on each GPU, and for each sequence and word, of what the measured servers do not account for."""
    rest, words = [], []
    for profile, shape in zip(profiles, shapes, strict=True):
        tokens, rank = profile.kv_tokens(1, profile.ranks[0]), profile.ranks[0]
        known = (
            shape.weight_bytes(BYTES_16_BIT, 1)
            + tokens * shape.kv_bytes(1)
            + rank * shape.slot_bytes(1)
            + shape.new_words_bytes(version_numbers(profile.engine_version))
            + activation_bytes(shape, profile.max_num_batched_tokens, 1)
        )
        rest.append(MEMORY_SHARE * MEASURED_CARD.memory_gib * GIB - known)
        words.append(float(profile.max_num_seqs * shape.vocabulary))
    if len(rest) == 1:  # One model does not tell them apart.
        return 0.0, rest[0] / words[0]
    terms = np.column_stack([np.ones(len(rest)), np.array(words)])
    scale = np.array([1.0, 1e-9])
    (constant, each), _ = nnls(terms * scale, np.array(rest) / GIB)
    return float(constant * GIB), float(each * scale[1] * GIB)
