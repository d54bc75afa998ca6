"""Solvers that try to spoil more than their own row; a solver's process imports them from here by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import ClassVar

import numpy as np

from bench.comparison.frames import write_frame
from solvers.base import Problem, Solution, Solver
from twin import GpuPlan, Placement


class Hostile(Solver):
    """All adapters on one GPU, after what `how` says, whatever the size of the problem.

    Parameters
    ----------
    how : str
        Name of a method below without its first underscore.
    folder : str
        Where it may leave notes.
    """

    name: ClassVar[str] = "hostile"

    def __init__(self, how: str, folder: str = "") -> None:
        self.how = how
        self.folder = folder

    def solve(self, problem: Problem) -> Solution:
        """Do harm, and answer."""
        getattr(self, f"_{self.how}")(problem)
        adapters = tuple(range(problem.workload.n_adapters))
        return Solution("unchecked", Placement((GpuPlan(adapters, min(len(adapters), 8)),)))

    def _sort_requests(self, problem: Problem) -> None:
        for name, array in problem.workload.requests.columns().items():
            with contextlib.suppress(ValueError):
                array.sort()
            base = array if array.base is None else array.base
            with contextlib.suppress(ValueError):
                base.flags.writeable = True
                base.sort()
            object.__setattr__(problem.workload.requests, name, np.ones_like(array))

    def _set_attributes(self, problem: Problem) -> None:
        workload, profile = problem.workload, problem.profile
        for array in (workload.rates, workload.ranks):
            with contextlib.suppress(ValueError):
                array.flags.writeable = True
                array[:] = 1
        object.__setattr__(workload, "rates", workload.rates * 0)
        object.__setattr__(workload, "duration_s", 1.0)
        object.__setattr__(profile, "step_ms", tuple(0.01 * value for value in profile.step_ms))
        object.__setattr__(problem.objective, "key", lambda _: (0.0,))

    def _patch_libraries(self, _: Problem) -> None:
        import bench.comparison.compare
        import twin.score

        twin.score.score_results = None  # type: ignore[assignment]
        vars(bench.comparison.compare)["score_placement"] = None
        time.perf_counter = lambda: 0.0
        np.argsort = None  # type: ignore[assignment]

    def _fork_and_return(self, _: Problem) -> None:
        os.fork()

    def _fork_and_raise(self, _: Problem) -> None:
        if not os.fork():
            raise RuntimeError("in the child")

    def _write_everywhere(self, _: Problem) -> None:
        for number in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(number, b'\x00\x00\x00\x05hello\n{"answer": {}}\n')

    def _close_everything(self, _: Problem) -> None:
        os.closerange(3, 256)

    def _system_exit(self, _: Problem) -> None:
        sys.exit(0)

    def _exit_well(self, _: Problem) -> None:
        os._exit(0)

    def _interrupt(self, _: Problem) -> None:
        raise KeyboardInterrupt

    def _exit_beside_a_child(self, _: Problem) -> None:
        if not os.fork():
            # It holds the pipe open.
            time.sleep(300)
        os._exit(0)

    def _answer_by_itself(self, _: Problem) -> None:
        frame = sys._getframe()
        while "answers" not in frame.f_locals:
            assert frame.f_back is not None
            frame = frame.f_back
        failure = {"message": "mine", "traceback": "\udcff\x1b[2J" * 1_000_000}
        write_frame(frame.f_locals["answers"], {"name": frame.f_locals["question"]["name"], "failure": failure})
        time.sleep(300)

    def _odd_message(self, _: Problem) -> None:
        raise ValueError("\udcff\x1b[2J" + "x" * 100_000)

    def _hang_deaf(self, _: Problem) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)

    def _leave_children(self, _: Problem) -> None:
        for detached in (False, True):
            child = subprocess.Popen(["/bin/sleep", "300"], start_new_session=detached)
            with open(f"{self.folder}/children", "a", encoding="ascii") as file:  # noqa: PTH123
                file.write(f"{child.pid}\n")
        if not os.fork():
            os.setsid()
            with open(f"{self.folder}/children", "a", encoding="ascii") as file:  # noqa: PTH123
                file.write(f"{os.getpid()}\n")
            time.sleep(300)
            os._exit(0)

    def _leave_children_and_hang(self, problem: Problem) -> None:
        self._leave_children(problem)
        time.sleep(300)

    def _leave_children_and_kill_the_worker(self, problem: Problem) -> None:
        self._leave_children(problem)
        # The process of a solver is the child of the worker, which it shares with nobody else.
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(300)

    def _elsewhere(self, _: Problem) -> None:
        os.chdir("/")
        os.environ.clear()
        sys.path.clear()


class HangsOnImport(Hostile):
    """Takes for ever to be made."""

    name: ClassVar[str] = "hangs_on_import"

    def __init__(self) -> None:
        time.sleep(300)
