"""Bounds put to the test on contents that the twin accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.bound_check import BoundCheckConfig, main
from bench.comparison.cell import Cell
from bench.comparison.compare import Comparison, compare
from bench.comparison.rows import read_rows, write_rows
from bench.studies.bound_check import busier_contents
from bench.studies.brute_force import GpuTwin
from solvers.base import Solver
from solvers.zones.bound import ZoneBound
from twin import PUBLISHED, GpuPlan, Placement, load_profile, workload_from_groups

GROUPS = [[4, 8, 1.0], [2, 16, 2.0]]


@pytest.fixture
def rows(comparison: Comparison, makers: dict[str, Callable[[], Solver]], tmp_path: Path) -> Path:
    """Rows of a tiny workload with what it takes to make it again."""
    workload = {"_target_": "twin.builders.groups", "name": "tiny", "duration_s": 300.0, "seed": 5, "ignore_eos": False}
    workload["groups"] = [{"count": count, "rank": rank, "rate": rate} for count, rank, rate in GROUPS]
    found = [
        replace(row, cell=Cell(solver=row.solver, solver_options={}, workload=workload, seed=5).to_json())
        for row in compare(comparison, makers)
    ]
    path = tmp_path / "rows.parquet"
    write_rows(found, path)
    return path


def test_bounds_hold_for_what_is_accepted(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = rows.with_name("check.csv")
    main([str(rows), "seconds=1", "exchanges=20", f"table={table}"])
    line = pd.read_csv(table).iloc[0]
    assert line.accepted > 0
    assert (line.instance, line.service) == ("tiny", "published")
    assert line.refuting == 0
    assert 0 < line.dearest <= 1 + 1e-6
    assert "accepted contents" in capsys.readouterr().out


def test_an_interrupted_run_goes_on(
    rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is in the table is not made again; a table of other options is not gone on with."""
    table = rows.with_name("check.csv")
    main([str(rows), "seconds=1", "exchanges=5", f"table={table}"])
    written = table.read_text()

    def again(*_: object) -> None:
        pytest.fail("a finished instance was checked again")

    monkeypatch.setattr("bench.bound_check.check", again)
    main([str(rows), "seconds=1", "exchanges=5", f"table={table}"])
    assert table.read_text() == written
    with pytest.raises(SystemExit) as stopped:
        main([str(rows), "seconds=1", "exchanges=6", f"table={table}"])
    assert stopped.value.code == 2
    assert "another exchanges" in capsys.readouterr().err


def test_a_bound_that_is_too_high_is_refuted(
    rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prices that make a GPU for all cost three."""

    class TooHigh(ZoneBound):
        def run(self, *arguments: object, **options: object) -> None:
            super().run(*arguments, **options)  # type: ignore[arg-type]
            self.value, self.prices = 3.0, np.full(len(self.sums), 3.0 / len(self.sums))

    monkeypatch.setattr("solvers.exact_search.bounds.ZoneBound", TooHigh)
    with pytest.raises(SystemExit) as stopped:
        main([str(rows), "seconds=1", "exchanges=0"])
    assert stopped.value.code == 3
    assert "cost more than 1" in capsys.readouterr().out


def test_luck_is_found_by_exchanges_and_accepted() -> None:
    """Busier contents, some with shares of adapters, each of which the twin serves at a number of slots that need not be of a grid."""
    workload = workload_from_groups([(30, 16, 1.2), (30, 8, 0.6)], duration_s=120.0, seed=3)
    profile = load_profile("llama-3.1-8b")
    adapters = tuple(range(0, 60, 4))
    slots, _ = GpuTwin(workload, profile, PUBLISHED).serves(adapters)
    assert slots
    placement = Placement((GpuPlan(adapters, slots),))
    config = BoundCheckConfig(rows="", exchanges=30, seed=1)
    found = busier_contents(placement, GpuTwin(workload, profile, PUBLISHED), config)
    assert found == busier_contents(placement, GpuTwin(workload, profile, PUBLISHED), config)
    assert any(share < 1 for portion in found for _, share in portion)
    start = workload.rates[list(adapters)].sum()
    assert max(sum(share * workload.rates[adapter] for adapter, share in portion) for portion in found) > start
    for portion in found:
        content = tuple(adapter for adapter, _ in portion)
        intervals = np.array([[0.0, share] for _, share in portion])
        assert GpuTwin(workload, profile, PUBLISHED).serves(content, intervals)[0]


def test_placements_with_replicas_are_looked_at(rows: Path) -> None:
    """Each adapter halved between two GPUs: a GPU has shares of all of them."""
    (served, *_) = [row for row in read_rows(rows) if row.feasible]
    halved = Placement((GpuPlan(tuple(range(6)), 6, (0.5,) * 6),) * 2)
    changed = replace(served, solver="halved", placement=halved.to_json(), gpus=2, gpu_results=None)
    write_rows([changed], rows)
    table = rows.with_name("check.csv")
    main([str(rows), "seconds=1", "exchanges=0", f"table={table}"])
    line = pd.read_csv(table).iloc[0]
    assert (line.accepted, line.divided) == (1, 1)
    assert line.refuting == 0
    table.write_text("instance,seconds,gpus,exchanges,seed\ntiny,1.0,8,0,0\n")
    with pytest.raises(SystemExit) as stopped:
        main([str(rows), "seconds=1", "exchanges=0", f"table={table}"])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "mistake", ["seconds=-1", "seconds=1e-6", "gpus=-1", "exchanges=-2", "instances=[other]", "adapters=0"]
)
def test_a_mistake_is_one_line(rows: Path, mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(rows), mistake])
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert mistake.partition("=")[0] in line
    assert line.count("\n") == 1
