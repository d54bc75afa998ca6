"""Arrival processes: when the requests of one adapter come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twin.errors import UserError
from twin.numbers import LONGEST_S, number

Times = NDArray[np.float64]
# Gaps that are drawn together; more follow where they do not fill the period.
_MOST_AT_ONCE = 2**22


class Arrivals(Protocol):
    """A way to draw the arrivals of an adapter; the same generator state must give a longer window's first part."""

    def draw(self, generator: np.random.Generator, rate: float, duration_s: float) -> Times:
        """Arrival times in [0, duration_s), ascending, of an adapter with `rate` above 0 in requests per second."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class PoissonArrivals:
    """Independent requests: exponential gaps with mean 1 / rate."""

    def draw(self, generator: np.random.Generator, rate: float, duration_s: float) -> Times:
        """See `Arrivals`."""
        mean = rate * duration_s
        count = int(mean + 6 * np.sqrt(mean) + 16)
        times = np.cumsum(generator.exponential(1 / rate, count))
        while times[-1] < duration_s:
            times = np.concatenate([times, times[-1] + np.cumsum(generator.exponential(1 / rate, count))])
        return times[: np.searchsorted(times, duration_s)]


@dataclass(frozen=True)
class GammaArrivals:
    """Gaps from a gamma distribution with mean 1 / rate: bursts above a coefficient of variation of 1.

    vLLM's serving benchmark calls 1 / cv^2 the burstiness. The process is stationary: the window opens at a random
    moment of it, so that the mean count is rate x duration whatever the cv (opening it at a request would add
    (cv^2 - 1) / 2 requests per adapter).

    Parameters
    ----------
    cv : float
        Standard deviation of the gaps over their mean; 1 is a Poisson process.
    """

    cv: float = 2.0

    def __post_init__(self) -> None:
        number("arrivals: cv", self.cv, at_least=0.001, at_most=100)

    def draw(self, generator: np.random.Generator, rate: float, duration_s: float) -> Times:
        """See `Arrivals`."""
        shape = self.cv**-2
        scale = 1 / (shape * rate)
        # A random moment falls into a gap in proportion to its length, and the rest of that gap is left: a uniform
        # share of a draw from the length-biased gamma distribution, which has one more in its shape (Cox, 1962).
        first = generator.random() * generator.gamma(shape + 1, scale)
        mean = rate * duration_s
        count = int(mean + 6 * self.cv * np.sqrt(mean) + 16)
        times = first + np.concatenate([[0.0], np.cumsum(generator.gamma(shape, scale, count))])
        while times[-1] < duration_s:
            times = np.concatenate([times, times[-1] + np.cumsum(generator.gamma(shape, scale, count))])
        return times[: np.searchsorted(times, duration_s)]


@dataclass(frozen=True)
class UnpredictableArrivals:
    """The bursty arrivals of arXiv 2602.24044, whose load strays from the rates that a placement was made for.

    Every `period_s` an adapter tosses two coins. One says whether its gaps are exponential with mean 1 / (rate x m) or
    log-normal with parameters 0 and rate x m (median 1 s, whatever the rate). The other multiplies m by `factor` or
    divides it, within [1 / limit, limit]; m begins at 1.

    Parameters
    ----------
    period_s, factor, limit : float
    """

    period_s: float = 300.0
    factor: float = 1.5
    limit: float = 7.5

    def __post_init__(self) -> None:
        number("arrivals: period_s", self.period_s, at_least=1.0, at_most=LONGEST_S, unit="seconds")
        number("arrivals: factor", self.factor, at_least=1.0)
        number("arrivals: limit", self.limit, at_least=1.0, at_most=1000.0)
        if not self.factor <= self.limit:
            raise UserError(f"arrivals: factor={self.factor} and limit={self.limit} must satisfy 1 <= factor <= limit")

    def draw(self, generator: np.random.Generator, rate: float, duration_s: float) -> Times:
        """See `Arrivals`."""
        parts = []
        multiplier = 1.0
        for start_s in np.arange(0.0, duration_s, self.period_s):
            exponential, up = generator.random(2) < 0.5
            # A stream of its own for each period: how many gaps one needs must not shift the next one's.
            gaps = np.random.Generator(np.random.Philox(key=generator.integers(0, 2**63, 2)))
            length_s = min(self.period_s, duration_s - start_s) if self.period_s > duration_s else self.period_s
            parts.append(start_s + self._period(gaps, rate * multiplier, length_s, exponential=bool(exponential)))
            multiplier = np.clip(multiplier * (self.factor if up else 1 / self.factor), 1 / self.limit, self.limit)
        times = np.concatenate(parts)
        return times[: np.searchsorted(times, duration_s)]

    def _period(self, generator: np.random.Generator, rate: float, length_s: float, *, exponential: bool) -> Times:
        """Arrivals of the first seconds of one period, since its start."""
        count = min(int(self.period_s * max(rate, 1.0)) + 16, _MOST_AT_ONCE)
        times = np.zeros(1)
        while times[-1] < length_s:
            gaps = generator.exponential(1 / rate, count) if exponential else generator.lognormal(0.0, rate, count)
            times = np.concatenate([times, times[-1] + np.cumsum(gaps)])
        return times[1 : np.searchsorted(times, length_s)]
