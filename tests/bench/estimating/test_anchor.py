"""One measured server scales an estimate: the factor that it was made with is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import profile as command
from bench.estimating.anchor import anchored, with_specialised_kernels
from bench.estimating.estimate import ONE_POINT_ERROR_PCT, STEP_ERROR_PCT
from bench.measured.profile_from_scrapes import FLAGS
from twin import ServingProfile, UserError, engine, load_profile, simulate_requests, workload_from_groups
from twin.moved import resized
from twin.profile import STEP_TERMS

NAME = "mistral-7b/a100-80gb"
NO_FLAGS: dict[str, int | None] = dict.fromkeys(FLAGS)


def write_scrape(path: Path, served_by: ServingProfile, *, seconds: float = 300.0, max_loras: int = 8) -> None:
    """What a server of a profile would have exported, a look each second."""
    workload = workload_from_groups([(12, 16, 0.4)], duration_s=seconds)
    requests = workload.requests
    result = simulate_requests(
        requests, workload.ranks, served_by, max_loras, duration_s=seconds, sample_every_s=0, max_samples=200_000
    )
    steps, time_s = result.samples, np.arange(1.0, seconds)
    last_step = np.clip(np.searchsorted(steps[:, engine.SAMPLE_START], time_s) - 1, 0, None)
    first = np.argsort(result.first_token_s)
    prompts = np.concatenate([[0], requests.prompt_tokens[first].cumsum()])
    pd.DataFrame({
        "time_s": time_s, "running": steps[last_step, engine.SAMPLE_RUNNING], "waiting": steps[last_step, engine.SAMPLE_WAITING],
        "adapters": steps[last_step, engine.SAMPLE_ADAPTERS],
        "prompt_tokens": prompts[np.searchsorted(result.first_token_s[first], time_s)],
        "generation_tokens": steps[:, engine.SAMPLE_RUNNING].cumsum()[last_step],
        "kv_usage": steps[last_step, engine.SAMPLE_KV] / result.kv_capacity_tokens, "max_loras": max_loras, "max_lora_rank": 16,
        "kv_cache_tokens": result.kv_capacity_tokens, "n_adapters": 12,
    }).to_parquet(path)  # fmt: skip


@pytest.mark.parametrize(("steps", "size"), [(1.0, 1.0), (1.35, 0.9), (0.7, 1.1)])
def test_the_factors_are_found_again(steps: float, size: float, tmp_path: Path) -> None:
    guess = load_profile(NAME)
    truth = replace(guess, step_ms=tuple(steps * value for value in guess.step_ms), kv=resized(guess, size))
    write_scrape(tmp_path / "scrape.parquet", truth)
    found, anchor = anchored(guess, str(tmp_path / "scrape.parquet"), NO_FLAGS)
    assert anchor.steps == pytest.approx(steps, rel=0.06)
    assert anchor.kv_cache == pytest.approx(size, rel=0.001)
    np.testing.assert_allclose(found.step_ms, np.array(guess.step_ms) * anchor.steps, rtol=1e-4)
    assert found.kv_tokens(8, 16) == pytest.approx(truth.kv_tokens(8, 16), rel=0.001)
    # What is left open is less than before.
    assert found.uncertainty is not None
    assert guess.uncertainty is not None
    assert found.uncertainty.all_steps == pytest.approx(
        guess.uncertainty.all_steps * ONE_POINT_ERROR_PCT / STEP_ERROR_PCT, rel=0.3
    )


def test_the_command_scales_an_estimate_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guess = load_profile(NAME)
    write_scrape(tmp_path / "scrape.parquet", replace(guess, step_ms=tuple(1.5 * value for value in guess.step_ms)))
    command.main(
        [f"profile={NAME}", f"anchor={tmp_path}/scrape.parquet", "specialize_active_lora=true", f"out={tmp_path}"]
    )
    assert "scaled to" in capsys.readouterr().out
    found = load_profile(str(tmp_path / "mistral-7b__a100-80gb-specialized-anchored.json"))
    assert found.provenance["anchor"]["windows"] > 2
    assert found.provenance["specialize_active_lora"] is True


def test_specialised_kernels_cost_nothing_for_empty_slots() -> None:
    guess = load_profile(NAME)
    special = with_specialised_kernels(guess)
    few, many = (special.step_coefficients(slots, 16) for slots in (4, 128))
    np.testing.assert_array_equal(few, many)
    before = guess.step_coefficients(128, 16)
    assert few[engine.PER_STEP] < before[engine.PER_STEP]
    assert few[engine.PER_ADAPTER] > before[engine.PER_ADAPTER]
    odd = replace(guess, step_ms=tuple(1.0 if term == "tokens_x_max_loras_x_rank" else 0.5 for term in STEP_TERMS))
    with pytest.raises(UserError, match="tokens_x_max_loras_x_rank"):
        with_specialised_kernels(odd)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([f"profile={NAME}"], "what is to become of it"),
        ([f"profile={NAME}", "gpu=h100", "anchor=a.parquet"], "leave model and gpu out"),
        (["profile=llama-3.1-8b", "anchor=a.parquet"], "was measured"),
        ([f"profile={NAME}", "anchor={0}/none.parquet"], "none.parquet"),
        ([f"profile={NAME}", "anchor={0}"], "anchor={0}"),
        ([f"profile={NAME}", "anchor={0}/slow.parquet"], "a server of this model and GPU would be right"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guess = load_profile(NAME)
    write_scrape(tmp_path / "slow.parquet", replace(guess, step_ms=tuple(9 * value for value in guess.step_ms)))
    with pytest.raises(SystemExit) as end:
        command.main([*(argument.format(tmp_path) for argument in arguments), f"out={tmp_path}/out"])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert says.format(tmp_path) in said
