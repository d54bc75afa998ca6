"""A solver in a process of its own, which answers in plain data and can spoil nothing but its own row.

The process is forked from one that has never run the solver's code, with the problem in its memory: a copy, whatever the
solver does to it. It imports the solver, and answers questions over a pipe in JSON. Each question has a random name that
its answer must repeat. What comes back is checked as if a stranger had sent it, and scored on this side.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NoReturn

from bench.comparison.answering import answer_questions
from bench.comparison.asked import LONGEST_TRACEBACK, SolverFailed, tiny, writable
from bench.comparison.common import Comparison
from bench.comparison.frames import COMPILING, BadFrame, Closed, Overdue, read_frame, write_frame
from bench.comparison.rows import CRASH, ERROR, TIMEOUT
from bench.shared.processes import close_all_but, die_with_parent, end_below, ending
from solvers.base import Problem, Solution, Solver, Tags, checked
from twin import GpuPlan, Placement, score_placement

# An answer beyond what a placement of so many adapters and the details may take is not read. Bytes in all and
# for each adapter, by hand.
_LARGEST, _LARGEST_OF_ADAPTER = 64 << 20, 200
# How far the solver's own clock may be behind this side's: what packing and reading an answer takes on a busy machine.
# By hand: a quarter of a second and a tenth of the time, below which a figure of time says nothing anyway.
_SLACK_S, _SLACK = 0.25, 0.1
# How long a process that has answered may take to end by itself. By hand: it has nothing left to do.
_EXIT_S = 5.0


class SolverProcess:
    """A solver behind a pipe; see `bench.comparison.asked.Asked`.

    Parameters
    ----------
    comparison : Comparison
    name : str
        Of the solver, for messages.
    make : callable
        Makes the solver; called in its process.
    margin_s : float
        The process is killed when it has not answered this long after the time limit.

    Raises
    ------
    SolverFailed
        If the solver cannot be made.
    """

    def __init__(self, comparison: Comparison, name: str, make: Callable[[], Solver], margin_s: float) -> None:
        self._comparison = comparison
        self._name = name
        self._margin_s = margin_s
        self._process, self._questions, self._answers = _fork(comparison, make)
        try:
            self.tags = _tags(self._ask("make"))
        except BaseException:
            self.end()
            raise

    def warm_up(self) -> None:
        """See `Asked`; the scoring is warmed up on this side."""
        self._ask("warm_up")
        small = tiny(self._problem(None))
        score_placement(small.workload, Placement((GpuPlan((0, 1), 2),)), small.profile, threads=1)

    def solve(self, gpus: int | None) -> Solution:
        """See `Asked`."""
        start = time.perf_counter()
        answer = self._ask("solve", gpus=gpus)
        wall_s = time.perf_counter() - start
        try:
            solution = checked(_solution(answer), self._problem(gpus), self._name, self.tags)
        except (ValueError, TypeError, OverflowError) as error:
            raise SolverFailed(f"{type(error).__name__}: {error}") from None
        return replace(solution, solve_time_s=_time_s(answer.get("seconds"), wall_s))

    def end(self) -> None:
        """End the process and all that it has started."""
        for kill in (os.kill, os.killpg):
            with contextlib.suppress(OSError):
                kill(self._process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._process, 0)
        for pipe in (self._questions, self._answers):
            with contextlib.suppress(OSError):
                os.close(pipe)
        end_below(os.getpid())

    def _problem(self, gpus: int | None) -> Problem:
        """The question as this side has it."""
        comparison = self._comparison
        return Problem(
            comparison.planned, comparison.profile, comparison.objective, max_gpus=gpus, fleet=comparison.fleet
        )

    def _ask(self, what: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # any JSON
        """The answer to one question.

        Raises
        ------
        SolverFailed
            If the solver raises, its process ends, it answers something else or nothing in time.
        """
        name = secrets.token_hex(16)
        limit_s, largest = self._comparison.time_limit_s, _LARGEST
        margin_s = self._margin_s * (1 if what == "solve" else COMPILING)
        largest += _LARGEST_OF_ADAPTER * self._comparison.workload.n_adapters
        try:
            write_frame(self._questions, {"name": name, "ask": what, **more})
            reply = read_frame(self._answers, limit_s + margin_s, largest, self._gone)
        except Overdue:
            raise SolverFailed(
                f"killed: no answer {margin_s:g} s after the time limit of {limit_s:g} s "
                f"{'' if what == 'solve' else 'while it was made ready '}(margin_s=N gives it more)",
                TIMEOUT,
            ) from None
        except (Closed, OSError):
            raise SolverFailed(self._obituary(), CRASH) from None
        except BadFrame as error:
            raise SolverFailed(f"{error} came from the solver's process", ERROR) from None
        if reply.get("name") != name:
            raise SolverFailed("an answer to another question came from the solver's process", ERROR)
        if "failure" in reply:
            raise _failure(reply["failure"])
        answer = reply.get("answer")
        if not isinstance(answer, dict):
            raise SolverFailed("an answer without content came from the solver's process", ERROR)
        return answer

    def _gone(self) -> bool:
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self._process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return True

    def _obituary(self) -> str:
        # The pipe closes a moment before the process is gone.
        until = time.monotonic() + _EXIT_S
        while time.monotonic() < until:
            found, status = os.waitpid(self._process, os.WNOHANG)
            if found:
                return ending(os.waitstatus_to_exitcode(status))
            time.sleep(0.01)
        return "the solver's process closed its connection"


def _fork(comparison: Comparison, make: Callable[[], Solver]) -> tuple[int, int, int]:
    """The new process, and this side's ends of the pipes for questions and answers."""
    their_questions, questions = os.pipe()
    answers, their_answers = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    process = os.fork()
    if not process:
        _become_solver(comparison, make, their_questions, their_answers, parent)
    os.close(their_questions)
    os.close(their_answers)
    return process, questions, answers


def _become_solver(
    comparison: Comparison, make: Callable[[], Solver], questions: int, answers: int, parent: int
) -> NoReturn:
    """What the forked process does; it never comes back."""
    try:
        os.setsid()
        die_with_parent(parent)
        close_all_but(questions, answers)
        answer_questions(comparison, make, questions, answers)
    except BaseException:  # noqa: BLE001  # nothing may run on in a copy of the harness
        os._exit(1)
    os._exit(0)


def _tags(answer: dict[str, Any]) -> Tags:
    found: dict[str, Any] = {field.name: answer.get(field.name) for field in fields(Tags)}
    if not all(isinstance(value, bool) for value in found.values()):
        raise SolverFailed("the solver's tags are not true or false")
    return Tags(**found)


def _solution(answer: dict[str, Any]) -> Solution:
    """The solution that an answer holds, its fields not checked yet."""
    placement = answer.get("placement")
    return Solution(
        status=answer.get("status"),  # type: ignore[arg-type]  # checked afterwards, as the others are
        placement=None if placement is None else Placement.from_json(json.dumps(placement)),
        lower_bound=answer.get("lower_bound"),
        cost_bound=answer.get("cost_bound"),
        oracle_calls=answer.get("oracle_calls"),  # type: ignore[arg-type]
        message=answer.get("message"),  # type: ignore[arg-type]
        details=answer.get("details"),  # type: ignore[arg-type]
    )


def _time_s(claimed: object, wall_s: float) -> float:
    """The solver's time by its own clock, unless this side's contradicts it."""
    if not isinstance(claimed, float) or not math.isfinite(claimed):
        return wall_s
    return claimed if wall_s - (_SLACK_S + _SLACK * wall_s) <= claimed <= wall_s else wall_s


def _failure(told: object) -> SolverFailed:
    """What the solver's process says went wrong there."""
    if not isinstance(told, dict):
        return SolverFailed("a failure without content came from the solver's process")
    details: dict[str, Any] = {name: True for name in ("user_error", "not_made") if told.get(name) is True}
    if isinstance(text := told.get("traceback"), str):
        details["traceback"] = writable(text[-LONGEST_TRACEBACK:])
    return SolverFailed(str(told.get("message")), details=details)
