"""A process that runs cells, one after the other, and the handle by which another process owns it.

A cell runs in a process of its own kind because a solver may hang, crash the interpreter or eat the memory. The process
stays warm between cells: importing and compiling takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from bench.comparison.cell import Cell
from bench.comparison.frames import COMPILING
from bench.comparison.rows import Row
from bench.shared.processes import adopt_orphans, end_below, end_marked, ending, watch_owner

# Importing the solvers' libraries on a busy machine; by hand, far more than it takes on a quiet one.
_START_S = 120.0
#: Environment variable by which all that a process has started is known, whatever became of the process.
_MARK = "LORA_PLACEMENT_WORKER"


class Worker:
    """Handle of a process that runs one cell at a time.

    Attributes
    ----------
    cell : Cell, optional
        What it runs just now.
    started : Row, optional
        What is known of the cell's row so far.
    left_s : float
        Seconds that the cell has left; whoever waits for it counts them down.
    connection : Connection
        Readable when `answer` has something to tell.
    """

    def __init__(self) -> None:
        self.cell: Cell | None = None
        self.margin_s = 0.0
        self.started: Row | None = None
        self.left_s = float("inf")
        self._number = 0
        self.connection, theirs = Pipe()
        self._mark = secrets.token_hex(16)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), _MARK: self._mark}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.comparison.worker", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            # A solver's chatter must not end up in the middle of a table.
            stdout=sys.__stderr__ if sys.__stderr__ is not None else subprocess.DEVNULL,
            # Ctrl-C is for the owner, who ends this one.
            start_new_session=True,
        )
        theirs.close()

    def begin(self, cell: Cell, margin_s: float) -> None:
        """Let the process run a cell, in the present folder and with the present `sys.path`.

        Parameters
        ----------
        cell : Cell
        margin_s : float
            The cell has its time limit and this for each call of its solver.
        """
        self.cell, self.started, self.margin_s = cell, None, margin_s
        self._number += 1
        # Making the solver, warming it up and its first answer; the process itself looks after each of them.
        self.left_s = _START_S + 3 * cell.time_limit_s + (1 + 2 * COMPILING) * margin_s
        # A process that is dead already is found out when its answer is read.
        with contextlib.suppress(OSError):
            self.connection.send((self._number, cell, margin_s, str(Path.cwd()), sys.path))

    def answer(self) -> Row | str | None:
        """The row of the cell, one line on why there will be none, or None for "not yet"; to be called when `connection` is readable."""
        try:
            number, kind, row = self.connection.recv()
        except (EOFError, OSError):
            return self._obituary()
        if number != self._number:
            return "the process that runs solvers answered another question"
        if kind == "row":
            self.cell, self.left_s = None, float("inf")
            return _checked(row)
        self.started = _checked(row)
        self.left_s = _START_S + self.cell.time_limit_s + self.margin_s if self.cell is not None else float("inf")
        return None

    def overdue(self) -> str | None:
        """Why the cell must be given up, if it must."""
        if self.cell is None or self.left_s > 0:
            return None
        return "killed: the process that runs solvers no longer answers"

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process and all that it has started, detached or not."""
        if self.alive:
            end_below(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._end_the_detached()
        self.connection.close()

    def _end_the_detached(self) -> None:
        """End what had detached itself when the process was killed."""
        end_marked(f"{_MARK}={self._mark}")

    def _obituary(self) -> str:
        # The pipe closes a moment before the process is gone.
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            return "the process that runs solvers closed its connection"
        return ending(code).replace("the solver's process", "the process that runs solvers")


def _checked(row: Any) -> Row:  # noqa: ANN401  # whatever came through the pipe
    if not isinstance(row, Row):
        raise TypeError(f"a worker sent {type(row).__name__} instead of a row")
    return row


def main(file_descriptor: int, owner: int) -> None:
    """Run the cells that come through a pipe, until it is closed.

    Parameters
    ----------
    file_descriptor : int
        Of this end of the pipe.
    owner : int
        Process id of the other end; this process ends with it.
    """
    # It has no rows to lose, and no terminal: `bench` ends only what is being imported.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    watch_owner(owner)
    adopt_orphans()
    _offer_to_the_kernel()
    from bench.comparison.run import run_cell_apart

    connection = Connection(file_descriptor)
    while True:
        try:
            number, cell, margin_s, folder, sys.path = connection.recv()
        except EOFError:
            return
        os.chdir(folder)
        row = run_cell_apart(cell, margin_s, partial(_tell, connection, number))
        connection.send((number, "row", row))


def _tell(connection: Connection, number: int, started: Row) -> None:
    connection.send((number, "started", started))


def _offer_to_the_kernel() -> None:
    """Be the process that is killed when memory runs out, instead of the owner, who tells what happened."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("500")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
