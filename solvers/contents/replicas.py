"""Placements with replicas, from the share of each adapter on each GPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from twin import GpuPlan, Placement


def placement_of_shares(shares: NDArray[np.float64], slots: Callable[[int], int]) -> Placement:
    """A placement that routes requests by shares.

    Parameters
    ----------
    shares : array of shape (n_gpus, n_adapters)
        Probability that a request of an adapter goes to a GPU; 0 where it is not placed. Columns sum to 1.
    slots : callable
        `max_loras` of a GPU with so many adapters.
    """
    replicated = (shares > 0).sum(axis=0).max(initial=0) > 1
    plans = []
    for row in shares:
        adapters = np.flatnonzero(row > 0)
        if len(adapters):
            here = tuple(row[adapters].tolist()) if replicated else None
            plans.append(GpuPlan(tuple(adapters.tolist()), slots(len(adapters)), here))
    return Placement(tuple(plans))
