"""The step-time model, fitted to mean step times of serving runs.

A server's counters give the mean step time of a run, running requests / generated tokens per second, but not
what its steps looked like: how many distinct adapters they had, how many tokens, how many loads. The twin
knows that of its own steps. So each measured run is simulated with a step time that is scaled until
the simulated mean step equals the measured one; then the twin stands at the run's own operating point, and
the mean of each model term over its steps is what the measured step time is regressed on. Fitting and
scaling are repeated until they agree. No other output of the run is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from twin import engine
from twin.profile import STEP_TERMS, ServingProfile
from twin.requests import Requests
from twin.simulate import simulate_requests

Floats = NDArray[np.float64]

#: The simulated mean step is taken for the measured one within this share: a tenth of the error of ITL
#: in scenarios that were not fitted (docs/twin.md). Set by hand.
MATCH_TOLERANCE = 0.003
#: Simulations of a run at most; halving an interval of a factor of 2 so often leaves half a per cent.
MATCH_STEPS = 8
# Least absolute relative error by reweighted least squares; smaller residuals than this count alike. Set by hand.
RESIDUAL_FLOOR = 0.01
# Set by hand.
REWEIGHTINGS = 30


@dataclass(frozen=True)
class StepObservation:
    """One measured run.

    Attributes
    ----------
    requests : Requests
        With `adapter` counted in 0..len(ranks)-1.
    ranks : array of shape (n_adapters,)
    max_loras, max_lora_rank : int
    step_ms : float
        Measured mean step time, weighted by running requests.
    open_cap : int
        Most requests that its client held open; 0 for no cap.
    """

    requests: Requests
    ranks: NDArray[np.int64]
    max_loras: int
    max_lora_rank: int
    step_ms: float
    open_cap: int = 0


@dataclass(frozen=True)
class OperatingPoint:
    """The twin's steps where a run stands.

    Attributes
    ----------
    terms : array of shape (len(STEP_TERMS),)
        Mean of each model term over the steps, weighted by running requests.
    other_ms : float
        Mean load and scheduler time per step, which the step model does not explain.
    scale : float
        Factor on the step model that brought the twin there.
    mismatch : float
        Simulated over measured mean step time, minus 1.
    """

    terms: Floats
    other_ms: float
    scale: float
    mismatch: float


@dataclass(frozen=True)
class StepFit:
    """Coefficients in the order of `STEP_TERMS`, in ms, and the predicted step time of each row."""

    step_ms: tuple[float, ...]
    predicted_ms: Floats


def step_term_values(  # noqa: PLR0913  # one argument per quantity that a term is made of
    running: Floats,
    adapters: Floats,
    tokens: Floats,
    kv_tokens: Floats,
    loads: Floats,
    max_loras: int,
    rank: int,
    eager_above_tokens: int,
) -> Floats:
    """Values of the model's terms.

    Parameters
    ----------
    running, adapters, tokens, kv_tokens, loads : arrays of shape (n_steps,)
        Of each step: requests scheduled, distinct adapters, tokens computed, tokens in the KV cache, adapter loads.
    max_loras, rank, eager_above_tokens : int
        The server's flags.

    Returns
    -------
    array of shape (n_steps, len(STEP_TERMS))
    """
    one = np.ones_like(running)
    values = {
        "constant": one,
        "running": running,
        "adapters": adapters,
        "tokens": tokens,
        "tokens_x_adapters": tokens * adapters,
        "kv_tokens": kv_tokens,
        "max_loras": one * max_loras,
        "rank": one * rank,
        "max_loras_x_rank": one * max_loras * rank,
        "adapters_x_rank": adapters * rank,
        "tokens_x_rank": tokens * rank,
        "tokens_x_max_loras": tokens * max_loras,
        "tokens_x_max_loras_x_rank": tokens * max_loras * rank,
        "eager_step": (tokens > eager_above_tokens).astype(float),
        "eager_tokens": np.maximum(0.0, tokens - eager_above_tokens),
        "loads": loads,
        "loads_x_adapters": loads * adapters,
    }
    return np.column_stack([values[term] for term in STEP_TERMS])


def match_operating_point(
    observation: StepObservation, profile: ServingProfile, *, window_s: float, start_scale: float = 1.0
) -> OperatingPoint:
    """Scale the profile's step time until the simulated mean step of the run is the measured one.

    Parameters
    ----------
    observation : StepObservation
    profile : ServingProfile
    window_s : float
        How much of the run is simulated.
    start_scale : float
        First guess.
    """
    rows = np.arange(np.searchsorted(observation.requests.arrival_s, window_s))
    requests = observation.requests.take(rows)
    target = np.log(observation.step_ms)
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    position = np.log(start_scale)
    best: tuple[float, float, Floats] | None = None
    for _ in range(MATCH_STEPS):
        scaled = replace(profile, step_ms=tuple(np.exp(position) * np.array(profile.step_ms)))
        steps = _steps(observation, requests, scaled, window_s)
        error = np.log(_mean(steps, steps[:, engine.SAMPLE_SECONDS]) * 1000) - target
        if best is None or abs(error) < abs(best[0]):
            best = (error, position, steps)
        if abs(error) < MATCH_TOLERANCE:
            break
        if error > 0:
            high = (position, error)
        else:
            low = (position, error)
        if low is not None and high is not None:
            # False position, kept away from the ends: near saturation the response is all but a jump.
            share = -low[1] / (high[1] - low[1])
            position = low[0] + (high[0] - low[0]) * min(0.85, max(0.15, share))
        else:
            position -= 0.6 * error
    if best is None:  # pragma: no cover  # MATCH_STEPS is positive
        raise AssertionError
    return _operating_point(observation, profile, *best)


def _operating_point(
    observation: StepObservation, profile: ServingProfile, error: float, position: float, steps: Floats
) -> OperatingPoint:
    """What the steps of a run say, simulated at the scale exp(position) and exp(error) times too long."""
    terms = step_term_values(
        steps[:, engine.SAMPLE_RUNNING],
        steps[:, engine.SAMPLE_ADAPTERS],
        steps[:, engine.SAMPLE_TOKENS],
        steps[:, engine.SAMPLE_KV],
        steps[:, engine.SAMPLE_LOADS],
        observation.max_loras,
        profile.server_rank(observation.max_lora_rank),
        profile.eager_above_tokens,
    )
    constant, per_running, per_skipped, per_waiting = profile.scheduler_ms
    other_ms = (
        steps[:, engine.SAMPLE_LOAD_S] * 1000
        + constant
        + per_running * steps[:, engine.SAMPLE_RUNNING]
        + per_skipped * steps[:, engine.SAMPLE_SKIPPED]
        + per_waiting * steps[:, engine.SAMPLE_WAITING]
    )
    return OperatingPoint(
        terms=_mean(steps, terms),
        other_ms=float(_mean(steps, other_ms)),
        scale=float(np.exp(position)),
        mismatch=float(np.expm1(error)),
    )


def _steps(observation: StepObservation, requests: Requests, profile: ServingProfile, window_s: float) -> Floats:
    """All steps of the simulated run, its filling up included: the measured mean has it too."""
    result = simulate_requests(
        requests,
        observation.ranks,
        profile,
        observation.max_loras,
        max_lora_rank=observation.max_lora_rank,
        duration_s=window_s,
        open_cap=observation.open_cap,
        sample_every_s=0.0,
        max_samples=int(window_s * 1000 / profile.min_step_ms / 4),
    )
    return result.samples


def _mean(steps: Floats, values: Floats) -> Floats:
    """Mean over steps weighted by running requests, as running / generated tokens per second weighs them."""
    mean: Floats = np.average(values, axis=0, weights=steps[:, engine.SAMPLE_RUNNING])
    return mean


def fit_step_time(terms: Floats, step_ms: Floats, other_ms: Floats, weight: Floats) -> StepFit:
    """Non-negative coefficients with the least mean absolute relative error.

    Parameters
    ----------
    terms : array of shape (n_rows, len(STEP_TERMS))
    step_ms : array of shape (n_rows,)
        Measured step times.
    other_ms : array of shape (n_rows,)
        Parts of these that the model does not explain.
    weight : array of shape (n_rows,)
    """
    current = weight.astype(float)
    coefficients = np.zeros(terms.shape[1])
    for _ in range(REWEIGHTINGS):
        scale = np.sqrt(current) / step_ms
        coefficients, _ = nnls(terms * scale[:, None], (step_ms - other_ms) * scale)
        residual = np.abs((terms @ coefficients + other_ms) / step_ms - 1)
        current = weight / np.maximum(residual, RESIDUAL_FLOOR)
    return StepFit(tuple(float(c) for c in coefficients), terms @ coefficients + other_ms)
