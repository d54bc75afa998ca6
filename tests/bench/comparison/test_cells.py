"""Cells in processes of their own: whatever a solver does to its process is a row, and the others go on."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.comparison.cache import RowCache
from bench.comparison.cell import Cell
from bench.comparison.execution import Execution, missing_cells, run_cells, stop_workers
from bench.comparison.rows import Row
from bench.comparison.run import run_cell

MODULE = "tests.bench.misbehaving_solvers"
QUIET = Execution(show=False, margin_s=20.0)


def cell(how: str = "", **changes: Any) -> Cell:  # noqa: ANN401  # fields of many types
    """Three adapters and a solver that misbehaves as said."""
    options = {"_target_": f"{MODULE}.Misbehaving", "how": how} if how else {"_target_": f"{MODULE}.Alone"}
    groups = [{"count": 3, "rank": 8, "rate": 0.5}]
    workload = {"_target_": "twin.builders.groups", "groups": groups, "duration_s": 600.0, "seed": 0, "name": "three"}
    return Cell(**{"solver": how or "alone", "solver_options": options, "workload": workload, **changes})


@pytest.fixture(scope="module", autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    stop_workers()


def process_of(row: Row) -> int:
    return int(json.loads(row.details)["process"])


def without_times(row: Row) -> Row:
    return replace(row, solve_time_s=None, score_time_s=None, calibration_s=None, details="{}")


def test_a_cell_survives_the_way_through_json() -> None:
    original = cell("hang", gpus=3, overrides=("seed=1", "solver.hang.how=hang"), instance="i-1")
    assert Cell.from_json(original.to_json(), trust=[f"{MODULE}.Misbehaving"]) == original


def test_a_row_can_be_made_again_from_what_it_says_of_itself() -> None:
    first = run_cell(cell(seed=4, instance="three-adapters", best_bound=1))
    assert without_times(run_cell(Cell.from_json(first.cell, trust=[f"{MODULE}.Alone"]))) == without_times(first)
    assert (first.instance, first.best_bound, first.gpus, first.gap) == ("three-adapters", 1, 3, 2.0)
    assert first.calibration_s
    assert set(json.loads(first.versions)) >= {"python", "numpy", "numba", "ortools"}
    assert first.processor


def test_a_process_gives_the_row_that_this_one_gives_and_every_solver_has_its_own() -> None:
    cells = [cell(), cell(seed=1), cell(gpus=3)]
    rows = run_cells(cells, QUIET)
    assert [without_times(row) for row in rows] == [without_times(run_cell(each)) for each in cells]
    assert len({process_of(row) for row in rows}) == 3


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ("segfault", "crash", "died of signal 11 (SIGSEGV)"),
        ("killed", "crash", "memory runs out"),
        ("exit", "crash", "exit code 7"),
        ("raise", "error", "ZeroDivisionError: a bug"),
    ],
)
def test_a_crash_is_a_row_and_the_others_go_on(how: str, status: str, message: str) -> None:
    bad, good = run_cells([cell(how), cell()], QUIET)
    assert (bad.status, bad.solver, bad.workload, bad.n_adapters) == (status, how, "three", 3)
    assert message in bad.message
    assert bad.failed
    assert bad.gpus is None
    assert good.feasible


def test_a_solver_that_hangs_is_killed_and_the_others_go_on() -> None:
    bad, good = run_cells([cell("hang", time_limit_s=0.5), cell()], replace(QUIET, margin_s=1.0))
    assert (bad.status, bad.n_adapters) == ("timeout", 3)
    assert "no answer 1 s after the time limit of 0.5 s" in bad.message
    assert good.feasible


def test_a_solvers_chatter_is_not_taken_for_a_row(capfd: pytest.CaptureFixture[str]) -> None:
    stop_workers()  # a process started now writes to the stderr of this test
    (row,) = run_cells([cell("print")], QUIET)
    assert row.gpus == 3
    assert "chatter" not in capfd.readouterr().out


def test_several_processes_give_the_same_rows_in_the_same_order() -> None:
    cells = [cell(seed=seed) for seed in range(4)]
    one, two = run_cells(cells, QUIET), run_cells(cells, replace(QUIET, processes=2))
    assert [without_times(row) for row in one] == [without_times(row) for row in two]
    assert len({process_of(row) for row in two}) == 4


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    execution = replace(QUIET, cache=RowCache(tmp_path))
    cells = [cell(seed=seed) for seed in range(4)]

    def stop_after_two(_: Row) -> None:
        if len(list(tmp_path.rglob("*.json"))) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, execution, stop_after_two)
    assert missing_cells(cells, execution) == cells[2:]
    seen: list[Row] = []
    rows = run_cells(cells, execution, seen.append)
    assert [row.seed for row in rows] == [0, 1, 2, 3]
    assert len(seen) == 4
    assert missing_cells(cells, execution) == []


def test_labels_are_those_of_the_asker_not_of_whoever_filled_the_cache(tmp_path: Path) -> None:
    execution = replace(QUIET, cache=RowCache(tmp_path))
    run_cells([cell()], execution)
    other = cell(solver="lonely", instance="x-1", best_bound=2, overrides=("workload.duration_s=600.0",))
    (row,) = run_cells([other], execution)
    assert (row.solver, row.instance, row.gap, row.workload_label) == ("lonely", "x-1", 0.5, "three duration_s=600.0")
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_a_failure_is_run_again_on_request_only(tmp_path: Path) -> None:
    execution = replace(QUIET, cache=RowCache(tmp_path))
    cells = [cell("exit"), cell()]
    run_cells(cells, execution)
    assert missing_cells(cells, execution) == []
    assert missing_cells(cells, replace(execution, retry_failed=True)) == cells[:1]


def test_repeats_keep_the_least_time_and_the_same_answer() -> None:
    once, thrice = run_cell(cell()), run_cell(cell(repeats=3))
    assert replace(without_times(once), cell="") == replace(without_times(thrice), cell="")
