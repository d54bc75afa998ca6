"""The step-time model from servers that count their steps.

vLLM's histogram of tokens per step counts the engine steps, so between two scrapes of a busy server the mean step time is
known exactly, and so are the tokens and the running requests of the mean step. What the model is linear in needs no more:
the coefficients come from one regression, without a prior and without simulating.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin.calibration.step_time import Floats, fit_step_time
from twin.errors import UserError
from twin.profile import STEP_TERMS

#: Terms that means over windows can tell apart, if servers and load points differ enough.
COUNTED_TERMS = (
    "constant", "running", "adapters", "tokens", "kv_tokens", "max_loras", "rank", "adapters_x_rank", "tokens_x_rank",
    "tokens_x_max_loras",
)  # fmt: skip


@dataclass(frozen=True)
class CountedWindows:
    """Mean steps of windows.

    Attributes
    ----------
    terms : array of shape (n_windows, len(STEP_TERMS))
    step_ms, other_ms : arrays of shape (n_windows,)
        Mean step time, and the part of it that the model does not explain (adapter loads).
    point : array of shape (n_windows,)
        Number of the load point that a window is of.
    """

    terms: Floats
    step_ms: Floats
    other_ms: Floats
    point: NDArray[np.int64]


@dataclass(frozen=True)
class CountedFit:
    """Coefficients in the order of `STEP_TERMS`, and mean absolute step-time errors in percent.

    `left_out_error_pct` is over windows of points that the fit did not see, each point left out in turn.
    """

    step_ms: tuple[float, ...]
    error_pct: float
    left_out_error_pct: float


def fit_counted_steps(windows: CountedWindows) -> CountedFit:
    """Fit the terms in `COUNTED_TERMS` that vary, all points weighing the same.

    Raises
    ------
    UserError
        If there are fewer windows than terms.
    """
    varies = {term: bool(np.ptp(windows.terms[:, k]) > 1e-9) for k, term in enumerate(STEP_TERMS)} | {"constant": True}
    # Where a flag is the same on all servers, its product with a term is that term over again.
    used = np.array(
        [
            term in COUNTED_TERMS
            and varies[term]
            and all(varies[flag] for flag in ("rank", "max_loras") if flag in term)
            for term in STEP_TERMS
        ]
    )
    if len(windows.step_ms) < 2 * used.sum():
        raise UserError(
            f"{len(windows.step_ms)} windows are too few to fit {used.sum()} terms of the step time; more load points are needed"
        )
    terms = np.where(used, windows.terms, 0.0)
    counts = np.bincount(windows.point)
    weight = 1.0 / counts[windows.point]

    def fit(rows: NDArray[np.bool_]) -> Floats:
        found = fit_step_time(terms[rows], windows.step_ms[rows], windows.other_ms[rows], weight[rows])
        return np.array(found.step_ms)

    everything = np.ones(len(weight), dtype=bool)
    coefficients = fit(everything)
    predicted = np.empty(len(weight))
    for number in np.flatnonzero(counts):
        inside = windows.point == number
        predicted[inside] = terms[inside] @ fit(~inside) + windows.other_ms[inside]
    share = weight / weight.sum()

    def error_pct(step_ms: Floats) -> float:
        return float((np.abs(step_ms / windows.step_ms - 1) * share).sum() * 100)

    return CountedFit(
        tuple(float(f"{value:.6g}") for value in coefficients),
        error_pct(terms @ coefficients + windows.other_ms),
        error_pct(predicted),
    )


def slot_loads(begin_s: Floats, end_s: Floats, adapter: NDArray[np.int64], max_loras: int) -> Floats:
    """Times at which adapters were loaded into slots, from the times at which requests ran.

    The slots are those of vLLM: least recently used first out, those in use stay.

    Parameters
    ----------
    begin_s, end_s : arrays of shape (n_requests,)
        Of the time in which each request ran.
    adapter : array of shape (n_requests,)
    max_loras : int
    """
    events = sorted(
        [(time, 1, int(name)) for time, name in zip(begin_s, adapter, strict=True)]
        + [(time, 0, int(name)) for time, name in zip(end_s, adapter, strict=True)]
    )
    users: dict[int, int] = {}
    slots: OrderedDict[int, None] = OrderedDict()
    loads = []
    for time, starts, name in events:
        users[name] = users.get(name, 0) + (1 if starts else -1)
        if not starts:
            if name in slots:
                slots.move_to_end(name)
            continue
        if name not in slots:
            loads.append(time)
            idle = [held for held in slots if not users.get(held)]
            if len(slots) >= max_loras and idle:
                del slots[idle[0]]
        slots[name] = None
        slots.move_to_end(name)
    return np.array(loads)
