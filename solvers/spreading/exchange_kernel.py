"""Moves and swaps of adapters between two GPUs that are known by the sums of their contents, in compiled code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.compiled import njit


@njit(cache=True, nogil=True, inline="always")
def sums_after(  # noqa: PLR0913  # the state of a fleet as arrays
    rows: NDArray[np.float64],
    sums: NDArray[np.float64],
    source: int,
    target: int,
    a: int,
    b: int,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
) -> None:
    """What two GPUs would hold if `a` left `source` for `target` and `b`, unless it is -1, came back.

    Parameters
    ----------
    rows : array of shape (n_adapters, n_sums)
    sums : array of shape (n_gpus, n_sums)
    source, target : int
    a, b : int
    first, second : arrays of shape (n_sums,), filled in
        Sums of `source` and `target`, not below 0 whatever rounding does.
    """
    for j in range(len(first)):
        moved = rows[a, j] - (rows[b, j] if b >= 0 else 0.0)
        first[j] = max(0.0, sums[source, j] - moved)
        second[j] = max(0.0, sums[target, j] + moved)


@njit(cache=True, nogil=True, inline="always")
def exchange(  # noqa: PLR0913  # the state of a fleet as arrays
    gpu_of: NDArray[np.int64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    source: int,
    target: int,
    a: int,
    b: int,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
) -> None:
    """Do what `sums_after` was asked about.

    Parameters
    ----------
    gpu_of : array of shape (n_adapters,), changed
    sums : array of shape (n_gpus, n_sums), changed
    counts : array of shape (n_gpus,), changed
    source, target, a, b, first, second
        As for `sums_after`, which has filled in the last two.
    """
    sums[source] = first
    sums[target] = second
    gpu_of[a] = target
    if b >= 0:
        gpu_of[b] = source
    else:
        counts[source] -= 1
        counts[target] += 1
