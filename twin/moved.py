"""Serving profiles that are off by as much as they may be: drawn from the distribution that a profile carries.

This is the one mechanism by which profiles are moved: `bench.plan` draws what its plans must hold under, `bench.robustness` what a
ranking must stand.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from twin.errors import UserError
from twin.profile import STEP_TERMS, KvCapacity, ServingProfile, Uncertainty

Floats = NDArray[np.float64]

#: Mean absolute value of a standard normal draw: an error given as a mean is so many standard deviations.
MEAN_ABSOLUTE = float(np.sqrt(2 / np.pi))
#: Columns of the normal draws before those of `STEP_TERMS`: the factor on all step times, and that on the KV cache.
ALL_STEPS, KV_CACHE, FIRST_TERM = 0, 1, 2


def moved(profile: ServingProfile, uncertainty: Uncertainty, normals: Floats) -> list[ServingProfile]:
    """The profile as it might be, once for each row of standard normal draws.

    Every step takes exp(s z) times as long, with one z for all; each coefficient is multiplied by 1 + s z with a z of its own, and
    is never negative; the KV cache has exp(s z) times as many tokens, in whole blocks.

    Parameters
    ----------
    profile : ServingProfile
    uncertainty : Uncertainty
    normals : array of shape (n, 2 + len(STEP_TERMS))
        For all step times, the KV cache, and each term.
    """
    factors = np.exp(uncertainty.all_steps * normals[:, [ALL_STEPS]])
    factors = factors * np.maximum(1 + np.array(uncertainty.terms) * normals[:, FIRST_TERM:], 0.0)
    sizes = np.exp(uncertainty.kv_cache * normals[:, KV_CACHE])
    return [
        replace(profile, step_ms=tuple((np.array(profile.step_ms) * line).tolist()), kv=resized(profile, float(size)))
        for line, size in zip(factors, sizes, strict=True)
    ]


def drawn(profile: ServingProfile, samples: int, seed: int) -> list[ServingProfile]:
    """So many versions of a profile from its own distribution.

    The draws are a scrambled Sobol sequence: shares of them that have some property scatter less than those of as many independent
    ones. The number should be a power of two.

    Raises
    ------
    UserError
        If the profile does not say how far it may be off.
    """
    if profile.uncertainty is None:
        raise UserError(f"profile {profile.name} does not say how far it may be off (uncertainty)")
    from scipy.stats import qmc

    generator = np.random.default_rng([seed, zlib.crc32(profile.name.encode())])
    sequence = qmc.Sobol(FIRST_TERM + len(STEP_TERMS), scramble=True, rng=generator)
    uniform = sequence.random_base2(max(0, (samples - 1).bit_length()))[:samples]
    normals = np.vectorize(NormalDist().inv_cdf)(np.clip(uniform, 1e-9, 1 - 1e-9))
    return moved(profile, profile.uncertainty, normals)


def slowed(profile: ServingProfile, factor: float) -> ServingProfile:
    """The profile with steps that all take so many times as long, under a name of its own."""
    steps = tuple(float(f"{value * factor:.6g}") for value in profile.step_ms)
    return replace(profile, name=f"{profile.name}-slower-{factor:.3f}", step_ms=steps)


def resized(profile: ServingProfile, factor: float) -> KvCapacity:
    """The KV cache with so many times as many tokens, in whole blocks; where no server starts, none does."""
    if factor == 1.0:
        return profile.kv
    block = profile.block_size

    def tokens(size: int) -> int:
        return int(size * factor) // block * block

    kv = profile.kv
    rows = tuple(tuple(tokens(size) for size in row) for row in kv.tokens)
    return replace(kv, tokens=rows, without_lora_tokens=tokens(kv.without_lora_tokens))


def spread_of_terms(shares: Floats, error_pct: float) -> float:
    """Relative standard deviation of each coefficient by itself with which step times are off by a given error in the mean.

    With shares w of the terms in the step time of a state, independent moves by s make the step time s sqrt(sum(w^2)) off.

    Parameters
    ----------
    shares : array of shape (n_states, n_terms)
    error_pct : float
        Mean absolute error over the states.
    """
    per_unit = MEAN_ABSOLUTE * float(np.sqrt((shares**2).sum(axis=1)).mean())
    return error_pct / 100 / per_unit


def measured_uncertainty(terms: Floats, step_ms: Sequence[float], error_pct: float, source: str) -> Uncertainty:
    """The distribution of a fitted profile: each of its coefficients is off by as much as makes the error of the fit.

    Parameters
    ----------
    terms : array of shape (n_states, len(STEP_TERMS))
        Values of the terms in the states that step times were measured in.
    step_ms : sequence of float, len(STEP_TERMS)
    error_pct : float
        Mean absolute error of the step time, on states left out of the fit where there are any.
    source : str
    """
    parts = terms * np.array(step_ms)
    used = parts.sum(axis=1) > 0
    spread = spread_of_terms(parts[used] / parts[used].sum(axis=1, keepdims=True), error_pct)
    deviations = tuple(round(spread, 4) if value else 0.0 for value in step_ms)
    return Uncertainty(0.0, deviations, 0.0, round(error_pct / 100 / MEAN_ABSOLUTE, 4), source)
