"""The far side of a solver's process: imports the solver, asks it, and sends what it says as plain data."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bench.comparison.asked import AskedHere, failure_of
from bench.comparison.common import Comparison
from bench.comparison.frames import Closed, read_frame, write_frame
from solvers.base import Solution, Solver


def answer_questions(comparison: Comparison, make: Callable[[], Solver], questions: int, answers: int) -> None:
    """Answer until the pipe is closed.

    Parameters
    ----------
    comparison : Comparison
    make : callable
        Makes the solver.
    questions, answers : int
        Pipes.
    """
    _settle()
    own = os.getpid()
    asked: list[AskedHere] = []
    while True:
        try:
            question = read_frame(questions)
        except Closed:
            return
        reply: dict[str, Any] = {"name": question["name"]}
        try:
            reply["answer"] = _answer(question, comparison, make, asked)
        except BaseException as error:  # noqa: BLE001  # sys.exit and the like as well: the row tells
            reply["failure"] = _told(error)
        if os.getpid() != own:
            # A process that the solver has forked and that came back here has nothing to say.
            os._exit(0)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        write_frame(answers, reply)


def _answer(
    question: dict[str, Any], comparison: Comparison, make: Callable[[], Solver], asked: list[AskedHere]
) -> dict[str, Any]:
    match question["ask"]:
        case "make":
            asked[:] = [AskedHere(comparison, make())]
            return asdict(asked[0].tags)
        case "warm_up":
            asked[0].warm_up()
            return {}
        case _:
            start = time.perf_counter()
            solution = asked[0].solve(question["gpus"])
            return {**_plain(solution), "seconds": min(solution.solve_time_s, time.perf_counter() - start)}


def _plain(solution: Solution) -> dict[str, Any]:
    placement = solution.placement
    return {
        "status": solution.status,
        "placement": None if placement is None else json.loads(placement.to_json()),
        "lower_bound": solution.lower_bound,
        "cost_bound": solution.cost_bound,
        "oracle_calls": solution.oracle_calls,
        "message": solution.message,
        "details": solution.details,
    }


def _told(error: BaseException) -> dict[str, Any]:
    failed = failure_of(error)
    return {"message": failed.message, **failed.details}


def _settle() -> None:
    """Be the process that the kernel kills when memory runs out; leave no dump; take signals as any program does."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("1000")
