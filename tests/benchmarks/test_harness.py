"""Speed of the harness itself: what a cell costs beside its solver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.comparison.cache import RowCache, cell_key
from bench.comparison.cell import Cell
from bench.comparison.execution import Execution, run_cells, stop_workers
from bench.comparison.machine import calibration_s
from bench.comparison.rows import Row, read_rows, write_rows
from bench.comparison.run import run_cell

CELL = Cell(
    solver="max_backbone",
    solver_options={"_target_": "solvers.max_backbone.MaxBackbone"},
    workload={
        "_target_": "twin.builders.groups",
        "groups": [{"count": 12, "rank": 8, "rate": 0.5}],
        "duration_s": 600.0,
        "seed": 0,
        "name": "twelve",
    },
)


@pytest.fixture(scope="module")
def row() -> Iterator[Row]:
    """A real row."""
    yield run_cell(CELL)
    stop_workers()


def test_a_cell_in_a_warm_process(benchmark: BenchmarkFixture, row: Row) -> None:
    run_cells([CELL], Execution(show=False))
    (again,) = benchmark(run_cells, [CELL], Execution(show=False))
    assert again.gpus == row.gpus


def test_a_cell_from_the_cache(benchmark: BenchmarkFixture, row: Row, tmp_path: Path) -> None:
    execution = Execution(cache=RowCache(tmp_path), show=False)
    RowCache(tmp_path).store(CELL, row)
    (found,) = benchmark(run_cells, [CELL], execution)
    assert found.gpus == row.gpus


def test_the_key_of_a_cell(benchmark: BenchmarkFixture) -> None:
    assert len(benchmark(cell_key, CELL)) == 64


@pytest.mark.parametrize("n_rows", [1000])
def test_rows_to_a_file_and_back(benchmark: BenchmarkFixture, row: Row, tmp_path: Path, n_rows: int) -> None:
    rows = [replace(row, seed=seed) for seed in range(n_rows)]

    def there_and_back() -> list[Row]:
        write_rows(rows, tmp_path / "rows.parquet")
        return read_rows(tmp_path / "rows.parquet")

    assert benchmark(there_and_back) == rows


def test_the_calibration_loop(benchmark: BenchmarkFixture) -> None:
    assert benchmark(calibration_s) > 0
