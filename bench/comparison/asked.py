"""Whom a comparison asks for placements: a solver, in this process or behind something that guards it."""

from __future__ import annotations

import contextlib
import time
import traceback
from dataclasses import replace
from typing import Any, Protocol

from hydra.errors import InstantiationException

from bench.comparison.common import Comparison
from bench.comparison.rows import ERROR
from bench.shared.mistakes import explain
from solvers.base import Problem, Solution, Solver, Tags
from twin import Lengths, UserError, score_placement, workload_from_groups

# The first characters of what went wrong say it, and the last of a traceback; how many: by hand, so that a row stays small.
_MESSAGE = 2000
#: Longest traceback of a row, in characters.
LONGEST_TRACEBACK = 20_000
#: Runs of a tiny problem before the clock starts, at most: another one only if compiling has cut the last one short.
WARMING_UP = 3


class SolverFailed(Exception):  # noqa: N818  # what has happened, not what is wrong
    """There is no answer of a solver, and the row says why.

    Parameters
    ----------
    message : str
    status : str
        `ERROR`, `CRASH` or `TIMEOUT`.
    details : dict, optional
        For the row.
    """

    def __init__(self, message: str, status: str = ERROR, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = writable(message)[:_MESSAGE]
        self.status = status
        self.details = details or {}


def failure_of(error: BaseException) -> SolverFailed:
    """What an exception says, in a form that can be written wherever a row goes."""
    if isinstance(error, UserError):
        return SolverFailed(str(error), details={"user_error": True})
    message = explain(error) or f"{type(error).__name__}: {error}"
    details: dict[str, Any] = {"traceback": writable("".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:])}
    if isinstance(error, InstantiationException):
        # What the cache asks: a package that is missing today may be installed tomorrow.
        details["not_made"] = True
    return SolverFailed(message, details=details)


def writable(text: str) -> str:
    """The text without what UTF-8 cannot write and what moves the cursor of a terminal."""
    written = text.encode("utf-8", "backslashreplace").decode()
    return "".join(character for character in written if character.isprintable() or character in "\n\t")


class Asked(Protocol):
    """A solver as a comparison sees it."""

    tags: Tags

    def warm_up(self) -> None:
        """Solve something small, so that no time holds compilation or imports."""
        ...  # pragma: no cover

    def solve(self, gpus: int | None) -> Solution:
        """Place the comparison's adapters on at most so many GPUs."""
        ...  # pragma: no cover


class AskedHere:
    """A solver in this process.

    Parameters
    ----------
    comparison : Comparison
    solver : Solver
    """

    def __init__(self, comparison: Comparison, solver: Solver) -> None:
        self.tags = solver.tags
        self._solver = solver
        self._problem = comparison.problem(solver)

    def warm_up(self) -> None:
        """See `Asked`; the scoring is warmed up as well."""
        problem = tiny(self._problem)
        for _ in range(WARMING_UP):
            started_s = time.monotonic()
            # What is wrong with a solver shows in its real run.
            with contextlib.suppress(Exception, SystemExit, GeneratorExit):
                solution = self._solver.run(problem)
                if solution.placement is not None:
                    score_placement(problem.workload, solution.placement, problem.profile, threads=1)
            # What compiling has cut short has not been everywhere.
            if time.monotonic() - started_s < problem.time_limit_s:
                break
        with contextlib.suppress(Exception, SystemExit, GeneratorExit):
            self._solver.warm_up(problem)

    def solve(self, gpus: int | None) -> Solution:
        """See `Asked`."""
        return self._solver.run(replace(self._problem, max_gpus=gpus))


def tiny(problem: Problem) -> Problem:
    """The problem with two adapters and a minute."""
    workload = workload_from_groups(
        [(2, problem.profile.ranks[0], 0.01)],
        lengths=Lengths(max_total_tokens=problem.workload.lengths.max_total_tokens),
        duration_s=60.0,
    )
    return replace(problem, workload=workload, max_gpus=problem.max_gpus or 1)
