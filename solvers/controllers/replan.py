"""Periodic planning from nothing, with hysteresis: what a solver in a cron job does."""

from __future__ import annotations

from typing import ClassVar

from solvers.controllers.base import Controller, Fleet, Seen, Task
from solvers.controllers.capacity import Capacity, matched, planned
from solvers.controllers.rates import SmoothedRates
from twin import UserError


class Replan(Controller):
    """Every period, the filling of `ffd_plus` for the smoothed rates and a reserve.

    Parameters
    ----------
    period_s : float
        Between two plans.
    reserve : float
        Planned for this share more than is measured.
    hysteresis : float
        A plan is taken if it saves at least this share of the GPUs, or if some GPU would fail as things stand.
    memory_s : float
        Of the smoothed rates.
    """

    name: ClassVar[str] = "replan"

    def __init__(
        self, period_s: float = 1800.0, reserve: float = 0.2, hysteresis: float = 0.1, memory_s: float = 600.0
    ) -> None:
        if not (period_s > 0 and memory_s > 0 and reserve > -1 and hysteresis >= 0):
            raise UserError(
                f"controller.replan: period_s={period_s} and memory_s={memory_s} must be above 0, reserve={reserve} above -1, "
                f"hysteresis={hysteresis} 0 or more"
            )
        self.period_s, self.reserve, self.hysteresis, self.memory_s = period_s, reserve, hysteresis, memory_s

    def begin(self, task: Task) -> Fleet:
        """Plan for the rates at the start."""
        self._task, self._capacity = task, Capacity(task)
        self._measured = SmoothedRates(task.workload.rates, self.memory_s, task.tick_s)
        self._next_s = self.period_s
        return planned(task, self._capacity, (1 + self.reserve) * self._measured.rates)

    def tick(self, seen: Seen) -> Fleet | None:
        """Count, and plan when it is time."""
        self._measured.count(seen.arrivals)
        if seen.time_s < self._next_s:
            return None
        self._next_s += self.period_s
        fresh = planned(self._task, self._capacity, (1 + self.reserve) * self._measured.rates)
        spared = len(fresh) <= len(seen.fleet) * (1 - self.hysteresis)
        if not spared and self._capacity.all_keep(seen.fleet, self._measured.rates):
            return None
        return matched(seen.fleet, fresh)
