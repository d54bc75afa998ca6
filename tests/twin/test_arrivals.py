"""Arrival processes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin import UserError
from twin.arrivals import Arrivals, GammaArrivals, PoissonArrivals, UnpredictableArrivals

PROCESSES = [PoissonArrivals(), GammaArrivals(0.3), GammaArrivals(4.0), UnpredictableArrivals()]


def drawn(process: Arrivals, rate: float, duration_s: float, seed: int = 0) -> np.ndarray:
    return process.draw(np.random.Generator(np.random.Philox(key=[seed, 0])), rate, duration_s)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@given(rate=st.floats(0.001, 20), duration_s=st.floats(1, 2000), seed=st.integers(0, 50))
def test_arrivals_ascend_within_the_window(process: Arrivals, rate: float, duration_s: float, seed: int) -> None:
    times = drawn(process, rate, duration_s, seed)
    assert (np.diff(times) >= 0).all()
    assert ((times >= 0) & (times < duration_s)).all()


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@given(rate=st.floats(0.001, 20), seed=st.integers(0, 50), window_s=st.floats(1, 1500), more_s=st.floats(0, 1500))
def test_a_longer_window_keeps_the_earlier_requests(
    process: Arrivals, rate: float, seed: int, window_s: float, more_s: float
) -> None:
    short, long = drawn(process, rate, window_s, seed), drawn(process, rate, window_s + more_s, seed)
    # Up to the rounding of sums that are made in parts.
    np.testing.assert_allclose(short, long[: len(short)], rtol=1e-9)
    assert (long[len(short) :] >= window_s * (1 - 1e-9)).all()


@pytest.mark.parametrize("cv", [0.2, 1.0, 3.0])
def test_gamma_gaps_have_the_mean_and_the_variation_asked_for(cv: float) -> None:
    gaps = np.diff(drawn(GammaArrivals(cv), 2.0, 100_000.0))
    assert gaps.mean() == pytest.approx(0.5, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.02)


@pytest.mark.parametrize("process", [PoissonArrivals(), GammaArrivals(0.3), GammaArrivals(4.0)], ids=str)
def test_the_mean_count_is_rate_times_duration_in_a_short_window_too(process: Arrivals) -> None:
    # A tenth of a request per window: a process that began with a request would have ten times as many.
    counts = [len(drawn(process, 0.01, 10.0, seed)) for seed in range(20_000)]
    standard_error = np.std(counts) / np.sqrt(len(counts))
    assert np.mean(counts) == pytest.approx(0.1, abs=4 * standard_error)
    assert standard_error < 0.01


def test_unpredictable_arrivals_change_from_period_to_period() -> None:
    counts = np.array(
        [np.histogram(drawn(UnpredictableArrivals(), 2.0, 3000.0, seed), 10, (0, 3000))[0] for seed in range(400)]
    )
    # In the first period half of the adapters have exponential gaps of 0.5 s.
    exponential = np.abs(counts[:, 0] - 600) < 150
    assert exponential.mean() == pytest.approx(0.5, abs=0.1)
    assert counts[exponential, 0].mean() == pytest.approx(600, rel=0.02)
    # In the second one the rate is 1.5 times up or down, whatever the kind was before.
    assert (np.abs(counts[:, 1] - 900) < 120).mean() == pytest.approx(0.25, abs=0.1)
    assert (np.abs(counts[:, 1] - 400) < 80).mean() >= 0.15


def test_log_normal_gaps_have_a_median_of_a_second_at_any_rate() -> None:
    slow = [len(drawn(UnpredictableArrivals(factor=1.0, limit=1.0), 0.001, 300.0, seed)) for seed in range(200)]
    # Half of the adapters send one request a second, the others a third of a request in the whole window.
    assert np.mean(np.array(slow) > 290) == pytest.approx(0.5, abs=0.12)
    assert np.mean(np.array(slow) < 5) == pytest.approx(0.5, abs=0.12)


def test_the_rate_stays_within_its_limits() -> None:
    steady = UnpredictableArrivals(factor=7.5)
    counts = np.array([np.histogram(drawn(steady, 1.0, 30_000.0, s), 100, (0, 30_000))[0] for s in range(10)])
    # Exponential gaps at 1/7.5, 1 and 7.5 requests per second, log-normal ones in between: never 7.5 squared.
    assert counts.max() < 7.5 * 300 * 1.2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GammaArrivals(0.0), "cv=0.0"),
        (lambda: GammaArrivals(float("nan")), "cv=nan"),
        (lambda: UnpredictableArrivals(period_s=0.0), "period_s=0.0"),
        (lambda: UnpredictableArrivals(factor=0.5), "factor=0.5"),
        (lambda: UnpredictableArrivals(limit=1.0), "limit=1.0"),
    ],
)
def test_a_wrong_value_is_named(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UserError, match=message):
        make()
