"""Rules of the zone bound: never above the linear programme, however coarse the gap, and edges that belong to somebody."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from solvers.limits import Deadline
from solvers.zones import certify
from solvers.zones.bound import ZoneBound
from solvers.zones.boxes import priced_by_multipliers, split_zones
from solvers.zones.certify import evened, farley, single_prices
from solvers.zones.clusters import MOST_CLUSTERS, cluster_adapters
from solvers.zones.nearby import fill_below
from solvers.zones.pricing import FractionalContent, ZonePricing, ZoneTable
from solvers.zones.questions import ROUNDING, TwinQuestions
from tests.examples import examples

RANKS = np.array([8, 16, 32])


def drawn(seed: int, n_types: int = 10, n_points: int = 8) -> tuple[ZoneTable, ZonePricing, NDArray[np.float64]]:
    """A table with points ruled out beside each rank, its pricing, and prices."""
    generator = np.random.default_rng(seed)
    sums, counts = generator.uniform(0.1, 1.0, (n_types, 3)), generator.integers(1, 6, n_types).astype(float)
    table = ZoneTable(RANKS, 3)
    for _ in range(n_points):
        table.rule_out(int(generator.choice(RANKS)), generator.uniform(1.0, 6.0, 3))
    table.refresh()
    pricing = ZonePricing(table, sums, counts, generator.choice(RANKS, n_types))
    return table, pricing, generator.uniform(0.0, 1.0, n_types)


def dearest_by_programme(table: ZoneTable, pricing: ZonePricing, prices: NDArray[np.float64]) -> float:
    """The best price over all zones, a linear programme for each."""
    best = 0.0
    for limit, rank in zip(table.limits, table.ranks, strict=True):
        finite = np.isfinite(limit)
        room = [(0.0, c if r <= rank else 0.0) for c, r in zip(pricing.counts, pricing.types_rank, strict=True)]
        matrix, right = (pricing.sums[:, finite].T, limit[finite]) if finite.any() else (None, None)
        best = max(best, -linprog(-prices, matrix, right, bounds=room).fun)
    return best


@pytest.mark.parametrize("gap", [0.0, 1e-3, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_no_content_is_dearer_than_what_is_said_however_coarse_the_gap(seed: int, gap: float) -> None:
    """Nor is it said to be much dearer than it is; the contents shown lie in their zones."""
    table, pricing, prices = drawn(seed)
    for scaled in (prices, prices[::-1].copy(), prices**2):
        best = dearest_by_programme(table, pricing, scaled)
        said, columns = pricing.dearest(scaled, gap)
        assert said >= best * (1 - 1e-9)
        assert said <= best * (1 + gap) * (1 + 1e-6)
        assert [column.price for column in columns] == sorted((c.price for c in columns), reverse=True)
        for column in columns:
            assert column.price == pytest.approx(scaled @ column.amounts)
            assert table.holds(column.rank, column.amounts @ pricing.sums)
            assert not column.amounts[pricing.types_rank > column.rank].any()


@pytest.mark.parametrize("gap", [1e-3, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_no_bound_is_above_the_optimum_at_a_coarse_gap(seed: int, gap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Farley's bound of any prices, and that of prices that were evened: sums over the dearest by linear programmes."""
    monkeypatch.setattr(certify, "FINE_GAP", gap)
    table, pricing, prices = drawn(seed)
    pricing = ZonePricing(table, pricing.sums, np.ones(10), pricing.types_rank)
    value, scaled = farley(prices, pricing)
    assert value <= prices.sum() / dearest_by_programme(table, pricing, prices) * (1 + 1e-9)
    assert scaled.sum() == pytest.approx(value)
    assert dearest_by_programme(table, pricing, scaled) <= 1 + 1e-6
    monkeypatch.setattr(certify, "FINE_GAP", min(gap, 5e-3))
    found = evened(prices, pricing, math.inf, Deadline.after(60))
    assert found.value == pytest.approx(found.prices.sum())
    assert dearest_by_programme(table, pricing, found.prices) <= 1 + 1e-6
    assert found.value >= value * (1 - gap)


@pytest.mark.parametrize("seed", range(4))
def test_without_time_a_bound_is_less_tight_and_holds(seed: int) -> None:
    table, pricing, prices = drawn(seed)
    pricing = ZonePricing(table, pricing.sums, pricing.counts, pricing.types_rank, end=Deadline.after(0.0))
    bound, columns = pricing.dearest(prices, 1e-3)
    assert columns == []
    assert bound >= dearest_by_programme(table, pricing, prices) * (1 - 1e-9)


@given(seed=st.integers(0, 10**6))
def test_any_multipliers_give_a_bound(seed: int) -> None:
    """Contents drawn in a zone never cost more."""
    generator = np.random.default_rng(seed)
    table, pricing, prices = drawn(seed % 7)
    multipliers = np.where(np.isfinite(table.limits), generator.exponential(0.2, table.limits.shape), 0.0)
    bounds = priced_by_multipliers(
        prices, pricing.counts, pricing.sums, pricing.types_rank, table.limits, table.ranks, multipliers
    )
    for zone in range(len(table)):
        content = np.where(pricing.types_rank <= table.ranks[zone], generator.uniform(0, 1, 10) * pricing.counts, 0.0)
        room = np.min(table.limits[zone] / np.maximum(content @ pricing.sums, 1e-12))
        content *= min(1.0, room)
        assert prices @ content <= bounds[zone] * (1 + 1e-9) + 1e-9


def test_multipliers_by_hand() -> None:
    """Two of the first type at 3 - 0.5 x 2, one of the second at 1 - 0.5, the third is of too large a rank; 0.5 x 7 for the limit."""
    bounds = priced_by_multipliers(
        np.array([3.0, 1.0, 9.0]), np.array([2.0, 1.0, 1.0]), np.array([[2.0], [1.0], [1.0]]), RANKS,
        np.array([[7.0]]), np.array([16]), np.array([[0.5]]),
    )  # fmt: skip
    assert bounds.tolist() == [3.5 + 4.0 + 0.5]


def test_a_point_on_the_edge_of_a_zone_leaves_it_as_it_is() -> None:
    """A zone holds what is below its limits: what is on them is outside already."""
    zone = np.array([[4.0, 4.0]])
    assert split_zones(zone, np.array([4.0, 1.0])).tolist() == [[4.0, 4.0]]
    assert sorted(split_zones(zone, np.array([3.0, 1.0])).tolist()) == [[3.0, 4.0], [4.0, 1.0]]
    assert split_zones(zone, np.array([3.0, 0.0])).tolist() == [[3.0, 4.0]], "a sum of nothing rules out nothing"


def test_what_is_ruled_out_beside_a_rank_is_so_beside_larger_ones_alone() -> None:
    table = ZoneTable(RANKS, 2)
    table.rule_out(16, np.array([2.0, 2.0]))
    point = np.array([3.0, 3.0])
    assert [table.holds(rank, point) for rank in (8, 16, 32)] == [True, False, False]
    assert table.holds(16, np.array([2.0, 9.0])), "the edge belongs to the zone that is left"
    table.refresh()
    assert len(table) == 1 + 2 + 2
    assert table.ranks.tolist() == [8, 16, 16, 32, 32]


def test_multipliers_stay_with_their_zone() -> None:
    table = ZoneTable(np.array([8, 16]), 2)
    table.rule_out(8, np.array([2.0, 3.0]))
    table.refresh()
    table.learn(0, np.array([0.25, 0.5]))
    first = table.limits[0].copy()
    table.rule_out(16, np.array([1.0, 1.0]))
    table.refresh()
    place = int(np.flatnonzero((table.limits == first).all(axis=1) & (table.ranks == 8))[0])
    assert table.multipliers[place].tolist() == np.where(np.isfinite(first), [0.25, 0.5], 0.0).tolist()
    assert (table.multipliers[~np.isfinite(table.limits)] == 0).all()


@pytest.mark.parametrize(("value", "gpus"), [(0.0, 1), (2.0, 2), (2.0 + 1e-9, 2), (2.0 - 1e-9, 2), (2.001, 3)])
def test_a_zone_bound_is_rounded_up_but_for_rounding(value: float, gpus: int) -> None:
    bound = ZoneBound.__new__(ZoneBound)
    bound.value = value
    assert bound.gpus == gpus
    assert bound._reached(gpus)
    assert not bound._reached(gpus + 1)
    assert not bound._reached(None)


# --- clusters


@examples(60)
@given(
    requests=st.lists(st.integers(0, 500), min_size=1, max_size=40),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 100),
)
def test_a_cluster_s_content_is_no_more_than_was_asked_for(requests: list[int], share: float, seed: int) -> None:
    """As many adapters as the amounts say, less what is too little for one; nobody twice, and none that sends nothing."""
    generator = np.random.default_rng(seed)
    count = len(requests)
    sums = np.column_stack([np.array(requests, dtype=float), np.minimum(requests, 20.0)])
    clusters = cluster_adapters(generator.choice(RANKS, count), np.array(requests), sums)
    assert len(clusters) <= MOST_CLUSTERS
    assert sorted(np.concatenate(clusters.members).tolist()) == list(range(count))
    amounts = generator.uniform(0, 1, len(clusters)) * clusters.counts
    content = clusters.content(amounts, share)
    assert len(set(content)) == len(content)
    wanted = share * float(amounts[clusters.sums[:, 0] > 0].sum())
    assert wanted - len(clusters) - 1 <= len(content) <= wanted + 1e-6
    assert all(requests[adapter] for adapter in content)
    for cluster, members in enumerate(clusters.members):
        assert clusters.sums[cluster] == pytest.approx(sums[members].mean(axis=0))
        assert (clusters.of[members] == cluster).all()


def test_clusters_are_of_one_rank_and_about_as_many_requests() -> None:
    """A tenth more at most where there are few."""
    requests = np.array([0, 1, 1, 100, 104, 130, 100])
    ranks = np.array([8, 8, 8, 8, 8, 8, 16])
    clusters = cluster_adapters(ranks, requests, requests[:, None].astype(float))
    groups = sorted(sorted(members.tolist()) for members in clusters.members)
    assert groups == [[0], [1, 2], [3, 4], [5], [6]]
    assert clusters.ranks.tolist() == [int(ranks[members[0]]) for members in clusters.members]


def test_what_is_too_little_for_one_is_taken_on_to_the_next() -> None:
    """Half an adapter of the larger rank, and one and a half of the busier of the others: 0, 2 and 0 of three each."""
    sums = np.array([[5.0]] * 3 + [[4.0]] * 3 + [[1.0]] * 3)
    clusters = cluster_adapters(np.repeat([16, 8, 8], 3), np.repeat([5, 4, 1], 3), sums)
    by_load = {float(load): place for place, load in enumerate(clusters.sums[:, 0])}
    amounts = np.zeros(3)
    amounts[by_load[5.0]], amounts[by_load[4.0]] = 0.5, 1.5
    assert len(clusters.content(amounts)) == 2
    assert all(3 <= adapter < 6 for adapter in clusters.content(amounts))
    amounts[by_load[4.0]], amounts[by_load[1.0]] = 1.25, 0.25
    # 0.5 and 1.25 are one of the second and three quarters left, with 0.25 one of the third.
    assert [adapter // 3 for adapter in clusters.content(amounts)] == [1, 2]
    # One of three is the middle one, by load.
    assert clusters.content(np.eye(3)[by_load[4.0]]) == (4,)


def test_prices_of_single_adapters_cost_their_cluster_what_it_did() -> None:
    """On the mean, but for those that would be negative; the last ones go by load."""
    generator = np.random.default_rng(3)
    requests = generator.integers(1, 300, 30)
    sums = np.column_stack([requests * 1.0, np.minimum(requests, 50.0), np.ones(30)])
    ranks = generator.choice(RANKS, 30)
    clusters = cluster_adapters(ranks, requests, sums)
    table = ZoneTable(RANKS, 3)
    table.rule_out(8, np.array([1200.0, 300.0, 10.0]))
    table.refresh()
    pricing = ZonePricing(table, clusters.sums, clusters.counts, clusters.ranks)
    cover = clusters.sums[:, 0] / 1000.0
    *spread, by_load = single_prices(cover, clusters, sums, pricing)
    assert by_load == pytest.approx(sums[:, 0] / 1000.0)
    for prices in spread:
        assert (prices >= 0).all()
        mean = np.bincount(clusters.of, prices) / clusters.counts
        assert (mean >= cover - 1e-9).all()


# --- questions about a content


class Congested:
    """A GPU that takes a load of 10 beside rank 8, and 8 beside rank 32; it seems to take so much less or more."""

    def __init__(self, seeming: int) -> None:
        self.seeming = seeming
        self.asked: list[tuple[tuple[int, ...], int]] = []
        self.tried: list[tuple[tuple[int, ...], int]] = []

    def seems_congested(self, content: tuple[int, ...], rank: int) -> bool:
        """A guess."""
        self.tried.append((content, rank))
        return len(content) > (10 if rank < 32 else 8) + self.seeming

    def congested(self, content: tuple[int, ...], rank: int) -> bool:
        """Whether that is too much, each adapter asking for one."""
        self.asked.append((content, rank))
        return len(content) > (10 if rank < 32 else 8)


@pytest.mark.parametrize("seeming", [0, -2, 2])
@pytest.mark.parametrize(
    ("amount", "rank", "starves"), [(9.0, 8, False), (9.0, 32, True), (14.0, 8, True), (40.0, 8, True)]
)
def test_the_starving_point_is_hardly_too_much(amount: float, rank: int, seeming: int, *, starves: bool) -> None:
    """What is ruled out starves, within the content, and a sixth less of it would not, unless it seems so."""
    questions: Any = TwinQuestions.__new__(TwinQuestions)
    questions.oracle = Congested(seeming)
    questions.sums = np.ones((60, 1))
    questions.clusters = cluster_adapters(np.full(60, 8), np.ones(60), questions.sums)
    column = FractionalContent(rank, np.array([amount]), 1.0)
    found = questions.starving_point(column, questions.clusters, Deadline.after(60))
    edge = 10 if rank < 32 else 8
    assert (found is not None) == (starves and amount > edge + seeming)
    assert len(questions.oracle.tried[0][0]) == int(amount)
    assert all(tried == rank for _, tried in questions.oracle.tried)
    # Nothing is shown to starve that does not even seem to.
    assert set(questions.oracle.asked) <= set(questions.oracle.tried)
    if found is not None:
        largest, point = found
        assert largest == rank
        # Six tries come down to half of a content, or to the edge.
        assert edge < point[0] <= max(edge * 1.2 + 1 + abs(seeming), 0.55 * amount)
        assert all(asked == rank for _, asked in questions.oracle.asked)


def test_a_content_near_a_share_asks_for_no_more_of_anything() -> None:
    questions: Any = TwinQuestions.__new__(TwinQuestions)
    generator = np.random.default_rng(0)
    questions.sums = generator.uniform(0.1, 1.0, (50, 3))
    questions.clusters = cluster_adapters(np.full(50, 8), np.ones(50), questions.sums)
    column = FractionalContent(8, np.array([20.0]), 1.0)
    for share in (0.1, 0.5, 1.0):
        content = questions._content(column, questions.clusters, share)
        target = share * (column.amounts @ questions.clusters.sums)
        asked = questions.sums[list(content)].sum(axis=0)
        assert (asked <= target * (1 + 1e-6)).all()
        assert asked[0] >= target[0] - 1.0


def test_a_target_that_is_met_exactly_is_met() -> None:
    """Three tenths by three of a tenth, whatever rounding leaves."""
    assert fill_below(np.ones(3, dtype=np.bool_), np.full((3, 1), 0.1), np.array([0.3])).all()
    assert fill_below(np.ones(3, dtype=np.bool_), np.full((3, 1), 0.1), np.array([0.29])).sum() == 2
    assert 0 < ROUNDING < 1e-6


def test_adapters_that_send_nothing_are_no_cluster_with_those_that_do() -> None:
    clusters = cluster_adapters(np.full(4, 8), np.array([0, 1, 1, 0]), np.ones((4, 1)))
    assert sorted(sorted(members.tolist()) for members in clusters.members) == [[0, 3], [1, 2]]
