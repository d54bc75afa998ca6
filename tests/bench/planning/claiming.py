"""A solver that claims a bound and gives no placement; a worker imports it from here by name."""

from __future__ import annotations

from typing import ClassVar

from solvers.base import Problem, Solution, Solver


class Claiming(Solver):
    """Says how many GPUs are needed, and no more.

    Parameters
    ----------
    bound : int
    """

    name: ClassVar[str] = "claiming"

    def __init__(self, bound: int) -> None:
        self.bound = bound

    def solve(self, problem: Problem) -> Solution:
        """The claim."""
        del problem
        return Solution("time_limit", lower_bound=self.bound, message="no placement")
