"""Decisions of the baselines worked out by hand: edges, ties, and which GPU is meant."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors import content_features
from predictors.features import PROMPT, REQUESTED
from solvers.balanced_flow import BalancedFlow
from solvers.base import Problem, Solution
from solvers.dlora import Dlora, first_order, replicate
from solvers.hrw import RendezvousHashing
from solvers.latency import Latency
from solvers.least_loaded import LeastLoaded
from solvers.lora_serve import LoraServe, gpus_by_rank, pack_fractions
from solvers.max_backbone import MaxBackbone
from solvers.min_cost_flow import ControllerFlow, _flow
from solvers.objectives.min_gpus import MinGpus
from solvers.random_gpu import RandomGpu
from solvers.spreading.controller import Workers, hashes, preferred, replica_counts
from solvers.spreading.dealing import least_loaded, rank_by_rank, slices
from solvers.vector_packing import BEST_FIT, FIRST_FIT, WORST_FIT, VectorPacking, pack_vectors
from tests.examples import examples
from twin import Lengths, UserError, Workload, load_profile
from twin.lengths import fixed_lengths

LENGTHS = fixed_lengths(120, 80)


def with_rates(problem: Problem, rates: list[float], ranks: list[int] | None = None, **more: object) -> Problem:
    """Requests of 200 tokens each."""
    workload = Workload(np.array(ranks or [8] * len(rates)), np.array(rates), LENGTHS, duration_s=60.0)
    return replace(problem, workload=workload, **more)  # type: ignore[arg-type]  # fields of Problem


def contents(solution: Solution) -> list[tuple[int, ...]]:
    assert solution.placement is not None
    return [plan.adapters for plan in solution.placement.gpus]


def slots(solution: Solution) -> list[int]:
    assert solution.placement is not None
    return [plan.max_loras for plan in solution.placement.gpus]


# --- dealing


def test_of_gpus_as_loaded_the_one_with_fewer_adapters_is_taken_then_the_first() -> None:
    """Idle adapters go round, and after 2 | 1, 1 the next goes to the single one."""
    assert least_loaded(np.zeros(5), np.arange(5), 2) == [[0, 2, 4], [1, 3]]
    assert least_loaded(np.array([2.0, 1.0, 1.0, 5.0]), np.arange(4), 2) == [[0, 3], [1, 2]]
    assert least_loaded(np.array([1.0, 1.0, 1.0]), np.array([2, 0, 1]), 2) == [[2, 1], [0]]
    assert least_loaded(np.ones(1), np.arange(1), 3) == [[0], [], []]


def test_an_order_is_cut_where_the_middle_of_an_adapter_lies() -> None:
    """Of eight in all each half holds four: 3 and 1, then 2 and 2; an adapter of 5 belongs where its middle does."""
    assert slices(np.array([3.0, 1.0, 2.0, 2.0]), np.arange(4), 2) == [[0, 1], [2, 3]]
    assert slices(np.array([1.0, 5.0, 2.0]), np.arange(3), 2) == [[0, 1], [2]]
    assert slices(np.array([2.0, 5.0, 1.0]), np.arange(3), 2) == [[0], [1, 2]]
    assert slices(np.zeros(4), np.arange(4), 2) == [[0, 1], [2, 3]]


def test_large_ranks_go_to_the_first_gpus_with_busy_and_idle_ones_in_turn() -> None:
    """Four of each rank for two GPUs: of rank 32 the sorted 4, 3, 2, 1 are taken as 4, 2, 3, 1."""
    weights = np.array([1.0, 4.0, 3.0, 2.0, 1.0, 4.0, 3.0, 2.0])
    ranks = np.array([8, 8, 8, 8, 32, 32, 32, 32])
    assert rank_by_rank(weights, ranks, 2) == [[5, 7, 6, 4], [1, 3, 2, 0]]


def test_the_busiest_are_assigned_first_and_who_may_stay_stays(problem: Problem) -> None:
    """Two at a time: 5 and 4, then 3 to the 4 and 2.5 to the 5, then 1 to the lesser sum; which GPU is which is free."""
    mine = with_rates(problem, [1, 2.5, 3, 4, 5], max_gpus=2)
    assert sorted(contents(BalancedFlow().run(mine))) == [(0, 2, 3), (1, 4)]
    for previous, kept in (([1, 0, 1, 1, 0], [(1, 4), (0, 2, 3)]), ([0, 1, 0, 0, 1], [(0, 2, 3), (1, 4)])):
        answer = BalancedFlow(previous=previous).run(mine)
        assert (contents(answer), answer.details["moves"]) == (kept, 0)
    # Two of a round cannot both stay on one GPU: one of each pair moves, the last stays.
    stuck = BalancedFlow(previous=[1, 1, 1, 1, 1], move_penalty=1e3).run(mine)
    assert stuck.details["moves"] == 2
    with pytest.raises(UserError, match="2 GPUs for 5 adapters"):
        BalancedFlow(previous=[0, 1]).run(mine)
    with pytest.raises(UserError, match="move_penalty=-1"):
        BalancedFlow(move_penalty=-1)


def test_least_loaded_goes_by_rates_and_not_by_counts(problem: Problem) -> None:
    answer = LeastLoaded().run(with_rates(problem, [5, 1, 1, 1, 1], max_gpus=2))
    assert contents(answer) == [(0,), (1, 2, 3, 4)]
    assert slots(answer) == [1, 4]


def test_random_slots_are_anything_from_one_to_all(problem: Problem) -> None:
    """Uniform in 1, 2, 3 for three adapters on one GPU, and each GPU of three is as likely."""
    given_ = with_rates(problem, [1, 1, 1], max_gpus=1)
    drawn = np.bincount([slots(RandomGpu().run(replace(given_, seed=seed)))[0] for seed in range(150)], minlength=5)
    assert drawn[0] == drawn[4] == 0
    assert drawn[1:4].min() > 30
    spread = with_rates(problem, [1], max_gpus=3)
    gpus = {RandomGpu().spread(replace(spread, seed=seed)).placement for seed in range(20)}
    assert len(gpus) == 1, "a single adapter is one GPU, whichever"


# --- as much as the backbone serves


def test_a_gpu_that_is_exactly_full_is_not_too_full(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1000 tokens/s: 600 + 400 fit, 200 more do not; an adapter of 1000 fits alone, one of 1001 does not."""
    monkeypatch.setattr("solvers.max_backbone.backbone_tokens_per_s", lambda *_: 1000.0)
    answer = MaxBackbone().run(with_rates(problem, [3, 2, 1, 5, 1], max_gpus=5))
    assert contents(answer) == [(0, 1), (2,), (3,), (4,)]
    assert slots(answer) == [2, 1, 1, 1]
    refused = MaxBackbone().run(with_rates(problem, [3, 5.005], max_gpus=5))
    assert refused.status == "none_found"
    assert "adapter 1" in refused.message
    assert MaxBackbone().run(with_rates(problem, [3, 2, 1, 5, 1], max_gpus=4)).status == "unchecked"
    assert MaxBackbone().run(with_rates(problem, [3, 2, 1, 5, 1], max_gpus=3)).status == "none_found"


# --- vectors


def packed(sizes: list[list[float]], rule: int) -> list[int]:
    gpu_of = np.empty(len(sizes), dtype=np.int64)
    assert pack_vectors(np.array(sizes), rule, gpu_of) == gpu_of.max() + 1
    return gpu_of.tolist()


@pytest.mark.parametrize("rule", [FIRST_FIT, BEST_FIT, WORST_FIT])
def test_of_gpus_as_full_the_first_is_taken(rule: int) -> None:
    assert packed([[0.6, 0.1], [0.6, 0.1], [0.3, 0.1]], rule) == [0, 1, 0]


@pytest.mark.parametrize(("rule", "last"), [(FIRST_FIT, 0), (BEST_FIT, 1), (WORST_FIT, 2)])
def test_fullest_and_emptiest_go_by_the_sum_of_both(rule: int, last: int) -> None:
    """GPUs at 0.60 and 0.30, at 0.55 and 0.50, at 0.65 and 0.10: the second is the fullest, the third the emptiest."""
    assert packed([[0.60, 0.30], [0.55, 0.50], [0.65, 0.10], [0.30, 0.20]], rule) == [0, 1, 2, last]


@pytest.mark.parametrize("rule", [FIRST_FIT, BEST_FIT, WORST_FIT])
def test_ten_tenths_fill_a_gpu_and_no_more(rule: int) -> None:
    """In either dimension, whatever rounding leaves."""
    assert packed([[0.1, 0.01]] * 11, rule) == [0] * 10 + [1]
    assert packed([[0.01, 0.1]] * 11, rule) == [0] * 10 + [1]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 16), st.integers(1, 16)), min_size=1, max_size=12),
    rule=st.sampled_from([FIRST_FIT, BEST_FIT, WORST_FIT]),
)
def test_vectors_are_packed_as_the_rule_says(sizes: list[tuple[int, int]], rule: int) -> None:
    """Against the rule written out in whole sixteenths, of which sums are exact, so that ties are ties."""
    used: list[tuple[int, int]] = []
    expected = []
    for one, other in sizes:
        fits = [g for g, (a, b) in enumerate(used) if a + one <= 16 and b + other <= 16]
        if rule == BEST_FIT:
            fits.sort(key=lambda g: -sum(used[g]))
        elif rule == WORST_FIT:
            fits.sort(key=lambda g: sum(used[g]))
        gpu = fits[0] if fits else len(used)
        if not fits:
            used.append((0, 0))
        used[gpu] = (used[gpu][0] + one, used[gpu][1] + other)
        expected.append(gpu)
    assert packed([[one / 16, other / 16] for one, other in sizes], rule) == expected


def test_vectors_are_load_and_slots_and_the_largest_goes_first(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At half of 2000 tokens/s a GPU takes five requests/s: 3 first, then 2, 2, 2 and 1."""
    monkeypatch.setattr("solvers.vector_packing.operating_point_tokens_per_s", lambda *_: 2000.0)
    given_ = with_rates(problem, [1, 2, 3, 2, 1.9], max_gpus=6)
    assert contents(VectorPacking("first_fit", utilisation=0.5).run(given_)) == [(1, 2), (0, 3, 4)]
    assert contents(VectorPacking("best_fit", utilisation=0.5).run(given_)) == [(1, 2), (0, 3, 4)]
    assert contents(VectorPacking("worst_fit", utilisation=0.5).run(given_)) == [(1, 2), (0, 3, 4)]
    assert slots(VectorPacking("first_fit", utilisation=0.5).run(given_)) == [2, 3]
    assert VectorPacking("first_fit", utilisation=0.5).run(with_rates(problem, [5.0])).status == "unchecked"
    refused = VectorPacking("first_fit", utilisation=0.5).run(with_rates(problem, [1.0, 5.5]))
    assert refused.status == "none_found"
    assert "adapter 1" in refused.message
    assert "1.10 of a GPU" in refused.message


def test_a_gpu_holds_as_many_adapters_as_start_at_the_largest_rank(problem: Problem) -> None:
    """96 slots of rank 32 start on Llama."""
    many = with_rates(problem, [1e-6] * 97, [8] * 96 + [32], max_gpus=6)
    assert sorted(len(content) for content in contents(VectorPacking("first_fit").run(many))) == [1, 96]
    fewer = with_rates(problem, [1e-6] * 96, [8] * 95 + [32], max_gpus=6)
    assert [len(content) for content in contents(VectorPacking("first_fit").run(fewer))] == [96]


# --- LoRAServe


def test_what_is_left_over_goes_to_the_gpu_itself_not_to_its_place_in_a_list() -> None:
    """No GPU is of rank 32 at first: its two adapters go to the least loaded of all, the second GPU, which is then the only one."""
    utilisation = np.array([0.9, 0.7, 0.1, 0.05])
    ranks = np.array([8, 8, 32, 32])
    assert gpus_by_rank(utilisation, ranks, np.array([32, 8]), 2) == [0, 2]
    shares = pack_fractions(utilisation, ranks, 0.95, 2)
    assert shares.tolist() == [[1, 0, 0, 0], [0, 1, 1, 1]]


def test_the_emptiest_gpu_of_a_rank_is_filled_first_and_the_rest_goes_on() -> None:
    """To a target of 0.5 each has a GPU of its own; to one of 0.4, 0.5 goes on to the second, and 0.4 to the empty third."""
    shares = pack_fractions(np.array([0.2, 0.4, 0.5]), np.array([8, 8, 8]), 0.5, 3)
    assert shares.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    split = pack_fractions(np.array([0.3, 0.4, 0.5]), np.array([8, 8, 8]), 0.4, 3)
    assert split == pytest.approx(np.array([[0, 0, 0.8], [1, 0, 0.2], [0, 1, 0]]))


def test_a_remainder_that_ties_goes_to_the_larger_rank() -> None:
    ranks = np.array([8, 32])
    assert gpus_by_rank(np.array([0.5, 0.5]), ranks, np.array([32, 8]), 3) == [2, 1]
    assert gpus_by_rank(np.zeros(2), ranks, np.array([32, 8]), 4) == [2, 2]
    assert gpus_by_rank(np.array([0.74, 0.26]), ranks, np.array([32, 8]), 2) == [1, 1]
    assert gpus_by_rank(np.array([0.76, 0.24]), ranks, np.array([32, 8]), 2) == [0, 2]


@given(
    demand=st.lists(st.just(0.0) | st.floats(1e-6, 0.5), min_size=1, max_size=8),
    ranks=st.lists(st.sampled_from([8, 16, 32]), min_size=8, max_size=8),
    n_gpus=st.integers(1, 5),
)
def test_every_adapter_s_requests_are_dealt_out_whole(demand: list[float], ranks: list[int], n_gpus: int) -> None:
    """Shares sum to one, GPUs of a rank keep to the target, and what does not fit joins a rank as large where there is one."""
    utilisation, of = np.array(demand), np.array(ranks[: len(demand)])
    target = float(utilisation.sum()) / n_gpus
    shares = pack_fractions(utilisation, of, target, n_gpus)
    assert shares.sum(axis=0) == pytest.approx(np.ones(len(demand)))
    assert (shares >= 0).all()
    counts = gpus_by_rank(utilisation, of, np.unique(of)[::-1], n_gpus)
    assert sum(counts) == n_gpus
    own = dict(zip(np.unique(of)[::-1].tolist(), np.cumsum(counts).tolist(), strict=True))
    for adapter, gpu in product(range(len(demand)), range(n_gpus)):
        if shares[gpu, adapter] and counts[0]:
            assert gpu < max(own[of[adapter]], counts[0]), "never on a GPU of smaller ranks only"


def test_a_fleet_that_is_exactly_enough_is_enough(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solvers.lora_serve.operating_point_tokens_per_s", lambda *_: 1000.0)
    answer = LoraServe().run(with_rates(problem, [5.0, 5.0], max_gpus=2))
    assert answer.details["target_utilisation"] == 1.0
    assert contents(answer) == [(0,), (1,)]
    assert LoraServe().run(with_rates(problem, [5.0, 5.01], max_gpus=2)).status == "none_found"


# --- dLoRA


@pytest.mark.parametrize(
    ("expected", "order"),
    [
        # 9 first; then 2, the last one, is not beaten by a later one, but the first without an engine, 5, is busier.
        ([5, 3, 4, 9, 2], [3, 0, 1, 2, 4]),
        # After 9 comes 5: nobody with an engine follows it, and it is busier than 2. Then the first without an engine each time.
        ([2, 3, 4, 9, 5], [3, 4, 0, 1, 2]),
        # Of equal ones the first. 7, with all replicas there are, counts as 6: less than 6.5, and no less than 6.
        ([7, 7, 7], [0, 1, 2]),
        ([1, 6.5, 7], [2, 1, 0]),
        ([1, 6, 7], [2, 0, 1]),
        ([1, 5.5, 5, 7], [3, 0, 1, 2]),
    ],
)
def test_dlora_takes_the_busiest_that_no_later_one_with_an_engine_beats(
    expected: list[float], order: list[int]
) -> None:
    assert first_order(np.array(expected, dtype=float)).tolist() == order


@examples(60)
@given(
    expected=st.lists(st.sampled_from([1.0, 1.5, 2.0, 2.4, 3.0, 5.0, 9.0]), min_size=1, max_size=30),
)
def test_the_tree_finds_whom_the_scan_finds(expected: list[float]) -> None:
    """The scan as dLoRA has it: whoever is in hand and has an engine is dropped for the first without one."""
    order: list[int] = []
    while len(order) < len(expected):
        waiting = [adapter for adapter in range(len(expected)) if adapter not in order]
        keys = [(adapter in order) / (len(order) + 1e-7) - requests for adapter, requests in enumerate(expected)]
        found = 0
        for adapter in range(len(expected)):
            if keys[adapter] < keys[found]:
                found = adapter
            if found in order:
                found = waiting[0]
        order.append(found)
    assert first_order(np.array(expected)).tolist() == order


def test_dlora_goes_to_and_fro_over_the_engines_and_round_for_the_rest() -> None:
    """Five alike on three engines: 0, 1, 2, 2, 1. One replica more of adapter 0 would lower the least memory.

    Two are missing to seven: engine 0 takes adapter 1, as it has 0, and engine 1 the next that it has not, 2.
    """
    placed = replicate(np.ones(5), 1.0, 100.0, 3)
    assert [np.flatnonzero(row).tolist() for row in placed] == [[0, 1], [1, 2, 4], [2, 3]]


def test_dlora_adds_replicas_of_the_busiest_only() -> None:
    """10, 5 and 1 on engines 0, 1, 1: 90 / 10 is least. On engine 1 too, 10 has 160 / 10 and 5 has 70 / 5. Then 10 is everywhere.

    Another replica of 5 would raise the least to 150 / 10, but only the next in turn is tried, which is 10.
    """
    placed = replicate(np.array([10.0, 5.0, 1.0]), 10.0, 100.0, 2)
    assert [np.flatnonzero(row).tolist() for row in placed] == [[0], [0, 1, 2]]


@given(expected=st.lists(st.integers(1, 40), min_size=1, max_size=7), n_gpus=st.integers(1, 5), size=st.integers(0, 30))
def test_dlora_ends_with_as_many_replicas_as_engines_and_adapters_less_one(
    expected: list[int], n_gpus: int, size: int
) -> None:
    """Each adapter is somewhere, no engine is without one, and the round at the end deals what is missing, not less or more."""
    placed = replicate(np.array(expected, dtype=float), float(size), 100.0, n_gpus)
    assert placed.any(axis=0).all()
    least = n_gpus + len(expected) - 1
    assert placed.sum() >= least
    if placed.sum() > least:
        assert placed.any(axis=1).all()


def test_dlora_without_memory_in_the_way_puts_all_on_one_engine() -> None:
    assert replicate(np.array([1.0, 5.0, 3.0]), 0.0, 100.0, 1).tolist() == [[True, True, True]]


def test_dlora_counts_every_adapter_as_the_largest_rank(problem: Problem) -> None:
    """310,160 tokens are 490 adapters of 632, or 179 of 1,726: one of rank 32 among 180 makes them too many for a GPU."""
    small = with_rates(problem, [0.01] * 180, max_gpus=1)
    assert Dlora().run(small).status == "unchecked"
    mixed = with_rates(problem, [0.01] * 180, [8] * 179 + [32], max_gpus=1)
    refused = Dlora().run(mixed)
    assert refused.status == "none_found"
    assert "memory for 179 of 180 adapters" in refused.message
    assert Dlora().run(replace(mixed, max_gpus=2)).status == "unchecked"


def test_dlora_counts_the_requests_of_an_hour(problem: Problem) -> None:
    """Whatever the window is."""
    given_ = with_rates(problem, [4.0, 1.0, 1.0], max_gpus=3)
    longer = replace(given_, workload=replace(given_.workload, duration_s=120.0))
    assert Dlora().run(given_).placement == Dlora().run(longer).placement


# --- Dynamo's controller


@pytest.mark.parametrize(
    ("loads", "n_workers", "slots", "replicas"),
    [
        # 7.2, 3.6 and 1.2 of twelve slots are 8, 4 and 2, and 8 is more than there are workers.
        ([60, 30, 10], 5, 12, [5, 4, 2]),
        # 3, 2 and 2 are one too many for six: 2.57, 1.71 and 1.71; the two largest remainders get what is left of six.
        ([50, 30, 20], 4, 6, [2, 2, 2]),
        # 2 each of four; 1.33 each, and the first by name gets the fourth.
        ([1, 1, 1], 3, 4, [2, 1, 1]),
        # 4, of which there are 2 workers, and 1, 1, 1: scaled to 1.6 and .8, but nobody gets less than one.
        ([97, 1, 1, 1], 2, 4, [1, 1, 1, 1]),
        # Two slots for three with load: the least busy one gets none. An idle one never does.
        ([5, 1, 3, 0], 2, 2, [1, 0, 1, 0]),
        ([0, 0], 2, 4, [0, 0]),
        # Of equal loads the first by name are kept.
        ([1, 1, 1], 1, 2, [1, 1, 0]),
        ([1], 3, 3, [3]),
    ],
)
def test_replicas_are_a_share_of_all_slots(loads: list[float], n_workers: int, slots: int, replicas: list[int]) -> None:
    assert replica_counts(np.array(loads, dtype=float), n_workers, slots).tolist() == replicas


@pytest.fixture
def preferences(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[int]]:
    """Orders of the workers by identity of the adapter, in place of the hash."""
    orders: dict[int, list[int]] = {}

    def hashes(_: int, identities: np.ndarray, n_workers: int) -> np.ndarray:
        chosen = [orders[int(identity)] for identity in identities]
        assert all(sorted(order) == list(range(n_workers)) for order in chosen)
        return -np.argsort(chosen, axis=1).astype(float)

    monkeypatch.setattr("solvers.spreading.controller.hashes", hashes)
    return orders


def hosts(solution: Solution, n_adapters: int) -> list[list[int]]:
    """GPUs of each adapter; right as long as no GPU is empty."""
    return [[gpu for gpu, held in enumerate(contents(solution)) if adapter in held] for adapter in range(n_adapters)]


def test_hrw_passes_full_workers_over(problem: Problem, preferences: dict[int, list[int]]) -> None:
    """One slot on each of three workers: the first by name has worker 0, the next two what is left of their orders."""
    preferences.update({0: [0, 2, 1], 1: [1, 0, 2], 2: [0, 1, 2]})
    answer = RendezvousHashing(slots_per_gpu=1).run(with_rates(problem, [1, 1, 1], max_gpus=3))
    assert hosts(answer, 3) == [[0], [1], [2]]


def test_hrw_goes_by_name_and_takes_fewer_replicas_than_wanted(
    problem: Problem, preferences: dict[int, list[int]]
) -> None:
    """Of four slots, 6 of 8 are 3, cut to the two workers, and 1 each for the others: 4 in all. The busy one comes last by name."""
    preferences.update({9: [0, 1], 3: [0, 1], 5: [0, 1]})
    given_ = with_rates(problem, [6, 1, 1], max_gpus=2)
    given_ = replace(given_, workload=replace(given_.workload, ids=np.array([9, 3, 5])))
    answer = RendezvousHashing(slots_per_gpu=2).run(given_)
    # Worker 0 is full with the other two, so one of the two replicas is left out.
    assert hosts(answer, 3) == [[1], [0], [0]]


def test_hrw_pins_idle_adapters_and_those_that_no_slot_is_left_for(
    problem: Problem, preferences: dict[int, list[int]]
) -> None:
    """Two slots for three with load: the least busy one is left out, and every worker is full. The idle one asks for no slot."""
    preferences.update({0: [0, 1], 1: [1, 0], 2: [1, 0], 3: [0, 1]})
    answer = RendezvousHashing(slots_per_gpu=1).run(with_rates(problem, [2, 1, 0, 2], max_gpus=2))
    # 0 on 0 and 3 on the other; then 2, idle, on the first of its order, and 1 as well.
    assert hosts(answer, 4) == [[0], [1], [1], [1]]
    assert slots(answer) == [1, 1]


def test_the_flow_has_the_least_sum_of_places(problem: Problem, preferences: dict[int, list[int]]) -> None:
    """By name 0 takes worker 0, 1 takes 1, and 2 its last choice: 2 places. With 0 on its second choice it is 1 place."""
    preferences.update({0: [0, 2, 1], 1: [1, 0, 2], 2: [0, 1, 2]})
    given_ = with_rates(problem, [1, 1, 1], max_gpus=3)
    answer = ControllerFlow(slots_per_gpu=1).run(given_)
    assert hosts(answer, 3) == [[2], [1], [0]]
    assert answer.details["overflow"] == 0


@given(
    loads=st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0]), min_size=1, max_size=4),
    seed=st.integers(0, 50),
    n_workers=st.integers(1, 3),
    slots_each=st.integers(1, 2),
)
def test_the_flow_serves_most_replicas_at_the_least_cost(
    loads: list[float], seed: int, n_workers: int, slots_each: int
) -> None:
    """Against all ways to give the replicas slots."""
    profile = load_profile("llama-3.1-8b")
    workload = Workload(np.full(len(loads), 8), np.array(loads), LENGTHS, duration_s=60.0)
    given_ = Problem(workload, profile, MinGpus(), max_gpus=n_workers, seed=seed)
    workers = Workers(given_, slots_each)
    wanted = [int(count) if load else 1 for count, load in zip(workers.replicas, loads, strict=True)]
    places = [np.argsort(-scores).tolist() for _, scores in workers.scores(range(len(loads)))]
    choices = [[held for size in range(most + 1) for held in combinations(range(n_workers), size)] for most in wanted]
    best = min(
        (
            sum(wanted) - sum(map(len, way)),
            sum(places[adapter].index(worker) for adapter, held in enumerate(way) for worker in held),
        )
        for way in product(*choices)
        if all(sum(worker in held for held in way) <= slots_each for worker in range(n_workers))
    )
    order = np.flatnonzero(np.array(wanted) > 0)
    demand = np.array(wanted)[order]
    found = _flow(workers, order, demand, np.full(len(order), n_workers))
    cost = sum(places[order[place]].index(worker) for place, worker in found.tolist())
    assert (sum(wanted) - len(found), cost) == best


def test_the_flow_asks_all_workers_when_the_candidates_do_not_suffice(
    problem: Problem, preferences: dict[int, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one candidate each both want worker 0, and worker 1 is free."""
    monkeypatch.setattr("solvers.min_cost_flow.CANDIDATES", 1)
    preferences.update({0: [0, 1], 1: [0, 1]})
    answer = ControllerFlow(slots_per_gpu=1).run(with_rates(problem, [1, 1], max_gpus=2))
    assert sorted(hosts(answer, 2)) == [[0], [1]]
    assert answer.details["overflow"] == 0


def test_who_finds_no_slot_in_the_flow_is_pinned(problem: Problem, preferences: dict[int, list[int]]) -> None:
    """Two slots for two with load and an idle one: the one with the dearest place is left out, and goes to the first of its order."""
    preferences.update({0: [0, 1], 1: [1, 0], 2: [0, 1]})
    answer = ControllerFlow(slots_per_gpu=1).run(with_rates(problem, [1, 1, 0], max_gpus=2))
    assert answer.details["overflow"] == 1
    assert hosts(answer, 3)[1] == [1]
    assert hosts(answer, 3)[0] == hosts(answer, 3)[2] == [0]


# --- the latency variant


def test_the_shortfall_is_that_of_the_formula(problem: Problem) -> None:
    """2 (offered - predicted) / (offered + predicted), offered counted by what is asked for, predicted with 400 tokens/s more."""
    assert problem.predictor is not None
    workload = Workload(
        np.full(6, 8), np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), Lengths(generated_fraction=0.7), duration_s=600.0
    )
    answer = Latency().run(replace(problem, workload=workload, max_gpus=2))
    predicted, offered = 400.0, 0.0
    for group in least_loaded(workload.rates, np.arange(6), 2):
        features = content_features(
            workload.ranks[group], workload.rates[group], len(group), workload.lengths, workload.duration_s
        )
        predicted += float(problem.predictor.predict_throughput(features[None])[0])
        offered = 21.0 * float(features[PROMPT] + features[REQUESTED])
    assert answer.details["predicted_shortfall"] == pytest.approx(2 * (offered - predicted) / (offered + predicted))


@pytest.mark.parametrize(("predicted", "status"), [(1000.0, "feasible"), (505.0, "feasible"), (504.0, "none_found")])
def test_a_shortfall_of_a_tenth_is_accepted(
    problem: Problem, predicted: float, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offered 1000 tokens/s: at a tenth, 904.76 are enough, 400 of which are a gift."""
    assert problem.predictor is not None
    given_ = with_rates(problem, [5.0], max_gpus=1)
    monkeypatch.setattr(type(problem.predictor), "predict_throughput", lambda *_: np.array([predicted]))
    assert Latency().run(given_).status == status


def test_the_order_is_a_choice_and_the_twin_may_judge(problem: Problem) -> None:
    given_ = with_rates(problem, [1, 2, 3, 4], max_gpus=2)
    given_ = replace(given_, workload=replace(given_.workload, duration_s=600.0))
    assert contents(Latency().run(given_)) == [(0, 2), (1, 3)]
    assert sorted(contents(Latency(order="decreasing").run(given_))) == [(0, 3), (1, 2)]
    assert Latency(oracle="twin").run(given_).status == "feasible"
    crowded = Latency(oracle="twin").run(with_rates(problem, [1, 90, 1], max_gpus=2))
    assert crowded.status == "none_found"
    assert "1 of 2 GPUs starve in the twin, the first is GPU 1" in crowded.message


def test_a_gpu_that_does_not_start_is_told(problem: Problem) -> None:
    """97 slots at rank 32 are one too many on Llama."""
    many = with_rates(problem, [1e-3] * 97, [32] * 97, max_gpus=1)
    refused = Latency().run(many)
    assert refused.status == "none_found"
    assert "GPU 0 does not start: max_loras=97 at rank 32, at most 96 do" in refused.message
    assert "memory" not in Latency().run(with_rates(problem, [1e-3] * 96, [32] * 96, max_gpus=1)).message


def test_hashes_are_those_of_splitmix64() -> None:
    """The finaliser of Steele, Lea and Flood with Python's own whole numbers, and the same for any set of GPUs and adapters."""

    def finalised(state: int) -> float:
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return float(state ^ (state >> 31)) / 2.0**64

    def hashed(seed: int, adapter: int, gpu: int) -> float:
        keys = (adapter * 0xD1B54A32D192ED03 + seed * 0x8CB92BA72F3D8DD7) % 2**64
        return finalised(((gpu + 1) * 0x9E3779B97F4A7C15 % 2**64) ^ keys)

    found = hashes(3, np.array([0, 7, 1000]), 4)
    assert found.tolist() == [[hashed(3, adapter, gpu) for gpu in range(4)] for adapter in (0, 7, 1000)]
    assert hashes(3, np.array([7]), 2).tolist() == [found[1, :2].tolist()]


@pytest.mark.parametrize("most", [1, 2, 3, 20])
def test_the_highest_scores_come_first_and_of_equal_ones_the_first(most: int) -> None:
    scores = np.array([0.1, 0.9, 0.3, 0.9, 0.9, 0.2, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert preferred(scores, most).tolist()[:5] == [1, 3, 4, 2, 5][: min(most, 5)]
    assert len(preferred(scores, most)) == min(most, len(scores))
