"""Placements with replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from twin import GpuPlan, Placement


def placement_of_shares(shares: Iterable[NDArray[np.float64]], slots: Callable[[int], int]) -> Placement:
    """A placement that routes requests by shares.

    Parameters
    ----------
    shares : iterable of arrays of shape (n_adapters,)
        For each GPU the probability that a request of an adapter goes there; 0 where it is not placed. An adapter's sum to 1.
    slots : callable
        `max_loras` of a GPU with so many adapters.
    """
    rows = []
    copies: NDArray[np.int64] | int = 0
    for row in shares:
        adapters = np.flatnonzero(row > 0)
        copies = copies + (row > 0)
        rows.append((tuple(adapters.tolist()), tuple(row[adapters].tolist())))
    replicated = bool(np.max(copies, initial=0) > 1)
    return Placement(
        tuple(GpuPlan(held, slots(len(held)), parts if replicated else None) for held, parts in rows if held)
    )


def placement_of_copies(adapters: NDArray[np.int64], gpus: NDArray[np.int64], slots: Callable[[int], int]) -> Placement:
    """A placement that deals the requests of an adapter evenly to the GPUs that hold it.

    Parameters
    ----------
    adapters, gpus : arrays of shape (n_copies,)
        Who stands where; no pair twice. GPUs without adapters are left out.
    slots : callable
        `max_loras` of a GPU with so many adapters.
    """
    order = np.lexsort((adapters, gpus))
    adapters, gpus = adapters[order], gpus[order]
    copies = np.bincount(adapters)
    starts = np.flatnonzero(np.diff(gpus, prepend=-1))
    replicated = bool(np.max(copies, initial=0) > 1)
    plans = []
    for held in np.split(adapters, starts[1:]) if len(adapters) else []:
        parts = tuple((1.0 / copies[held]).tolist()) if replicated else None
        plans.append(GpuPlan(tuple(held.tolist()), slots(len(held)), parts))
    return Placement(tuple(plans))
