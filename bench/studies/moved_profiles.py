"""Serving profiles whose step-time coefficients are moved at random, by as much as the profile misses measured step times."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.comparison.rows import Row
from twin import ServingProfile, UserError
from twin.moved import FIRST_TERM, MEAN_ABSOLUTE, moved, spread_of_terms
from twin.profile import STEP_TERMS, Uncertainty

# Provenance of a profile: the error on runs left out of the fit says more than that on those it was fitted on.
_ERRORS = ("step_time_error_pct_left_out", "step_time_error_pct_fitted", "step_time_error_pct_estimated")


def fit_error_pct(profile: ServingProfile) -> float:
    """Mean absolute error of the step time in percent, as the profile tells it.

    Raises
    ------
    UserError
        If it does not tell.
    """
    for key in _ERRORS:
        if key in profile.provenance:
            return float(profile.provenance[key])
    raise UserError(f"profile {profile.name} does not say how well it fits; give error_pct=NUMBER")


def moved_profiles(
    profile: ServingProfile, rows: Sequence[Row], error_pct: float, samples: int, seed: int
) -> list[ServingProfile]:
    """Versions of a profile that are off by a given error in the states of these rows' GPUs.

    Each coefficient of the step time is multiplied by 1 + s z with its own standard normal z. With shares w of the terms in
    the step time of a state, the step time moves by s |sum(w z)|, in the mean s sqrt(2 / pi) sqrt(sum(w^2)); s is such that
    the mean of this over the states is the error.

    Parameters
    ----------
    profile : ServingProfile
    rows : sequence of Row
        With placements scored under the profile.
    error_pct : float
    samples, seed : int

    Raises
    ------
    UserError
        If the error is negative or no GPU of the rows served anything.
    """
    if error_pct < 0:
        raise UserError(f"error_pct={error_pct} must not be negative")
    spread = spread_of_terms(term_shares(profile, rows), error_pct)
    uncertainty = Uncertainty(0.0, (spread,) * len(STEP_TERMS), 0.0, error_pct / 100 / MEAN_ABSOLUTE, "error_pct")
    # Drawn apart for each profile, and the same whatever else is in the rows.
    generator = np.random.default_rng([seed, zlib.crc32(profile.name.encode())])
    normals = np.zeros((samples, FIRST_TERM + len(STEP_TERMS)))
    normals[:, FIRST_TERM:] = generator.standard_normal((samples, len(STEP_TERMS)))
    return moved(profile, uncertainty, normals)


def term_shares(profile: ServingProfile, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Share of each term in the step time of each GPU that served something, shape (n_gpus, len(STEP_TERMS)).

    The state of a GPU is the mean one that its row tells; the distinct adapters of a step are those expected of so many
    running requests.

    Raises
    ------
    UserError
        If there is none.
    """
    lines = []
    for row in rows:
        rates = np.array(row.adapter_rates or [])
        for gpu in row.gpu_figures if row.gpu_results else ():
            if gpu["memory_error"] or not gpu["mean_running"]:
                continue
            terms = np.array(profile.step_ms) * _features(profile, gpu, rates[gpu["adapters"]], row.duration_s or 1.0)
            lines.append(terms / terms.sum())
    if not lines:
        raise UserError(f"rows: no GPU of profile {profile.name} served anything")
    return np.array(lines)


def _features(
    profile: ServingProfile, gpu: dict[str, float], rates: NDArray[np.float64], duration_s: float
) -> NDArray[np.float64]:
    """Factors of the coefficients in the mean state of a GPU, in the order of `STEP_TERMS`."""
    running, slots, rank = gpu["mean_running"], gpu["max_loras"], profile.server_rank(int(gpu["max_lora_rank"]))
    share = rates / rates.sum()
    adapters = min(float((1 - (1 - share) ** running).sum()), slots)
    tokens, loads, features = running, 0.0, np.zeros(len(STEP_TERMS))
    for _ in range(3):  # the tokens of a step follow from its length, and the length from the tokens
        eager = max(tokens - profile.eager_above_tokens, 0.0)
        values = {
            "constant": 1.0,
            "running": running,
            "adapters": adapters,
            "tokens": tokens,
            "tokens_x_adapters": tokens * adapters,
            "kv_tokens": gpu["mean_kv_tokens"],
            "max_loras": slots,
            "rank": rank,
            "max_loras_x_rank": slots * rank,
            "adapters_x_rank": adapters * rank,
            "tokens_x_rank": tokens * rank,
            "tokens_x_max_loras": tokens * slots,
            "tokens_x_max_loras_x_rank": tokens * slots * rank,
            "eager_step": float(eager > 0),
            "eager_tokens": eager,
            "loads": loads,
            "loads_x_adapters": loads * adapters,
        }
        features = np.array([values.get(term, 0.0) for term in STEP_TERMS])
        step_s = max(float(features @ np.array(profile.step_ms)), profile.min_step_ms) / 1000
        tokens, loads = max(gpu["throughput"] * step_s, running), gpu["loads"] * step_s / duration_s
    return features
