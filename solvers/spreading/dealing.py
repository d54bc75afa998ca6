"""Simple rules of dealing adapters out to GPUs."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray


def least_loaded(weights: NDArray[np.float64], order: NDArray[np.int64], n_gpus: int) -> list[list[int]]:
    """Adapters of each GPU when each goes, in order, to the GPU with the least summed weight so far.

    Ties go to the GPU with fewer adapters, then to the first.

    Parameters
    ----------
    weights : array of shape (n_adapters,)
    order : array of shape (n,)
        Workload indices of the adapters to place.
    n_gpus : int

    Returns
    -------
    list of lists of int, shape (n_gpus,)
    """
    groups: list[list[int]] = [[] for _ in range(n_gpus)]
    heap = [(0.0, 0, gpu) for gpu in range(n_gpus)]
    for adapter in order.tolist():
        load, count, gpu = heapq.heappop(heap)
        groups[gpu].append(adapter)
        heapq.heappush(heap, (load + float(weights[adapter]), count + 1, gpu))
    return groups


def rank_by_rank(weights: NDArray[np.float64], ranks: NDArray[np.int64], n_gpus: int) -> list[list[int]]:
    """Adapters of each GPU when GPUs of equal weight are cut from the adapters in order of descending rank.

    So that few GPUs pay for the large ranks; inside a rank busy and idle adapters alternate.
    """
    descending = np.lexsort((-weights, -ranks))
    mixed = np.empty_like(descending)
    start = 0
    for rank in np.unique(ranks)[::-1]:
        group = descending[ranks[descending] == rank]
        # Every n-th of the sorted adapters in turn: each stretch of the order holds all sizes.
        stride = max(1, n_gpus)
        mixed[start : start + len(group)] = np.concatenate([group[offset::stride] for offset in range(stride)])
        start += len(group)
    return slices(weights, mixed, n_gpus)


def slices(weights: NDArray[np.float64], order: NDArray[np.int64], n_gpus: int) -> list[list[int]]:
    """Adapters of each GPU when an order is cut into stretches of equal weight."""
    before = np.cumsum(weights[order]) - weights[order] / 2
    share = before / max(float(weights.sum()), 1e-300) if weights.any() else np.arange(len(order)) / max(len(order), 1)
    gpu = np.minimum((share * n_gpus).astype(np.int64), n_gpus - 1)
    return [order[gpu == number].tolist() for number in range(n_gpus)]
