"""Baseline: the GPU with the least summed rate for each adapter."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from solvers.base import Problem, Solution
from solvers.contents.orders import sorted_plan
from solvers.fleet import FleetSolver
from solvers.spreading.dealing import least_loaded
from twin import Placement


class LeastLoaded(FleetSolver):
    """Adapters in the order given, each to the GPU with the least summed rate; `max_loras` is the adapter count."""

    name: ClassVar[str] = "least_loaded"

    def spread(self, problem: Problem) -> Solution:
        """Spread over the fleet."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        order = np.arange(problem.workload.n_adapters)
        groups = least_loaded(problem.workload.rates, order, problem.max_gpus)
        return Solution("unchecked", Placement(tuple(sorted_plan(group, len(group)) for group in groups if group)))
