"""Cuts and the dearest content that is left: whatever is rounded, never too little is let through."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from solvers.contents.demands import Demands
from solvers.exact_search import cuts as module
from solvers.exact_search.cuts import Cuts
from solvers.exact_search.frontier import Boxes
from solvers.limits import Deadline
from tests.examples import examples
from tests.solvers.toy_oracle import contents

RANKS = np.array([8, 16, 32])
COUNTS = np.array([3, 3, 2])


def boxes_of(rows: list[tuple[int, float, int, float]]) -> Boxes:
    rank, load, row, limit = zip(*rows, strict=True)
    return Boxes(np.array(rank), np.array(load), np.array(row), np.array(limit))


def within(content: NDArray[np.int64], boxes: Boxes, demands: Demands) -> bool:
    """Whether a content lies in a box, in the numbers as they are."""
    sums = demands.of(content)
    largest = max((int(rank) for rank, count in zip(RANKS, content, strict=True) if count), default=0)
    return any(
        largest <= boxes.rank[box]
        and sums[demands.load_row] < boxes.load[box]
        and (boxes.sum_row[box] < 0 or sums[boxes.sum_row[box]] < boxes.limit[box])
        for box in range(len(boxes))
    )


@st.composite
def searches(draw: st.DrawFn) -> tuple[Demands, list[NDArray[np.int64]], Boxes, NDArray[np.int64]]:
    """Demands, contents that were rejected, boxes and prices."""
    amounts = st.lists(st.floats(0.05, 2.0), min_size=3, max_size=3)
    demands = Demands(np.array([draw(amounts), draw(amounts)]), draw(st.integers(0, 1)))
    content = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)).filter(any)
    rejected = [np.array(taken) for taken in draw(st.lists(content, max_size=3))]
    total = demands.of(COUNTS)
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from([-1, 1 - demands.load_row]))
        rows.append(
            (
                draw(st.sampled_from([8, 16, 32])),
                float(draw(st.floats(0.1, 1.1)) * total[demands.load_row]),
                row,
                float(draw(st.floats(0.1, 1.1)) * total[row]) if row >= 0 else math.inf,
            )
        )
    prices = np.array(draw(st.lists(st.integers(0, 60), min_size=3, max_size=3)))
    return demands, rejected, boxes_of(rows), prices


def dearest_by_enumeration(
    demands: Demands, rejected: list[NDArray[np.int64]], boxes: Boxes, prices: NDArray[np.int64]
) -> int:
    left = [
        int(prices @ content)
        for content in contents(COUNTS)
        if within(content, boxes, demands)
        and not any((demands.of(content) >= demands.of(bad) - 1e-12).all() for bad in rejected)
    ]
    return max(left, default=0)


@pytest.mark.parametrize(("scale", "gap"), [(7, 0.002), (100, 0.5), (10**5, 0.002)])
@examples(30)
@given(search=searches())
def test_no_content_left_is_dearer_than_the_bound(
    scale: int, gap: float, search: tuple[Demands, list[NDArray[np.int64]], Boxes, NDArray[np.int64]]
) -> None:
    """Whatever the scale that sums are rounded to and the gap at which a search stops."""
    demands, rejected, boxes, prices = search
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SCALE", scale)
        patch.setattr(module, "RELATIVE_GAP", gap)
        cuts = Cuts(demands, COUNTS)
        for content in rejected:
            cuts.add(content)
        found, bound = cuts.dearest(prices, boxes, RANKS, Deadline.after(60), 1)
    assert bound >= dearest_by_enumeration(demands, rejected, boxes, prices)
    assert not cuts.rules_out(found) or not found.any()


@pytest.mark.parametrize("scale", [7, 10**5])
@given(search=searches())
def test_a_cut_rules_out_its_content_and_only_what_asks_for_as_much(
    scale: int, search: tuple[Demands, list[NDArray[np.int64]], Boxes, NDArray[np.int64]]
) -> None:
    demands, rejected, _, _ = search
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SCALE", scale)
        cuts = Cuts(demands, COUNTS)
    for content in rejected:
        cuts.add(content)
        assert cuts.rules_out(content)
        assert cuts.rules_out(np.maximum(content, COUNTS))
    assert len(cuts) == len(rejected)
    for content in contents(COUNTS):
        if cuts.rules_out(content):
            assert any((demands.of(content) >= demands.of(bad) - 1e-9).all() for bad in rejected)


def test_what_asks_for_as_much_in_every_sum_is_ruled_out_though_its_adapters_are_others() -> None:
    """One of the second type asks for hardly more than two of the first, one of the third for hardly less."""
    cuts = Cuts(Demands(np.array([[1.0, 2.00001, 1.99999], [0.5, 1.00001, 1.00001]]), 0), COUNTS)
    cuts.add(np.array([2, 0, 0]))
    assert cuts.rules_out(np.array([0, 1, 0]))
    assert cuts.rules_out(np.array([2, 0, 0]))
    assert cuts.rules_out(np.array([0, 0, 2]))
    assert not cuts.rules_out(np.array([0, 0, 1]))
    assert not cuts.rules_out(np.array([1, 0, 0]))


def test_a_threshold_that_nothing_reaches_is_no_matter_for_the_search() -> None:
    """A rank that no adapter has asks for nothing: its row is left out of a cut, and does not make it void."""
    cuts = Cuts(Demands(np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]), 0), COUNTS)
    cuts.add(np.array([2, 0, 0]))
    assert cuts.rules_out(np.array([0, 2, 0]))
    cuts = Cuts(Demands(np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]), 0), COUNTS)
    cuts.add(np.array([1, 0, 1]))
    assert not cuts.rules_out(np.array([3, 3, 0]))
    assert cuts.rules_out(np.array([0, 1, 1]))


@examples(30)
@given(search=searches())
def test_at_a_fine_scale_the_bound_is_the_dearest_content(
    search: tuple[Demands, list[NDArray[np.int64]], Boxes, NDArray[np.int64]],
) -> None:
    """A single box, and no gap: what is found is what there is, but for contents on the very edge."""
    demands, _, boxes, prices = search
    one = Boxes(boxes.rank[:1], boxes.load[:1], boxes.sum_row[:1], boxes.limit[:1])
    wider = Boxes(one.rank, one.load * (1 + 1e-3), one.sum_row, one.limit * (1 + 1e-3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RELATIVE_GAP", 0.0)
        found, bound = Cuts(demands, COUNTS).dearest(prices, one, RANKS, Deadline.after(60), 1)
    assert bound == prices @ found
    assert dearest_by_enumeration(demands, [], one, prices) <= bound
    assert bound <= dearest_by_enumeration(demands, [], wider, prices)


def test_a_search_that_stops_early_says_what_it_has_not_ruled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A knapsack that takes a search: at a gap of nine tenths its first answer is worse than the best, the bound is not."""
    monkeypatch.setattr(module, "RELATIVE_GAP", 0.9)
    generator = np.random.default_rng(5)
    values = generator.uniform(1.0, 2.0, (2, 25))
    prices = generator.integers(1000, 2000, 25)
    counts, ranks = generator.integers(1, 4, 25), np.full(25, 8)
    boxes = boxes_of([(8, 20.0, 1, 19.0)])
    found, bound = Cuts(Demands(values, 0), counts).dearest(prices, boxes, ranks, Deadline.after(60), 1)
    monkeypatch.setattr(module, "RELATIVE_GAP", 0.0)
    best, proven = Cuts(Demands(values, 0), counts).dearest(prices, boxes, ranks, Deadline.after(60), 1)
    assert prices @ best == proven
    assert prices @ found < proven, "the early answer must be worse, or this says nothing"
    assert proven <= bound


def test_a_dear_box_that_is_not_searched_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first box holds four of the first type, at 44 in fractions; the second, left alone, three of the second at 42."""
    monkeypatch.setattr(module, "RELATIVE_GAP", 0.25)
    cuts = Cuts(Demands(np.array([[1.0, 1.3]]), 0), np.array([10, 10]))
    boxes = boxes_of([(8, 4.4, -1, math.inf), (16, 3.9 + 1e-9, -1, math.inf)])
    found, bound = cuts.dearest(np.array([10, 14]), boxes, np.array([8, 16]), Deadline.after(60), 1)
    assert found.tolist() == [4, 0]
    assert bound == 42


def test_the_edge_of_a_box_is_rounded_outwards() -> None:
    """An edge at two and a half units lets three through: too much is let through, never too little."""
    unit = 1.0 / module.SCALE
    demands = Demands(np.array([[unit, 1 - 10 * unit]]), 0)
    cuts = Cuts(demands, np.array([10, 1]))
    content, bound = cuts._dearest_in_box(
        np.array([10, 0]), boxes_of([(8, 2.5 * unit, -1, math.inf)]), 0, np.array([8, 8]), Deadline.after(60), 1
    )
    assert content.tolist() == [3, 0]
    assert bound == 30


def test_larger_ranks_than_the_box_s_stay_out() -> None:
    demands = Demands(np.array([[1.0, 1.0, 1.0]]), 0)
    found, bound = Cuts(demands, COUNTS).dearest(
        np.array([1, 5, 9]), boxes_of([(16, 2.5, -1, math.inf)]), RANKS, Deadline.after(60), 1
    )
    assert found.tolist() == [0, 2, 0]
    assert bound in (10, 12)
