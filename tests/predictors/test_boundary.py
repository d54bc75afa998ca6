"""Contents about the boundary of starvation: ladders reach it, and say how far each content is from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.boundary import LADDER, feasible_load, next_factor, scaled_content
from predictors.design import RATE_RANGE, content_generator, draw_content
from predictors.meanfield import profile_table
from twin import load_profile


def saturated(capacity: float) -> Callable[[float], float]:
    """A GPU that serves 98 % of what it is asked up to its capacity, and its capacity beyond."""
    return lambda load: 0.98 * min(1.0, capacity / load)


def climb(share_at: Callable[[float], float]) -> tuple[list[float], list[float]]:
    factors, shares = [1.0], [share_at(1.0)]
    while len(factors) < LADDER:
        factors.append(next_factor(factors, shares))
        shares.append(share_at(factors[-1]))
    return factors, shares


@given(capacity=st.floats(0.75, 1.08))
def test_a_ladder_finds_where_a_saturated_gpu_begins_to_starve(capacity: float) -> None:
    factors, shares = climb(saturated(capacity))
    known = feasible_load(factors, shares)
    boundary = capacity * 0.98 / 0.9
    for factor, load in zip(factors, known, strict=True):
        assert factor * load == pytest.approx(boundary, rel=0.03)


def test_a_ladder_that_stays_on_one_side_says_nothing() -> None:
    factors, shares = climb(lambda _: 0.95)
    assert all(step > before for before, step in pairwise(factors))
    assert all(math.isnan(load) for load in feasible_load(factors, shares))
    factors, shares = climb(lambda load: 0.1 / load)
    assert all(step < before for before, step in pairwise(factors))
    assert all(math.isnan(load) for load in feasible_load(factors, shares))


def test_nothing_served_is_a_step_down() -> None:
    assert next_factor([1.0], [0.0]) < 1.0


def test_two_distant_steps_do_not_say_where_between_them_the_boundary_is() -> None:
    assert math.isnan(feasible_load([1.0, 1.5], [0.96, 0.6])[0])
    # But if one is at the boundary, that is where it is.
    assert feasible_load([1.0, 1.5], [0.901, 0.6])[0] == pytest.approx(1.0, rel=0.01)


def test_a_scaled_content_keeps_all_but_its_rates() -> None:
    profile = load_profile("llama-3.1-8b")
    content = replace(draw_content(content_generator(3, 4), profile, profile_table(profile)), window_s=60.0)
    double = scaled_content(content, 2.0)
    np.testing.assert_allclose(double.rates, np.minimum(content.rates * 2, RATE_RANGE[1]))
    assert replace(double, rates=content.rates) == replace(content, window_s=double.window_s)
