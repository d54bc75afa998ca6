"""What a controller believes of the rates: counted arrivals, smoothed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class SmoothedRates:
    """Rates by an exponential mean of counted arrivals.

    Parameters
    ----------
    start : array of shape (n_adapters,)
        Rates measured before.
    memory_s : float
        An arrival counts for 1/e of one that comes now after so many seconds.
    tick_s : float
    """

    def __init__(self, start: Floats, memory_s: float, tick_s: float) -> None:
        self.rates = start.copy()
        self.memory_s, self._tick_s = memory_s, tick_s
        self._keep = float(np.exp(-tick_s / memory_s))

    def count(self, arrivals: NDArray[np.int64]) -> None:
        """Take in the arrivals of one tick."""
        self.rates = self._keep * self.rates + (1 - self._keep) * arrivals / self._tick_s

    def upper(self, deviations: float) -> Floats:
        """Rates with so many standard deviations of a Poisson count over twice the memory, which is what the mean rests on."""
        found: Floats = self.rates + deviations * np.sqrt(self.rates / (2 * self.memory_s))
        return found
