"""Operating points and the step-time fit."""

from __future__ import annotations

import numpy as np
import pytest

from twin import engine, load_profile, simulate_requests, workload_from_groups
from twin.calibration import StepObservation, fit_step_time, match_operating_point, step_term_values
from twin.profile import STEP_TERMS


def test_the_terms_say_what_the_engine_adds_up() -> None:
    """One step of the engine, computed from the terms."""
    profile = load_profile("llama-3.1-8b")
    workload = workload_from_groups([(8, 16, 0.5)], duration_s=60.0)
    result = simulate_requests(
        workload.requests, workload.ranks, profile, 4, duration_s=60.0, sample_every_s=0, max_samples=10_000
    )
    steps = result.samples
    running, waiting, adapters, tokens = (
        steps[:, column]
        for column in (
            engine.SAMPLE_RUNNING,
            engine.SAMPLE_WAITING,
            engine.SAMPLE_ADAPTERS,
            engine.SAMPLE_TOKENS,
        )
    )
    loads, kv, skipped = steps[:, engine.SAMPLE_LOADS], steps[:, engine.SAMPLE_KV], steps[:, engine.SAMPLE_SKIPPED]
    seconds, load_s = steps[:, engine.SAMPLE_SECONDS], steps[:, engine.SAMPLE_LOAD_S]
    terms = step_term_values(running, adapters, tokens, kv, loads, 4, 16, profile.eager_above_tokens)
    constant, per_running, per_skipped, per_waiting = profile.scheduler_ms
    other = load_s * 1000 + constant + per_running * running + per_skipped * skipped + per_waiting * waiting
    assert len(steps) > 100
    np.testing.assert_allclose(terms @ np.array(profile.step_ms) + other, seconds * 1000, rtol=1e-9)


def test_matching_finds_the_scale_that_a_run_was_made_with() -> None:
    profile = load_profile("llama-3.1-8b")
    workload = workload_from_groups([(16, 16, 0.2)], duration_s=600.0)
    observation = StepObservation(workload.requests, workload.ranks, 16, 16, 0.0)

    def matched(step_ms: float) -> float:
        from dataclasses import replace

        return match_operating_point(replace(observation, step_ms=step_ms), profile, window_s=600.0).scale

    result = simulate_requests(
        workload.requests, workload.ranks, profile, 16, duration_s=600.0, sample_every_s=0, max_samples=100_000
    )
    steps = result.samples
    mean = float(np.average(steps[:, engine.SAMPLE_SECONDS], weights=steps[:, engine.SAMPLE_RUNNING]) * 1000)
    assert matched(mean) == pytest.approx(1.0, abs=0.02)
    assert matched(1.3 * mean) > 1.1


def test_coefficients_are_found_despite_outliers() -> None:
    generator = np.random.default_rng(0)
    terms = np.zeros((200, len(STEP_TERMS)))
    terms[:, 0] = 1
    terms[:, 2] = generator.uniform(1, 50, 200)
    step = 10 + 0.3 * terms[:, 2]
    step[:10] *= 3
    fit = fit_step_time(terms, step, np.zeros(200), np.ones(200))
    assert fit.step_ms[0] == pytest.approx(10, rel=0.01)
    assert fit.step_ms[2] == pytest.approx(0.3, rel=0.02)


def test_no_coefficient_is_negative() -> None:
    terms = np.ones((20, len(STEP_TERMS))) * np.linspace(1, 2, 20)[:, None]
    fit = fit_step_time(terms, np.linspace(20, 10, 20), np.zeros(20), np.ones(20))
    assert min(fit.step_ms) >= 0
