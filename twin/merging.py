"""Streams of requests put in the order of time, by counting: as many cells as requests, which are nearly spread evenly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.compiled import njit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Requests of one cell that are still sorted one by one; bursts that fill a cell further are left to NumPy.
_MOST_IN_A_CELL = 64


def in_order(times: Floats, ties: Ints) -> Ints:
    """The order of `numpy.lexsort((ties, times))`, sooner.

    Parameters
    ----------
    times, ties : arrays of shape (n,)
        What is sorted by, and by what where it is equal; finite.

    Returns
    -------
    array of shape (n,)
    """
    order = np.empty(len(times), dtype=np.int64)
    if _sort(times, ties, order):
        return order
    return np.lexsort((ties, times))


@njit(cache=True, nogil=True)
def _sort(times: Floats, ties: Ints, order: Ints) -> bool:
    """Fill in the order; False where too many fall into one cell."""
    count = len(times)
    if count == 0:
        return True
    first, last = times[0], times[0]
    for row in range(count):
        first, last = min(first, times[row]), max(last, times[row])
    scale = count / (last - first) if last > first else 0.0
    cells = np.empty(count, np.int32)
    ends = np.zeros(count + 1, np.int32)
    for row in range(count):
        cell = min(int((times[row] - first) * scale), count - 1)
        cells[row] = cell
        ends[cell + 1] += 1
    for cell in range(count):
        if ends[cell + 1] > _MOST_IN_A_CELL:
            return False
        ends[cell + 1] += ends[cell]
    filled = np.zeros(count, np.int8)
    for row in range(count):
        cell = cells[row]
        begin, place = ends[cell], ends[cell] + filled[cell]
        while place > begin:
            before = order[place - 1]
            if times[before] < times[row] or (times[before] == times[row] and ties[before] <= ties[row]):
                break
            order[place] = before
            place -= 1
        order[place] = row
        filled[cell] += 1
    return True
