"""A solver that proves too much; the command that refutes claims imports it by name."""

from __future__ import annotations

from typing import ClassVar

from solvers.base import Problem, Solution, Solver, Tags
from twin import GpuPlan, Placement


class Overconfident(Solver):
    """Each adapter on a GPU of its own, with a slot more for nobody, and called optimal."""

    name: ClassVar[str] = "overconfident"
    tags = Tags(exact=True)

    def solve(self, problem: Problem) -> Solution:
        """One GPU for each."""
        count = problem.workload.n_adapters
        plans = tuple(GpuPlan((adapter,), 1) for adapter in range(count))
        return Solution("optimal", Placement(plans), lower_bound=count, details={"oracle": "twin"})
