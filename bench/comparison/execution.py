"""Cells: the smallest pieces of a comparison, each one solver on one workload with one seed, and how many of them are run.

A cell is plain data, so that it can be sent to another process, stored in a row and run again from there. Cells run in
worker processes: one that hangs is killed, one that dies is a row with the reason, and the others go on. What has been
computed is taken from a cache as long as nothing that it rests on has changed.

    cells = [Cell(solver="ffd", solver_options={"_target_": "solvers.ffd.GuidedFfd"}, workload=..., objective=...), ...]
    rows = run_cells(cells, Execution(cache=RowCache(Path("results/runs/cache")), processes=2))
"""

from __future__ import annotations

import atexit
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from bench.comparison.cache import RowCache
from bench.comparison.cell import Cell, described
from bench.comparison.rows import CRASH, TIMEOUT, Row
from bench.comparison.worker import Worker
from bench.shared.files import check_folder
from bench.shared.terminal import console, progress_bar
from twin.errors import UserError

if TYPE_CHECKING:
    from bench.comparison.config import BenchConfig

__all__ = [
    "Cell",
    "Execution",
    "RowCache",
    "described",
    "execution_of",
    "finished_rows",
    "missing_cells",
    "run_cells",
    "stop_workers",
]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How cells are run.

    Attributes
    ----------
    cache : RowCache, optional
        Where finished rows are kept, and looked for.
    processes : int
        Cells that run at the same time. Times are comparable only where each has a core of its own.
    margin_s : float
        A solver that has not answered this long after its time limit is killed.
    retry_failed : bool
        Run cells again whose row in the cache tells of a crash, a time-out or an error.
    show : bool
        Show progress on stderr.
    """

    cache: RowCache | None = None
    processes: int = 1
    margin_s: float = 60.0
    retry_failed: bool = False
    show: bool = True


def execution_of(config: BenchConfig, *, sweep: bool = False) -> Execution:
    """How a configuration wants its cells run.

    Parameters
    ----------
    config : BenchConfig
    sweep : bool
        It is a job of a sweep, where rows are cached unless `cache=false`.

    Raises
    ------
    UserError
        For a margin below zero, no process at all, or a cache that cannot be written to.
    """
    if config.margin_s < 0:
        raise UserError(f"margin_s={config.margin_s} must be 0 or more seconds")
    if config.processes < 1:
        raise UserError(f"processes={config.processes} must be 1 or more")
    # What was computed where a solver's code has run is not handed to anybody else.
    cached = (sweep if config.cache is None else config.cache) and config.isolated
    return Execution(
        cache=RowCache(check_folder("cache_dir", config.cache_dir)) if cached else None,
        processes=config.processes,
        margin_s=config.margin_s,
        retry_failed=config.retry_failed,
    )


def missing_cells(cells: Sequence[Cell], execution: Execution) -> list[Cell]:
    """Those cells that `run_cells` would have to run, in the order given."""
    return [cell for cell in cells if _cached(cell, execution) is None]


def finished_rows(cells: Sequence[Cell], execution: Execution) -> list[Row] | None:
    """Rows of the cells if all of them are in the cache."""
    rows = []
    for cell in cells:
        if (row := _cached(cell, execution)) is None:
            return None
        rows.append(row)
    return rows


def run_cells(cells: Sequence[Cell], execution: Execution, on_row: Callable[[Row], None] | None = None) -> list[Row]:
    """Rows of the cells, in the order given: from the cache, or computed in worker processes.

    Each row is in the cache as soon as it is there, so that an interrupted run goes on where it stopped. Whatever goes
    wrong in a cell (an exception, a crash of the process, no answer long after the time limit) is a row that says so.
    Cells of one workload that follow each other share its requests, so order them by workload.

    Parameters
    ----------
    cells : sequence of Cell
    execution : Execution
    on_row : callable, optional
        Gets each row as soon as it is there: those of the cache first, then the others in the order of completion.
    """
    rows: dict[int, Row] = {}

    def finish(index: int, row: Row) -> None:
        rows[index] = row
        if on_row is not None:
            on_row(row)

    for index, cell in enumerate(cells):
        if (found := _cached(cell, execution)) is not None:
            finish(index, found)
    waiting = deque(index for index in range(len(cells)) if index not in rows)
    if waiting:
        with _progress(len(rows), len(cells), execution) as advance:
            for index, row in _computed(cells, waiting, execution):
                if execution.cache is not None:
                    execution.cache.store(cells[index], row)
                finish(index, row)
                advance(row)
    return [rows[index] for index in range(len(cells))]


def _cached(cell: Cell, execution: Execution) -> Row | None:
    if execution.cache is None:
        return None
    row = execution.cache.find(cell, failed=not execution.retry_failed)
    return None if row is None else described(row, cell)


def _computed(cells: Sequence[Cell], waiting: deque[int], execution: Execution) -> Iterator[tuple[int, Row]]:
    """Yield (index, row) of the waiting cells as they are finished, each in a worker process."""
    busy: dict[Worker, int] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < execution.processes:
                worker = _worker()
                busy[worker] = waiting.popleft()
                worker.begin(cells[busy[worker]], execution.margin_s)
            before = time.monotonic()
            ready = wait([worker.connection for worker in busy], _TICK_S)
            # Time in which this process was stopped is nobody's fault: a tick counts for two at most.
            passed_s = min(time.monotonic() - before, 2 * _TICK_S)
            for worker in busy:
                worker.left_s -= passed_s
            for worker, index in list(busy.items()):
                answer = worker.answer() if worker.connection in ready else worker.overdue()
                if answer is None:
                    continue
                del busy[worker]
                if isinstance(answer, Row):
                    _idle.append(worker)
                    yield index, answer
                else:
                    status = CRASH if worker.connection in ready else TIMEOUT
                    started = worker.started
                    worker.kill()
                    yield index, _lost(cells[index], started, status, answer)
    finally:
        for worker in busy:
            worker.kill()


# How often time limits are looked at. By hand: small beside the seconds of a limit, and no load for a core.
_TICK_S = 0.5

# Processes that wait for a cell. They are kept from call to call, because the jobs of a sweep are calls of their own.
_idle: list[Worker] = []


def _worker() -> Worker:
    while _idle:
        worker = _idle.pop()
        if worker.alive:
            return worker
        worker.kill()
    return Worker()


@atexit.register
def stop_workers() -> None:
    """End the processes that wait for a cell."""
    while _idle:
        _idle.pop().kill()


def _lost(cell: Cell, started: Row | None, status: str, message: str) -> Row:
    from bench.comparison.compare import bare_row

    return described(replace(started or bare_row(cell), status=status, message=message), cell)


@contextlib.contextmanager
def _progress(done: int, total: int, execution: Execution) -> Iterator[Callable[[Row], None]]:
    """Show how many cells are done, and which was the last."""
    if not execution.show:
        yield lambda _: None
        return
    with progress_bar(console(stderr=True)) as progress:
        task = progress.add_task("", total=total, completed=done)

        def advance(row: Row) -> None:
            name = row.instance or row.workload_label
            progress.update(task, advance=1, description=f"{row.solver_label} on {name}: {row.status}")

        yield advance
