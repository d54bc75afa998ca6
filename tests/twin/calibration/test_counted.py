"""The step-time fit on counted steps, on servers that are the twin."""

from __future__ import annotations

import numpy as np
import pytest

from twin import UserError, engine, load_profile, simulate_requests, workload_from_groups
from twin.calibration import step_term_values
from twin.calibration.counted import CountedWindows, fit_counted_steps, slot_loads
from twin.profile import STEP_TERMS


def windows(noise: float = 0.0) -> tuple[CountedWindows, np.ndarray]:
    """Windows of three servers at six loads each, of a known model."""
    draws = np.random.default_rng(1)
    truth = np.zeros(len(STEP_TERMS))
    for term, value in {"constant": 16.0, "tokens": 0.36, "rank": 0.04, "tokens_x_rank": 0.027}.items():
        truth[STEP_TERMS.index(term)] = value
    rows, point = [], []
    for server, (slots, rank) in enumerate([(4, 8), (96, 32), (4, 16)]):
        for load in range(6):
            running = np.array([2.0, 8.0, 55.0, 5.0, 15.0, 20.0])[load] * draws.uniform(0.9, 1.1, 2)
            tokens = running + np.array([1.0, 8.0, 18.0, 120.0, 100.0, 15.0])[load]
            adapters = np.minimum(running, 4.0)
            rows.append(step_term_values(running, adapters, tokens, 60 * running, 0 * running, slots, rank, int(1e9)))
            point += [6 * server + load] * 2
    terms = np.vstack(rows)
    other = draws.uniform(0, 1, len(terms))
    step = (terms @ truth + other) * np.exp(noise * draws.standard_normal(len(terms)))
    return CountedWindows(terms, step, other, np.array(point)), truth


def test_the_coefficients_come_back() -> None:
    counted, truth = windows()
    fit = fit_counted_steps(counted)
    assert fit.error_pct < 0.1
    # Terms that stand for each other may share; what they say together must be right.
    np.testing.assert_allclose(counted.terms @ np.array(fit.step_ms), counted.terms @ truth, rtol=0.01)


def test_the_error_on_points_left_out_is_an_honest_one() -> None:
    fit = fit_counted_steps(windows(noise=0.05)[0])
    assert 1.0 < fit.error_pct < 6.0
    assert fit.left_out_error_pct > fit.error_pct


def test_one_server_tells_nothing_of_its_flags() -> None:
    counted, _ = windows()
    own = counted.point < 6
    one = CountedWindows(counted.terms[own], counted.step_ms[own], counted.other_ms[own], counted.point[own])
    fit = fit_counted_steps(one)
    told = {term for term, value in zip(STEP_TERMS, fit.step_ms, strict=True) if value > 0}
    assert told <= {"constant", "running", "adapters", "tokens", "kv_tokens"}
    assert fit.error_pct < 0.1


def test_too_few_windows_are_said_to_be() -> None:
    counted, _ = windows()
    few = CountedWindows(counted.terms[:4], counted.step_ms[:4], counted.other_ms[:4], counted.point[:4])
    with pytest.raises(UserError, match="4 windows are too few to fit"):
        fit_counted_steps(few)


@pytest.mark.parametrize(("max_loras", "rate"), [(2, 0.2), (6, 0.6), (12, 2.0)])
def test_loads_are_those_of_the_twin(max_loras: int, rate: float) -> None:
    profile = load_profile("llama-3.1-8b")
    workload = workload_from_groups([(12, 8, rate)], duration_s=200.0, seed=1)
    result = simulate_requests(
        workload.requests, workload.ranks, profile, max_loras, duration_s=200.0, sample_every_s=0, max_samples=100_000
    )
    ran = np.isfinite(result.first_token_s)
    step_s = result.busy_s / result.steps
    end = np.where(np.isfinite(result.finish_s), result.finish_s, np.inf)[ran]
    loads = slot_loads(result.first_token_s[ran] - step_s, end, workload.requests.adapter[ran], max_loras)
    simulated = result.samples[:, engine.SAMPLE_LOADS].sum()
    assert simulated == result.loads
    assert len(loads) == pytest.approx(simulated, rel=0.15, abs=2)


def test_a_slot_in_use_is_not_given_away() -> None:
    begin, end = np.array([0.0, 1.0, 2.0, 5.0]), np.array([9.0, 1.5, 4.0, 6.0])
    adapter = np.array([0, 1, 2, 0])
    # Adapter 0 runs all the time; 1 goes when 2 comes.
    assert slot_loads(begin, end, adapter, 2).tolist() == [0.0, 1.0, 2.0]
