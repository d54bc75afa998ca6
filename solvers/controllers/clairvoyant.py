"""Knows the rates to come: a fresh placement for every hour."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.controllers.base import Controller, Fleet, Knowledge, Seen, Task
from solvers.controllers.capacity import Capacity, matched, planned
from twin import UserError

Floats = NDArray[np.float64]


class Clairvoyant(Controller):
    """At the end of every period, the filling of `ffd_plus` for the highest rates of the next one, on the GPUs that fit best.

    Parameters
    ----------
    period_s : float
    """

    name: ClassVar[str] = "clairvoyant"
    knows: ClassVar[Knowledge] = "curves"

    def __init__(self, period_s: float = 3600.0) -> None:
        if not period_s > 0:
            raise UserError(f"controller.clairvoyant.period_s={period_s} must be above 0")
        self.period_s = period_s

    def begin(self, task: Task) -> Fleet:
        """Plan for the first period."""
        self._task, self._capacity = task, Capacity(task)
        self._next_s = self.period_s
        return planned(task, self._capacity, self._highest(0.0))

    def tick(self, seen: Seen) -> Fleet | None:
        """Plan for the period that begins when new GPUs have started."""
        if seen.time_s + self._task.start_up_s < self._next_s:
            return None
        start_s, self._next_s = self._next_s, self._next_s + self.period_s
        return matched(seen.fleet, planned(self._task, self._capacity, self._highest(start_s)))

    def _highest(self, start_s: float) -> Floats:
        assert self._task.truth is not None  # noqa: S101  # it knows the curves
        step_s, n_steps = self._task.truth_step_s, self._task.truth.shape[1]
        first = min(int(start_s / step_s), n_steps - 1)
        last = max(first + 1, int(np.ceil((start_s + self.period_s + self._task.start_up_s) / step_s)))
        found: Floats = self._task.truth[:, first:last].max(axis=1)
        return found
