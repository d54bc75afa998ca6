"""Solvers that end their process in the ways in which solvers do; a worker imports them from here by name."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import ClassVar

from solvers.base import Problem, Solution, Solver
from twin import GpuPlan, Placement


class Alone(Solver):
    """Each adapter on a GPU of its own."""

    name: ClassVar[str] = "alone"

    def solve(self, problem: Problem) -> Solution:
        """One GPU for each."""
        plans = tuple(GpuPlan((adapter,), 1) for adapter in range(problem.workload.n_adapters))
        return Solution("unchecked", Placement(plans), details={"process": os.getpid()})


class Misbehaving(Alone):
    """As `Alone`, but on three adapters or more (the harness's own warm-up has two) something happens first.

    Parameters
    ----------
    how : str
        What happens: hang, slow, segfault, killed, exit, raise or print.
    """

    name: ClassVar[str] = "misbehaving"

    def __init__(self, how: str) -> None:
        self.how = how

    def solve(self, problem: Problem) -> Solution:
        """Misbehave."""
        if problem.workload.n_adapters >= 3:
            self._misbehave()
        return super().solve(problem)

    def _misbehave(self) -> None:
        match self.how:
            case "hang":
                time.sleep(3600)
            case "slow":
                time.sleep(20)
            case "segfault":
                ctypes.string_at(0)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(7)
            case "raise":
                raise ZeroDivisionError("a bug")
            case "print":
                sys.stdout.write("chatter\n")
