"""The published first-fit placement in compiled code (arXiv 2602.24044), for any forest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from predictors.features import MAX_LORAS, N_FEATURES, N_SUMS
from predictors.meanfield import N_INPUTS
from predictors.model import starvation_of, throughput_of

#: Adapter counts at which the published placement asks its predictors; also its values of `max_loras`.
TEST_POINTS = np.array([8, 16, 32, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512, 576])
TEST_POINTS.flags.writeable = False


@njit(cache=True, nogil=True)
def choose_slots(  # noqa: PLR0913  # arrays of two forests
    content: NDArray[np.float64],
    current: int,
    points: NDArray[np.int64],
    throughput: tuple[NDArray[Any], ...],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    inputs: NDArray[np.float32],
) -> int:
    """Place in `points` of the `max_loras` that passes the test, or -1.

    Of the current value and the next one, the one with the higher predicted throughput is taken (a
    tie takes the larger), and only that one is asked about starvation.

    Parameters
    ----------
    content : array of shape (N_FEATURES,), whose `max_loras` is overwritten
    current : int
        Place in `points`.
    points : array of shape (n_points,)
    throughput, starvation : tuples of arrays
        `Predictor.throughput_arrays` and `Predictor.starvation_arrays`, or the distilled ones.
    threshold : float
        A content starves from this probability on.
    inputs : array of shape (N_INPUTS,), float32, scratch
    """
    best, best_throughput = -1, -1.0
    for place in range(current, min(current + 2, len(points))):
        content[MAX_LORAS] = points[place]
        value = throughput_of(
            content, throughput[0], throughput[1], inputs,
            throughput[2], throughput[3], throughput[4], throughput[5],
        )  # fmt: skip
        if value >= best_throughput:
            best, best_throughput = place, value
    content[MAX_LORAS] = points[best]
    probability = starvation_of(
        content, starvation[0], starvation[1], inputs,
        starvation[2], starvation[3], starvation[4], starvation[5], starvation[6], starvation[7],
    )  # fmt: skip
    return best if probability < threshold else -1


@njit(cache=True, nogil=True)
def fill_by_test_points(  # noqa: PLR0913  # arrays of two forests
    rows: NDArray[np.float64],
    start: int,
    tail: NDArray[np.float64],
    points: NDArray[np.int64],
    throughput: tuple[NDArray[Any], ...],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    first: NDArray[np.int64],
    slots: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Fill GPUs in order, committing adapters at test points only.

    Parameters
    ----------
    rows : array of shape (n_adapters, N_SUMS)
        Contributions of the adapters in placement order.
    start : int
        Place of the first adapter to place.
    tail : array of shape (N_FEATURES - N_SUMS,)
    points : array of shape (n_points,), ascending
    throughput, starvation, threshold
        As for `choose_slots`.
    first, slots : arrays of shape (n_adapters + 1,), filled in
        For each GPU the place of its first adapter, and its `max_loras` as a place in `points`.

    Returns
    -------
    n_gpus : int
        GPUs opened; the last may have pending adapters, or none at all.
    committed : int
        Adapters before this place are committed.
    calls : int
        Questions to the starvation predictor. If a GPU passed no test at all, `committed` is where it began,
        and it has the `max_loras` -1.
    """
    content = np.zeros(N_FEATURES)
    content[N_SUMS:] = tail
    inputs = np.empty(N_INPUTS, np.float32)
    n_adapters = len(rows)
    gpu, calls = 0, 0
    while True:
        first[gpu] = start
        slots[gpu] = 0
        committed, passed = start, 0
        content[:N_SUMS] = 0.0
        place = start
        closed = False
        while place < n_adapters and not closed:
            for j in range(N_SUMS):
                content[j] += rows[place, j]
            place += 1
            if place - start == points[passed]:
                calls += 1
                chosen = choose_slots(content, slots[gpu], points, throughput, starvation, threshold, inputs)
                if chosen >= 0:
                    slots[gpu] = chosen
                    committed = place
                    passed += 1
                    closed = passed == len(points)
                else:
                    closed = True
        gpu += 1
        if not closed:
            return gpu, committed, calls
        if committed == start:
            slots[gpu - 1] = -1
            return gpu, committed, calls
        if committed == n_adapters:
            return gpu, committed, calls
        start = committed
