"""Greedy filling with a test at every adapter, in compiled code: the heart of `ffd_plus`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.features import N_FEATURES, N_SUMS
from predictors.meanfield import N_INPUTS
from solvers.oracles.kernel import starvation_at
from twin.compiled import njit


@njit(cache=True, nogil=True)
def accepted_slots(  # noqa: PLR0913  # arrays of a forest
    content: NDArray[np.float64],
    count: int,
    place: int,
    grid: NDArray[np.int64],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    inputs: NDArray[np.float32],
) -> int:
    """Place in `grid` of a `max_loras` at which a content is accepted, nearest to `place`; -1 if there is none.

    Parameters
    ----------
    content : array of shape (N_FEATURES,), whose `max_loras` is overwritten
    count : int
        Adapters in it; values beyond the first that has room for all are not tried.
    place : int
        Where to begin.
    grid : array of shape (n,), ascending
    starvation, threshold
        `Predictor.starvation_arrays` or the distilled ones, and the probability that counts as starvation.
    inputs : array of shape (N_INPUTS,), float32, scratch
    """
    last = min(int(np.searchsorted(grid, count)), len(grid) - 1)
    place = min(place, last)
    if starvation_at(content, grid[place], starvation, inputs) < threshold:
        return place
    for distance in range(1, len(grid)):
        if place + distance <= last and (
            starvation_at(content, grid[place + distance], starvation, inputs) < threshold
        ):
            return place + distance
        if place - distance >= 0 and starvation_at(content, grid[place - distance], starvation, inputs) < threshold:
            return place - distance
    return -1


@njit(cache=True, nogil=True)
def best_slots(  # arrays of a forest
    content: NDArray[np.float64],
    count: int,
    grid: NDArray[np.int64],
    starvation: tuple[NDArray[Any], ...],
    inputs: NDArray[np.float32],
) -> tuple[int, float]:
    """Place in `grid` of the `max_loras` with the least probability of starvation, and that probability."""
    last = min(int(np.searchsorted(grid, count)), len(grid) - 1)
    best, least = 0, np.inf
    for place in range(last + 1):
        value = starvation_at(content, grid[place], starvation, inputs)
        # Of equal values the one with room for more adapters: fewer requests are skipped.
        if value <= least:
            best, least = place, value
    return best, least


@njit(cache=True, nogil=True)
def homogeneous_capacity(  # noqa: PLR0913  # arrays of a forest
    rows: NDArray[np.float64],
    tail: NDArray[np.float64],
    grid: NDArray[np.int64],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    most: int,
) -> NDArray[np.int64]:
    """How many adapters like each row one GPU is predicted to take, up to `most`; shape (n,)."""
    content = np.empty(N_FEATURES)
    content[N_SUMS:] = tail
    inputs = np.empty(N_INPUTS, np.float32)
    capacity = np.zeros(len(rows), np.int64)
    for i in range(len(rows)):
        low, high = 0, most + 1
        while low + 1 < high:
            count = (low + high) // 2
            content[:N_SUMS] = count * rows[i]
            if accepted_slots(content, count, 0, grid, starvation, threshold, inputs) >= 0:
                low = count
            else:
                high = count
        capacity[i] = low
    return capacity


@njit(cache=True, nogil=True)
def fill_every_adapter(  # noqa: PLR0913  # one greedy, one loop
    rows: NDArray[np.float64],
    segment: NDArray[np.int64],
    tail: NDArray[np.float64],
    grid: NDArray[np.int64],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    most_misses: int,
    gpu_of: NDArray[np.int64],
    slots: NDArray[np.int64],
) -> tuple[int, int]:
    """Fill GPU after GPU, asking at every adapter and topping up with smaller ones.

    When an adapter does not fit, the search goes on at smaller ones: half-way to the end of its segment, and so on,
    then in the next segments, until `most_misses` adapters in a row did not fit.

    Parameters
    ----------
    rows : array of shape (n_adapters, N_SUMS)
        Contributions, in the order to fill with; within a segment from the busiest to the idlest.
    segment : array of shape (n_adapters,)
        For each adapter, the place where its segment (adapters of one rank) ends.
    tail : array of shape (N_FEATURES - N_SUMS,)
    grid : array of shape (n,), ascending
        Values of `max_loras`.
    starvation, threshold
        As for `accepted_slots`.
    most_misses : int
    gpu_of : array of shape (n_adapters,), filled in
        GPU of each adapter.
    slots : array of shape (n_adapters,), filled in
        `max_loras` of each GPU; of an adapter that is refused on a GPU of its own, and gets one all the same, less 1000.

    Returns
    -------
    n_gpus : int
    calls : int
        Adapters asked about.
    """
    n_adapters = len(rows)
    content = np.zeros(N_FEATURES)
    content[N_SUMS:] = tail
    inputs = np.empty(N_INPUTS, np.float32)
    # Linked list of the adapters that are left; the last element is the end.
    after = np.arange(1, n_adapters + 2)
    gpu_of[:] = -1
    head, gpu, calls = 0, 0, 0
    while head < n_adapters:
        content[:N_SUMS] = 0.0
        place, count, misses = 0, 0, 0
        previous, current = -1, head
        while current < n_adapters and misses < most_misses:
            for j in range(N_SUMS):
                content[j] += rows[current, j]
            calls += 1
            found = accepted_slots(content, count + 1, place, grid, starvation, threshold, inputs)
            if found >= 0:
                place = found
                count += 1
                misses = 0
                gpu_of[current] = gpu
                if previous < 0:
                    head = after[current]
                else:
                    after[previous] = after[current]
                current = after[current]
                continue
            if count == 0:
                head = after[current]
                gpu_of[current] = gpu
                break
            for j in range(N_SUMS):
                content[j] -= rows[current, j]
            misses += 1
            # Half-way to the end of the segment, at least one further.
            aim = current + max(1, (segment[current] - current) // 2)
            while current < aim:
                previous = current
                current = after[current]
        best, _ = best_slots(content, max(count, 1), grid, starvation, inputs)
        slots[gpu] = grid[best] if count else grid[best] - 1000
        gpu += 1
    return gpu, calls


@njit(cache=True, nogil=True)
def drain(  # noqa: C901, PLR0912, PLR0913, PLR0915  # one local search, one loop
    rows: NDArray[np.float64],
    weights: NDArray[np.float64],
    victim: int,
    n_gpus: int,
    tail: NDArray[np.float64],
    grid: NDArray[np.int64],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    most_calls: int,
    gpu_of: NDArray[np.int64],
    slots: NDArray[np.int64],
) -> tuple[bool, int]:
    """Empty one GPU into the others: move each of its adapters, or swap it for a lighter one that moves on.

    Parameters
    ----------
    rows : array of shape (n_adapters, N_SUMS)
    weights : array of shape (n_adapters,)
        What an adapter takes of a GPU, in any unit.
    victim : int
        The GPU to empty.
    n_gpus : int
    tail, grid, starvation, threshold
        As for `fill_every_adapter`.
    most_calls : int
        Contents asked about before giving up.
    gpu_of : array of shape (n_adapters,), changed if successful
    slots : array of shape (n_gpus,), changed if successful

    Returns
    -------
    success : bool
    calls : int
    """
    n_adapters = len(rows)
    sums = np.zeros((n_gpus, N_SUMS))
    counts = np.zeros(n_gpus, np.int64)
    load = np.zeros(n_gpus)
    for a in range(n_adapters):
        gpu = gpu_of[a]
        counts[gpu] += 1
        load[gpu] += weights[a]
        for j in range(N_SUMS):
            sums[gpu, j] += rows[a, j]
    place_of = np.searchsorted(grid, slots[:n_gpus])
    new_gpu = gpu_of.copy()
    members = np.argsort(gpu_of)
    starts = np.searchsorted(gpu_of[members], np.arange(n_gpus + 1))
    content = np.empty(N_FEATURES)
    content[N_SUMS:] = tail
    inputs = np.empty(N_INPUTS, np.float32)
    pool = np.empty(n_adapters, np.int64)
    size = 0
    for a in members[starts[victim] : starts[victim + 1]]:
        pool[size] = a
        size += 1
    calls = 0
    while size > 0 and calls < most_calls:
        # The heaviest first: lighter ones find a place later.
        pick = 0
        for i in range(1, size):
            if weights[pool[i]] > weights[pool[pick]]:
                pick = i
        a = pool[pick]
        pool[pick] = pool[size - 1]
        size -= 1
        placed = False
        for gpu in np.argsort(load):
            if gpu == victim:
                continue
            for j in range(N_SUMS):
                content[j] = sums[gpu, j] + rows[a, j]
            calls += 1
            found = accepted_slots(content, counts[gpu] + 1, place_of[gpu], grid, starvation, threshold, inputs)
            if found >= 0:
                place_of[gpu] = found
                sums[gpu] += rows[a]
                counts[gpu] += 1
                load[gpu] += weights[a]
                new_gpu[a] = gpu
                placed = True
                break
            if calls >= most_calls:
                break
        if placed:
            continue
        # A swap: the lightest weight given up that makes room.
        for gpu in np.argsort(load):
            if gpu == victim or placed or calls >= most_calls:
                continue
            inside = members[starts[gpu] : starts[gpu + 1]]
            for b in inside[np.argsort(weights[inside])]:
                if new_gpu[b] != gpu or weights[b] >= weights[a] * 0.999:
                    continue
                for j in range(N_SUMS):
                    content[j] = sums[gpu, j] + rows[a, j] - rows[b, j]
                calls += 1
                found = accepted_slots(content, counts[gpu], place_of[gpu], grid, starvation, threshold, inputs)
                if found >= 0:
                    place_of[gpu] = found
                    sums[gpu] += rows[a] - rows[b]
                    load[gpu] += weights[a] - weights[b]
                    new_gpu[a] = gpu
                    new_gpu[b] = victim
                    pool[size] = b
                    size += 1
                    placed = True
                    break
                if calls >= most_calls:
                    break
        if not placed:
            return False, calls
    if size > 0:
        return False, calls
    gpu_of[:] = new_gpu
    for gpu in range(n_gpus):
        slots[gpu] = grid[place_of[gpu]]
    return True, calls
