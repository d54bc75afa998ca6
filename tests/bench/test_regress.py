"""The gate: a solver that becomes worse or slower does not get through, and the line says which and how."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet

from bench.comparison.cell import Cell
from bench.comparison.execution import Execution, run_cells, stop_workers
from bench.comparison.rows import read_rows, write_rows
from bench.regress import main

SOLVER = """
import time

from solvers.base import Solution, Solver
from twin import GpuPlan, Placement


class Gated(Solver):
    name = "gated"

    def solve(self, problem):
        adapters = tuple(range(problem.workload.n_adapters))
        return Solution("unchecked", Placement((GpuPlan(adapters, len(adapters)),) if adapters else ()), oracle_calls=7)
"""
ONE_GPU = "Placement((GpuPlan(adapters, len(adapters)),) if adapters else ())"
WORKLOAD = {
    "_target_": "twin.builders.groups",
    "groups": [{"count": 3, "rank": 8, "rate": 0.5}],
    "duration_s": 600.0,
    "seed": 0,
    "name": "three",
}
HEAVY = {**WORKLOAD, "groups": [{"count": 3, "rank": 8, "rate": 40.0}]}


@pytest.fixture
def solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A solver in a file of its own and, in the working directory, the reference made with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "gated.py"
    path.write_text(SOLVER)
    stop_workers()  # one that has another test's solver of this name
    cells = [
        Cell(solver="gated", solver_options={"_target_": "gated.Gated"}, workload={**WORKLOAD, "seed": seed}, seed=seed)
        for seed in (0, 1)
    ]
    write_rows(run_cells(cells, Execution(show=False)), tmp_path / "reference.parquet")
    yield path
    stop_workers()
    sys.modules.pop("gated", None)


def edit(solver: Path, old: str, new: str) -> None:
    assert old in SOLVER
    solver.write_text(SOLVER.replace(old, new))
    stop_workers()


def gate(*arguments: str) -> int:
    """Exit code. What a test machine does in between must not count as slow: a difference of a tenth of a second does."""
    try:
        main(["reference=reference.parquet", "time_floor_ms=100", "trust=[gated.Gated]", *arguments])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_what_has_not_changed_gets_through(solver: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate("summary=summary.md", "out=now.parquet") == 0
    assert "2 candidates: no regression" in capsys.readouterr().out
    assert "no regression" in Path("summary.md").read_text(encoding="utf-8")
    assert len(read_rows(Path("now.parquet"))) == 2


def test_a_worse_solver_does_not(solver: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(solver, ONE_GPU, "Placement(tuple(GpuPlan((adapter,), 1) for adapter in adapters))")
    assert gate("summary=summary.md") == 1
    line = "| ❌ worse | `gated` | three | 1 | GPUs | 1 | 3 |"
    assert line in Path("summary.md").read_text(encoding="utf-8").splitlines()
    printed = capsys.readouterr().out
    line = next(text for text in printed.splitlines() if "GPUs" in text and "worse" in text)
    assert line.replace("│", "").split() == ["worse", "gated", "three", "0", "GPUs", "1", "3"]


def test_a_slower_solver_does_not_unless_time_is_left_out(solver: Path) -> None:
    edit(solver, "        adapters =", "        time.sleep(0.4)\n        adapters =")
    assert gate("summary=summary.md", "retries=1") == 1
    (*_, line) = [text for text in Path("summary.md").read_text(encoding="utf-8").splitlines() if "solve time" in text]
    assert line.startswith("| ❌ worse | `gated` | three | 1 | solve time | ")
    assert gate("check=[figures]") == 0


def test_a_solver_that_is_gone_does_not(solver: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(solver, "class Gated", "class Renamed")
    assert gate("summary=summary.md") == 1
    assert "| status | unchecked | error (" in Path("summary.md").read_text(encoding="utf-8")


def test_times_of_another_processor_are_not_judged(solver: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("reference.parquet")
    write_rows([replace(row, processor="another one") for row in read_rows(path)], path)
    edit(solver, "        adapters =", "        time.sleep(0.4)\n        adapters =")
    assert gate() == 0
    assert "times are not compared: the reference is of another one" in capsys.readouterr().out
    assert gate("time=always", "retries=0") == 1


def test_an_update_shows_what_changes_before_it_writes(
    solver: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(solver, ONE_GPU, "Placement(tuple(GpuPlan((adapter,), 1) for adapter in adapters))")
    before = Path("reference.parquet").read_bytes()
    assert gate("update=true") == 2, "nobody to ask"
    asked: list[str] = []

    def answer(text: str) -> str:
        asked.append(text + capsys.readouterr().out)
        return "n"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    assert gate("update=true") == 2, "no is the answer"
    assert "worse" in asked[0]
    assert Path("reference.parquet").read_bytes() == before
    assert gate("update=true", "yes=true") == 0
    assert [row.gpus for row in read_rows(Path("reference.parquet"))] == [3, 3]
    assert gate() == 0


#: A busy machine: the answer is what was found until then, and that is less.
OUT_OF_TIME = """
        from solvers.limits import Deadline

        assert not Deadline.after(0.0).left_s
        adapters ="""
THREE_GPUS = "Placement(tuple(GpuPlan((adapter,), 1) for adapter in adapters))"


def test_a_solver_that_time_has_cut_short_is_told_apart(solver: Path, capsys: pytest.CaptureFixture[str]) -> None:
    solver.write_text(SOLVER.replace(ONE_GPU, THREE_GPUS).replace("        adapters =", OUT_OF_TIME.lstrip("\n"), 1))
    stop_workers()
    # In a hurry on purpose: the time that it took is no part of this.
    relaxed = [replace(row, solve_time_s=1.0) for row in read_rows(Path("reference.parquet"))]
    write_rows(relaxed, Path("reference.parquet"))
    assert gate("check=[figures]", "summary=summary.md") == 0
    assert "2 candidates: no regression; 2 of them cut short by time" in capsys.readouterr().out
    lines = Path("summary.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "## Placement benchmark: no regression"
    told = lines[lines.index("### 2 of them cut short by time") :]
    assert "| ⏱️ worse | `gated` | three | 1 | GPUs | 1 | 3 |" in told


def test_a_solver_that_time_has_cut_short_must_not_vouch_for_what_fails(
    solver: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vouched = SOLVER.replace('"unchecked"', '"feasible"')
    solver.write_text(vouched.replace("        adapters =", OUT_OF_TIME.lstrip("\n"), 1))
    stop_workers()
    cells = [
        replace(Cell.from_json(row.cell, trust=["gated.Gated"]), workload=HEAVY)
        for row in read_rows(Path("reference.parquet"))
    ]
    rows = run_cells(cells, Execution(show=False))
    assert [(row.feasible, json.loads(row.details)["time_bound"]) for row in rows] == [(False, True)] * 2
    # As if there had been a placement that serves.
    write_rows([replace(row, feasible=True) for row in rows], Path("reference.parquet"))
    assert gate("check=[figures]") == 1
    assert "2 candidates: 2 regressions; 2 of them cut short by time" in capsys.readouterr().out


def test_figures_that_an_older_reference_lacks_are_left_out_and_named(
    solver: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = parquet.read_table("reference.parquet")
    lacking = [name for name in table.column_names if "goodput" in name or name.startswith("tpot_")]
    parquet.write_table(table.drop_columns([*lacking, "service", "failing_adapters"]), "reference.parquet")
    assert gate("check=[figures]") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "not compared, the reference being older than these figures: adapters that fail, goodput" in printed
    assert "TPOT p95 ms" in printed
    edit(solver, ONE_GPU, THREE_GPUS)
    assert gate("check=[figures]") == 1


def test_where_times_do_not_count_nothing_is_repeated(solver: Path) -> None:
    path = Path("reference.parquet")
    cells = [replace(Cell.from_json(row.cell, trust=["gated.Gated"]), repeats=3) for row in read_rows(path)]
    write_rows(run_cells(cells, Execution(show=False)), path)
    counting = SOLVER.replace("        adapters =", '        open("calls", "a").write("x")\n        adapters =', 1)
    solver.write_text(counting)
    stop_workers()
    assert gate("check=[figures]") == 0
    once = Path("calls").read_text(encoding="utf-8")
    Path("calls").unlink()
    assert gate("check=[figures]", "out=now.parquet") == 0
    thrice = Path("calls").read_text(encoding="utf-8")
    assert len(thrice) - len(once) == 2 * len(cells)
    assert [Cell.from_json(row.cell, trust=["gated.Gated"]).repeats for row in read_rows(Path("now.parquet"))] == [3, 3]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("reference=nosuch.parquet", "nosuch.parquet"),
        ("check=[speed]", "check=speed: must be some of figures, time"),
        ("check=[]", "nothing is left to compare"),
        ("time=sometimes", "time=sometimes: must be one of auto, always"),
        ("time_margin=-1", "0 or more"),
    ],
)
@pytest.mark.usefixtures("_in_tmp_path")
def test_a_mistake_is_one_line(argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(argument) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("_in_tmp_path")
def test_rows_that_cannot_be_made_again_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.bench.comparison.test_rows import ROW

    write_rows([ROW], tmp_path / "reference.parquet")
    assert gate() == 2
    assert "do not say what they were made from" in capsys.readouterr().err
