"""The step-time model from the counters that a running vLLM server exports.

Between two scrapes, running requests integrated over time / generated tokens is the mean step time, and the
counters tell most of what a step held. What a scrape cannot tell apart (a term that never varies, or that only varies
together with another) is not guessed: its coefficient stays at a prior, and the fit says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.calibration.step_time import Floats, fit_step_time, step_term_values
from twin.errors import UserError
from twin.profile import STEP_TERMS, ServingProfile

#: Terms that the mean over a window says nothing about: they need the single steps.
NOT_IN_MEANS = ("eager_step", "eager_tokens", "loads", "loads_x_adapters")

#: A term is told apart only if the part of it that the others do not explain is at least this share of the step time.
#: Set by hand: what is smaller is within the error of the fit.
LEAST_OWN_SHARE = 0.01


@dataclass(frozen=True)
class Scrape:
    """Counters of one server over time.

    Attributes
    ----------
    time_s, running, waiting, prompt_tokens, generation_tokens, kv_usage : arrays of shape (n_scrapes,)
        Token counters are cumulative; `kv_usage` is a share of the capacity; NaN where a sample is missing.
    adapters : array of shape (n_scrapes,) or None
        Distinct adapters running; estimated from `n_adapters` where it is not recorded.
    max_loras, max_lora_rank, kv_cache_tokens, n_adapters : int
        The server's flags and capacity, and the adapters in its traffic.
    """

    time_s: Floats
    running: Floats
    waiting: Floats
    prompt_tokens: Floats
    generation_tokens: Floats
    kv_usage: Floats
    adapters: Floats | None
    max_loras: int
    max_lora_rank: int
    kv_cache_tokens: int
    n_adapters: int


@dataclass(frozen=True)
class Windows:
    """Means over windows: the model's terms, the measured step time and how much it can be relied on."""

    terms: Floats
    step_ms: Floats
    other_ms: Floats
    weight: Floats


@dataclass(frozen=True)
class TermFit:
    """One coefficient and where it comes from: "fitted", or "prior" with the reason."""

    term: str
    coefficient: float
    source: str
    reason: str


@dataclass(frozen=True)
class TelemetryFit:
    """All coefficients, and the mean absolute step-time error over the windows in percent, before and after."""

    terms: tuple[TermFit, ...]
    windows: int
    prior_error_pct: float
    error_pct: float

    @property
    def step_ms(self) -> tuple[float, ...]:
        """Coefficients in the order of `STEP_TERMS`."""
        return tuple(term.coefficient for term in self.terms)


def windows_of(scrape: Scrape, prior: ServingProfile, window_s: float) -> Windows:
    """Cut a scrape into windows of about `window_s` and average each.

    Raises
    ------
    UserError
        If no window has traffic.
    """
    counted = np.isfinite(scrape.prompt_tokens) & np.isfinite(scrape.generation_tokens) & np.isfinite(scrape.running)
    keep = np.flatnonzero(counted)
    rows = []
    start = 0
    for end in range(1, len(keep)):
        first, last = keep[start], keep[end]
        length_s = scrape.time_s[last] - scrape.time_s[first]
        generated = scrape.generation_tokens[last] - scrape.generation_tokens[first]
        prompted = scrape.prompt_tokens[last] - scrape.prompt_tokens[first]
        if generated < 0 or prompted < 0:  # the server was restarted
            start = end
            continue
        if length_s < window_s:
            continue
        inside = keep[start : end + 1]
        running = float(np.trapezoid(scrape.running[inside], scrape.time_s[inside]) / length_s)
        start = end
        if generated == 0 or running < 1:
            continue
        step_ms = 1000 * running * length_s / generated
        adapters = _mean_adapters(scrape, inside, running)
        kv_tokens = float(np.nanmean(scrape.kv_usage[inside])) * scrape.kv_cache_tokens
        waiting = float(np.nanmean(scrape.waiting[inside]))
        rows.append((running, adapters, running + prompted * step_ms / 1000 / length_s, kv_tokens, waiting, step_ms))
    if not rows:
        raise UserError(
            f"metrics: no window of {window_s:g} s has running requests and token counters; a longer scrape under load is needed"
        )
    running, adapters, tokens, kv, waiting, step = np.array(rows).T
    terms = step_term_values(
        running, adapters, tokens, kv, np.zeros_like(running), scrape.max_loras,
        prior.server_rank(scrape.max_lora_rank), prior.eager_above_tokens,
    )  # fmt: skip
    constant, per_running, per_skipped, per_waiting = prior.scheduler_ms
    skipped = waiting if scrape.n_adapters > scrape.max_loras else np.zeros_like(waiting)
    other = constant + per_running * running + per_skipped * skipped + per_waiting * waiting
    # The running requests of a window are known from a few samples: the more there are, the less they scatter.
    return Windows(terms, step, np.minimum(other, step / 2), np.sqrt(running))


def _mean_adapters(scrape: Scrape, inside: NDArray[np.int64], running: float) -> float:
    if scrape.adapters is not None and np.isfinite(scrape.adapters[inside]).any():
        return float(np.nanmean(scrape.adapters[inside]))
    distinct = float(scrape.n_adapters * (1 - (1 - 1 / scrape.n_adapters) ** running))
    return min(float(scrape.max_loras), distinct)


def fit_telemetry(windows: list[Windows], prior: ServingProfile) -> TelemetryFit:
    """Fit what the windows can tell, keep the prior for the rest.

    Terms are taken in the order of how much of the step time they carry under the prior, the constant first. A term is
    fitted if it varies in its own way among those taken before; otherwise its prior coefficient is kept.
    """
    terms = np.vstack([w.terms for w in windows])
    step = np.concatenate([w.step_ms for w in windows])
    other = np.concatenate([w.other_ms for w in windows])
    weight = np.concatenate([w.weight for w in windows])
    before = np.array(prior.step_ms)
    prior_step = terms @ before + other
    carried = (terms * before).mean(axis=0)
    order = sorted(range(len(STEP_TERMS)), key=lambda k: (STEP_TERMS[k] != "constant", -carried[k]))
    fitted: list[int] = []
    reasons: dict[int, str] = {}
    for k in order:
        reasons[k] = _why_not(terms, fitted, k, carried[k], step)
        if not reasons[k]:
            fitted.append(k)
    held = [k for k in range(len(STEP_TERMS)) if k not in fitted]
    base = terms[:, held] @ before[held]
    masked = np.zeros_like(terms)
    masked[:, fitted] = terms[:, fitted]
    room = np.minimum(other + base, 0.95 * step)
    fit = fit_step_time(masked, step, room, weight)
    coefficients = before.copy()
    coefficients[fitted] = np.array(fit.step_ms)[fitted]
    share = weight / weight.sum()
    return TelemetryFit(
        terms=tuple(
            TermFit(term, float(coefficients[k]), "fitted" if k in fitted else "prior", reasons[k])
            for k, term in enumerate(STEP_TERMS)
        ),
        windows=len(step),
        prior_error_pct=float((np.abs(prior_step / step - 1) * share).sum() * 100),
        error_pct=float((np.abs((terms @ coefficients + other) / step - 1) * share).sum() * 100),
    )


def _why_not(terms: Floats, fitted: list[int], k: int, carried_ms: float, step: Floats) -> str:
    """Why term `k` cannot be told apart from the fitted ones, or an empty string."""
    column = terms[:, k]
    if STEP_TERMS[k] in NOT_IN_MEANS:
        return "a mean over a window does not show it"
    if STEP_TERMS[k] == "constant":
        return ""
    if column.std() <= 1e-9 * max(abs(column.mean()), 1e-12):
        return "no variation in the data"
    basis = terms[:, fitted] / np.maximum(np.abs(terms[:, fitted]).max(axis=0), 1e-12)
    scaled = column / np.abs(column).max()
    rest = scaled - basis @ np.linalg.lstsq(basis, scaled, rcond=None)[0]
    # Own variation, times what the term carries under the prior (or a tenth of a step, if the prior gives it nothing).
    size_ms = carried_ms if carried_ms > 0 else 0.1 * float(step.mean())
    own = rest.std() / max(np.abs(scaled).mean(), 1e-12) * size_ms
    if own < LEAST_OWN_SHARE * float(step.mean()):
        return "varies only together with other terms, or too little"
    return ""
