"""GPUs against latency: which candidates nobody beats, and the files."""

from pathlib import Path

import pandas as pd
import pytest

from bench.comparison.rows import Row, read_rows
from bench.pareto import main
from bench.studies.pareto import candidates


def row(solver: str, fleet: int, gpus: int | None, latency_ms: float | None, *, feasible: bool = True) -> Row:
    return Row(
        workload="w", seed=0, solver=solver, objective="min_latency", profile="p", status="feasible", gpu_limit=fleet,
        gpus=gpus, e2e_ms=latency_ms, feasible=feasible,
    )  # fmt: skip


def front(*rows: Row) -> list[tuple[str, int]]:
    return [(one.row.solver, one.fleet) for one in candidates(rows, "e2e_ms") if one.on_front]


def test_the_front_is_what_nobody_beats() -> None:
    assert front(row("a", 2, 2, 50.0), row("b", 2, 2, 40.0), row("a", 3, 3, 45.0), row("b", 4, 4, 30.0)) == [
        ("b", 2),
        ("b", 4),
    ]


def test_a_placement_that_starves_somebody_is_never_on_it() -> None:
    assert front(row("a", 2, 2, 10.0, feasible=False), row("b", 3, 3, 40.0), row("c", 3, None, None)) == [("b", 3)]
    assert front(row("a", 2, 2, 10.0, feasible=False)) == []


def test_equal_candidates_of_two_solvers_are_both_on_it_and_repeated_ones_once() -> None:
    rows = [row("a", 3, 3, 40.0), row("b", 3, 3, 40.0), row("a", 5, 3, 40.0)]
    assert front(*rows) == [("a", 3), ("b", 3)]


def test_candidates_come_by_fleet_and_latency() -> None:
    found = candidates([row("a", 3, 3, 9.0), row("b", 2, 2, None, feasible=False), row("c", 2, 2, 7.0)], "e2e_ms")
    assert [(one.fleet, one.row.solver) for one in found] == [(2, "c"), (2, "b"), (3, "a")]


TINY = ["workload=groups", "workload.groups=[{count: 6, rank: 8, rate: 2.0}]", "solver=[least_loaded,max_pack]"]


@pytest.mark.usefixtures("_in_tmp_path")
def test_the_command_writes_table_rows_and_picture(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TINY, "fleets=[1,2]", "out=there"])
    table = pd.read_csv("there/pareto.csv")
    assert set(zip(table["fleet"], table["solver"], strict=True)) == {
        (1, "least_loaded"), (1, "max_pack"), (2, "least_loaded"), (2, "max_pack"),
    }  # fmt: skip
    # Twice the GPUs for the same adapters: less latency.
    spread = table[table["solver"] == "least_loaded"].set_index("fleet")["e2e_ms"]
    assert spread[2] < spread[1]
    assert table["on_front"].sum() >= 2
    assert [one.objective for one in read_rows(Path("there/rows.parquet"))] == ["min_latency"] * 4
    assert Path("there/pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "least_loaded" in capsys.readouterr().out


@pytest.mark.usefixtures("_in_tmp_path")
def test_fleets_begin_with_the_fewest_that_do() -> None:
    main([*TINY, "out=there"])
    assert sorted(set(pd.read_csv("there/pareto.csv")["fleet"])) == [1, 2, 3, 4]


@pytest.mark.usefixtures("_in_tmp_path")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["fleets=[0]"], "fleets=[0] must list numbers of GPUs"),
        (["objective=min_gpus"], "objective must be min_latency"),
        (["workload.n_adapters=-1"], "n_adapters=-1"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
