"""Baseline: a random GPU for each adapter."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from solvers.base import Problem, Solution, Tags
from solvers.contents.orders import sorted_plan
from solvers.fleet import FleetSolver
from twin import Placement


class RandomGpu(FleetSolver):
    """Each adapter goes to a random GPU of the fleet, and `max_loras` is uniform in 1..n for the n adapters of a GPU."""

    name: ClassVar[str] = "random"
    spread_tags: ClassVar[Tags] = Tags(deterministic=False, needs_fleet=True)

    def spread(self, problem: Problem) -> Solution:
        """Draw from the problem's seed."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        generator = np.random.default_rng(problem.seed)
        gpu = generator.integers(problem.max_gpus, size=problem.workload.n_adapters)
        groups = [np.flatnonzero(gpu == number) for number in range(problem.max_gpus)]
        plans = [
            sorted_plan(group, int(generator.integers(1, len(group), endpoint=True))) for group in groups if len(group)
        ]
        return Solution("unchecked", Placement(tuple(plans)))
