"""Laws of rates that change: curves and requests belong to the adapter, and counts follow the curve."""

from dataclasses import replace

import numpy as np
import pytest

from twin import DailyArrivals, UserError, Workload, rates_over_time
from twin.curves import STEP_S

DAY_S = 7200.0
LIVELY = DailyArrivals(day_s=DAY_S, swing=0.8, flash_factor=4.0, flash_share=0.5, visitors=0.3, unrest=0.5)


def workload(arrivals: DailyArrivals, n: int = 20, duration_s: float = DAY_S) -> Workload:
    return Workload(np.full(n, 8), np.full(n, 2.0), arrivals=arrivals, duration_s=duration_s)


def test_an_adapter_keeps_its_curve_and_its_requests_wherever_it_is_listed() -> None:
    whole = workload(LIVELY)
    moved = replace(workload(LIVELY, n=2), ids=np.array([7, 3]))
    assert (rates_over_time(moved) == rates_over_time(whole)[[7, 3]]).all()
    alone = whole.requests_of(np.array([7]))
    assert (moved.requests_of(np.array([0])).arrival_s == alone.arrival_s).all()


def test_a_longer_window_begins_with_the_shorter_ones_requests() -> None:
    short, long = workload(LIVELY), workload(LIVELY, duration_s=1.5 * DAY_S)
    assert (rates_over_time(long)[:, : int(DAY_S / STEP_S)] == rates_over_time(short)).all()
    arrivals = long.requests.arrival_s
    np.testing.assert_allclose(arrivals[arrivals < DAY_S], short.requests.arrival_s)


def test_arrivals_follow_the_curve() -> None:
    """The counts of each quarter of an hour are within five deviations of the integral of the rates."""
    lively = workload(LIVELY, n=50)
    expected = rates_over_time(lively).sum(axis=0).reshape(-1, 15).sum(axis=1) * STEP_S
    counts = np.histogram(lively.requests.arrival_s, np.arange(len(expected) + 1) * 15 * STEP_S)[0]
    assert expected.max() > 1.5 * expected.min()
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_without_changes_rates_are_constant_and_others_have_constant_ones() -> None:
    flat = DailyArrivals(day_s=DAY_S, swing=0.0)
    assert (rates_over_time(workload(flat)) == 2.0).all()
    assert (rates_over_time(Workload(np.array([8]), np.array([2.0]))) == 2.0).all()


def test_a_flash_crowd_and_visitors_come_to_their_share_at_their_time() -> None:
    flash = DailyArrivals(day_s=DAY_S, swing=0.0, flash_at=0.5, flash_length=0.25, flash_factor=3.0, flash_share=0.5)
    rates = rates_over_time(workload(flash, n=400))
    share = (rates == 6.0).any(axis=1).mean()
    assert 0.4 < share < 0.6
    assert ((rates == 6.0).sum(axis=1)[(rates == 6.0).any(axis=1)] == DAY_S / STEP_S / 4).all()
    visiting = rates_over_time(workload(DailyArrivals(day_s=DAY_S, swing=0.0, visitors=1.0, stay=0.25), n=20))
    np.testing.assert_allclose((visiting > 0).mean(axis=1), 0.25, atol=0.02)


@pytest.mark.parametrize(
    "options", [{"swing": 1.5}, {"day_s": 0.0}, {"unrest_s": 90.0}, {"flash_factor": float("nan")}]
)
def test_a_curve_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        DailyArrivals(**options)
