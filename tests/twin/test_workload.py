"""Workloads: each adapter's requests are its own."""

from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.twin.drawn import make_requests
from twin import Requests, UserError, Workload, fixed_lengths, workload_from_groups
from twin.arrivals import GammaArrivals


def same(one: Requests, other: Requests) -> bool:
    return all(
        np.array_equal(part, other_part)
        for part, other_part in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def streams(requests: Requests, adapter: int) -> list[tuple[float, int, int]]:
    rows = np.flatnonzero(requests.adapter == adapter)
    return list(
        zip(
            requests.arrival_s[rows].tolist(),
            requests.prompt_tokens[rows].tolist(),
            requests.output_tokens[rows].tolist(),
            strict=True,
        )
    )


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    count = draw(st.integers(0, 6))
    ranks = draw(st.lists(st.sampled_from([8, 16]), min_size=count, max_size=count))
    rates = draw(st.lists(st.sampled_from([0.0, 0.05, 1.0]), min_size=count, max_size=count))
    ids = draw(st.lists(st.integers(0, 1000), min_size=count, max_size=count, unique=True))
    return Workload(
        ranks=np.array(ranks),
        rates=np.array(rates),
        ids=np.array(ids),
        duration_s=draw(st.sampled_from([1.0, 30.0])),
        seed=draw(st.integers(0, 100)),
    )


@given(workload=workloads())
def test_requests_come_in_order_and_within_limits(workload: Workload) -> None:
    requests = workload.requests
    assert (np.diff(requests.arrival_s) >= 0).all()
    assert ((requests.arrival_s >= 0) & (requests.arrival_s < workload.duration_s)).all()
    assert (requests.prompt_tokens + requests.requested_tokens <= workload.lengths.max_total_tokens).all()
    assert (requests.output_tokens <= requests.requested_tokens).all()
    assert set(requests.adapter) <= set(np.flatnonzero(workload.rates))


@given(workload=workloads(), data=st.data())
def test_the_requests_of_an_adapter_do_not_depend_on_the_others(workload: Workload, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(workload.n_adapters)))
    kept = np.array(order[: data.draw(st.integers(0, len(order)))], dtype=np.int64)
    ids = np.asarray(workload.ids)
    fewer = Workload(
        ranks=workload.ranks[kept],
        rates=workload.rates[kept],
        ids=ids[kept],
        duration_s=workload.duration_s,
        seed=workload.seed,
    )
    for place, adapter in enumerate(kept):
        assert streams(fewer.requests, place) == streams(workload.requests, int(adapter))
    np.testing.assert_array_equal(fewer.requests.arrival_s, workload.requests.of(kept, workload.n_adapters).arrival_s)


@given(workload=workloads(), data=st.data())
def test_the_requests_of_a_gpu_are_the_same_drawn_alone_or_taken_from_all(
    workload: Workload, data: st.DataObject
) -> None:
    adapters = np.array(data.draw(st.permutations(range(workload.n_adapters)))[:3], dtype=np.int64)
    low = data.draw(st.floats(0, 1))
    for intervals in (None, np.tile([low, 1.0], (len(adapters), 1))):
        alone = workload.with_seed(workload.seed).requests_of(adapters, intervals)
        _ = workload.requests
        assert same(alone, workload.requests_of(adapters, intervals))


@given(workload=workloads(), cuts=st.lists(st.floats(0, 1), max_size=3))
def test_replicas_share_out_the_requests(workload: Workload, cuts: list[float]) -> None:
    edges = [0.0, *sorted(cuts), 1.0]
    everything = np.arange(workload.n_adapters)
    parts = [
        workload.requests_of(everything, np.tile([low, high], (workload.n_adapters, 1)))
        for low, high in pairwise(edges)
    ]
    together = sorted(
        (time, adapter) for part in parts for time, adapter in zip(part.arrival_s, part.adapter, strict=True)
    )
    assert together == sorted(zip(workload.requests.arrival_s, workload.requests.adapter, strict=True))


def test_half_of_therouting_draws_take_half_of_the_requests() -> None:
    workload = workload_from_groups([(4, 8, 2.0)], duration_s=1000.0)
    half = workload.requests_of(np.arange(4), np.tile([0.0, 0.5], (4, 1)))
    assert len(half) == pytest.approx(len(workload.requests) / 2, rel=0.05)


def test_adapters_are_routed_independently() -> None:
    workload = workload_from_groups([(2, 8, 1.0)])
    one, other = workload.routing_draws(np.arange(2), np.full(2, 1000)).reshape(2, 1000) < 0.5
    assert (one == other).mean() == pytest.approx(0.5, abs=0.1)


@given(workload=workloads())
def test_a_longer_window_keeps_the_earlier_requests(workload: Workload) -> None:
    longer = Workload(
        workload.ranks, workload.rates, duration_s=2 * workload.duration_s, seed=workload.seed, ids=workload.ids
    )
    count = len(workload.requests)
    np.testing.assert_allclose(longer.requests.arrival_s[:count], workload.requests.arrival_s)
    np.testing.assert_array_equal(longer.requests.prompt_tokens[:count], workload.requests.prompt_tokens)
    np.testing.assert_array_equal(longer.requests.output_tokens[:count], workload.requests.output_tokens)


def test_the_counts_are_those_of_the_rates() -> None:
    workload = workload_from_groups([(1, 8, 4.0), (1, 16, 0.5), (1, 8, 0.0)], duration_s=4000.0)
    counts = np.bincount(workload.requests.adapter, minlength=3)
    assert counts[0] == pytest.approx(16_000, rel=0.03)
    assert counts[1] == pytest.approx(2_000, rel=0.1)
    assert counts[2] == 0
    gaps = np.diff([time for time, _, _ in streams(workload.requests, 0)])
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, rel=0.05)


def test_seeds_draw_other_requests() -> None:
    one = workload_from_groups([(3, 8, 1.0)], seed=1)
    assert same(one.requests, workload_from_groups([(3, 8, 1.0)], seed=1).requests)
    assert not np.array_equal(one.requests.arrival_s[:5], one.with_seed(2).requests.arrival_s[:5])


def test_arrivals_are_a_choice() -> None:
    groups = workload_from_groups([(1, 8, 1.0)], duration_s=5000.0)
    bursty = Workload(groups.ranks, groups.rates, duration_s=5000.0, arrivals=GammaArrivals(3.0))
    gaps = np.diff(bursty.requests.arrival_s)
    assert gaps.std() / gaps.mean() == pytest.approx(3.0, rel=0.2)


def test_a_trace_is_replayed_as_it_is() -> None:
    trace = make_requests((0.5, 1, 10, 3), (1.5, 0, 20, 2), (2.0, 1, 5, 1))
    workload = Workload(ranks=np.array([8, 8]), rates=np.array([1.0, 2.0]), duration_s=3.0, trace=trace)
    for field in fields(trace):
        np.testing.assert_array_equal(getattr(workload.requests, field.name), getattr(trace, field.name))
    mine = workload.requests_of(np.array([1]))
    assert (mine.arrival_s.tolist(), mine.adapter.tolist()) == ([0.5, 2.0], [0, 0])


def test_arrays_are_read_only() -> None:
    workload = workload_from_groups([(2, 8, 1.0)])
    with pytest.raises(ValueError, match="read-only"):
        workload.rates[0] = 2.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ranks": [8], "rates": [1.0, 2.0]}, "1 ranks, 2 rates"),
        ({"rates": [1.0, -1.0]}, "rate=-1.0 of adapter 1"),
        ({"rates": [float("nan"), 1.0]}, "rate=nan of adapter 0"),
        ({"ranks": [8, 0]}, "rank=0 of adapter 1"),
        ({"ids": [3, 3]}, "unique"),
        ({"ids": [-1, 3]}, "not negative"),
        ({"duration_s": 0.0}, "duration_s=0.0"),
        ({"duration_s": float("inf")}, "duration_s=inf"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_wrong_value_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"workload mine: .*{message}"):
        Workload(**{"ranks": [8, 8], "rates": [1.0, 1.0], "name": "mine", **fields})


def test_a_negative_count_is_named() -> None:
    with pytest.raises(UserError, match="count=-1"):
        workload_from_groups([(-1, 8, 1.0)], lengths=fixed_lengths(8, 8))
