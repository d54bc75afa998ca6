"""The committed measurements of real vLLM: what is said of them can be computed from them, and holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import calibrate, validate
from bench.vllm.comparison import GpuComparison
from bench.vllm.placements import read_placed
from bench.vllm.validation import comparison_of, finished, jobs_of
from twin import load_profile

RESULTS = Path(__file__).parents[3] / "results/vllm"
REPEATS = 3


@pytest.fixture(scope="module")
def comparisons() -> list[GpuComparison]:
    placed = read_placed(str(RESULTS / "idle_to_starving.json"))
    jobs = jobs_of(placed, None)
    kept = finished(placed, jobs, REPEATS, RESULTS / "idle_to_starving")
    return [comparison_of(job, [kept[job.number, repeat] for repeat in range(REPEATS)], placed) for job in jobs]


def test_the_twin_is_near_the_real_servers(comparisons: list[GpuComparison]) -> None:
    """A change to the twin or to the profile that takes it away from the measured servers fails here."""
    assert len(comparisons) >= 6
    for gpu in comparisons:
        assert abs(gpu.error_pct("throughput")) <= 5, gpu.number
        assert abs(gpu.error_pct("itl_ms")) <= 15, gpu.number
        assert gpu.verdicts_right == REPEATS, gpu.number
        assert not gpu.client_limited
    # From idle to starving.
    assert {gpu.simulated.starved for gpu in comparisons} == {True, False}
    assert min(gpu.simulated.offered_throughput for gpu in comparisons) < 50


def test_the_noise_is_below_what_is_claimed(comparisons: list[GpuComparison]) -> None:
    assert np.mean([gpu.noise_pct("throughput") for gpu in comparisons]) < 1
    assert np.mean([gpu.noise_pct("itl_ms") for gpu in comparisons]) < 3


def test_the_shipped_profile_is_that_of_the_campaign(tmp_path: Path) -> None:
    calibrate.main([f"campaign={RESULTS / 'campaign'}", f"out={tmp_path}"])
    fitted, shipped = load_profile(str(tmp_path / "tiny-llama__cpu.json")), load_profile("cpu/tiny-llama")
    np.testing.assert_allclose(fitted.step_coefficients(8, 16), shipped.step_coefficients(8, 16), rtol=1e-3, atol=1e-6)
    assert fitted.kv == shipped.kv
    assert fitted.load_ms == shipped.load_ms


def test_the_committed_summary_is_that_of_the_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is only compared again needs no vLLM."""
    import shutil

    folder = tmp_path / "again"
    shutil.copytree(RESULTS / "idle_to_starving", folder)
    (folder / "summary.csv").unlink()
    monkeypatch.chdir(tmp_path)
    validate.main([f"placement={RESULTS / 'idle_to_starving.json'}", f"repeats={REPEATS}", f"out={folder}"])
    assert "verdicts right in 18 of 18 windows" in capsys.readouterr().out
    import pandas as pd

    again, committed = (pd.read_csv(path / "summary.csv") for path in (folder, RESULTS / "idle_to_starving"))
    pd.testing.assert_frame_equal(again, committed, rtol=1e-3)
