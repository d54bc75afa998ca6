"""A bound on the GPU-hours of a day: the fewest GPUs for the mean rates of each interval, as if there were no time between them.

Who knows the rates to come, starts GPUs and moves adapters at no cost and spreads each interval's requests evenly over it still needs that
many GPUs, by the learned model that the controllers ask (`solvers.zones`). An adapter that takes more than half a GPU is dealt to
several first, as the controllers deal it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.controllers.base import Task
from solvers.controllers.capacity import Capacity, divided
from solvers.limits import Deadline
from solvers.oracles.predictor import PredictorOracle
from solvers.zones.bound import ZoneBound

Floats = NDArray[np.float64]


def fewest_gpus_of(task: Task, capacity: Capacity, rates: Floats, seconds: float) -> int:
    """GPUs that no placement for constant rates does without.

    Parameters
    ----------
    task : Task
    capacity : Capacity
    rates : array of shape (n_adapters,)
    seconds : float
        Time to look for the bound.
    """
    problem = divided(task, rates, capacity.copies(rates)).problem
    assert problem.predictor is not None  # noqa: S101  # `planning_task` has seen to it
    zones = ZoneBound(PredictorOracle(problem.workload, problem.profile, problem.predictor))
    zones.run(Deadline.after(seconds))
    return zones.gpus


def means_of(truth: Floats, step_s: float, interval_s: float) -> Floats:
    """Mean rates of each interval, shape (n_adapters, n_intervals); the last one may be shorter."""
    each = max(1, round(interval_s / step_s))
    starts = np.arange(0, truth.shape[1], each)
    sums = np.add.reduceat(truth, starts, axis=1)
    found: Floats = sums / np.diff(np.append(starts, truth.shape[1]))
    return found
