"""Rates as functions of time: days and nights, a flash crowd, adapters that come and go, and the unrest of single clients.

The rate of an adapter is its own rate times a multiplier that is constant for `STEP_S` seconds. Everything that tells one adapter from
another is drawn from the adapter's own stream, before its arrivals: moving an adapter moves its curve and its requests unchanged.
Arrivals are those of a Poisson process of rate 1 with its clock run at the adapter's rate (Çinlar, 1975), which is a
non-homogeneous Poisson process; a longer window has the shorter one's arrivals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twin.errors import UserError
from twin.numbers import LONGEST_S, number
from twin.streams import Streams

if TYPE_CHECKING:
    from twin.workload import Workload

Floats = NDArray[np.float64]
#: A rate is constant for so many seconds: no controller looks more often than every few seconds, and a day has 1,440 minutes.
STEP_S = 60.0
#: A day.
DAY_S = 86_400.0


@dataclass(frozen=True)
class DailyArrivals:
    """Poisson arrivals whose rate changes over the day; the adapter's `rate` is the mean of its daily curve.

    Parameters
    ----------
    day_s : float
        Length of a day in seconds. Times below are shares of it.
    swing : float
        The daily curve is 1 + swing x cosine, from 1 - swing at night to 1 + swing at the peak; 0 for no days.
    peak : float
        When the day is busiest on average.
    spread : float
        Standard deviation of the adapters' own peaks around it.
    flash_at, flash_length : float
        Begin and length of a flash crowd.
    flash_factor : float
        What it multiplies rates by; 1 for no flash crowd.
    flash_share : float
        Share of the adapters that it comes to.
    visitors : float
        Share of the adapters that are there only for a part of each day.
    stay : float
        How long, as a share of the day; they come at a random time.
    unrest : float
        Coefficient of variation of a gamma multiplier with mean 1, drawn anew for each adapter every `unrest_s` seconds: the
        published client pools of ServeGen (arXiv 2505.09999) change their rates over windows of 600 s.
    unrest_s : float

    Raises
    ------
    UserError
        For a number out of range.
    """

    day_s: float = DAY_S
    swing: float = 0.6
    peak: float = 0.6
    spread: float = 0.05
    flash_at: float = 0.4
    flash_length: float = 0.03
    flash_factor: float = 1.0
    flash_share: float = 0.1
    visitors: float = 0.0
    stay: float = 0.3
    unrest: float = 0.0
    unrest_s: float = 600.0

    def __post_init__(self) -> None:
        number("arrivals: day_s", self.day_s, at_least=STEP_S, at_most=LONGEST_S, unit="seconds")
        for name in ("swing", "peak", "spread", "flash_at", "flash_length", "flash_share", "visitors", "stay"):
            number(f"arrivals: {name}", getattr(self, name), at_least=0.0, at_most=1.0)
        number("arrivals: flash_factor", self.flash_factor, at_least=0.0, at_most=1000.0)
        number("arrivals: unrest", self.unrest, at_least=0.0, at_most=10.0)
        number("arrivals: unrest_s", self.unrest_s, at_least=STEP_S, at_most=LONGEST_S, unit="seconds")
        if self.unrest_s % STEP_S:
            raise UserError(f"arrivals: unrest_s={self.unrest_s:g} must be a multiple of {STEP_S:g} seconds")

    def multipliers(self, generator: np.random.Generator, n_steps: int) -> Floats:
        """What an adapter's rate is multiplied by in each step of `STEP_S` seconds.

        Parameters
        ----------
        generator : Generator
            At the beginning of the adapter's stream.
        n_steps : int

        Returns
        -------
        array of shape (n_steps,)
            The first ones are the same whatever `n_steps`.
        """
        shift = float(generator.normal())
        in_flash, visits, arrival = generator.random(3)
        restless = np.random.Generator(np.random.Philox(key=generator.integers(0, 2**63, 2)))
        of_day = (np.arange(n_steps) + 0.5) * STEP_S / self.day_s
        found: Floats = 1 + self.swing * np.cos(2 * np.pi * (of_day - self.peak - self.spread * shift))
        if in_flash < self.flash_share:
            found[(self.flash_at <= of_day) & (of_day < self.flash_at + self.flash_length)] *= self.flash_factor
        if visits < self.visitors:
            found[(of_day - arrival) % 1.0 >= self.stay] = 0.0
        if self.unrest:
            each = int(self.unrest_s / STEP_S)
            shape = self.unrest**-2
            found *= np.repeat(restless.gamma(shape, 1 / shape, math.ceil(n_steps / each)), each)[:n_steps]
        return found

    def draw(self, generator: np.random.Generator, rate: float, duration_s: float) -> Floats:
        """See `Arrivals`."""
        n_steps = math.ceil(duration_s / STEP_S)
        expected = np.concatenate([[0.0], np.cumsum(self.multipliers(generator, n_steps))]) * rate * STEP_S
        count = int(expected[-1] + 6 * math.sqrt(expected[-1]) + 16)
        clock = np.cumsum(generator.exponential(1.0, count))
        while clock[-1] < expected[-1]:
            clock = np.concatenate([clock, clock[-1] + np.cumsum(generator.exponential(1.0, count))])
        times: Floats = np.interp(
            clock[: np.searchsorted(clock, expected[-1])], expected, np.arange(n_steps + 1) * STEP_S
        )
        return times[: np.searchsorted(times, duration_s)]


def rates_over_time(workload: Workload) -> Floats:
    """The rate of each adapter in each step of `STEP_S` seconds, as its requests are drawn by.

    Parameters
    ----------
    workload : Workload
        Whose arrivals are not `DailyArrivals` has constant rates.

    Returns
    -------
    array of shape (n_adapters, n_steps)
        Requests per second.
    """
    n_steps = math.ceil(workload.duration_s / STEP_S)
    if not isinstance(workload.arrivals, DailyArrivals):
        return np.repeat(workload.rates[:, None], n_steps, axis=1)
    streams, arrivals = Streams(workload.seed), workload.arrivals
    rows = [arrivals.multipliers(streams.open(workload.arrival_stream(i)), n_steps) for i in range(workload.n_adapters)]
    return workload.rates[:, None] * np.array(rows).reshape(-1, n_steps)
