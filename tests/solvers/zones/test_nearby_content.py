"""Whole adapters near a content given in fractions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from solvers.zones.nearby import fill_below

amounts = st.floats(0.01, 10.0)


@st.composite
def targets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A start, sums and a target."""
    n_adapters, n_sums = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    sums = draw(arrays(np.float64, (n_adapters, n_sums), elements=amounts))
    target = draw(arrays(np.float64, n_sums, elements=st.floats(0.0, 30.0)))
    return draw(arrays(np.bool_, n_adapters)), sums, target


@given(targets())
def test_nothing_is_too_much_and_nothing_more_has_room(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Any start is mended, and what stays out does not fit."""
    start, sums, target = case
    before = start.copy()
    chosen = fill_below(start, sums, target)
    assert (start == before).all()
    asked = sums[chosen].sum(axis=0)
    assert (asked <= target * (1 + 1e-8) + 1e-9).all()
    for out in np.flatnonzero(~chosen):
        assert (asked + sums[out] > target * (1 - 1e-8)).any()


def test_an_exchange_fills_a_gap_that_no_addition_fits() -> None:
    """Six of seven asked for, by four and three: the start of five leaves no room for either."""
    sums = np.array([[5.0], [4.0], [3.0]])
    assert fill_below(np.array([True, False, False]), sums, np.array([7.0])).tolist() in (
        [True, False, False],
        [False, True, True],
    )
    assert fill_below(np.array([False, False, True]), sums, np.array([7.5])).tolist() == [False, True, True]
    assert fill_below(np.array([False, False, True]), sums, np.array([5.5])).tolist() == [True, False, False]


def test_adapters_that_ask_for_nothing_stay_out() -> None:
    """They would not make a content starve."""
    assert not fill_below(np.zeros(2, dtype=np.bool_), np.zeros((2, 2)), np.ones(2)).any()
