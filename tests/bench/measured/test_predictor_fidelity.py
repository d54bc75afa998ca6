"""`python -m bench.fidelity predictor=...`: predictors beside runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench.fidelity import main
from bench.measured.predictors_beside_runs import MODELS, predict_runs, predictors_of
from bench.measured.published import read_runs
from predictors import load_predictor
from tests.bench.measured.measured import LEFT_OUT, MODEL, write_tables
from twin import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    write_tables(path)
    return path


def test_a_run_is_told_by_what_was_asked_of_it(folder: Path) -> None:
    runs = read_runs(str(folder))
    rows = predict_runs(runs, predictors_of(runs, "shipped"))
    assert len(rows) == 2 * len(runs)
    assert set(rows.predictor) == set(MODELS)
    assert rows.in_range.all()
    failed = rows.run_id == "fails"
    assert (rows.measured_memory_error == failed).all()
    assert rows.simulated_throughput[~failed].between(0, rows.offered_throughput[~failed] * 1.001).all()
    # Other measurements, same answers.
    other = predict_runs(runs.assign(total_throughput=1.0, mean_itl_ms=1.0), predictors_of(runs, "shipped"))
    pd.testing.assert_series_equal(other.simulated_throughput, rows.simulated_throughput)


def test_what_agrees_has_no_error(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = pd.read_csv(folder / "runs.csv")
    rows = predict_runs(read_runs(str(folder)), {MODEL: load_predictor("llama-3.1-8b")})
    full = rows[rows.predictor == "full"].set_index("run_id").reindex(runs.run_id)
    runs["total_throughput"] = full.simulated_throughput.to_numpy()
    runs["mean_itl_ms"] = full.simulated_itl_ms.to_numpy()
    runs["starved_est"] = full.simulated_starved.to_numpy()
    runs.to_csv(tmp_path / "runs.csv", index=False)
    files = {name: tmp_path / file for name, file in (("out", "r.csv"), ("summary", "s.csv"), ("picture", "p.png"))}
    main([f"runs={tmp_path}", "predictor=shipped", *(f"{name}={path}" for name, path in files.items())])
    summary = pd.read_csv(files["summary"])
    whole = (
        summary[summary["runs of"] == "all"]
        .set_index("predictor")[["throughput_smape", "itl_smape", "starvation_macro_f1"]]
        .to_dict("index")
    )
    assert whole["full"] == {"throughput_smape": 0, "itl_smape": 0, "starvation_macro_f1": 1}
    assert whole["distilled"]["throughput_smape"] > 0
    assert any(LEFT_OUT in name for name in summary["runs of"])
    assert "twin, designed sample, left out" in set(summary["runs of"])
    assert files["picture"].read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "published, real runs" in printed
    assert "4.39" in printed


def test_a_predictor_of_another_model_is_told(folder: Path) -> None:
    with pytest.raises(UserError, match="predictor=qwen-2"):
        predictors_of(read_runs(str(folder)), "qwen-2.5-7b")
