"""The bound from made-up contents: boxes hold all that can be accepted, and their prices are those of a linear programme."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from solvers.contents.adapter_types import adapter_types
from solvers.contents.demands import Demands
from solvers.exact_search.frontier import Boxes, FrontierBound, boxes_of_frontier, frontier_bound, price_boxes
from solvers.exact_search.load_limits import LoadLimits
from solvers.limits import Deadline
from tests.examples import examples
from tests.solvers.toy_oracle import ToyOracle, contents, fewest_gpus
from twin import Workload

RANKS = np.array([8, 16, 32])


@pytest.mark.parametrize(
    ("value", "gpus"), [(0.0, 1), (1.0, 1), (2.0, 2), (2.0 + 1e-9, 2), (2.0 - 1e-9, 2), (2.001, 3), (2.9, 3)]
)
def test_a_bound_is_rounded_up_but_for_rounding(value: float, gpus: int) -> None:
    """A bound of two and a billionth is two: one GPU too many would be no bound."""
    assert FrontierBound(value, np.zeros(1), 1).gpus == gpus


limits = st.lists(st.one_of(st.floats(0.5, 5.0), st.just(math.inf)), min_size=6, max_size=6)


@given(limits=limits, asked=st.lists(st.floats(0.5, 5.0), min_size=12, max_size=12), data=st.data())
def test_a_content_that_no_made_up_one_rules_out_lies_in_a_box(
    limits: list[float], asked: list[float], data: st.DataObject
) -> None:
    """Two ranks, three counts; sums are the load, one that is left aside, and two activities."""
    of = np.array(limits).reshape(2, 3)
    sums = np.zeros((2, 3, 4))
    sums[:, :, 2:] = np.array(asked).reshape(2, 3, 2)
    boxes = boxes_of_frontier(np.array([8, 32]), of, sums, np.array([2, 3]))
    rank = data.draw(st.sampled_from([8, 32]))
    values = [*of[np.isfinite(of)].tolist(), *asked, 0.1, 9.0]
    load, *active = (
        data.draw(st.sampled_from(values)) * data.draw(st.sampled_from([1.0, 1 - 1e-9, 1 + 1e-9])) for _ in range(3)
    )
    rejected = any(
        load >= of[r, c] and all(a >= b for a, b in zip(active, sums[r, c, 2:], strict=True))
        for r, c in product(range(2), range(3))
        if (8, 32)[r] <= rank
    )
    inside = any(
        rank <= boxes.rank[box]
        and load < boxes.load[box]
        and (boxes.sum_row[box] < 0 or active[boxes.sum_row[box] - 2] < boxes.limit[box])
        for box in range(len(boxes))
    )
    assert inside or rejected


def test_boxes_by_hand() -> None:
    """Two counts of one rank: below the first's activity any load goes, below the second's what the first left, and then less."""
    boxes = boxes_of_frontier(
        np.array([8]), np.array([[5.0, 4.0]]), np.array([[[5.0, 1.0], [4.0, 2.0]]]), np.array([1])
    )
    assert sorted(
        zip(boxes.rank.tolist(), boxes.load.tolist(), boxes.sum_row.tolist(), boxes.limit.tolist(), strict=True)
    ) == [(8, 4.0, -1, math.inf), (8, 5.0, 1, 2.0), (8, math.inf, 1, 1.0)]


def test_what_is_too_much_beside_a_small_rank_is_so_beside_a_large_one() -> None:
    boxes = boxes_of_frontier(np.array([8, 32]), np.array([[3.0], [4.0]]), np.full((2, 1, 2), 1.0), np.array([1]))
    assert (boxes.rank == 32).all(), "the smaller rank's boxes have no more room"
    assert sorted(boxes.load.tolist()) == [3.0, math.inf]


# --- prices of boxes


@st.composite
def priced(draw: st.DrawFn) -> tuple[NDArray[np.float64], Demands, NDArray[np.int64], NDArray[np.int64], Boxes]:
    """Prices, demands, counts and ranks of five types, and boxes."""
    amounts = st.lists(st.floats(0.1, 2.0), min_size=5, max_size=5)
    demands = Demands(np.array([draw(amounts), draw(amounts)]), draw(st.integers(0, 1)))
    counts = np.array(draw(st.lists(st.integers(1, 5), min_size=5, max_size=5)))
    ranks = np.array(draw(st.lists(st.sampled_from([8, 16, 32]), min_size=5, max_size=5)))
    rows = [
        (
            draw(st.sampled_from([8, 16, 32])),
            draw(st.one_of(st.floats(0.1, 12.0), st.just(math.inf))),
            draw(st.sampled_from([-1, 1 - demands.load_row])),
            draw(st.floats(0.1, 12.0)),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]
    rank, load, row, limit = zip(*rows, strict=True)
    boxes = Boxes(np.array(rank), np.array(load), np.array(row), np.array(limit))
    return np.array(draw(st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5))), demands, counts, ranks, boxes


def rows_of(demands: Demands, boxes: Boxes, box: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and right-hand side of a box."""
    rows, right = [], []
    for row, limit in ((demands.load_row, boxes.load[box]), (int(boxes.sum_row[box]), boxes.limit[box])):
        if row >= 0 and math.isfinite(limit):
            rows.append(demands.values[row])
            right.append(limit)
    return np.array(rows).reshape(len(rows), demands.values.shape[1]), np.array(right)


@examples(60)
@given(priced())
def test_the_price_of_a_box_is_that_of_its_linear_programme(
    case: tuple[NDArray[np.float64], Demands, NDArray[np.int64], NDArray[np.int64], Boxes],
) -> None:
    """Never below it, next to nothing above, and the content found lies in the box."""
    prices, demands, counts, ranks, boxes = case
    found = np.empty((len(boxes), 5))
    bounds = price_boxes(
        prices, ranks, counts.astype(float), demands.values, demands.load_row,
        boxes.rank, boxes.load, boxes.sum_row, boxes.limit, found,
    )  # fmt: skip
    for box in range(len(boxes)):
        matrix, right = rows_of(demands, boxes, box)
        room = [(0.0, float(c) if r <= boxes.rank[box] else 0.0) for c, r in zip(counts, ranks, strict=True)]
        value = -linprog(-prices, matrix if len(right) else None, right if len(right) else None, bounds=room).fun
        assert bounds[box] >= value * (1 - 1e-9) - 1e-9
        assert bounds[box] <= value * (1 + 1e-6) + 1e-6
        assert (matrix @ found[box] <= right * (1 + 1e-6) + 1e-9).all()
        assert all(low - 1e-9 <= amount <= high + 1e-9 for amount, (low, high) in zip(found[box], room, strict=True))
        assert prices @ found[box] == pytest.approx(value, rel=1e-4, abs=1e-6)


def cheapest_cover(demands: Demands, counts: NDArray[np.int64], ranks: NDArray[np.int64], boxes: Boxes) -> float:
    """How often each box is used at least, if fractions of contents cover all types: one linear programme."""
    n_boxes, n_types = len(boxes), len(counts)
    n = n_boxes * (1 + n_types)
    rows, right = [], []
    for box in range(n_boxes):
        part = slice(n_boxes + box * n_types, n_boxes + (box + 1) * n_types)
        for kind in range(n_types):
            row = np.zeros(n)
            row[part.start + kind] = 1.0
            row[box] = -float(counts[kind]) if ranks[kind] <= boxes.rank[box] else 0.0
            rows.append(row)
            right.append(0.0)
        matrix, limit = rows_of(demands, boxes, box)
        for sums, most in zip(matrix, limit, strict=True):
            row = np.zeros(n)
            row[part], row[box] = sums, -most
            rows.append(row)
            right.append(0.0)
    for kind in range(n_types):
        row = np.zeros(n)
        row[n_boxes + kind :: n_types] = -1.0
        rows.append(row)
        right.append(-float(counts[kind]))
    cost = np.concatenate([np.ones(n_boxes), np.zeros(n - n_boxes)])
    return float(linprog(cost, A_ub=np.array(rows), b_ub=np.array(right)).fun)


@examples(25)
@given(priced())
def test_the_bound_is_the_cheapest_cover_by_fractions(
    case: tuple[NDArray[np.float64], Demands, NDArray[np.int64], NDArray[np.int64], Boxes],
) -> None:
    """Never above it, hardly below, and its prices prove it."""
    _, demands, counts, ranks, boxes = case
    roomy = Boxes(
        np.append(boxes.rank, 32), np.append(boxes.load, 2.5), np.append(boxes.sum_row, -1), np.append(boxes.limit, 0.0)
    )
    bound = frontier_bound(demands, counts, ranks, roomy)
    best = cheapest_cover(demands, counts, ranks, roomy)
    assert bound.value <= best * (1 + 1e-6)
    # Whole GPUs count: prices within a hundredth are good enough where they settle it.
    assert bound.value >= 0.985 * best
    assert bound.prices @ counts == pytest.approx(bound.value)
    dearest = price_boxes(
        bound.prices, ranks, counts.astype(float), demands.values, demands.load_row,
        roomy.rank, roomy.load, roomy.sum_row, roomy.limit, np.empty((len(roomy), 5)),
    ).max()  # fmt: skip
    assert dearest == pytest.approx(1.0)
    assert frontier_bound(demands, counts, ranks, roomy, max_rounds=1).value <= bound.value * (1 + 1e-9)


def test_a_bound_stops_where_its_target_is_proven() -> None:
    demands = Demands(np.array([[3.0, 2.0, 1.0]]), 0)
    boxes = Boxes(np.array([32]), np.array([4.0]), np.array([-1]), np.array([math.inf]))
    counts = np.array([4, 6, 4])
    assert frontier_bound(demands, counts, RANKS, boxes).value == pytest.approx(28 / 4)
    assert frontier_bound(demands, counts, RANKS, boxes, target=7).rounds == 1


# --- load limits


def workload_of(counts: tuple[int, ...], rates: tuple[float, ...] = (1.5, 1.0, 0.5)) -> Workload:
    return Workload(np.repeat(RANKS, counts), np.repeat(rates, counts), duration_s=60.0)


def limits_of(oracle: ToyOracle, guess: float) -> LoadLimits:
    types = adapter_types(oracle.workload)
    return LoadLimits(oracle, oracle.demands(types), types.counts, guess)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("guess", [0.1, 4.0, 50.0])
def test_limits_are_those_of_a_fresh_search(guess: float, *, backwards: bool) -> None:
    """What was found for other counts and ranks only helps: each limit is where its own content begins to starve."""
    oracle = ToyOracle(workload_of((9, 9, 9)))
    asked = list(product((1, 2, 4, 8), RANKS.tolist()))
    found = limits_of(oracle, guess)
    for n_adapters, rank in reversed(asked) if backwards else asked:
        limit, edge = found.limit(n_adapters, rank, 0.01, Deadline.after(60)), oracle.takes(n_adapters, rank)
        assert oracle.made_up_starves(type("M", (), {"n_adapters": n_adapters, "rank": rank, "load": limit})())
        assert edge < limit <= edge * 1.025
        fresh = limits_of(ToyOracle(oracle.workload), guess).limit(n_adapters, rank, 0.01, Deadline.after(60))
        assert fresh == pytest.approx(limit, rel=0.03)
    # A finer answer is asked for anew.
    finer = found.limit(2, 16, 0.0005, Deadline.after(60))
    assert oracle.takes(2, 16) < finer <= oracle.takes(2, 16) * 1.0015
    assert found.limit(2, 16, 0.01, Deadline.after(60)) == finer
    points = found.points()
    assert len(points) == len(asked)
    assert {(rank, int(sums[-1])) for rank, sums in points} == {(rank, n) for n, rank in asked}


def test_a_load_beyond_all_there_is_has_no_limit() -> None:
    """Twelve adapters of 0.3 requests/s and one of 3: 6.6 in all, which a GPU takes beside one adapter but not beside twelve."""
    workload = Workload(np.full(13, 8), np.array([0.3] * 12 + [3.0]), duration_s=60.0)
    found = limits_of(ToyOracle(workload), 1.0)
    assert math.isinf(found.limit(1, 8, 0.01, Deadline.after(60)))
    assert found.limit(12, 8, 0.01, Deadline.after(60)) < 3.3
    assert [rank for rank, _ in found.points()] == [8]


@pytest.mark.parametrize("counts", [(3, 2, 2), (2, 0, 4), (0, 5, 1)])
def test_the_boxes_hold_every_accepted_content_and_their_bound_is_one(counts: tuple[int, ...]) -> None:
    oracle = ToyOracle(workload_of(counts))
    types = adapter_types(oracle.workload)
    demands = oracle.demands(types)
    boxes = limits_of(oracle, 3.0).boxes(((1, 2, 4, 8), 0.01), Deadline.after(60))
    for content in contents(types.counts):
        if not content.any() or oracle.find_max_loras(types.contents(content)) is None:
            continue
        sums, rank = demands.of(content), types.ranks[content > 0].max()
        assert any(
            rank <= boxes.rank[box]
            and sums[demands.load_row] < boxes.load[box]
            and (boxes.sum_row[box] < 0 or sums[boxes.sum_row[box]] < boxes.limit[box])
            for box in range(len(boxes))
        )
    assert 1 <= frontier_bound(demands, types.counts, types.ranks, boxes).gpus <= fewest_gpus(oracle)
