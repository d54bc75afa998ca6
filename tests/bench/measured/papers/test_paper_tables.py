"""The tables that stand beside those of the papers, by hand, and the command that writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.measured.papers.largest_contents import curves_table, pairs_table
from bench.measured.papers.learned import predictors_table
from bench.measured.papers.over_time import chosen_runs, errors_table
from bench.measured.papers.twin_errors import times_table
from bench.measured.published import read_runs
from bench.paper import main
from bench.studies.four_gpus import fair_saving_table, saving_table
from tests.bench.measured.measured import MODEL, write_tables


def curve(slots: int, starved: list[bool], throughput: float) -> pd.DataFrame:
    """Points at 8, 16, 32, ... adapters."""
    counts = [8 * 2**step for step in range(len(starved))]
    return pd.DataFrame(
        {
            "model": "m",
            "scenario": "s",
            "max_loras": slots,
            "n_adapters": counts,
            "measured_memory_error": slots > 8,
            "measured_starved": starved,
            "measured_throughput": throughput,
            "simulated_starved": [False, *starved[:-1]],
            "simulated_throughput": throughput,
        }
    )


def test_max_pack_ends_at_the_first_count_that_starves_at_every_max_loras() -> None:
    """32 adapters are served at 8 slots, but 16 of them at none."""
    rows = pd.concat([curve(8, [False, True, False], 100.0), curve(16, [True, True, True], 900.0)])
    (pair,) = pairs_table(rows).to_dict("records")
    assert (pair["measured_adapters"], pair["measured_max_loras"], pair["measured_throughput"]) == (8, 8, 100.0)
    # The twin's curves start to starve a point later: at 8 adapters both slots serve, at 16 the fewer alone.
    assert (pair["simulated_adapters"], pair["simulated_max_loras"]) == (16, 8)
    by_slots = curves_table(rows).set_index("max_loras")
    assert by_slots.measured_adapters.to_dict() == {8: 8, 16: 0}
    assert by_slots.simulated_adapters.to_dict() == {8: 16, 16: 8}
    assert by_slots.started.to_dict() == {8: True, 16: False}


def test_a_gpu_that_serves_nothing_has_no_max_pack() -> None:
    (pair,) = pairs_table(curve(8, [True, False], 1.0)).to_dict("records")
    assert (pair["measured_adapters"], pair["measured_max_loras"]) == (0, 0)
    assert np.isnan(pair["measured_throughput"])


def test_predictors_are_compared_on_the_papers_test_runs_alone() -> None:
    runs = pd.DataFrame({"run_id": ["a", "b", "c"], "family": ["ml", "ml", "dt"]})
    rows = pd.DataFrame(
        {
            "run_id": ["a", "b", "c"] * 2,
            "predictor": ["full"] * 3 + ["distilled"] * 3,
            "model": MODEL,
            "measured_starved": [False, True, True] * 2,
            "simulated_starved": [False, True, False, True, True, True],
            **{f"measured_{name}": 100.0 for name in ("throughput", "itl_ms", "ttft_ms")},
            **{f"simulated_{name}": [100.0, 300.0, 900.0] * 2 for name in ("throughput", "itl_ms", "ttft_ms")},
        }
    )
    table = predictors_table(runs, rows, {MODEL: 7}).set_index("predictor")
    # |300 - 100| / 400 in one of two; the third run is not the paper's.
    assert table.throughput_smape.to_dict() == {"full": pytest.approx(25.0), "distilled": pytest.approx(25.0)}
    assert table.runs.to_dict() == {"full": 2, "distilled": 2}
    assert table.starvation_macro_f1["full"] == 1.0
    # One of two told: starved is right once of twice, served never found.
    assert table.starvation_macro_f1["distilled"] == pytest.approx((2 / 3) / 2)
    assert table.rules["distilled"] == 7


def test_times_are_those_of_the_same_runs() -> None:
    rows = pd.DataFrame(
        {"run_id": ["a", "b"], "measured_memory_error": False, "cpu_s": [0.1, 9.0], "wall_s": [0.2, 9.0]}
    )
    columns = (
        "dt_total_throughput",
        "real_total_throughput",
        "dt_itl_ms",
        "real_mean_itl_ms",
        "dt_ttft_ms",
        "real_mean_ttft_all_ms",
    )
    published = pd.DataFrame(
        {"sim_kind": "from_scratch", "dt_wall_s": [30.0, np.nan]} | dict.fromkeys(columns, 1.0), index=["a", "b"]
    )
    times = times_table(rows, published).set_index("engine")
    assert times.runs.eq(1).all()
    assert times.mean_s.to_dict() == {"published_twin_wall_s": 30.0, "this_twin_cpu_s": 0.1, "this_twin_wall_s": 0.2}


def test_distance_is_that_of_the_two_curves() -> None:
    table = pd.DataFrame(
        {
            "model": "m", "run_id": "r", "t_s": [0.0, 1.0], "measured_running": [1.0, 3.0], "simulated_running": [3.0, 1.0],
            "measured_waiting": 0.0, "simulated_waiting": 0.0,
        }
    )  # fmt: skip
    (record,) = errors_table(table).to_dict("records")
    assert record["measured_running"] == record["simulated_running"] == 2.0
    assert (record["distance_running"], record["distance_waiting"]) == (2.0, 0.0)


def test_saving_is_counted_where_a_solver_is_feasible_and_where_all_others_are() -> None:
    lines = [
        ("p", 8, "ffd", True, 1.0), ("p", 8, "dlora", True, 4.0), ("p", 8, "random", True, 4.0),
        ("p", 16, "ffd", True, 3.0), ("p", 16, "dlora", False, 4.0), ("p", 16, "random", True, 4.0),
        ("p", 32, "ffd", False, 4.0), ("p", 32, "dlora", False, np.nan), ("p", 32, "random", False, 4.0),
    ]  # fmt: skip
    table = pd.DataFrame(lines, columns=["profile", "adapters", "solver", "feasible", "gpus"])
    (record,) = saving_table(table, ("ffd",), 4).to_dict("records")
    assert (record["loads"], record["feasible_on"], record["saving_pct"]) == (3, 2, 50.0)
    assert (record["all_others_feasible_on"], record["saving_there_pct"]) == (1, 75.0)


def test_the_fair_saving_leaves_out_what_one_of_the_two_does_not_serve() -> None:
    lines = [
        ("x-low-r8", "ffd", True, 1), ("x-low-r8", "dlora", True, 2), ("x-high-r8", "ffd", True, 3),
        ("x-high-r8", "dlora", True, 2), ("x", "ffd", False, 9), ("x", "dlora", True, 2),
    ]  # fmt: skip
    table = pd.DataFrame(lines, columns=["instance", "solver", "feasible", "gpus"])
    saving = fair_saving_table(table, ("ffd",), "dlora").set_index("rates")
    assert saving.saving_pct.to_dict() == {"low": 50.0, "high": -50.0, "all": 0.0}
    assert saving.instances.to_dict() == {"low": 1, "high": 1, "all": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    runs = write_tables(path)
    runs = runs.assign(series_file="series.parquet", series_active_start_s=5.0)
    runs.to_csv(path / "runs.csv", index=False)
    (path / "series").mkdir()
    times = np.arange(0.0, 310.0, 10.0)
    series = [pd.DataFrame({"run_id": run, "t_s": times, "running": 1.0, "waiting": 0.0}) for run in runs.run_id]
    pd.concat(series).to_parquet(path / "series" / "series.parquet")
    theirs = {
        "run_id": runs.run_id, "sim_kind": "from_scratch", "dt_wall_s": 30.0,
        "dt_total_throughput": runs.total_throughput * 1.1, "real_total_throughput": runs.total_throughput,
        "dt_itl_ms": runs.mean_itl_ms, "real_mean_itl_ms": runs.mean_itl_ms, "dt_ttft_ms": np.nan,
        "real_mean_ttft_all_ms": np.nan,
    }  # fmt: skip
    pd.DataFrame(theirs).to_csv(path / "published_twin_vs_real.csv", index=False)
    return path


def test_the_command_makes_what_is_missing_and_leaves_what_is_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Both models' profiles are asked for calibration tables; these runs are of one.
    monkeypatch.setattr("bench.measured.papers.overheads.PROFILE_OF_MODEL", {MODEL: "llama-3.1-8b"})
    monkeypatch.chdir(tmp_path)
    main([f"runs={folder}", "out=made"])
    made = {path.name for path in Path("made").iterdir()}
    assert made == {
        "max_pack.csv", "max_pack_curves.csv", "twin_errors.csv", "twin_times.csv", "predictors.csv", "overheads.csv",
        "over_time.csv", "over_time.png", "overheads.png",
    }  # fmt: skip
    errors = pd.read_csv("made/twin_errors.csv")
    # A tenth too much is 0.1 / 2.1.
    assert errors.throughput_published_twin.to_numpy() == pytest.approx([100 / 21], rel=1e-3)
    assert len(pd.read_csv("made/max_pack.csv")) == 3
    printed = capsys.readouterr().out
    assert "left out  made/latency.csv: python -m bench experiment=paper_fig12" in printed
    # Nothing is replayed again, and a table that is there stays.
    Path("made/max_pack.csv").write_text("mine", encoding="utf-8")
    Path("made/twin_times.csv").unlink()
    main([f"runs={folder}", "out=made"])
    assert Path("made/max_pack.csv").read_text(encoding="utf-8") == "mine"
    assert Path("made/twin_times.csv").exists()
    assert "replaying" not in capsys.readouterr().out


def test_replays_of_another_seed_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.measured.papers.overheads.PROFILE_OF_MODEL", {MODEL: "llama-3.1-8b"})
    main([f"runs={folder}", "out=made"])
    with pytest.raises(SystemExit) as stopped:
        main([f"runs={folder}", "out=other", "seed=1"])
    assert stopped.value.code == 2
    assert "of another seed" in capsys.readouterr().err


def test_a_run_of_each_model_is_shown(folder: Path) -> None:
    (shown,) = chosen_runs(read_runs(str(folder)))
    assert "64" in shown
