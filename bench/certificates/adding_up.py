"""What cuts, zones and prices of a certificate prove, in exact arithmetic.

A cut is a point of sums that nothing reaches which a GPU serves; what no cut reaches lies in zones with a limit on every sum. Multipliers
of the limits say what the dearest content of a zone costs at most, and so how many GPUs all adapters need (Gilmore and Gomory; Farley).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Sums and multipliers are rounded to whole multiples of 1 / _SCALE, to the side on which less is proven.
_SCALE = 2**60


class RefusedError(Exception):
    """A certificate does not prove what it says; the message says why."""


class Zone(NamedTuple):
    """Contents up to a largest rank that stay below a limit (or infinity) in every sum, and a multiplier of each limit."""

    rank: int
    limits: Sequence[float]
    multipliers: Sequence[float]


def check_cover(cuts: Sequence[tuple[int, NDArray[np.float64]]], zones: Sequence[Zone], ranks: set[int]) -> None:
    """Raise `RefusedError` unless zones hold whatever the cuts (the least rank from which each holds, its point) do not rule out."""
    limits, largest = np.array([zone.limits for zone in zones]), np.array([zone.rank for zone in zones])
    for rank in sorted(ranks):
        held = limits[largest >= rank]
        for left in _left_by([point for least, point in cuts if least <= rank], limits.shape[1]):
            if not (held >= left).all(axis=1).any():
                raise RefusedError(f"no zone holds contents of rank {rank} below {np.round(left, 3).tolist()}")


def _left_by(points: Sequence[NDArray[np.float64]], n_sums: int) -> NDArray[np.float64]:
    """Limits of the largest zones that points leave, shape (n_zones, n_sums)."""
    limits = np.full((1, n_sums), math.inf)
    for point in points:
        hit = (point < limits).all(axis=1)
        kept, parts = limits[~hit], np.repeat(limits[hit], n_sums, axis=0)
        places = np.arange(len(parts)) % n_sums
        parts[np.arange(len(parts)), places] = point[places]
        # Nothing asks for less than nothing.
        parts = np.unique(parts[(parts > 0).all(axis=1)], axis=0)
        inside = [(kept >= part).all(axis=1).any() or (parts >= part).all(axis=1).sum() > 1 for part in parts]
        limits = np.vstack([kept, parts[~np.array(inside, dtype=np.bool_)]])
    return limits


def exact_bound(
    prices: Sequence[float], sums: NDArray[np.float64], ranks: NDArray[np.int64], zones: Sequence[Zone]
) -> Fraction:
    """Number of GPUs, in fractions, that no placement goes below, where zones hold every content that a GPU serves.

    `prices` and `ranks` are of each adapter, as are the rows of `sums`, what it asks for.
    """
    if not all(math.isfinite(price) and price >= 0 for price in prices):
        raise RefusedError("a price must be a number, 0 or more")
    priced = np.array([math.ceil(Fraction(price) * _SCALE**2) for price in prices], dtype=object)
    asked = np.array([[math.floor(Fraction(value) * _SCALE) for value in row] for row in sums.tolist()], dtype=object)
    dearest = max(_dearest(zone, priced, asked, ranks) for zone in zones)
    if dearest <= 0:
        raise RefusedError("no content has a price")
    return sum((Fraction(price) for price in prices), Fraction(0)) / Fraction(dearest, _SCALE**2)


def _dearest(zone: Zone, priced: NDArray[np.object_], asked: NDArray[np.object_], ranks: NDArray[np.int64]) -> int:
    """What a content of the zone costs at most, in units of 1 / _SCALE^2: any multipliers say so (weak duality)."""
    factors, cost = [], 0
    for limit, multiplier in zip(zone.limits, zone.multipliers, strict=True):
        if not (math.isfinite(multiplier) and multiplier >= 0) or (math.isinf(limit) and multiplier):
            raise RefusedError(f"a multiplier of {multiplier} for a limit of {limit}")
        factors.append(math.floor(Fraction(multiplier) * _SCALE))
        cost += factors[-1] * math.ceil(Fraction(limit) * _SCALE) if multiplier else 0
    fits = ranks <= zone.rank
    worth = priced[fits] - asked[fits] @ np.array(factors, dtype=object)
    dearest: int = cost + sum(value for value in worth.tolist() if value > 0)
    return dearest
