"""The shipped predictors against the twin that they were trained on, and the promises of their oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors import content_features, load_predictor, shipped_predictors
from twin import (
    BATCH,
    INTERACTIVE,
    Lengths,
    UserError,
    load_profile,
    simulate_gpu,
    simulate_requests,
    workload_from_groups,
)

PROFILES = shipped_predictors()


@pytest.mark.parametrize("name", PROFILES)
def test_it_is_made_for_the_profile_of_its_name(name: str) -> None:
    """Whatever a profile says of where it comes from, and how sure it is; another step time is another profile."""
    profile = load_profile(name)
    predictor = load_predictor(name)
    assert predictor.made_for(profile)
    assert not predictor.made_for(replace(profile, min_step_ms=profile.min_step_ms + 1.0))


@pytest.mark.parametrize("name", PROFILES)
def test_an_idle_gpu_serves_what_it_is_asked_for(name: str) -> None:
    predictor = load_predictor(name)
    content = content_features(np.full(8, 8), np.full(8, 0.01), 8, Lengths())[None]
    offered = 8 * 0.01 * Lengths().mean_total_tokens
    assert predictor.predict_throughput(content)[0] == pytest.approx(offered, rel=0.08)
    assert predictor.predict_starvation(content)[0] < 0.1


@pytest.mark.parametrize("name", PROFILES)
def test_an_overloaded_gpu_starves(name: str) -> None:
    predictor = load_predictor(name)
    content = content_features(np.full(64, 16), np.full(64, 3.2), 8, Lengths())[None]
    assert predictor.predict_starvation(content)[0] > 0.9
    assert predictor.distilled_starvation(content)[0] > 0.5


@pytest.mark.parametrize("name", PROFILES)
def test_service_levels_are_known_as_well_as_is_said(name: str) -> None:
    """Macro-F1 on contents left out; and a few that no sample was drawn for, by hand: from idle to overloaded."""
    profile, predictor = load_profile(name), load_predictor(name)
    assert predictor.levels is not None
    for model, least in (("full", 0.97), ("distilled", 0.96)):
        errors = predictor.levels.card["test_errors"]["designed"][model]
        assert min(errors[level]["macro_f1"] for level in ("drawn limits", "interactive")) >= least
        assert errors["batch"]["macro_f1"] >= 0.945
        assert max(errors[level]["missed"] for level in ("drawn limits", "interactive", "batch")) < 1.3
    for n_adapters, rank, rate, max_loras in ((8, 8, 0.1, 8), (32, 16, 0.1, 32), (64, 16, 3.2, 8), (96, 32, 1.0, 96)):
        workload = workload_from_groups([(n_adapters, rank, rate)], duration_s=600.0, seed=5)
        content = content_features(workload.ranks, workload.rates, max_loras, workload.lengths, 600.0)[None]
        for level in (INTERACTIVE, BATCH):
            fails = simulate_gpu(workload, np.arange(n_adapters), profile, max_loras, service=level).fails
            assert (predictor.under(level).predict_starvation(content)[0] > 0.5) == fails, (n_adapters, level.name)


@pytest.mark.parametrize("name", PROFILES)
def test_throughput_is_near_the_twins(name: str) -> None:
    """Contents that no training set was drawn for, by hand: from idle to overloaded."""
    profile, predictor = load_profile(name), load_predictor(name)
    errors = []
    for n_adapters, rank, rate, max_loras in (
        (8, 8, 0.1, 8), (32, 16, 0.1, 16), (64, 16, 0.2, 32), (96, 32, 0.1, 96), (32, 8, 1.6, 32), (128, 16, 0.05, 8),
    ):  # fmt: skip
        workload = workload_from_groups([(n_adapters, rank, rate)], duration_s=1800.0, seed=5)
        result = simulate_requests(workload.requests, workload.ranks, profile, max_loras, duration_s=1800.0)
        content = content_features(workload.ranks, workload.rates, max_loras, workload.lengths)[None]
        predicted = predictor.predict_throughput(content)[0]
        errors.append(abs(predicted - result.throughput) / (predicted + result.throughput))
    assert np.mean(errors) < 0.05


@pytest.mark.parametrize("name", PROFILES)
def test_slots_that_do_not_fit_are_refused(name: str) -> None:
    profile, predictor = load_profile(name), load_predictor(name)
    too_many = profile.largest_max_loras(32) + 64
    content = content_features(np.full(too_many, 32), np.full(too_many, 1e-4), too_many, Lengths())[None]
    assert predictor.predict_starvation(content)[0] == 1.0


@given(
    order=st.permutations(range(12)),
    rates=st.lists(st.floats(0.003, 3.0), min_size=12, max_size=12),
)
def test_the_order_of_the_adapters_is_nothing(order: list[int], rates: list[float]) -> None:
    ranks, all_rates = np.array([8, 16, 32] * 4), np.array(rates)
    straight = content_features(ranks, all_rates, 8, Lengths())
    shuffled = content_features(ranks[order], all_rates[order], 8, Lengths())
    np.testing.assert_allclose(straight, shuffled, rtol=1e-9)


@given(
    adapters=st.lists(st.tuples(st.sampled_from([8, 16, 32]), st.floats(0.003, 6.4)), min_size=2, max_size=60),
    copies=st.integers(1, 6),
    kept=st.lists(st.booleans(), min_size=60, max_size=60),
    max_loras=st.sampled_from([4, 8, 16, 32, 64]),
    name=st.sampled_from(PROFILES),
)
def test_a_subset_is_never_less_safe(
    adapters: list[tuple[int, float]], copies: int, kept: list[bool], max_loras: int, name: str
) -> None:
    """Acceptance is monotone: every subset of an accepted content is accepted, whatever the threshold."""
    predictor = load_predictor(name)
    ranks, rates = (np.tile(column, copies) for column in zip(*adapters, strict=True))
    subset = np.flatnonzero(np.resize(kept, len(ranks)))
    more = content_features(ranks, rates, max_loras, Lengths())[None]
    less = content_features(ranks[subset], rates[subset], max_loras, Lengths())[None]
    assert predictor.predict_starvation(more)[0] >= predictor.predict_starvation(less)[0] - 1e-9
    assert predictor.distilled_starvation(more)[0] >= predictor.distilled_starvation(less)[0] - 1e-9


@pytest.mark.parametrize("name", PROFILES)
def test_a_gpu_at_half_its_feasible_load_does_not_starve(name: str) -> None:
    profile, predictor = load_profile(name), load_predictor(name)
    for n_adapters, rank, max_loras in ((16, 8, 16), (64, 16, 64), (96, 8, 32)):
        content = content_features(np.full(n_adapters, rank), np.full(n_adapters, 0.1), max_loras, Lengths())[None]
        factor = predictor.predict_feasible_load(content)[0]
        starved = []
        for share in (0.5, 1.6):
            workload = workload_from_groups([(n_adapters, rank, 0.1 * factor * share)], duration_s=1800.0, seed=2)
            result = simulate_requests(workload.requests, workload.ranks, profile, max_loras, duration_s=1800.0)
            starved.append(result.starved)
        assert starved == [False, True]


@pytest.mark.parametrize("name", PROFILES)
def test_latency_is_near_the_twins(name: str) -> None:
    profile, predictor = load_profile(name), load_predictor(name)
    workload = workload_from_groups([(64, 16, 0.1)], duration_s=1800.0, seed=5)
    result = simulate_requests(workload.requests, workload.ranks, profile, 64, duration_s=1800.0)
    content = content_features(workload.ranks, workload.rates, 64, workload.lengths, 1800.0)[None]
    assert predictor.predict_itl_ms(content)[0] == pytest.approx(result.itl.mean_ms, rel=0.15)
    assert predictor.predict_ttft_ms(content)[0] == pytest.approx(result.ttft.mean_ms, rel=0.5)


def test_a_name_that_is_not_shipped_is_told() -> None:
    with pytest.raises(UserError, match="no"):
        load_predictor("gpt/tpu")
