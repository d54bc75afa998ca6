"""Scheduler time per step, from measured means of whole runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls


@dataclass(frozen=True)
class SchedulerFit:
    """Coefficients as `ServingProfile.scheduler_ms` holds them, and the mean absolute error in ms."""

    scheduler_ms: tuple[float, float, float, float]
    error_ms: float


def fit_scheduler_time(
    running: NDArray[np.float64],
    waiting: NDArray[np.float64],
    skipped_share: NDArray[np.float64],
    scheduler_ms: NDArray[np.float64],
) -> SchedulerFit:
    """Fit constant, per running, per skipped and per waiting request, none of them negative.

    Parameters
    ----------
    running, waiting : arrays of shape (n_runs,)
        Mean numbers of requests.
    skipped_share : array of shape (n_runs,)
        Share of the waiting requests whose adapter finds no slot: 1 - max_loras / adapters.
    scheduler_ms : array of shape (n_runs,)
        Mean scheduler time per step.
    """
    columns = np.column_stack([np.ones_like(running), running, waiting * skipped_share, waiting])
    # Between the relative error, which the idle runs would rule, and the absolute one, which the crowded would.
    weight = 1 / np.sqrt(np.maximum(scheduler_ms, 1e-3))
    coefficients, _ = nnls(columns * weight[:, None], scheduler_ms * weight)
    constant, per_running, per_skipped, per_waiting = (float(c) for c in coefficients)
    error = float(np.abs(columns @ coefficients - scheduler_ms).mean())
    return SchedulerFit((constant, per_running, per_skipped, per_waiting), error)
