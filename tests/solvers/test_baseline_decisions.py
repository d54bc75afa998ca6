"""Decisions of the baselines worked out by hand: edges, ties, and which GPU is meant."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors import content_features
from predictors.features import PROMPT, REQUESTED
from solvers.base import Problem, Solution
from solvers.dlora import Dlora, replicate
from solvers.latency import Latency
from solvers.least_loaded import LeastLoaded
from solvers.lora_serve import LoraServe, gpus_by_rank, pack_fractions
from solvers.max_backbone import MaxBackbone
from solvers.random_gpu import RandomGpu
from solvers.spreading.dealing import least_loaded, rank_by_rank, slices
from solvers.vector_packing import BEST_FIT, FIRST_FIT, WORST_FIT, VectorPacking, pack_vectors
from twin import Lengths, Workload
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
    assert refused.status == "infeasible"
    assert "adapter 1" in refused.message
    assert MaxBackbone().run(with_rates(problem, [3, 2, 1, 5, 1], max_gpus=4)).status == "unchecked"
    assert MaxBackbone().run(with_rates(problem, [3, 2, 1, 5, 1], max_gpus=3)).status == "infeasible"


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
    sizes=st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=1, max_size=12),
    rule=st.sampled_from([FIRST_FIT, BEST_FIT, WORST_FIT]),
)
def test_vectors_are_packed_as_the_rule_says(sizes: list[tuple[int, int]], rule: int) -> None:
    """Against the rule written out in whole tenths."""
    used: list[tuple[int, int]] = []
    expected = []
    for one, other in sizes:
        fits = [g for g, (a, b) in enumerate(used) if a + one <= 10 and b + other <= 10]
        if rule == BEST_FIT:
            fits.sort(key=lambda g: -sum(used[g]))
        elif rule == WORST_FIT:
            fits.sort(key=lambda g: sum(used[g]))
        gpu = fits[0] if fits else len(used)
        if not fits:
            used.append((0, 0))
        used[gpu] = (used[gpu][0] + one, used[gpu][1] + other)
        expected.append(gpu)
    # An eleventh of a thousandth less, so that sums of tenths are no matter of rounding.
    assert packed([[one / 10 - 1e-5, other / 10 - 1e-5] for one, other in sizes], rule) == expected


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
    assert refused.status == "infeasible"
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
    assert LoraServe().run(with_rates(problem, [5.0, 5.01], max_gpus=2)).status == "infeasible"


# --- dLoRA


def test_dlora_places_the_busiest_first_on_the_engine_with_the_fewest_adapters() -> None:
    """With so much memory in hand that every replica is worth it, all adapters end up everywhere; with none, at most one of two."""
    placed = replicate(np.array([1.0, 5.0, 3.0]), np.zeros(3), 100.0, 1)
    assert placed.tolist() == [[True, True, True]]
    first = replicate(np.array([1.0, 5.0, 3.0]), np.full(3, 30.0), 100.0, 3)
    # 5, 3 and 1 take the engines in turn; the first replicas follow where memory per request is scarcest.
    assert first[0, 1]
    assert first[1, 2]
    assert first[2, 0]
    assert first.sum() >= 5


def test_dlora_counts_the_requests_of_the_window(problem: Problem) -> None:
    """Replicas depend on ratios alone: twice the window changes nothing."""
    given_ = with_rates(problem, [4.0, 1.0, 1.0], max_gpus=3)
    longer = replace(given_, workload=replace(given_.workload, duration_s=120.0))
    assert Dlora().run(given_).placement == Dlora().run(longer).placement


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


@pytest.mark.parametrize(("predicted", "status"), [(1000.0, "feasible"), (505.0, "feasible"), (504.0, "infeasible")])
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
    assert crowded.status == "infeasible"
    assert "1 of 2 GPUs starve in the twin, the first is GPU 1" in crowded.message


def test_a_gpu_that_does_not_start_is_told(problem: Problem) -> None:
    """97 slots at rank 32 are one too many on Llama."""
    many = with_rates(problem, [1e-3] * 97, [32] * 97, max_gpus=1)
    refused = Latency().run(many)
    assert refused.status == "infeasible"
    assert "GPU 0 does not start: max_loras=97 at rank 32, at most 96 do" in refused.message
    assert "memory" not in Latency().run(with_rates(problem, [1e-3] * 96, [32] * 96, max_gpus=1)).message
