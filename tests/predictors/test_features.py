"""The description of a GPU content: sums over its adapters, and moments of its request lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors import LengthStats, adapter_contributions, content_features, content_tail, length_stats
from predictors.features import ACTIVE, FEATURE_NAMES, N_FEATURES, N_SUMS, RATE, SERVICE_TIMES_S
from twin import Lengths, LogNormalTokens, UserError, Workload, fixed_lengths

RATES = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=30)


@given(rates=RATES)
def test_expected_activity_is_that_of_poisson_arrivals(rates: list[float]) -> None:
    rows = adapter_contributions(np.full(len(rates), 8), rates)
    expected = 1 - np.exp(-np.outer(rates, SERVICE_TIMES_S))
    np.testing.assert_allclose(rows[:, ACTIVE:], expected, rtol=1e-9, atol=1e-12)


@given(rates=RATES, leaver=st.integers(0, 29))
def test_an_adapter_leaves_by_subtracting_its_row(rates: list[float], leaver: int) -> None:
    leaver %= len(rates)
    ranks = np.resize([8, 16, 32], len(rates))
    rows = adapter_contributions(ranks, rates)
    stay = np.delete(np.arange(len(rates)), leaver)
    without = content_features(ranks[stay], np.array(rates)[stay], 4, Lengths())
    np.testing.assert_allclose(rows.sum(axis=0) - rows[leaver], without[:N_SUMS], atol=1e-9)


def test_a_content_is_its_sums_and_its_tail() -> None:
    content = content_features([8, 8, 32], [0.1, 0.2, 0.3], 2, Lengths(), window_s=600.0)
    assert content.shape == (N_FEATURES,) == (len(FEATURE_NAMES),)
    named = dict(zip(FEATURE_NAMES, content, strict=True))
    assert (named["adapters_of_rank_8"], named["adapters_of_rank_16"], named["adapters_of_rank_32"]) == (2, 0, 1)
    assert content[RATE] == pytest.approx(0.6)
    np.testing.assert_array_equal(content[N_SUMS:], content_tail(2, Lengths(), 600.0))


def test_a_rank_between_two_known_ones_counts_as_the_larger() -> None:
    np.testing.assert_array_equal(adapter_contributions([12], [0.1]), adapter_contributions([16], [0.1]))


@pytest.mark.parametrize("rank", [0, -8, 257])
def test_a_rank_out_of_range_is_told(rank: int) -> None:
    with pytest.raises(UserError, match=f"rank={rank}"):
        adapter_contributions([8, rank], [0.1, 0.1])


@pytest.mark.parametrize(
    "lengths",
    [
        Lengths(),
        Lengths(generated_fraction=0.9),
        Lengths(LogNormalTokens(100, 0.8, 4, 500), LogNormalTokens(300, 0.4, 4, 500), 700, correlation=0.0),
        fixed_lengths(64, 32),
    ],
)
def test_moments_of_a_distribution_are_those_of_its_requests(lengths: Lengths) -> None:
    workload = Workload(ranks=np.array([8]), rates=np.array([50.0]), lengths=lengths, duration_s=4000.0)
    drawn, described = length_stats(workload.requests), length_stats(lengths)
    for moment in ("prompt_tokens", "output_tokens", "requested_tokens", "held_tokens"):
        assert getattr(described, moment) == pytest.approx(getattr(drawn, moment), rel=0.02)


def test_constant_lengths_hold_the_prompt_and_half_the_output() -> None:
    assert length_stats(fixed_lengths(64, 32)) == LengthStats(64.0, 32.0, 32.0, 80.0)


def test_moments_pass_through() -> None:
    stats = LengthStats(10.0, 20.0, 30.0, 40.0)
    assert length_stats(stats) is stats


def test_an_empty_trace_has_no_lengths() -> None:
    nothing = Workload(ranks=np.array([8]), rates=np.array([0.0])).requests
    with pytest.raises(UserError, match="empty"):
        length_stats(nothing)
