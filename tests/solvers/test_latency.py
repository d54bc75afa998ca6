"""Solvers that minimise latency on a given fleet."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from predictors import content_features
from predictors.features import OUTPUT
from solvers.balance import Balance
from solvers.base import Problem, Solver
from solvers.filling.model import FillModel
from solvers.latency_search import LatencySearch
from solvers.least_loaded import LeastLoaded
from solvers.limits import Deadline
from solvers.min_max_load import LOAD_SCALE, MinMaxLoad
from solvers.objectives.min_gpus import MinGpus
from solvers.objectives.min_latency import METRICS, MinLatency
from solvers.random_gpu import RandomGpu
from solvers.spreading.latency_model import LatencyModel
from solvers.spreading.latency_oracle import TwinLatency
from twin import GpuPlan, Placement, UserError, Workload, score_placement


@pytest.fixture(scope="module")
def uneven(problem: Problem) -> Problem:
    """Ten adapters, no two alike, for three GPUs."""
    workload = Workload(
        [32, 8, 16, 8, 32, 8, 16, 8, 8, 32],  # type: ignore[arg-type]  # lists do
        [1.0, 30.0, 9.0, 7.0, 0.5, 22.0, 4.0, 2.0, 11.0, 3.0],  # type: ignore[arg-type]
        duration_s=600.0,
    )
    return replace(problem, workload=workload, max_gpus=3, objective=MinLatency("e2e_ms"))


@pytest.mark.parametrize("metric", METRICS)
def test_the_oracle_says_what_the_score_says(uneven: Problem, metric: str) -> None:
    given = replace(uneven, objective=MinLatency(metric))
    placement = LeastLoaded().run(given).placement
    assert placement is not None
    oracle = TwinLatency(given)
    answers = [oracle.ask(plan.adapters, plan.max_loras) for plan in placement.gpus]
    mean = sum(a.latency_ms * a.weight for a in answers) / sum(a.weight for a in answers)
    assert mean == pytest.approx(getattr(score_placement(given.workload, placement, given.profile), metric))
    assert not any(answer.starved for answer in answers)
    assert oracle.calls == 3
    oracle.ask(placement.gpus[0].adapters, placement.gpus[0].max_loras)
    assert oracle.calls == 3


def test_a_starving_gpu_is_told(uneven: Problem) -> None:
    crowded = replace(uneven, workload=replace(uneven.workload, rates=uneven.workload.rates * 20))
    assert TwinLatency(crowded).ask(tuple(range(10)), 1).starved


def test_the_search_is_no_worse_than_any_of_its_starts_and_what_it_says_is_so(uneven: Problem) -> None:
    found = LatencySearch().run(uneven)
    assert found.placement is not None
    score = score_placement(uneven.workload, found.placement, uneven.profile)
    assert score.feasible
    assert score.e2e_ms == pytest.approx(found.details["latency_ms"])
    for other in (LeastLoaded(), RandomGpu()):
        placement = other.run(uneven).placement
        assert placement is not None
        assert score.e2e_ms <= score_placement(uneven.workload, placement, uneven.profile).e2e_ms * (1 + 1e-9)


def test_moves_and_swaps_lower_the_latency_of_a_bad_start(uneven: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    lopsided = [[0, 2, 3, 4, 6, 7, 8, 9], [1], [5]]
    monkeypatch.setattr("solvers.latency_search._even_spreads", lambda _: [lopsided])
    monkeypatch.setattr("solvers.latency_search._predicted_spreads", lambda *_: [])
    light = replace(uneven.workload, rates=uneven.workload.rates / 2)
    found = LatencySearch().run(replace(uneven, workload=light))
    assert found.details["improvements"] > 0
    assert found.details["latency_ms"] < found.details["first_latency_ms"]


def test_the_least_largest_load_is_the_one_that_enumeration_finds(uneven: Problem) -> None:
    found = MinMaxLoad().run(uneven)
    units = np.ceil(FillModel(uneven, distilled=False).weights * LOAD_SCALE)
    best = min(
        np.bincount(assignment, units, 3).max()
        for assignment in (np.array((0, *rest)) for rest in product(range(3), repeat=9))
    )
    assert found.details["largest_load_proven"]
    assert found.details["largest_load"] == found.details["largest_load_bound"] == pytest.approx(best / LOAD_SCALE)


def test_the_balance_is_between_the_bound_and_the_greedy_guarantee(uneven: Problem) -> None:
    given = replace(uneven, objective=MinGpus())
    greedy, exact = Balance().run(given), MinMaxLoad().run(given)
    ratio = greedy.details["largest_load"] / exact.details["largest_load"]
    # Longest processing time first is within 4/3 - 1/(3 m) of the optimum (Graham, 1969); loads are rounded up for CP-SAT.
    assert 1 - 1e-3 <= ratio <= 4 / 3


# --- predicted latency


@pytest.mark.parametrize("metric", METRICS)
def test_the_cost_of_a_fleet_is_what_the_predictor_says_of_its_gpus(uneven: Problem, metric: str) -> None:
    light = replace(uneven.workload, rates=uneven.workload.rates / 4)
    given = replace(uneven, workload=light, objective=MinLatency(metric))
    groups, cost = LatencyModel(given).improved([[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]], Deadline.after(60.0), proposals=0)
    workload, predictor = given.workload, given.predictor
    assert predictor is not None
    total = 0.0
    for group in groups:
        slots = LatencyModel(given).slots(group)
        content = content_features(
            workload.ranks[group], workload.rates[group], slots, workload.lengths, workload.duration_s
        )[None]
        itl, ttft = predictor.predict_itl_ms(content)[0], predictor.predict_ttft_ms(content)[0]
        requests = float(workload.rates[group].sum())
        expected = {"itl_ms": itl, "ttft_ms": ttft, "e2e_ms": ttft + itl * (content[0, OUTPUT] - 1)}
        total += requests * expected[metric]
    # A grid of max_loras: a value above the adapter count stands for the count.
    assert cost == pytest.approx(total, rel=0.02)


def test_annealing_lowers_the_cost_and_loses_nobody(uneven: Problem) -> None:
    model = LatencyModel(uneven)
    lopsided = [[0, 2, 3, 4, 6, 7, 8, 9], [1], [5]]
    _, before = model.improved(lopsided, Deadline.after(60.0), proposals=0)
    groups, after = model.improved(lopsided, Deadline.after(60.0), proposals=2000)
    assert after < before
    assert sorted(adapter for group in groups for adapter in group) == list(range(10))
    assert (groups, after) == LatencyModel(uneven).improved(lopsided, Deadline.after(60.0), proposals=2000)
    again = model.improved(groups, Deadline.after(60.0), proposals=0)
    assert again[0] == groups
    assert again[1] == pytest.approx(after)


def test_dealing_gives_each_adapter_once_to_the_gpu_that_it_burdens_least(uneven: Problem) -> None:
    model = LatencyModel(uneven)
    groups = model.spread(np.argsort(-uneven.workload.rates, kind="stable"), 3)
    assert sorted(adapter for group in groups for adapter in group) == list(range(10))
    # The three busiest are apart.
    assert len({next(gpu for gpu, group in enumerate(groups) if adapter in group) for adapter in (1, 5, 8)}) == 3


@pytest.mark.parametrize("metric", METRICS)
def test_none_of_them_is_worse_than_slots_for_all(uneven: Problem, metric: str) -> None:
    """The twin compares the proposed `max_loras` with the adapter count."""
    given = replace(uneven, objective=MinLatency(metric))
    for solver in (Balance(), MinMaxLoad(), LatencySearch()):
        placement = solver.run(given).placement
        assert placement is not None
        full = Placement(tuple(GpuPlan(plan.adapters, len(plan.adapters)) for plan in placement.gpus))
        found, other = (score_placement(given.workload, each, given.profile) for each in (placement, full))
        assert getattr(found, metric) <= getattr(other, metric) * (1 + 1e-9)


@pytest.mark.parametrize("gpus", [3, 6])
@pytest.mark.parametrize("metric", METRICS)
def test_none_of_them_is_worse_than_the_least_loaded_spread(problem: Problem, metric: str, gpus: int) -> None:
    """Ranks in turn on a multiple of as many GPUs: by chance it keeps ranks apart, which no sum of loads would do."""
    ranks = np.array([8, 16, 32] * 6)
    workload = Workload(ranks, np.linspace(0.5, 1.5, len(ranks)), duration_s=300.0)
    given = replace(problem, workload=workload, max_gpus=gpus, objective=MinLatency(metric), time_limit_s=3.0)
    plain = LeastLoaded().run(given).placement
    assert plain is not None
    most = getattr(score_placement(workload, plain, given.profile), metric)
    for solver in (Balance(), MinMaxLoad(), LatencySearch()):
        placement = solver.run(given).placement
        assert placement is not None
        assert getattr(score_placement(workload, placement, given.profile), metric) <= most * (1 + 1e-9)


def test_tuned_slots_are_a_local_optimum(uneven: Problem) -> None:
    oracle = TwinLatency(uneven, LatencyModel(uneven))
    content = tuple(range(10))
    slots = oracle.tuned(content, 10)
    near = [value for value in range(1, 11) if value in LatencyModel(uneven).grid or value == 10]
    place = near.index(slots)
    best = min(oracle.ask(content, value).key for value in near[max(0, place - 1) : place + 2])
    assert oracle.ask(content, slots).key == best


def test_the_search_can_do_without_a_predictor(uneven: Problem) -> None:
    solver = LatencySearch(predictor=False)
    assert not solver.tags.needs_predictor
    assert solver.run(replace(uneven, predictor=None)).status == "feasible"


def test_a_fleet_that_starves_is_infeasible_with_the_count(uneven: Problem) -> None:
    crowded = replace(uneven, workload=replace(uneven.workload, rates=uneven.workload.rates * 5), max_gpus=1)
    for solver in (LatencySearch(), MinMaxLoad(), Balance()):
        answer = solver.run(crowded)
        assert answer.status == "none_found"
        assert "starve" in answer.message


def test_a_search_over_fleets_needs_no_gpus_given(uneven: Problem) -> None:
    for solver in (LatencySearch(search=True), MinMaxLoad(search=True), Balance(search=True)):
        answer = solver.run(replace(uneven, max_gpus=None))
        assert answer.placement is not None
        assert score_placement(uneven.workload, answer.placement, uneven.profile).feasible


def test_options_out_of_range_are_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"solver\.most_calls=0"):
        LatencySearch(most_calls=0)
    with pytest.raises(UserError, match=r"solver\.workers=0"):
        MinMaxLoad(workers=0)


@pytest.mark.parametrize("solver", [Balance(), MinMaxLoad(), LatencySearch()], ids=lambda solver: solver.name)
def test_a_gpu_that_finishes_nothing_is_no_error(problem: Problem, solver: Solver) -> None:
    """In two tenths of a second nobody is served: no latency is known, and that is said as what JSON can hold."""
    workload = Workload(np.full(6, 8), np.full(6, 20.0), duration_s=0.2)
    assert len(workload.requests)
    solution = solver.run(replace(problem, workload=workload, max_gpus=2, objective=MinLatency(), time_limit_s=600.0))
    assert solution.status == "none_found"
    assert solution.details["latency_ms"] is None
