"""A solver that claims too much; the command that checks solvers imports it by name."""

from __future__ import annotations

from typing import ClassVar

from solvers.base import Problem, Solution, Solver
from twin import GpuPlan, Placement


class Boastful(Solver):
    """Puts all adapters on one GPU and calls that feasible."""

    name: ClassVar[str] = "boastful"

    def solve(self, problem: Problem) -> Solution:
        """One GPU for all."""
        everything = tuple(range(problem.workload.n_adapters))
        return Solution("feasible", Placement((GpuPlan(everything, 1),) if everything else ()))
