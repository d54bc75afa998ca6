"""The cheapest mix that inequalities leave: equal to enumeration, and moving with prices and counts as it must."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.mixes.hulls import Needed, cheapest_mix
from solvers.mixes.search import mixes_below
from twin import Fleet, GpuType, load_profile

PROFILE = load_profile("llama-3.1-8b")
MOST = 12

prices = st.decimals(min_value="0.1", max_value="9", places=2).map(float)
shares = st.floats(min_value=0.05, max_value=0.9)
counts = st.one_of(st.none(), st.integers(min_value=1, max_value=6))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Fleet, list[Needed]]:
    """A fleet of two or three types, and a few inequalities."""
    number = draw(st.integers(min_value=2, max_value=3))
    types = tuple(GpuType(f"t{place}", PROFILE, draw(prices), draw(counts)) for place in range(number))
    needed = [Needed(tuple(draw(shares) for _ in types)) for _ in range(draw(st.integers(min_value=0, max_value=3)))]
    return Fleet(types), needed


def cost_of(fleet: Fleet, mix: tuple[int, ...]) -> float:
    return sum(kind.price * number for kind, number in zip(fleet.types, mix, strict=True))


def enumerated(fleet: Fleet, needed: list[Needed]) -> float | None:
    ranges = [range((MOST if kind.count is None else kind.count) + 1) for kind in fleet.types]
    # No mix of more than 20 GPUs of a twentieth each is the cheapest; `MOST` of each type are enough for these shares or none are.
    found = [
        cost_of(fleet, mix)
        for mix in itertools.product(*ranges)
        if any(mix) and all(each.keeps(mix) for each in needed)
    ]
    return min(found, default=None)


def solved(fleet: Fleet, needed: list[Needed]) -> float | None:
    found = cheapest_mix(fleet, needed, max_gpus=None, most=MOST)
    return None if found is None else found.cost


@given(cases())
def test_it_is_the_cheapest_of_all(case: tuple[Fleet, list[Needed]]) -> None:
    fleet, needed = case
    expected = enumerated(fleet, needed)
    found = solved(fleet, needed)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-6))


@given(cases(), prices)
def test_a_dearer_type_never_lowers_the_cost(case: tuple[Fleet, list[Needed]], more: float) -> None:
    fleet, needed = case
    dearer = Fleet((replace(fleet.types[0], price=fleet.types[0].price + more), *fleet.types[1:]))
    before, after = solved(fleet, needed), solved(dearer, needed)
    assert (before is None) == (after is None)
    assert before is None or after is None or after >= before - 1e-6


@given(cases())
def test_more_of_a_type_never_raises_it(case: tuple[Fleet, list[Needed]]) -> None:
    fleet, needed = case
    more = Fleet((replace(fleet.types[0], count=None), *fleet.types[1:]))
    before, after = solved(fleet, needed), solved(more, needed)
    assert before is None or (after is not None and after <= before + 1e-6)


@given(cases())
def test_of_one_type_it_is_the_bound_rounded_up(case: tuple[Fleet, list[Needed]]) -> None:
    _, needed = case
    one = Fleet((GpuType("only", PROFILE),))
    alone = [Needed(each.shares[:1]) for each in needed]
    fewest = max([1, *(1 if each.keeps((1,)) else next(n for n in range(2, 30) if each.keeps((n,))) for each in alone)])
    found = cheapest_mix(one, alone, max_gpus=None, most=1000)
    assert found is not None
    assert found.cost == pytest.approx(fewest)


def test_a_limit_on_all_gpus_is_kept() -> None:
    fleet = Fleet((GpuType("small", PROFILE, 1.0), GpuType("large", PROFILE, 5.0)))
    needed = [Needed((0.25, 0.5))]
    unlimited = cheapest_mix(fleet, needed, max_gpus=None, most=MOST)
    assert unlimited is not None
    assert unlimited.mix == (4, 0)
    limited = cheapest_mix(fleet, needed, max_gpus=2, most=MOST)
    assert limited is not None
    assert limited.mix == (0, 2)
    assert cheapest_mix(fleet, needed, max_gpus=1, most=MOST) is None


@given(cases(), st.floats(min_value=0.5, max_value=30))
def test_mixes_below_a_cost_cover_all_that_are(case: tuple[Fleet, list[Needed]], cost: float) -> None:
    fleet, _ = case
    listed = list(mixes_below(fleet, cost, None, 6))
    assert all(cost_of(fleet, mix) < cost for mix in listed)
    ranges = [range(min(6, 6 if kind.count is None else kind.count) + 1) for kind in fleet.types]
    for mix in itertools.product(*ranges):
        if any(mix) and cost_of(fleet, mix) < cost * (1 - 1e-6):
            assert any(all(a >= b for a, b in zip(other, mix, strict=True)) for other in listed)
