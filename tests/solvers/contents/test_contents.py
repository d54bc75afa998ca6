"""GPU contents and what is counted of them: small ones whose orders, parts, classes and sums are worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.contents.adapter_types import adapter_types, single_types
from solvers.contents.demands import Demands, presence
from solvers.contents.divided import (
    MOST_PARTS,
    DividedWorkload,
    divided,
    in_order_of_gpus,
    n_adapters_of,
    parts_of,
    sent_to,
    with_shares,
)
from solvers.contents.orders import decreasing_order, sorted_plan, zigzag_order
from solvers.contents.published_figures import (
    adapter_kv_tokens,
    backbone_tokens_per_s,
    kv_cache_tokens,
    operating_point_tokens_per_s,
)
from solvers.contents.replicas import placement_of_copies, placement_of_shares
from solvers.contents.rounding import rounded
from tests.examples import examples
from twin import GpuPlan, Lengths, Placement, ServingProfile, Workload

MIXED = Workload(np.array([8, 32, 8, 16, 32, 8]), np.array([0.3, 0.1, 0.3, 0.9, 0.2, 0.5]))


# --- orders


def test_large_ranks_come_first_then_busy_ones_then_the_order_given() -> None:
    assert decreasing_order(MIXED).tolist() == [4, 1, 3, 5, 0, 2]


def test_within_a_rank_busy_and_idle_ones_alternate() -> None:
    """Of five of a rank: largest, smallest, second largest, second smallest, the middle."""
    workload = Workload(np.array([8, 8, 8, 8, 8, 16, 16]), np.array([1.0, 2.0, 3.0, 4.0, 5.0, 1.0, 2.0]))
    assert zigzag_order(workload).tolist() == [6, 5, 4, 0, 3, 1, 2]


def test_a_plan_names_its_adapters_ascending() -> None:
    assert sorted_plan([3, 1, 2], 2) == GpuPlan((1, 2, 3), 2)


# --- types


def test_adapters_of_one_rank_and_rate_are_one_type() -> None:
    types = adapter_types(MIXED)
    assert types.ranks.tolist() == [32, 32, 16, 8, 8]
    assert types.rates.tolist() == [0.2, 0.1, 0.9, 0.5, 0.3]
    assert types.counts.tolist() == [1, 1, 1, 1, 2]
    assert [member.tolist() for member in types.members] == [[4], [1], [3], [5], [0, 2]]
    assert types.contents(np.array([1, 0, 0, 0, 1])) == (0, 4)
    assert types.contents(np.array([0, 0, 1, 0, 2])) == (0, 2, 3)
    assert [member.tolist() for member in single_types(MIXED).members] == [[0], [1], [2], [3], [4], [5]]


def test_adapters_with_other_shared_prompts_are_another_type() -> None:
    """Or an adapter with a long prompt would be taken for one with a short one."""
    types = adapter_types(replace(MIXED, shared_prompt_tokens=np.array([10, 5, 3000, 0, 5, 0])))
    assert types.rates.tolist() == [0.2, 0.1, 0.9, 0.5, 0.3, 0.3]
    assert [member.tolist() for member in types.members] == [[4], [1], [3], [5], [2], [0]]


def test_parts_have_the_shared_prompt_of_their_adapter() -> None:
    whole = replace(MIXED, shared_prompt_tokens=np.array([10, 0, 3000, 0, 5, 0]), duration_s=120.0)
    parts = divided(whole, np.array([2, 1, 3, 1, 1, 1]))
    np.testing.assert_array_equal(parts.mean_request_tokens, whole.mean_request_tokens[parts.owners])
    np.testing.assert_allclose(parts.rates @ parts.mean_request_tokens, whole.rates @ whole.mean_request_tokens)
    np.testing.assert_array_equal(parts.requests.shared(), whole.requests.shared())


def test_the_first_of_a_type_is_neither_its_busiest_nor_its_idlest() -> None:
    workload = Workload(np.full(5, 8), np.full(5, 0.5), duration_s=600.0, seed=1)
    requests = workload.requests
    tokens = np.bincount(requests.adapter, requests.prompt_tokens + requests.requested_tokens, 5)
    (members,) = adapter_types(workload, by_requests=True).members
    place = np.argsort(np.argsort(tokens))[members]
    assert place[0] == 2
    assert set(place[1:3].tolist()) == {1, 3}
    assert set(place[3:].tolist()) == {0, 4}


# --- classes of types


def test_neighbours_that_differ_least_are_merged_first() -> None:
    """Rates 4, 3.9, 2 and 1: upwards the two first cost 0.1 requests/s, 1 to 2 would cost one."""
    types = adapter_types(Workload(np.full(4, 8), np.array([1.0, 4.0, 2.0, 3.9])))
    up, down = rounded(types, 3, up=True), rounded(types, 3, up=False)
    assert up.rates.tolist() == [4.0, 2.0, 1.0]
    assert down.rates.tolist() == [3.9, 2.0, 1.0]
    assert up.counts.tolist() == down.counts.tolist() == [2, 1, 1]
    assert [member.tolist() for member in up.members] == [[1, 3], [2], [0]]


def test_what_merging_costs_is_what_it_adds_or_takes_away() -> None:
    """Five adapters at 3 and one at 2 below one at 4: upwards raising five by 1 costs more than raising one; downwards not."""
    rates = np.array([4.0, *[3.0] * 5, 2.0])
    types = adapter_types(Workload(np.full(7, 8), rates))
    assert rounded(types, 2, up=True).rates.tolist() == [4.0, 3.0]
    assert rounded(types, 2, up=True).counts.tolist() == [1, 6]
    assert rounded(types, 2, up=False).rates.tolist() == [3.0, 2.0]
    assert rounded(types, 2, up=False).counts.tolist() == [6, 1]


@examples(30)
@given(
    drawn=st.lists(st.tuples(st.sampled_from([8, 16, 32]), st.sampled_from([0.1, 0.2, 0.5, 0.7, 3.0])), min_size=1),
    most=st.integers(1, 6),
)
def test_classes_hold_everybody_within_a_rank_and_err_to_one_side(drawn: list[tuple[int, float]], most: int) -> None:
    ranks, rates = (np.array(each) for each in zip(*drawn, strict=True))
    types = adapter_types(Workload(ranks, rates))
    for up in (True, False):
        classes = rounded(types, most, up=up)
        assert len(classes) <= max(most, len(np.unique(ranks)))
        assert sorted(np.concatenate(classes.members).tolist()) == list(range(len(ranks)))
        for rank, rate, count, members in zip(
            classes.ranks, classes.rates, classes.counts, classes.members, strict=True
        ):
            assert count == len(members)
            assert (ranks[members] == rank).all()
            assert rate == (rates[members].max() if up else rates[members].min())


# --- demands


def test_presence_counts_adapters_of_a_rank_or_above() -> None:
    assert presence(np.array([8, 16, 32, 16])).tolist() == [[0, 1, 1, 1], [0, 0, 1, 0]]
    assert presence(np.array([8, 8])).shape == (0, 2)


def test_sums_of_a_content_are_those_of_its_adapters() -> None:
    demands = Demands(np.array([[1.0, 2.0], [0.5, 0.25]]), load_row=1)
    assert demands.load.tolist() == [0.5, 0.25]
    assert demands.of(np.array([2, 3])).tolist() == [8.0, 1.75]


# --- shares and copies


def test_shares_become_replicas_of_those_who_are_on_several_gpus() -> None:
    placement = placement_of_shares(
        [np.array([1.0, 0.25, 0.0]), np.zeros(3), np.array([0.0, 0.75, 1.0])], lambda held: held + 5
    )
    assert placement == Placement((GpuPlan((0, 1), 7, (1.0, 0.25)), GpuPlan((1, 2), 7, (0.75, 1.0))))
    whole = placement_of_shares([np.array([1.0, 0.0]), np.array([0.0, 1.0])], lambda held: held)
    assert whole == Placement((GpuPlan((0,), 1), GpuPlan((1,), 1)))


def test_copies_are_dealt_even_shares() -> None:
    """Adapter 7 on three GPUs, adapter 2 on two, adapter 0 on one; nothing on GPU 1."""
    adapters, gpus = np.array([7, 7, 2, 0, 7, 2]), np.array([3, 0, 0, 0, 2, 3])
    placement = placement_of_copies(adapters, gpus, lambda held: held)
    third = 1.0 / 3
    assert placement == Placement(
        (GpuPlan((0, 2, 7), 3, (1.0, 0.5, third)), GpuPlan((7,), 1, (third,)), GpuPlan((2, 7), 2, (0.5, third)))
    )
    assert placement_of_copies(np.array([1, 0]), np.array([0, 0]), lambda held: 2 * held) == Placement(
        (GpuPlan((0, 1), 4),)
    )
    assert placement_of_copies(np.array([], dtype=int), np.array([], dtype=int), lambda held: held).n_gpus == 0


# --- parts


def test_a_divided_adapter_is_as_many_of_even_rates_and_of_its_rank() -> None:
    whole = Workload(np.array([8, 16]), np.array([3.0, 1.0]), duration_s=60.0)
    parts = divided(whole, np.array([3, 1]))
    assert parts.owners.tolist() == [0, 0, 0, 1]
    assert parts.ranks.tolist() == [8, 8, 8, 16]
    assert parts.rates.tolist() == [1.0, 1.0, 1.0, 1.0]
    assert (parts.whole, parts.seed, parts.duration_s) == (whole, whole.seed, whole.duration_s)
    assert n_adapters_of(parts, (0, 2)) == 1
    assert n_adapters_of(parts, (0, 2, 3)) == 2
    assert n_adapters_of(whole, (0, 1)) == 2
    again = parts.with_seed(7)
    assert isinstance(again, DividedWorkload)
    assert again.seed == again.whole.seed == 7
    assert again.counts.tolist() == [3, 1]
    assert parts.lengthened(0.0) is parts
    assert len(parts.lengthened(30.0).requests) == len(whole.lengthened(30.0).requests)


def test_what_is_sent_to_parts_is_of_their_own_adapter_and_rank() -> None:
    """Of adapters of ranks 8 and 16 the parts of the second alone: numbered from 0, of rank 16."""
    whole = Workload(np.array([8, 16]), np.array([3.0, 4.0]), duration_s=60.0)
    parts = divided(whole, np.array([3, 2]))
    requests, ranks = sent_to(parts, parts, (3, 4))
    assert ranks.tolist() == [16]
    assert len(requests) == int((whole.requests.adapter == 1).sum())
    assert set(requests.adapter.tolist()) == {0}
    assert sent_to(parts, parts, (1, 4))[1].tolist() == [8, 16]
    assert sent_to(whole, whole, (1,))[1].tolist() == [16]


def test_parts_are_numbered_by_the_order_of_gpus_and_slots_never_exceed_adapters() -> None:
    parts = divided(Workload(np.array([8, 16]), np.array([3.0, 1.0]), duration_s=60.0), np.array([4, 1]))
    placement = in_order_of_gpus(parts, Placement((GpuPlan((1, 3, 4), 3), GpuPlan((0, 2), 2))))
    assert [plan.adapters for plan in placement.gpus] == [(0, 1, 4), (2, 3)]
    assert with_shares(parts, placement) == Placement((GpuPlan((0, 1), 2, (0.5, 1.0)), GpuPlan((0,), 1, (0.5,))))


def test_shares_are_whole_numbers_of_parts_where_there_are_such() -> None:
    """A third, a quarter and the rest of one adapter: twelfths."""
    workload = Workload(np.array([8, 8]), np.array([1.0, 1.0]), duration_s=60.0)
    placement = Placement(
        (GpuPlan((0, 1), 2, (1 / 3, 1.0)), GpuPlan((0,), 1, (1 / 4,)), GpuPlan((0,), 1, (1 - 1 / 3 - 1 / 4,)))
    )
    found = parts_of(workload, placement)
    assert found is not None
    assert found[0].counts.tolist() == [12, 1]
    assert [len(plan.adapters) for plan in found[1].gpus] == [5, 3, 5]
    # The least common multiple of these two is far above the most parts.
    one, other = 1 / MOST_PARTS, 1 / (MOST_PARTS - 1)
    odd = (GpuPlan((0, 1), 2, (one, 1.0)), GpuPlan((0,), 1, (other,)), GpuPlan((0,), 1, (1 - one - other,)))
    assert parts_of(workload, Placement(odd)) is None


# --- published figures


def test_published_figures_are_given_for_two_profiles_and_measured_for_others(profile: ServingProfile) -> None:
    """What a slot costs is what the KV table loses over all of them, slot by slot."""
    assert backbone_tokens_per_s(profile, Lengths()) == 17814.5
    assert operating_point_tokens_per_s(profile, Lengths(), 16) == 14731.5
    assert kv_cache_tokens(profile) == 310160
    assert [adapter_kv_tokens(profile, rank) for rank in (8, 16, 32)] == [632, 1020, 1726]
    other = replace(profile, name="another")
    most = other.largest_max_loras(16)
    lost = other.kv_tokens(1, 16) - other.kv_tokens(most, 16)
    assert adapter_kv_tokens(other, 16) == pytest.approx(lost / (most - 1))
    assert kv_cache_tokens(other) == other.kv.without_lora_tokens
