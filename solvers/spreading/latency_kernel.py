"""Fleets by predicted latency in compiled code: what a GPU adds to the mean, a greedy spread, and local search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.features import N_FEATURES, N_SUMS, OUTPUT, RATE
from predictors.kernels import latency_of
from predictors.meanfield import N_INPUTS
from solvers.oracles.kernel import starvation_at
from solvers.spreading.exchange_kernel import exchange, sums_after
from twin.compiled import njit

#: What the predictors are asked for: mean inter-token latency, mean time to first token, or what both make of a request.
ITL, TTFT, E2E = 0, 1, 2
#: A GPU that is predicted to starve counts so many times, as nothing that does not starve should: by hand, more than the
#: means of two GPUs that do not starve are taken to differ by.
STARVED = 100.0
#: Places of `max_loras` on either side of the present one that are tried, by hand: the
#: next exchange goes on from there.
NEAR = 1
#: Share of proposals that are swaps; the others are moves. By hand.
SWAPS = 0.5


@njit(cache=True, nogil=True, inline="always")
def _latency_ms(
    content: NDArray[np.float64],
    metric: int,
    itl: tuple[NDArray[Any], ...],
    ttft: tuple[NDArray[Any], ...],
    inputs: NDArray[np.float32],
) -> float:
    value = 0.0
    if metric != TTFT:
        value = latency_of(content, itl[0], itl[1], inputs, itl[2], itl[3], itl[4], itl[5])
        if metric == E2E:
            value *= max(0.0, content[OUTPUT] - 1.0)
    if metric != ITL:
        value += latency_of(content, ttft[0], ttft[1], inputs, ttft[2], ttft[3], ttft[4], ttft[5])
    return value


@njit(cache=True, nogil=True)
def gpu_cost(  # noqa: PLR0913  # arrays of three forests
    content: NDArray[np.float64],
    count: int,
    place: int,
    near: int,
    metric: int,
    grid: NDArray[np.int64],
    itl: tuple[NDArray[Any], ...],
    ttft: tuple[NDArray[Any], ...],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    inputs: NDArray[np.float32],
) -> tuple[float, int]:
    """What a GPU adds to the fleet's mean latency, at the best `max_loras` near a place of the grid.

    Parameters
    ----------
    content : array of shape (N_FEATURES,), whose `max_loras` is overwritten
    count : int
        Adapters in it; values beyond the first that has room for all are not tried.
    place, near : int
        Where to begin in `grid`, and how far to go from there on either side.
    metric : int
        `ITL`, `TTFT` or `E2E`.
    grid : array of shape (n,), ascending
        Values of `max_loras`.
    itl, ttft : tuple of arrays
        What `latency_of` takes after the content, without the scratch array.
    starvation, threshold
        `Predictor.starvation_arrays`, and the probability that counts as starvation.
    inputs : array of shape (N_INPUTS,), float32, scratch

    Returns
    -------
    cost : float
        Requests per second times milliseconds, `STARVED` times that where the GPU is predicted to starve; infinite where no
        value of `max_loras` lets the engine start.
    place : int
    """
    last = min(int(np.searchsorted(grid, count)), len(grid) - 1)
    place = min(place, last)
    if count == 0 or content[RATE] <= 0.0:
        return 0.0, place
    best, least = place, np.inf
    for trial in range(max(0, place - near), min(last, place + near) + 1):
        probability = starvation_at(content, grid[trial], starvation, inputs)
        value = content[RATE] * _latency_ms(content, metric, itl, ttft, inputs)
        if probability >= threshold:
            value *= STARVED * (1.0 + probability - threshold)
        if value <= least:
            best, least = trial, value
    return least, best


@njit(cache=True, nogil=True)
def deal(  # noqa: PLR0913  # arrays of three forests
    rows: NDArray[np.float64],
    order: NDArray[np.int64],
    tail: NDArray[np.float64],
    metric: int,
    grid: NDArray[np.int64],
    itl: tuple[NDArray[Any], ...],
    ttft: tuple[NDArray[Any], ...],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    most_tried: int,
    gpu_of: NDArray[np.int64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    places: NDArray[np.int64],
    costs: NDArray[np.float64],
) -> int:
    """Give each of some adapters, in order, to the GPU whose cost it raises least.

    Parameters
    ----------
    rows : array of shape (n_adapters, N_SUMS)
        Contributions.
    order : array of shape (n_given,)
    tail : array of shape (N_FEATURES - N_SUMS,)
    metric, grid, itl, ttft, starvation, threshold
        As for `gpu_cost`.
    most_tried : int
        Only so many GPUs are tried for an adapter: those with the least cost.
    gpu_of : array of shape (n_adapters,), filled in
    sums : array of shape (n_gpus, N_SUMS), updated
    counts, places, costs : arrays of shape (n_gpus,), updated
        Of the GPUs: adapters, place of `max_loras` in the grid, and cost, 0 at first.

    Returns
    -------
    int
        GPU contents asked about.
    """
    content = np.empty(N_FEATURES)
    content[N_SUMS:] = tail
    inputs = np.empty(N_INPUTS, np.float32)
    calls = 0
    for a in order:
        best, rise, best_cost, best_place = 0, np.inf, 0.0, 0
        tried = np.argsort(costs, kind="mergesort")[:most_tried]
        for number in range(len(tried)):
            gpu = tried[number]
            for j in range(N_SUMS):
                content[j] = sums[gpu, j] + rows[a, j]
            calls += 1
            # Each adapter brings a slot, which a GPU may need.
            cost, place = gpu_cost(
                content, counts[gpu] + 1, places[gpu] + 1, 2, metric, grid, itl, ttft, starvation, threshold, inputs
            )
            if number == 0 or cost - costs[gpu] < rise:
                best, rise, best_cost, best_place = gpu, cost - costs[gpu], cost, place
            if counts[gpu] == 0:
                break  # empty GPUs are alike
        sums[best] += rows[a]
        counts[best] += 1
        costs[best], places[best] = best_cost, best_place
        gpu_of[a] = best
    return calls


@njit(cache=True, nogil=True)
def improve(  # noqa: PLR0913  # one local search, one loop
    rows: NDArray[np.float64],
    tail: NDArray[np.float64],
    metric: int,
    grid: NDArray[np.int64],
    itl: tuple[NDArray[Any], ...],
    ttft: tuple[NDArray[Any], ...],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    proposals: int,
    generator: np.random.Generator,
    temperature: float,
    gpu_of: NDArray[np.int64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    places: NDArray[np.int64],
    costs: NDArray[np.float64],
) -> int:
    """Propose moves and swaps between two GPUs; keep those that lower the sum of costs, and now and then another.

    Parameters
    ----------
    rows, tail, metric, grid, itl, ttft, starvation, threshold
        As for `deal`.
    proposals : int
    generator : numpy.random.Generator
    temperature : float
        Of the acceptance rule, in the unit of `costs`.
    gpu_of : array of shape (n_adapters,), changed
    sums, counts, places, costs : arrays of shape (n_gpus, ...), changed
        State of each GPU.

    Returns
    -------
    int
        GPU contents asked about.
    """
    n_adapters, n_gpus = len(rows), len(counts)
    content = np.empty(N_FEATURES)
    content[N_SUMS:] = tail
    inputs = np.empty(N_INPUTS, np.float32)
    first, second = np.empty(N_SUMS), np.empty(N_SUMS)
    calls = 0
    for _ in range(proposals):
        a = int(generator.random() * n_adapters)
        source = gpu_of[a]
        b = -1
        target = int(generator.random() * n_gpus)
        if generator.random() < SWAPS:
            b = int(generator.random() * n_adapters)
            target = gpu_of[b]
        if target == source:
            continue
        sums_after(rows, sums, source, target, a, b, first, second)
        shift = 0 if b >= 0 else 1
        content[:N_SUMS] = first
        left, left_place = gpu_cost(
            content, counts[source] - shift, places[source], NEAR, metric, grid, itl, ttft, starvation, threshold,
            inputs,
        )  # fmt: skip
        content[:N_SUMS] = second
        right, right_place = gpu_cost(
            content, counts[target] + shift, places[target] + shift, NEAR + shift, metric, grid, itl, ttft, starvation,
            threshold, inputs,
        )  # fmt: skip
        calls += 2
        change = left + right - costs[source] - costs[target]
        if not change < -temperature * np.log(max(generator.random(), 1e-300)):
            continue
        exchange(gpu_of, sums, counts, source, target, a, b, first, second)
        places[source], places[target] = left_place, right_place
        costs[source], costs[target] = left, right
    return calls
