"""Performance profiles (Dolan and More, Mathematical Programming 91, 2002)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.statistics.paired import Paired


@dataclass(frozen=True)
class PerformanceProfile:
    """For each solver the share of instances on which it is within a factor of the best.

    Attributes
    ----------
    solvers : tuple of str
    factors : array of shape (n_factors,)
        Ascending from 1: where some profile steps up.
    share : array of shape (n_solvers, n_factors)
        Instances that the solver has no feasible placement for never count, and those nobody has one for are left out.
    n : int
        Instances.
    """

    solvers: tuple[str, ...]
    factors: NDArray[np.float64]
    share: NDArray[np.float64]
    n: int


def performance_profile(paired: Paired) -> PerformanceProfile:
    """The profile of each solver by the measure of a paired table.

    An instance without a row of the solver counts as not solved: a profile compares on the same instances.
    """
    solved = np.isfinite(paired.best)
    ratio = np.where(np.isnan(paired.ratio), np.inf, paired.ratio)[solved]
    finite = ratio[np.isfinite(ratio)]
    factors = np.unique(np.concatenate([[1.0], finite]))
    n = int(solved.sum())
    share = (ratio[:, :, None] <= factors[None, None, :] * (1 + 1e-12)).sum(axis=0) / max(n, 1)
    return PerformanceProfile(paired.solvers, factors, share, n)
