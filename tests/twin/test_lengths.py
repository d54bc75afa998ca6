"""Request lengths: the mean asked for, whatever the range."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from twin import Lengths, LogNormalTokens, UserError, fixed_lengths

UNIFORM = (np.arange(20_000) + 0.5) / 20_000


@given(mean=st.floats(2, 3000), sigma=st.floats(0.05, 2.5), low=st.integers(1, 100), high=st.integers(100, 8000))
def test_the_mean_after_truncation_is_the_one_asked_for(mean: float, sigma: float, low: int, high: int) -> None:
    # Near the lower end a cell of one token is wide against the density's fall, and rounding shifts the mean.
    assume(low * 1.5 + 5 <= mean <= high * 0.8)
    tokens = LogNormalTokens(mean, sigma, low, high).from_uniform(UNIFORM)
    assert tokens.mean() == pytest.approx(mean, rel=0.01, abs=0.1)
    assert low <= tokens.min() <= tokens.max() <= high
    assert (np.diff(tokens) >= 0).all()


def test_no_spread_means_one_length() -> None:
    assert set(LogNormalTokens(7.0, 0.0, 1, 10).from_uniform(UNIFORM)) == {7}
    assert set(LogNormalTokens(5.0, 1.0, 5, 5).from_uniform(UNIFORM)) == {5}


def test_a_normal_distribution_clipped_at_one_would_inflate_the_mean() -> None:
    # Why lengths are log-normal: this is the mean of the published twin's prompts for the same mean and spread.
    generator = np.random.Generator(np.random.Philox(key=[0, 0]))
    clipped = np.maximum(generator.normal(222.8, 270.0, 100_000), 1)
    assert clipped.mean() > 1.1 * 222.8


@given(
    prompt=st.floats(5, 500),
    output=st.floats(5, 500),
    total=st.integers(2, 1500),
    fraction=st.floats(0.01, 1.0),
    correlation=st.floats(-0.9, 0.9),
)
def test_limits_hold_for_every_request(
    prompt: float, output: float, total: int, fraction: float, correlation: float
) -> None:
    lengths = Lengths(
        LogNormalTokens(prompt, 1.0, 1, 2048),
        LogNormalTokens(output, 1.0, 1, 2048),
        max_total_tokens=total,
        generated_fraction=fraction,
        correlation=correlation,
    )
    prompts, outputs, requested = lengths.draw(np.random.Generator(np.random.Philox(key=[0, 0])), 2000)
    assert prompts.min() >= 1
    assert outputs.min() >= 1
    assert (outputs <= requested).all()
    assert (prompts + requested).max() <= total


def test_early_stops_make_the_share_asked_for() -> None:
    for fraction in (0.953, 0.989, 1.0):
        lengths = Lengths(generated_fraction=fraction)
        _, output, requested = lengths.draw(np.random.Generator(np.random.Philox(key=[1, 0])), 200_000)
        assert output.sum() / requested.sum() == pytest.approx(fraction, abs=0.003)


def test_a_mean_out_of_reach_is_named() -> None:
    with pytest.raises(UserError, match=r"mean_tokens=99\.999"):
        LogNormalTokens(99.999, 1.0, 1, 100).from_uniform(UNIFORM)


@pytest.mark.parametrize("correlation", [-0.7, 0.0, 0.5])
def test_prompt_and_output_are_correlated_as_asked(correlation: float) -> None:
    lengths = Lengths(max_total_tokens=4096, correlation=correlation)
    prompt, _, requested = lengths.draw(np.random.Generator(np.random.Philox(key=[2, 0])), 50_000)
    ranks = [np.argsort(np.argsort(values)) for values in (prompt, requested)]
    # Rank correlation of a Gaussian copula (Kruskal, 1958).
    expected = 6 / np.pi * np.arcsin(correlation / 2)
    assert np.asarray(np.corrcoef(np.array(ranks)))[0, 1] == pytest.approx(expected, abs=0.02)


def test_fixed_lengths_are_all_alike() -> None:
    lengths = fixed_lengths(250, 231)
    prompt, output, requested = lengths.draw(np.random.Generator(np.random.Philox(key=[0, 0])), 100)
    assert (set(prompt), set(output), set(requested)) == ({250}, {231}, {231})
    assert lengths.mean_total_tokens == 481


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (LogNormalTokens, {"mean_tokens": 5, "sigma": 1, "min_tokens": 0}, "min_tokens=0"),
        (LogNormalTokens, {"mean_tokens": 5, "sigma": 1, "min_tokens": 9, "max_tokens": 8}, "max_tokens=8"),
        (LogNormalTokens, {"mean_tokens": 5000, "sigma": 1}, "mean_tokens=5000"),
        (LogNormalTokens, {"mean_tokens": 5, "sigma": -1}, "sigma=-1"),
        (Lengths, {"generated_fraction": 0.0}, "generated_fraction=0.0"),
        (Lengths, {"generated_fraction": 1.5}, "generated_fraction=1.5"),
        (Lengths, {"max_total_tokens": 1}, "max_total_tokens=1"),
        (Lengths, {"correlation": 1.0}, "correlation=1.0"),
    ],
)
def test_a_wrong_value_is_named(make: type, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"lengths: .*{message}"):
        make(**fields)
