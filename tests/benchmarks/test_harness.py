"""Speed of the harness itself: what a cell costs beside its solver."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.__main__ import main
from bench.comparison.cache import RowCache, cell_key
from bench.comparison.cell import Cell
from bench.comparison.execution import Execution, run_cells, stop_workers
from bench.comparison.machine import calibration_s
from bench.comparison.rows import Row, read_rows, write_rows
from bench.comparison.run import run_cell
from bench.report import ReportConfig, make_parts
from bench.reporting.page import render
from bench.reporting.study import Study

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


@pytest.mark.parametrize("n_seeds", [500])
def test_the_page_of_a_study(benchmark: BenchmarkFixture, row: Row, n_seeds: int) -> None:
    """Statistics, tables and charts of one workload under four solvers, as HTML."""
    n_seeds = n_seeds if benchmark.enabled else 5
    rows = [
        replace(row, seed=seed, solver=solver)
        for seed in range(n_seeds)
        for solver in ("ffd", "hrw", "max_pack", "exact")
    ]

    def page() -> str:
        study = Study(rows, samples=100, seed=0)
        return render(study, "page", *make_parts(study, ReportConfig(rows="rows.parquet")))

    html = benchmark(page)
    assert html.count("<tr>") > n_seeds


@pytest.mark.parametrize("n_jobs", [2000])
def test_a_sweep_whose_rows_are_all_there(
    benchmark: BenchmarkFixture, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_jobs: int
) -> None:
    """From the command to its comparison; what it cannot do without is made from one job that was run."""
    monkeypatch.chdir(tmp_path)
    sweep = [
        "-m",
        "workload=groups",
        "workload.groups=[{count: 3, rank: 8, rate: 0.5}]",
        "solver=random",
        "out=all.parquet",
    ]
    main([*sweep, "seed=range(0,1)"])
    cache = Path("results/runs/cache")
    (memory,) = (cache / "composed").glob("*.jsonl")
    known = memory.read_text(encoding="utf-8").partition(" ")[2]
    (values,) = json.loads(known)["cells"]
    cell = Cell(**{**values, "overrides": tuple(values["overrides"])})
    done = RowCache(cache).find(cell)
    assert done is not None
    lines = []
    for seed in range(1, n_jobs):
        mine = replace(cell, seed=seed)
        RowCache(cache).store(mine, replace(done, seed=seed))
        job = json.loads(known)
        job["cells"][0]["seed"] = seed
        job["options"] = [f"seed={seed}" if option == "seed=0" else option for option in job["options"]]
        text = json.dumps(job)
        lines.append(f"{hashlib.sha256(text.encode()).hexdigest()[:16]} {text}\n")
    with memory.open("a", encoding="utf-8") as file:
        file.writelines(lines)
    benchmark(main, [*sweep, f"seed=range(0,{n_jobs})"])
    assert [each.seed for each in read_rows(Path("all.parquet"))] == list(range(n_jobs))
    # Nothing was composed or run again.
    assert len(memory.read_text(encoding="utf-8").splitlines()) == n_jobs


def test_the_calibration_loop(benchmark: BenchmarkFixture) -> None:
    assert benchmark(calibration_s) > 0
