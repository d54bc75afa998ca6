"""Calibration from a saved scrape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import calibrate
from tests.bench.measured.measured import true_profile
from twin import engine, load_profile, simulate_requests, workload_from_groups

RANK = 16


def scrape_of_a_server(rate: float, max_loras: int, n_adapters: int = 24) -> pd.DataFrame:
    """What a Prometheus server would have saved of a vLLM server that is the twin with a known profile."""
    profile = true_profile()
    workload = workload_from_groups([(n_adapters, RANK, rate)], duration_s=900.0)
    result = simulate_requests(
        workload.requests, workload.ranks, profile, max_loras, duration_s=900.0, sample_every_s=0, max_samples=500_000
    )
    steps = result.samples
    ends = steps[:, engine.SAMPLE_START] + steps[:, engine.SAMPLE_SECONDS]
    finished = np.sort(result.first_token_s[np.isfinite(result.first_token_s)])
    order = np.argsort(result.first_token_s[np.isfinite(result.first_token_s)])
    prompts = workload.requests.prompt_tokens[np.isfinite(result.first_token_s)][order].cumsum()
    time_s = np.arange(1.0, 900.0)
    at = np.clip(np.searchsorted(ends, time_s) - 1, 0, None)
    busy = time_s < steps[at, engine.SAMPLE_START] + 1.0
    return pd.DataFrame(
        {
            "time_s": time_s,
            "running": np.where(busy, steps[at, engine.SAMPLE_RUNNING], 0.0),
            "waiting": np.where(busy, steps[at, engine.SAMPLE_WAITING], 0.0),
            "adapters": np.where(busy, steps[at, engine.SAMPLE_ADAPTERS], 0.0),
            "prompt_tokens": np.concatenate([[0], prompts])[np.searchsorted(finished, time_s)],
            # A step yields a token per running request, except for one that is still in its prefill.
            "generation_tokens": steps[:, engine.SAMPLE_RUNNING].cumsum()[at],
            "kv_usage": steps[at, engine.SAMPLE_BLOCKS] * 16 / result.kv_capacity_tokens,
            "max_loras": max_loras,
            "max_lora_rank": RANK,
            "kv_cache_tokens": result.kv_capacity_tokens,
            "n_adapters": n_adapters,
        }
    )


@pytest.fixture(scope="module")
def scrapes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scrapes")
    paths = []
    for number, (rate, max_loras) in enumerate([(0.05, 8), (0.2, 8), (0.1, 24), (0.4, 24)]):
        path = folder / f"{number}.csv"
        scrape_of_a_server(rate, max_loras).to_csv(path, index=False)
        paths.append(path)
    return paths


def test_scrapes_correct_a_wrong_prior(scrapes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ",".join(str(path) for path in scrapes)
    calibrate.main([f"metrics=[{files}]", "prior=qwen-2.5-7b", "name=own/gpu", f"out={tmp_path}"])
    profile = load_profile(str(tmp_path / "own__gpu.json"))
    assert profile.provenance["step_time_error_pct_fitted"] < profile.provenance["step_time_error_pct_prior"] / 2
    printed = capsys.readouterr().out
    assert "seed" not in printed or "fitted" in printed
    # One rank on all servers: nothing can be said of it.
    assert profile.provenance["prior_terms"]["rank"] == "no variation in the data"
    assert "max_loras" in profile.provenance["fitted_terms"]


def test_one_server_cannot_tell_max_loras(scrapes: list[Path], tmp_path: Path) -> None:
    calibrate.main([f"metrics=[{scrapes[1]}]", "name=own/gpu", f"out={tmp_path}"])
    profile = load_profile(str(tmp_path / "own__gpu.json"))
    prior = load_profile("llama-3.1-8b")
    assert profile.provenance["prior_terms"]["max_loras"] == "no variation in the data"
    assert profile.step_coefficients(64, 16)[0] - profile.step_coefficients(8, 16)[0] == pytest.approx(
        prior.step_coefficients(64, 16)[0] - prior.step_coefficients(8, 16)[0], rel=1e-3
    )


def test_parquet_serves_as_well(scrapes: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "scrape.parquet"
    pd.read_csv(scrapes[0]).to_parquet(path)
    calibrate.main([f"metrics=[{path}]", "name=own/gpu", f"out={tmp_path}"])
    assert (tmp_path / "own__gpu.json").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="running"), "column running (vllm:num_requests_running) is missing"),
        (lambda t: t.assign(running="many"), "column running: 'many' must be a number"),
        (lambda t: t.iloc[::-1], "time_s must hold at least two times and ascend"),
        (lambda t: t.drop(columns="max_loras"), "max_loras is not in the file"),
        (lambda t: t.assign(generation_tokens=0), "no window of 60 s has running requests"),
    ],
)
def test_what_is_wrong_with_a_scrape_is_named(
    scrapes: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: object,
    message: str,
) -> None:
    path = tmp_path / "wrong.csv"
    change(pd.read_csv(scrapes[0])).to_csv(path, index=False)  # type: ignore[operator]
    with pytest.raises(SystemExit):
        calibrate.main([f"metrics=[{path}]", f"out={tmp_path}"])
    error = capsys.readouterr().err
    assert message in error
    assert "wrong.csv" in error or "window" in error
