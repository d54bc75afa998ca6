"""Solvers that minimise latency on a given fleet."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from solvers.balance import Balance
from solvers.base import Problem
from solvers.fill_model import FillModel
from solvers.latency_oracle import TwinLatency
from solvers.latency_search import LatencySearch
from solvers.least_loaded import LeastLoaded
from solvers.min_max_load import LOAD_SCALE, MinMaxLoad
from solvers.objectives.min_latency import METRICS, MinLatency
from solvers.random_gpu import RandomGpu
from twin import UserError, Workload, score_placement


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
    monkeypatch.setattr("solvers.latency_search._starts", lambda _: [lopsided])
    found = LatencySearch().run(uneven)
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
    greedy, exact = Balance().run(uneven), MinMaxLoad().run(uneven)
    ratio = greedy.details["largest_load"] / exact.details["largest_load"]
    # Longest processing time first is within 4/3 - 1/(3 m) of the optimum (Graham, 1969); loads are rounded up for CP-SAT.
    assert 1 - 1e-3 <= ratio <= 4 / 3


def test_a_fleet_that_starves_is_infeasible_with_the_count(uneven: Problem) -> None:
    crowded = replace(uneven, workload=replace(uneven.workload, rates=uneven.workload.rates * 5), max_gpus=1)
    for solver in (LatencySearch(), MinMaxLoad(), Balance()):
        answer = solver.run(crowded)
        assert answer.status == "infeasible"
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
