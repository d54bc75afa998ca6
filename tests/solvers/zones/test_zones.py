"""Search zones, their prices, and the bound that rests on them."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from solvers.base import Problem
from solvers.exact import Exact
from solvers.exact_search.progress import Progress
from solvers.limits import Deadline
from solvers.oracles.twin import TwinOracle
from solvers.zones.bound import ZoneBound
from solvers.zones.boxes import split_zones
from solvers.zones.certify import evened, farley
from solvers.zones.clusters import cluster_adapters
from solvers.zones.pricing import ZonePricing, ZoneTable
from tests.examples import examples
from twin import GammaArrivals, GpuPlan, Placement, Workload, workload_from_groups

points = st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=7)


@given(points)
@examples(60)
def test_zones_hold_exactly_what_no_point_rules_out(ruled_out: list[list[int]]) -> None:
    limits = np.full((1, 3), math.inf)
    for point in ruled_out:
        limits = split_zones(limits, np.array(point, dtype=float))
    for candidate in np.ndindex(6, 6, 6):
        allowed = not any(all(c >= p for c, p in zip(candidate, point, strict=True)) for point in ruled_out)
        assert (np.array(candidate) < limits).all(axis=1).any() == allowed


@given(points)
@examples(60)
def test_no_zone_lies_in_another(ruled_out: list[list[int]]) -> None:
    limits = np.full((1, 3), math.inf)
    for point in ruled_out:
        limits = split_zones(limits, np.array(point, dtype=float))
    for place, zone in enumerate(limits):
        others = np.delete(limits, place, axis=0)
        assert not (others >= zone).all(axis=1).any()


def table_of(points_: NDArray[np.float64]) -> ZoneTable:
    table = ZoneTable(np.array([8, 16]), points_.shape[1])
    for number, point in enumerate(points_):
        table.rule_out(8 if number % 2 else 16, point)
    table.refresh()
    return table


@pytest.mark.parametrize("seed", range(3))
def test_the_dearest_content_is_that_of_a_linear_programme_for_each_zone(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sums, counts = generator.uniform(0.1, 1.0, (12, 3)), generator.integers(1, 6, 12).astype(float)
    ranks = generator.choice([8, 16], 12)
    table = table_of(generator.uniform(1.0, 6.0, (9, 3)))
    pricing = ZonePricing(table, sums, counts, ranks)
    for _ in range(3):  # multipliers of earlier prices are used again
        prices = generator.uniform(0.0, 1.0, 12)
        values = []
        for limit, rank in zip(table.limits, table.ranks, strict=True):
            finite = np.isfinite(limit)
            bounds = [(0.0, c if r <= rank else 0.0) for c, r in zip(counts, ranks, strict=True)]
            values.append(-linprog(-prices, sums[:, finite].T, limit[finite], bounds=bounds).fun)
        dearest, columns = pricing.dearest(prices, 1e-9)
        assert dearest == pytest.approx(max(values), rel=1e-6)
        assert columns[0].price == pytest.approx(max(values), rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_evened_prices_prove_nearly_what_a_linear_programme_over_all_zones_does(seed: int) -> None:
    """The cheapest cover by fractions, as a programme of its own: each adapter covered, each zone used as often as need be."""
    generator = np.random.default_rng(seed)
    sums, ranks = generator.uniform(0.1, 1.0, (30, 3)), generator.choice([8, 16], 30)
    table = table_of(generator.uniform(2.0, 6.0, (6, 3)))
    pricing = ZonePricing(table, sums, np.ones(30), ranks)
    # Variables: how often zone z is used, and how much of adapter a that covers: x[z, a] <= u[z] where the rank allows it.
    n_zones = len(table.limits)
    n = n_zones + n_zones * 30
    rows, right = [], []
    for zone in range(n_zones):
        for a in range(30):
            row = np.zeros(n)
            row[n_zones + zone * 30 + a] = 1.0
            row[zone] = -1.0 if ranks[a] <= table.ranks[zone] else 0.0
            rows.append(row)
            right.append(0.0)
        for j in np.flatnonzero(np.isfinite(table.limits[zone])):
            row = np.zeros(n)
            row[n_zones + zone * 30 : n_zones + (zone + 1) * 30] = sums[:, j]
            row[zone] = -table.limits[zone, j]
            rows.append(row)
            right.append(0.0)
    for a in range(30):
        row = np.zeros(n)
        row[n_zones + a :: 30] = -1.0
        rows.append(row)
        right.append(-1.0)
    cost = np.concatenate([np.ones(n_zones), np.zeros(n - n_zones)])
    best = linprog(cost, A_ub=np.array(rows), b_ub=np.array(right)).fun
    start = farley(sums[:, 0], pricing)[0]
    found = evened(sums[:, 0], pricing, math.inf, Deadline.after(60.0))
    assert found.value <= best * (1 + 1e-6)
    assert found.value >= start
    assert best - found.value < 0.02 * best + 0.3 * (best - start)
    assert found.prices.sum() == pytest.approx(found.value)
    assert pricing.dearest(found.prices, 1e-9)[0] <= 1 + 1e-6
    assert all(column.price > 0 for column in found.dearest)


def test_a_cluster_s_content_asks_for_what_it_should() -> None:
    generator = np.random.default_rng(0)
    requests = generator.geometric(0.01, 300)
    sums = np.column_stack([requests * 400.0, np.minimum(requests / 100.0, 1.0)])
    clusters = cluster_adapters(generator.choice([8, 16, 32], 300), requests, sums)
    assert sorted(np.concatenate(clusters.members).tolist()) == list(range(300))
    assert len(clusters) <= 50
    amounts = clusters.counts * 0.37
    content = clusters.content(amounts)
    asked, wanted = sums[list(content)].sum(axis=0), amounts @ clusters.sums
    assert len(set(content)) == len(content)
    assert asked == pytest.approx(wanted, rel=0.05)
    assert len(clusters.content(amounts, 0.5)) == pytest.approx(len(content) / 2, abs=2)


def skewed(n_adapters: int, total_rate: float, *, cv: float = 1.0) -> Workload:
    """Zipf rates on ranks that alternate."""
    rates = 1.0 / np.arange(1, n_adapters + 1) ** 0.9
    return Workload(
        np.resize([8, 16, 32], n_adapters),
        rates / rates.sum() * total_rate,
        arrivals=GammaArrivals(cv),
        duration_s=300.0,
        seed=5,
    )


@pytest.mark.parametrize("cv", [1.0, 3.0])
def test_no_accepted_content_is_cut_off(problem: Problem, cv: float) -> None:
    """Contents at the edge of what the twin accepts, of other shapes than those that the bound asks about."""
    workload = skewed(240, 80.0, cv=cv)
    oracle = TwinOracle(workload, problem.profile)
    bound = ZoneBound(oracle)
    bound.run(Deadline.after(60), rounds=6)
    assert bound.value > 1
    assert len(bound.cuts) > 10
    generator = np.random.default_rng(1)
    accepted = 0
    for _ in range(12):
        order = generator.permutation(240)
        low, high = 0, 240
        while low + 1 < high:
            middle = (low + high) // 2
            slots = [value for value in (16, 48, 96) if oracle.accepts(tuple(sorted(order[:middle].tolist())), value)]
            low, high = (middle, high) if slots else (low, middle)
        content = np.sort(order[:low])
        accepted += low > 0
        sums, rank = oracle.asks[content].sum(axis=0), workload.ranks[content].max()
        assert not any(least <= rank and (sums >= point).all() for least, point in bound.cuts)
        assert bound.prices[content].sum() <= 1 + 1e-6
    assert accepted > 8


def test_the_bound_grows_with_the_questions_and_never_falls(problem: Problem) -> None:
    oracle = TwinOracle(skewed(150, 90.0), problem.profile)
    bound = ZoneBound(oracle)
    values = []
    for _ in range(4):
        bound.run(Deadline.after(60), rounds=1)
        values.append(bound.value)
    assert values == sorted(values)
    assert values[-1] > values[0]


def test_activity_is_the_share_of_time_with_a_request_in_service(problem: Problem) -> None:
    """Against a count on a fine grid of times, for requests that come in bursts."""
    workload = skewed(6, 1.0, cv=3.0)
    oracle = TwinOracle(workload, problem.profile)
    requests, grid = workload.requests, np.arange(0.05, 300.0, 0.1)
    for adapter in range(6):
        arrivals = requests.arrival_s[requests.adapter == adapter]
        for row, time_s in enumerate(oracle._service_times_s):
            last = np.searchsorted(arrivals, grid) - 1
            busy = (last >= 0) & (grid - arrivals[np.maximum(last, 0)] < time_s)
            assert oracle.asks[adapter, 1 + row] == pytest.approx(busy.mean(), abs=0.01)


def test_a_few_requests_at_the_end_of_the_window_prove_nothing(problem: Problem) -> None:
    """Nothing of a lone adapter is finished in a window of a few seconds, and that is not for lack of capacity."""
    workload = workload_from_groups([(1, 8, 0.2)], duration_s=20.0)
    oracle = TwinOracle(workload, problem.profile)
    assert not oracle.congested((0,), 8)
    crowd = TwinOracle(workload_from_groups([(300, 8, 0.5)], duration_s=300.0), problem.profile)
    assert crowd.congested(tuple(range(300)), 8)
    assert crowd.starves(tuple(range(300)))


def test_a_placement_below_the_bound_refutes_what_it_rests_on() -> None:
    progress = Progress(None, "twin")
    progress.raise_bound(2, certain=True)
    progress.raise_bound(4)
    progress.keep(Placement(tuple(GpuPlan((adapter,), 1) for adapter in range(3))))
    assert progress.refuted
    assert progress.lower_bound == 2
    progress.raise_bound(3)
    assert progress.lower_bound == 2
    assert not progress.proven


def test_more_adapters_than_there_is_time_for_still_get_an_answer_and_a_bound(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that goes on by 30 ms whenever somebody looks, so that this is the same on any machine."""
    ticks = count(0.0, 0.03)
    monkeypatch.setattr("solvers.limits.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    many = replace(problem, workload=skewed(900, 120.0), max_gpus=None, time_limit_s=9.0)
    solution = Exact(oracle="twin").run(many)
    assert solution.placement is not None
    assert solution.lower_bound is not None
    assert solution.lower_bound > 2
    assert solution.details["gap"] is not None
