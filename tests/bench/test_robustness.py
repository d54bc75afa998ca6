"""Moved profiles and what they change in the order of solvers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.comparison.cell import Cell
from bench.comparison.compare import Comparison, compare
from bench.comparison.rows import Row, write_rows
from bench.robustness import main
from bench.studies.moved_profiles import fit_error_pct, moved_profiles, term_shares
from bench.studies.rank_changes import changes_by_track, rank_changes
from solvers.base import Solver
from twin import UserError, load_profile

PROFILE = load_profile("llama-3.1-8b")


@pytest.fixture
def rows(comparison: Comparison, makers: dict[str, Callable[[], Solver]]) -> list[Row]:
    groups = [[4, 8, 1.0], [2, 16, 2.0]]
    workload = {"_target_": "twin.builders.groups", "name": "tiny", "duration_s": 300.0, "seed": 5, "ignore_eos": False}
    workload["groups"] = [{"count": count, "rank": rank, "rate": rate} for count, rank, rate in groups]
    found = []
    for row in compare(comparison, makers):
        cell = Cell(solver=row.solver, solver_options={}, workload=workload, seed=5)
        found.append(replace(row, cell=cell.to_json()))
    return found


def scores(keys: dict[str, list[float]], instance: str = "i") -> pd.DataFrame:
    """A table of scores; infinity is infeasible."""
    return pd.DataFrame(
        [
            {
                "instance": instance,
                "objective": "o",
                "solver": solver,
                "sample": sample,
                "feasible": np.isfinite(cost),
                "cost": cost,
            }
            for solver, line in keys.items()
            for sample, cost in enumerate(line)
        ]
    )


def test_the_terms_of_the_step_time_make_it_up(rows: list[Row]) -> None:
    shares = term_shares(PROFILE, rows)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(shares)))
    assert (shares >= 0).all()


def test_moved_profiles_are_off_by_the_error_asked_for(rows: list[Row]) -> None:
    """Mean over many draws and all states of how far the step time moves."""
    moved = moved_profiles(PROFILE, rows, 3.0, 4000, 0)
    factors = np.array([profile.step_ms for profile in moved]) / np.where(
        np.array(PROFILE.step_ms) > 0, PROFILE.step_ms, 1
    )
    factors[:, np.array(PROFILE.step_ms) == 0] = 1.0
    change = factors @ term_shares(PROFILE, rows).T - 1
    assert np.abs(change).mean() == pytest.approx(0.03, rel=0.05)
    assert change.mean() == pytest.approx(0.0, abs=0.002)


def test_moves_are_seeded(rows: list[Row]) -> None:
    def steps(seed: int) -> list[tuple[float, ...]]:
        return [profile.step_ms for profile in moved_profiles(PROFILE, rows, 3.0, 3, seed)]

    assert steps(1) == steps(1)
    assert steps(1) != steps(2)
    assert moved_profiles(PROFILE, rows, 0.0, 1, 0)[0].step_ms == PROFILE.step_ms


def test_the_error_is_that_of_runs_left_out() -> None:
    assert fit_error_pct(PROFILE) == PROFILE.provenance["step_time_error_pct_left_out"]
    with pytest.raises(UserError, match="give error_pct=NUMBER"):
        fit_error_pct(replace(PROFILE, provenance={}))


def test_changes_by_hand() -> None:
    """Under the first moved profile a and b swap, under the second b is no longer feasible, the third changes nothing."""
    inf = float("inf")
    changes = rank_changes(scores({"a": [2, 3, 2, 2], "b": [3, 2, inf, 3], "c": [4, 4, 4, 4]}))
    assert (changes.samples, changes.instances) == (3, 1)
    # Nine orders: a-b swaps once, b-c once.
    assert changes.orders_changed == pytest.approx(2 / 9)
    assert changes.orders_reversed == pytest.approx(2 / 9)
    assert changes.best_kept == pytest.approx(2 / 3)
    found = {line.solver: line for line in changes.solvers}
    assert found["b"].verdicts_kept == pytest.approx(2 / 3)
    assert (found["b"].lowest_rank, found["b"].highest_rank) == (1, 3)
    assert changes.tau == pytest.approx(1 / 3)
    assert {name: line.ratio for name, line in found.items()} == {"a": 1.0, "b": 1.5, "c": 2.0}
    assert {name: line.cost for name, line in found.items()} == {"a": 2.0, "b": 3.0, "c": 4.0}


def test_a_tie_that_breaks_is_a_change_but_no_reversal() -> None:
    changes = rank_changes(scores({"a": [2, 2], "b": [2, float("inf")]}))
    assert (changes.orders_changed, changes.orders_reversed, changes.best_kept) == (1.0, 0.0, 1.0)


def test_a_solver_without_a_placement_on_some_instance_is_left_out_there() -> None:
    both = scores({"a": [2, 2], "b": [3, 3]}, "i")
    changes = rank_changes(pd.concat([both, scores({"a": [2, 2]}, "j")]))
    assert {line.solver: line.instances for line in changes.solvers} == {"a": 2, "b": 1}
    assert changes.orders_changed == 0


@pytest.mark.usefixtures("_in_tmp_path")
def test_each_service_level_is_ranked_by_itself() -> None:
    """Under one level a is better and stays so, under the other b becomes better; scores without a level are of the published rule."""
    kept, turned = scores({"a": [1, 1], "b": [2, 2]}), scores({"a": [1, 3], "b": [2, 2]}, "j")
    table = pd.concat([kept, turned.assign(service="interactive")])
    found = changes_by_track(table)
    assert {name: changes.orders_reversed for name, changes in found.items()} == {
        "o, published": 0.0,
        "o, interactive": 1.0,
    }
    assert list(changes_by_track(kept)) == ["o"]


def test_table_and_picture_are_of_one_service_level(
    rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.parquet"
    write_rows([*rows, *(replace(row, service="interactive") for row in rows)], path)
    with pytest.raises(SystemExit) as stopped:
        main([str(path), "samples=1", f"table={tmp_path / 'table.csv'}"])
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert "min_gpus, published and min_gpus, interactive" in line
    assert line.count("\n") == 1


def test_the_profile_itself_gives_the_verdicts_of_the_rows(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(rows, Path("r.parquet"))
    main(["r.parquet", "samples=2"])
    assert "r-robustness.parquet" in capsys.readouterr().out
    table = pd.read_parquet("r-robustness.parquet")
    itself = table[table["sample"] == 0].set_index("solver").feasible.to_dict()
    assert itself == {row.solver: row.feasible for row in rows}
    assert sorted(table["sample"].unique()) == [0, 1, 2]


def test_what_is_infeasible_anyway_has_no_cost() -> None:
    inf = float("inf")
    both = pd.concat([scores({"a": [inf, 2], "b": [inf, inf]}, "i"), scores({"a": [2, 2], "b": [inf, 3]}, "j")])
    found = {line.solver: line for line in rank_changes(both).solvers}
    assert found["a"].ratio == 1.0
    assert np.isnan(found["b"].ratio)


@pytest.mark.usefixtures("_in_tmp_path")
def test_table_and_picture_on_request(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    kept = [replace(row, reserve=0.1) for row in rows if row.solver == "alone"]
    write_rows([*rows, *kept], Path("r.parquet"))
    main(["r.parquet", "samples=1", "table=there/t.csv", "picture=there/p.png"])
    table = pd.read_csv("there/t.csv").set_index("solver")
    assert set(table.index) == {*(row.solver for row in rows), "alone reserve=0.1"}
    assert table["feasible"].to_dict()["alone"] == 1
    assert table["ratio"].to_dict()["alone"] > 1
    assert Path("there/p.png").read_bytes().startswith(b"\x89PNG")
    assert "alone reserve=0.1" in capsys.readouterr().out


@pytest.mark.usefixtures("_in_tmp_path")
def test_an_interrupted_run_goes_on_and_other_settings_are_refused(
    rows: list[Row], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(rows, Path("r.parquet"))
    main(["r.parquet", "samples=1"])
    before = pd.read_parquet("r-robustness.parquet")
    monkeypatch.setattr("bench.studies.robustness.score_placement", None)
    main(["r.parquet", "samples=1"])
    pd.testing.assert_frame_equal(before, pd.read_parquet("r-robustness.parquet"))
    with pytest.raises(SystemExit):
        main(["r.parquet", "samples=2"])
    assert "holds scores made with another samples" in capsys.readouterr().err


@pytest.mark.usefixtures("_in_tmp_path")
def test_rows_of_an_old_release_are_refused_with_the_reason(
    rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows([replace(row, cell="") for row in rows], Path("r.parquet"))
    with pytest.raises(SystemExit):
        main(["r.parquet"])
    assert "did not store how to make them again" in capsys.readouterr().err
