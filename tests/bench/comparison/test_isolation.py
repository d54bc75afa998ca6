"""A solver can spoil nothing but its own row: not the others' scores, not the cache, not the run, and nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.comparison.cache import RowCache
from bench.comparison.cell import Cell
from bench.comparison.execution import Execution, missing_cells, run_cells, stop_workers
from bench.comparison.rows import Row

WORKLOAD = {
    "_target_": "twin.builders.groups",
    "groups": [{"count": 6, "rank": 8, "rate": 0.5}],
    "duration_s": 60.0,
    "seed": 0,
    "name": "six",
}
QUIET = Execution(show=False, margin_s=20.0)
HONEST = Cell(
    solver="honest",
    solver_options={"_target_": "solvers.least_loaded.LeastLoaded"},
    workload=WORKLOAD,
    profile="tiny-llama/cpu",
    gpus=3,
    time_limit_s=20.0,
)


def hostile(how: str, folder: Path | None = None) -> Cell:
    options = {"_target_": "tests.bench.hostile_solvers.Hostile", "how": how, "folder": str(folder or "")}
    return replace(HONEST, solver="hostile", solver_options=options)


def comparable(row: Row) -> Row:
    return replace(row, solve_time_s=None, score_time_s=None, calibration_s=None, cell="")


@pytest.fixture(scope="module", autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    stop_workers()


@pytest.fixture(scope="module")
def alone() -> dict[str, Row]:
    """The rows of the honest solver, and of one that does as the hostile one does without the harm."""
    honest, harmless = run_cells([HONEST, hostile("elsewhere")], QUIET)
    return {"honest": comparable(honest), "harmless": comparable(harmless)}


@pytest.mark.parametrize(
    "how", ["sort_requests", "set_attributes", "patch_libraries", "fork_and_return", "fork_and_raise", "elsewhere"]
)
def test_no_other_row_changes_and_its_own_is_scored_with_the_harness_s_workload(
    how: str, alone: dict[str, Row], tmp_path: Path
) -> None:
    execution = replace(QUIET, cache=RowCache(tmp_path))
    mine, other, again = run_cells([hostile(how), HONEST, hostile("elsewhere")], execution)
    assert comparable(other) == alone["honest"]
    assert comparable(again) == alone["harmless"]
    assert mine.solver == "hostile"
    if not mine.failed:
        # It answered, so that its score is that of its placement, whatever it has done to its own copy.
        assert comparable(mine) == replace(alone["harmless"], solver_options=mine.solver_options)
    stored = run_cells([HONEST], execution)
    assert comparable(stored[0]) == alone["honest"]


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ("write_everywhere", "error", "bytes that are no answer came from the solver's process"),
        ("close_everything", "crash", "ended with exit code 1"),
        ("system_exit", "error", "SystemExit: 0"),
        ("exit_well", "crash", "ended with exit code 0"),
        ("exit_beside_a_child", "crash", "ended with exit code 0"),
        ("answer_by_itself", "error", "mine"),
        ("interrupt", "error", "KeyboardInterrupt"),
        ("odd_message", "error", r"ValueError: \udcff[2Jxxx"),
    ],
)
def test_what_ends_it_is_one_row(how: str, status: str, message: str, alone: dict[str, Row]) -> None:
    bad, good = run_cells([hostile(how), HONEST], QUIET)
    assert (bad.status, bad.n_adapters, bad.gpus) == (status, 6, None)
    assert message in bad.message
    assert len(bad.message) <= 2000
    assert len(bad.details) <= 200_000
    assert json.loads(bad.details).get("traceback", "").isascii()
    assert comparable(good) == alone["honest"]


def test_a_solver_that_hangs_is_killed_while_it_is_made_as_well(alone: dict[str, Row]) -> None:
    short = {"time_limit_s": 0.5}
    made = replace(HONEST, solver_options={"_target_": "tests.bench.hostile_solvers.HangsOnImport"}, **short)  # type: ignore[arg-type]
    rows = run_cells([made, replace(hostile("hang_deaf"), **short), HONEST], replace(QUIET, margin_s=1.0))  # type: ignore[arg-type]
    assert [row.status for row in rows[:2]] == ["timeout", "timeout"]
    # The second hangs on the tiny problem that every solver is warmed up with.
    assert all("no answer 5 s after the time limit of 0.5 s while it was made ready" in row.message for row in rows[:2])
    assert comparable(rows[2]) == alone["honest"]


def gone(process: int) -> bool:
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in "ZX"


def wait_until_gone(processes: list[int]) -> list[int]:
    """Those that are still there after a while that is long for a kill."""
    until = time.monotonic() + 20
    while (left := [each for each in processes if not gone(each)]) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def children(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "children").read_text(encoding="ascii").splitlines()]


def test_what_it_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    (row,) = run_cells([hostile("leave_children", tmp_path)], QUIET)
    assert row.gpus == 1
    started = children(tmp_path)
    assert len(started) >= 3
    assert wait_until_gone(started) == []


def test_what_it_leaves_behind_is_ended_when_it_is_killed(tmp_path: Path) -> None:
    hanging = replace(hostile("leave_children_and_hang", tmp_path), time_limit_s=0.5)
    (row,) = run_cells([hanging], replace(QUIET, margin_s=2.0))
    assert row.status == "timeout"
    assert wait_until_gone(children(tmp_path)) == []


def test_what_it_leaves_behind_is_ended_when_it_kills_the_worker_as_well(tmp_path: Path) -> None:
    bad, good = run_cells([hostile("leave_children_and_kill_the_worker", tmp_path), HONEST], QUIET)
    assert bad.status == "crash"
    assert good.status == "unchecked"
    started = children(tmp_path)
    assert len(started) >= 3
    assert wait_until_gone(started) == []


RUN = """
import signal, sys
# What starts the tests in the background has Ctrl-C ignored, which children inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from bench.comparison.cell import Cell
from bench.comparison.execution import Execution, run_cells
run_cells([Cell.from_json(text, makes=[]) for text in sys.argv[1:]], Execution(show=False))
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_run_that_is_killed_or_interrupted(sent: signal.Signals, tmp_path: Path) -> None:
    cell = hostile("leave_children_and_hang", tmp_path)
    command = [sys.executable, "-c", RUN, cell.to_json()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not ((tmp_path / "children").exists() and len(children(tmp_path)) == 3) and time.monotonic() < until:
        time.sleep(0.05)
    started = children(tmp_path)
    assert len(started) == 3
    process.send_signal(sent)
    process.wait(30)
    assert wait_until_gone(started) == []


def test_a_killed_run_is_resumed_to_the_same_rows(tmp_path: Path, alone: dict[str, Row]) -> None:
    execution = replace(QUIET, cache=RowCache(tmp_path))
    cells = [hostile("elsewhere"), HONEST]
    run_cells(cells[:1], execution)
    assert missing_cells(cells, execution) == cells[1:]
    assert [comparable(row) for row in run_cells(cells, execution)] == [alone["harmless"], alone["honest"]]
