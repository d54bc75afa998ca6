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
from bench.comparison.rows import write_rows
from bench.studies.bound_check import busier_contents
from solvers.base import Solver
from solvers.oracles.twin import TwinOracle
from solvers.zones.bound import ZoneBound
from twin import GpuPlan, Placement, load_profile, workload_from_groups

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
    workload = workload_from_groups([(30, 16, 1.2), (30, 8, 0.6)], duration_s=120.0, seed=3)
    oracle = TwinOracle(workload, load_profile("llama-3.1-8b"))
    adapters = tuple(range(0, 60, 4))
    slots = oracle.find_max_loras(adapters)
    assert slots is not None
    placement = Placement((GpuPlan(adapters, slots),))
    config = BoundCheckConfig(rows="", exchanges=30, seed=1)
    found = busier_contents(placement, oracle, config)
    assert found == busier_contents(placement, TwinOracle(workload, oracle.profile), config)
    start = oracle.asks[list(adapters), 0].sum()
    for content in found:
        assert oracle.find_max_loras(content, slots) is not None
        assert oracle.asks[list(content), 0].sum() > start


@pytest.mark.parametrize("mistake", ["seconds=-1", "gpus=-1", "exchanges=-2", "instances=[other]"])
def test_a_mistake_is_one_line(rows: Path, mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(rows), mistake])
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert mistake.partition("=")[0] in line
    assert line.count("\n") == 1
