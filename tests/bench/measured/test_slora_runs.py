"""S-LoRA's runs: what the twin itself made is found again, and the runs that are kept back are always the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench import calibrate, fidelity
from bench.measured.slora_runs import blank_profile, is_slora, kept_back, read_slora_runs, simulated
from twin import UserError, load_profile
from twin.profile import STEP_TERMS

TERMS = {"constant": 20.0, "tokens": 0.1, "kv_tokens": 2e-4, "eager_step": 5.0, "eager_tokens": 0.02, "loads": 4.0}


def write_runs(folder: Path) -> None:
    """Runs of a minute and a quarter that a known profile made: idle, half full and overloaded."""
    configurations = [(n, rate) for n in (16, 64, 128) for rate in (0.0125, 0.05, 0.1, 0.4)]
    rows = pd.DataFrame({
        "run_id": [f"made/{n}_{rate}" for n, rate in configurations], "engine": "S-LoRA", "status": "ok",
        "n_adapters": [n for n, _ in configurations], "rate_per_adapter": [rate for _, rate in configurations], "rank": 32,
        "kv_cache_tokens": 30_000.0, "total_time_s": 60.0, "aggregate_rate": [n * rate for n, rate in configurations],
        "duration_s": 72.0, "request_throughput": 1.0, "mean_itl_ms": 1.0, "median_itl_ms": 1.0, "mean_batch": 1.0,
        "mean_unique_adapters": 1.0, "adapter_loads": 1.0,
    })  # fmt: skip
    truth = replace(blank_profile(rows), step_ms=tuple(TERMS.get(term, 0.0) for term in STEP_TERMS))
    made = [simulated(row, truth, 7) for _, row in rows.iterrows()]
    for column, name in (
        ("request_throughput", "throughput"), ("mean_itl_ms", "itl_ms"), ("median_itl_ms", "median_itl_ms"), ("mean_batch", "batch"),
        ("mean_unique_adapters", "adapters"), ("adapter_loads", "loads"),
    ):  # fmt: skip
        rows[column] = [getattr(figures, name) for figures in made]
    rows.loc[len(rows)] = {**rows.iloc[0].to_dict(), "run_id": "made/unfinished", "status": "unknown"}
    rows.to_csv(folder / "runs.csv", index=False)


def test_a_fit_finds_the_runs_of_a_known_profile_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path)
    assert is_slora(str(tmp_path))
    runs = read_slora_runs(str(tmp_path))
    assert len(runs) == 12
    assert 0 < runs.kept_back.sum() < len(runs)
    calibrate.main([f"runs={tmp_path}", f"out={tmp_path}"])
    path = tmp_path / "llama-2-7b__slora-h100-64gb.json"
    assert load_profile(str(path)).provenance["left_out_runs"] == runs.kept_back.sum()
    fidelity.main([f"runs={tmp_path}", f"profile={path}", "seed=7", "out=rows.csv", "summary=summary.csv"])
    summary = pd.read_csv("summary.csv").set_index("runs")
    assert (summary.throughput_error_pct < 2).all()
    assert (summary.itl_ms_error_pct < 4).all()
    assert (summary.batch_error_pct < 4).all()
    assert len(pd.read_csv("rows.csv")) == 12
    assert "kept back" in capsys.readouterr().out


def test_a_configuration_is_kept_back_for_ever() -> None:
    assert [rate for rate in (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4) if kept_back(512, rate)] == [
        0.025,
        0.05,
        0.1,
        0.2,
        0.4,
    ]
    assert not any(kept_back(256, rate) for rate in (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows.drop(columns="mean_batch"), "mean_batch"),
        (lambda rows: rows.assign(status="unknown"), "no run in it is finished"),
        (lambda rows: rows.assign(duration_s="soon"), "duration_s"),
        (lambda rows: rows.assign(n_adapters=0), "out of range"),
    ],
)
def test_a_wrong_table_is_named(change: Callable[[pd.DataFrame], pd.DataFrame], says: str, tmp_path: Path) -> None:
    write_runs(tmp_path)
    change(pd.read_csv(tmp_path / "runs.csv")).to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(UserError, match=says):
        read_slora_runs(str(tmp_path))
    with pytest.raises(SystemExit):
        fidelity.main([f"runs={tmp_path}"])


@pytest.mark.parametrize("option", ["predictor=shipped", "picture=a.png", "evidence=a.csv", "profile=llama-3.1-8b"])
def test_options_of_vllm_runs_are_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runs(tmp_path)
    with pytest.raises(SystemExit):
        fidelity.main([f"runs={tmp_path}", option, f"out={tmp_path}/a.csv", f"summary={tmp_path}/b.csv"])
    assert option in capsys.readouterr().err
