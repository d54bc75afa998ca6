"""What the best service within the GPUs found does to placements, as a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench import best_service
from bench.best_service import main
from bench.comparison.build import build_workload
from bench.comparison.cell import Cell
from bench.comparison.compare import Comparison, compare
from bench.comparison.rows import write_rows
from solvers.base import Solver
from solvers.max_pack import MaxPack
from twin import INTERACTIVE, Placement, load_profile, score_placement

GROUPS = [(12, 8, 1.2), (4, 16, 2.0)]
OPTIONS = {
    "_target_": "twin.builders.groups", "name": "tiny", "duration_s": 120.0, "seed": 5, "ignore_eos": False,
    "groups": [{"count": count, "rank": rank, "rate": rate} for count, rank, rate in GROUPS],
}  # fmt: skip
PROFILE = load_profile("llama-3.1-8b")
WORKLOAD = build_workload(OPTIONS, PROFILE)


@pytest.fixture
def rows(comparison: Comparison, tmp_path: Path) -> Path:
    """Rows of a tiny workload with what it takes to make it again."""
    makers: dict[str, Callable[[], Solver]] = {"max_pack": lambda: MaxPack(best_service=False)}
    found = [
        replace(row, cell=Cell(solver=row.solver, solver_options={}, workload=OPTIONS, seed=5).to_json(), n_adapters=16)
        for row in compare(replace(comparison, workload=WORKLOAD), makers)
    ]
    path = tmp_path / "rows.parquet"
    write_rows(found, path)
    return path


def test_before_and_after_are_scores_of_the_twin(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = rows.with_name("served.csv")
    main([str(rows), "candidate=max_pack", f"table={table}"])
    printed = capsys.readouterr().out
    assert "times lower in the geometric mean" in printed
    (line,) = pd.read_csv(table).itertuples()
    before = Placement.from_json(pd.read_parquet(rows).placement[0])
    score = score_placement(WORKLOAD, before, PROFILE, shown=INTERACTIVE)
    assert score.goodput is not None
    assert line.gpus == before.n_gpus
    assert line.ttft_ms_before == pytest.approx(score.ttft_ms, rel=1e-3)
    assert line.goodput_before == pytest.approx(score.goodput, abs=1e-4)
    assert line.slots_above_after == 0
    # It stays feasible.
    assert float(pd.read_csv(table)["headroom_after"][0]) >= 0


def test_an_interrupted_run_goes_on(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows.with_name("served.csv")
    main([str(rows), "candidate=max_pack", "seconds=0.5", f"table={table}"])
    written = table.read_text()

    def again(*_: object) -> None:
        pytest.fail("a finished placement was improved again")

    monkeypatch.setattr(best_service, "improve", again)
    main([str(rows), "candidate=max_pack", "seconds=0.5", f"table={table}"])
    assert table.read_text() == written


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["candidate=nobody"], "no feasible placement of candidate=nobody"),
        (["adapters=3"], "with at most 3 adapters"),
        (["seconds=0"], "seconds=0.0 must be a positive number"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(rows: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(rows), "candidate=max_pack", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_table_of_other_options_is_not_gone_on_with(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = rows.with_name("served.csv")
    main([str(rows), "candidate=max_pack", "seconds=0.5", f"table={table}"])
    with pytest.raises(SystemExit):
        main([str(rows), "candidate=max_pack", "seconds=1", f"table={table}"])
    assert "lines made with another seconds" in capsys.readouterr().err
