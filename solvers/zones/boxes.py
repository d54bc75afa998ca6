"""What is left of a space of sums once points of it are known to be too much.

A content that starves rules out everything that asks at least as much in every sum. What several of them leave is
a union of *search zones* (Klamroth, Lacour and Vanderpooten, 2015): boxes, each with a limit on every sum, none inside
another. The price of the dearest content in a zone is a linear programme with one row per sum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.compiled import njit


@njit(cache=True, nogil=True)
def split_zones(  # noqa: C901, PLR0912  # comparisons spelled out for the compiler
    limits: NDArray[np.float64], point: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Zones that are left when a point, and all that is at least as large in every sum, is too much.

    Parameters
    ----------
    limits : array of shape (n_zones, n_sums)
        A zone holds what is below its limit in every sum.
    point : array of shape (n_sums,)

    Returns
    -------
    array of shape (n_left, n_sums)
        No zone lies inside another.
    """
    n_zones, n_sums = limits.shape
    hit = np.zeros(n_zones, dtype=np.bool_)
    n_hit = 0
    for z in range(n_zones):
        inside = True
        for j in range(n_sums):
            if point[j] >= limits[z, j]:
                inside = False
                break
        hit[z] = inside
        n_hit += inside
    if n_hit == 0:
        return limits
    left = np.empty((n_zones - n_hit + n_hit * n_sums, n_sums))
    n_left = 0
    for z in range(n_zones):
        if not hit[z]:
            left[n_left] = limits[z]
            n_left += 1
    kept = n_left
    for z in range(n_zones):
        if not hit[z]:
            continue
        for j in range(n_sums):
            if point[j] <= 0.0:
                continue
            left[n_left] = limits[z]
            left[n_left, j] = point[j]
            n_left += 1
    # Only the new ones can lie inside others.
    drop = np.zeros(n_left, dtype=np.bool_)
    for z in range(kept, n_left):
        for other in range(n_left):
            if other == z or drop[other]:
                continue
            inside = True
            equal = True
            for j in range(n_sums):
                if left[z, j] > left[other, j]:
                    inside = False
                    break
                if left[z, j] < left[other, j]:
                    equal = False
            if inside and not (equal and other > z):
                drop[z] = True
                break
    return left[:n_left][~drop]


@njit(cache=True, nogil=True)
def priced_by_multipliers(  # noqa: PLR0913  # arrays of a table of zones
    prices: NDArray[np.float64],
    counts: NDArray[np.float64],
    sums: NDArray[np.float64],
    types_rank: NDArray[np.int64],
    limits: NDArray[np.float64],
    ranks: NDArray[np.int64],
    multipliers: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Upper bound on the price of any content in each zone, by Lagrange multipliers of its limits.

    Any multipliers give a valid bound; those of the zone's linear programme give its value.

    Parameters
    ----------
    prices, counts : arrays of shape (n_types,)
    sums : array of shape (n_types, n_sums)
        What one adapter of a type adds to each.
    types_rank : array of shape (n_types,)
    limits, multipliers : arrays of shape (n_zones, n_sums)
        Multipliers are not negative, and 0 where a limit is infinite.
    ranks : array of shape (n_zones,)
        Largest rank of the contents in each zone.

    Returns
    -------
    array of shape (n_zones,)
    """
    n_types, n_sums = sums.shape
    bounds = np.empty(len(limits))
    for z in range(len(limits)):
        bound = 0.0
        for j in range(n_sums):
            if multipliers[z, j] > 0.0:
                bound += multipliers[z, j] * limits[z, j]
        for t in range(n_types):
            if types_rank[t] > ranks[z]:
                continue
            value = prices[t]
            for j in range(n_sums):
                value -= multipliers[z, j] * sums[t, j]
            if value > 0.0:
                bound += counts[t] * value
        bounds[z] = bound
    return bounds
