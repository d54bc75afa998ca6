"""Calibration and fidelity on runs that the twin made itself: the truth is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import calibrate, fidelity
from bench.measured import twin_beside_runs
from bench.measured.observation import ClientModel
from predictors.errors import smape
from tests.bench.measured.measured import LEFT_OUT, MODEL, true_profile, write_tables
from twin import load_profile


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_tables(folder)
    return folder


@pytest.fixture(scope="module")
def fitted(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile that the command fitted to runs of a known one."""
    out = tmp_path_factory.mktemp("profiles")
    calibrate.main(
        [
            f"runs={tables}",
            f"models=[{MODEL}]",
            f"out={out}",
            "window_s=300",
            f"left_out={{{MODEL}:[{LEFT_OUT}]}}",
        ]
    )
    return out / "llama-3.1-8b__h100-64gb.json"


def test_the_fit_predicts_runs_it_never_saw(fitted: Path) -> None:
    profile = load_profile(str(fitted))
    assert profile.provenance["left_out_scenarios"] == [LEFT_OUT]
    assert profile.provenance["left_out_runs"] > 0
    assert profile.provenance["step_time_error_pct_left_out"] < 3


def test_the_fit_finds_the_step_times_that_the_runs_were_made_with(fitted: Path) -> None:
    truth, profile = true_profile(), load_profile(str(fitted))
    # Amid what the runs went through.
    running, tokens, adapters = 10.0, 12.0, 7.0

    def step_ms(coefficients: list[float]) -> float:
        per_step, per_running, per_adapter, per_token, per_both, per_kv, *_ = coefficients
        return (
            per_step + per_running * running + per_adapter * adapters + per_token * tokens
            + per_both * tokens * adapters + per_kv * running * 361
        )  # fmt: skip

    for max_loras in (8, 32):
        expected = step_ms(list(truth.step_coefficients(max_loras, 16)[:6]))
        assert step_ms(list(profile.step_coefficients(max_loras, 16)[:6])) == pytest.approx(expected, rel=0.05)


def test_what_is_looked_up_is_taken_over(fitted: Path) -> None:
    truth, profile = true_profile(), load_profile(str(fitted))
    assert profile.kv_tokens(32, 16) == truth.kv_tokens(32, 16)
    assert profile.kv_tokens(384, 32) == 0
    assert profile.load_time_ms(32, 8) == pytest.approx(truth.load_time_ms(32, 8))
    assert profile.disk_time_ms(16) == pytest.approx(66.0)
    assert profile.scheduler_ms == pytest.approx(truth.scheduler_ms, rel=0.02, abs=1e-6)
    # In windows of 300 s the long requests are more often unfinished, so the finished ones made less.
    assert profile.generated_fraction == pytest.approx(truth.generated_fraction, abs=0.04)
    assert ClientModel(**profile.provenance["client_model"]).line_s >= 0


def test_fidelity_is_near_perfect_where_the_twin_made_the_runs(
    tables: Path, fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pandas as pd

    out = tmp_path / "rows.csv"
    fidelity.main(
        [
            f"runs={tables}",
            f"profile={fitted}",
            f"out={out}",
            f"summary={tmp_path}/summary.csv",
            f"picture={tmp_path}/picture.png",
        ]
    )
    rows = pd.read_csv(out)
    assert tuple(rows.columns) == twin_beside_runs.COLUMNS
    served = rows[~rows.measured_memory_error]
    assert len(served) == 15
    assert smape(served.simulated_throughput, served.measured_throughput) < 2
    assert (rows.measured_memory_error == rows.simulated_memory_error).all()
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "memory error: predicted as measured in 16 of 16 runs" in printed
    assert "seed 0" in printed
    assert "Noise" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either runs=DIR"),
        (["runs=nowhere"], "no file runs.csv"),
        (["runs=TABLES", "models=[gpt]"], "no such model"),
        (["runs=TABLES", f"models=[{MODEL}]", f"left_out={{{MODEL}:[nonsense]}}"], "no scenario nonsense"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        calibrate.main([argument.replace("TABLES", str(tables)) for argument in arguments] + [f"out={tmp_path}"])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_column_is_named(tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pandas as pd

    pd.read_csv(tables / "runs.csv").drop(columns="max_loras").to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(SystemExit):
        fidelity.main([f"runs={tmp_path}"])
    assert "columns ['max_loras'] are missing" in capsys.readouterr().err
