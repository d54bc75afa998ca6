"""Bootstrap intervals over workloads and their seeds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Percentiles of a 95 % interval.
_LOW, _HIGH = 2.5, 97.5


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % bootstrap interval; None where it cannot be known.

    Attributes
    ----------
    value, low, high : float, optional
        The interval is absent when there is one instance only.
    n : int
        Instances that it is of.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def resampled(clusters: Sequence[Hashable], samples: int, seed: int) -> NDArray[np.float64]:
    """How often each instance is in each bootstrap sample.

    Two stages, because the seeds of a workload resemble each other: workloads are drawn with replacement, then the
    instances of each drawn workload (Davison and Hinkley, 1997, section 3.8).

    Parameters
    ----------
    clusters : sequence of length n_cases
        What the instances that are not independent share.
    samples, seed : int

    Returns
    -------
    array of shape (samples, n_cases)
    """
    generator = np.random.default_rng(seed)
    names = list(dict.fromkeys(clusters))
    place = np.array([names.index(cluster) for cluster in clusters])
    drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    counts = np.zeros((samples, len(clusters)))
    for number in range(len(names)):
        members = np.flatnonzero(place == number)
        size = len(members)
        counts[:, members] = generator.multinomial(drawn[:, number] * size, np.full(size, 1 / size))
    return counts


def estimate(values: NDArray[np.float64], counts: NDArray[np.float64]) -> Estimate:
    """Mean over the instances with a finite value, with its interval.

    Parameters
    ----------
    values : array of shape (n_cases,)
        NaN or infinite where the instance has no part in the mean.
    counts : array of shape (samples, n_cases)
        From `resampled`.
    """
    known = np.isfinite(values)
    n = int(known.sum())
    if not n:
        return Estimate(None, None, None, 0)
    mean = float(values[known].mean())
    if n == 1:
        return Estimate(mean, None, None, 1)
    weight = counts[:, known].sum(axis=1)
    # A sample may hold none of the instances.
    usable = weight > 0
    means = (counts[usable][:, known] @ values[known]) / weight[usable]
    low, high = np.percentile(means, [_LOW, _HIGH])
    return Estimate(mean, float(low), float(high), n)


def geometric(values: NDArray[np.float64], counts: NDArray[np.float64]) -> Estimate:
    """Geometric mean over the instances with a finite value, with its interval; arguments as of `estimate`."""
    with np.errstate(divide="ignore"):
        logs = estimate(np.log(values), counts)
    grown = [None if value is None else float(np.exp(value)) for value in (logs.value, logs.low, logs.high)]
    return Estimate(grown[0], grown[1], grown[2], logs.n)
