"""The twin's step terms, fitted to the times that kernel tables give for steps without adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.estimating.tables import StepTime
from twin.calibration import fit_step_time, step_term_values
from twin.profile import STEP_TERMS

Floats = NDArray[np.float64]

#: Steps that are asked about. Twice as many change no coefficient by more than a per cent or two.
SAMPLES = 400
#: Ranges that steps are drawn from, evenly on a logarithmic scale: decoding requests, tokens in the context of each, prefill tokens.
DECODES, CONTEXTS, PREFILLS = (1, 512), (64, 4096), (64, 2048)
#: Terms that a step without adapters has. A request costs nothing beside its tokens.
TERMS = ("constant", "tokens", "kv_tokens", "eager_tokens")
#: CUDA graphs are captured for up to so many tokens (vLLM's default): a token above may take another time.
GRAPH_TOKENS = 512
#: In a mixture of experts a step reads the weights of those that its tokens touch: more with each of the first tokens, then all. The term
#: for steps without CUDA graphs is taken for that, from so many tokens on, whichever follows the tables best.
TOUCHING = (4, 8, 16, 32, 64, GRAPH_TOKENS)


@dataclass(frozen=True)
class KernelFit:
    """Step terms of the kernels alone, in ms, and how far they are from the tables.

    Attributes
    ----------
    step_ms : array of shape (len(STEP_TERMS),)
    eager_above_tokens : int
        Where the terms `eager_step` and `eager_tokens` begin.
    error_pct, error_p95_pct : float
        Mean and 95th percentile of the relative error over the sampled steps.
    """

    step_ms: Floats
    eager_above_tokens: int
    error_pct: float
    error_p95_pct: float


def fit_kernels(step_time: StepTime, *, kv_tokens: int, experts: bool = False, seed: int = 0) -> KernelFit:
    """Sample steps and fit the terms, least absolute relative error.

    Parameters
    ----------
    step_time : callable
        As `bench.estimating.tables.kernel_times` gives it.
    kv_tokens : int
        KV cache of the GPU: no step holds more.
    experts : bool
        Whether the model is a mixture of experts.
    seed : int
        Of the drawn steps.
    """
    generator = np.random.default_rng(seed)
    decodes, contexts, prefills = (_drawn(generator, span) for span in (DECODES, CONTEXTS, PREFILLS))
    # Half of the steps decode only.
    prefills[: SAMPLES // 2] = 0
    decodes = np.minimum(decodes, np.maximum(1, kv_tokens // contexts))
    time_ms = np.array([step_time(int(p), int(d), int(c)) for p, d, c in zip(prefills, decodes, contexts, strict=True)])
    running, tokens = (decodes + (prefills > 0)).astype(float), (decodes + prefills).astype(float)
    held = (decodes * contexts + prefills).astype(float)
    fits = [
        _fit(_Sample(running, tokens, held, time_ms), above, ("eager_step", *TERMS) if experts else TERMS)
        for above in (TOUCHING if experts else (GRAPH_TOKENS,))
    ]
    return min(fits, key=lambda fit: fit.error_pct)


class _Sample(NamedTuple):
    """Sampled steps: requests, tokens, tokens in the KV cache, and times; arrays of shape (SAMPLES,)."""

    running: Floats
    tokens: Floats
    held: Floats
    time_ms: Floats


def _fit(sample: _Sample, above: int, terms: tuple[str, ...]) -> KernelFit:
    nothing = np.zeros(SAMPLES)
    values = step_term_values(sample.running, nothing, sample.tokens, sample.held, nothing, 0, 0, above)
    used = np.array([term in terms for term in STEP_TERMS])
    fit = fit_step_time(values * used, sample.time_ms, nothing, np.ones(SAMPLES))
    error = np.abs(fit.predicted_ms / sample.time_ms - 1) * 100
    return KernelFit(np.array(fit.step_ms), above, float(error.mean()), float(np.percentile(error, 95)))


def _drawn(generator: np.random.Generator, span: tuple[int, int]) -> NDArray[np.int64]:
    low, high = np.log(span[0]), np.log(span[1])
    return np.rint(np.exp(generator.uniform(low, high, SAMPLES))).astype(np.int64)
