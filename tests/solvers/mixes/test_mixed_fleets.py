"""Placements on fleets of several types: never cheaper than the cheapest there is, never proven above it, and by the fleet's rules."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from solvers.base import Problem, Solution
from solvers.exact import Exact
from solvers.ffd_plus import FfdPlus
from solvers.max_pack import MaxPack
from solvers.objectives.min_cost import MinCost
from solvers.objectives.min_gpus import MinGpus
from solvers.oracles.twin import TwinOracle
from twin import Fleet, GpuType, Placement, UserError, Workload, load_profile, score_placement, workload_from_groups

FAST, SLOW = load_profile("llama-3.1-8b/h100-80gb"), load_profile("llama-3.1-8b/a100-80gb")
WINDOW_S = 400.0


def fleet_of_two(dear: float, cheap: float, n_dear: int | None = None, n_cheap: int | None = None) -> Fleet:
    return Fleet((GpuType("fast", FAST, dear, n_dear), GpuType("slow", SLOW, cheap, n_cheap)))


def small(seed: int) -> Workload:
    """Six adapters that ask for one to three GPUs."""
    rates = np.round(np.random.default_rng(seed).uniform(2.0, 12.0, 6), 1)
    return replace(
        workload_from_groups([(1, 8 if place % 2 else 32, float(rate)) for place, rate in enumerate(rates)]),
        duration_s=WINDOW_S,
        seed=seed,
    )


def problem_of(workload: Workload, fleet: Fleet, time_limit_s: float = 20.0) -> Problem:
    return Problem(workload, fleet.types[0].profile, MinCost(), time_limit_s=time_limit_s, fleet=fleet)


def accepted_by(workload: Workload, fleet: Fleet) -> dict[frozenset[int], list[int]]:
    """For each content the types that accept it at some `max_loras`."""
    accepted: dict[frozenset[int], list[int]] = {}
    everyone = range(workload.n_adapters)
    for kind, each in enumerate(fleet.types):
        oracle = TwinOracle(workload, each.profile)
        for size in range(1, len(everyone) + 1):
            for content in itertools.combinations(everyone, size):
                if any(oracle.accepts(content, slots) for slots in range(1, size + 1)):
                    accepted.setdefault(frozenset(content), []).append(kind)
    return accepted


def cheapest(workload: Workload, fleet: Fleet) -> float:
    """Least cost of all placements that give each adapter one GPU: every content asked of every type at every `max_loras`."""
    everyone = frozenset(range(workload.n_adapters))
    accepted = accepted_by(workload, fleet)

    @cache
    def least(left: frozenset[int], counts: tuple[float, ...]) -> float:
        if not left:
            return 0.0
        first, best = min(left), math.inf
        for content, kinds in accepted.items():
            if first not in content or not content <= left:
                continue
            for kind in kinds:
                if counts[kind] >= 1:
                    fewer = tuple(count - (place == kind) for place, count in enumerate(counts))
                    best = min(best, fleet.types[kind].price + least(left - content, fewer))
        return best

    return least(everyone, tuple(math.inf if kind.count is None else kind.count for kind in fleet.types))


def answered(problem: Problem, solution: Solution) -> float:
    """Cost of an answer, once the twin has said that it is feasible."""
    assert solution.placement is not None, solution.message
    assert problem.fleet is not None
    score = score_placement(problem.workload, solution.placement, problem.profile, fleet=problem.fleet)
    assert score.feasible
    return score.cost


@pytest.mark.parametrize(
    ("seed", "fleet"),
    [
        (1, fleet_of_two(2.5, 1.0)),
        (2, fleet_of_two(3.0, 1.0, n_cheap=1)),
        (3, fleet_of_two(1.0, 0.9, n_dear=1)),
    ],
    ids=["any", "one cheap", "one fast"],
)
def test_bound_and_answer_are_on_either_side_of_the_cheapest(seed: int, fleet: Fleet) -> None:
    workload = small(seed)
    least = cheapest(workload, fleet)
    problem = problem_of(workload, fleet)
    solution = Exact(best_service=False, replicas=False).run(problem)
    cost = answered(problem, solution)
    assert solution.cost_bound is not None
    assert solution.cost_bound <= least + 1e-9
    assert cost >= least - 1e-9
    assert (solution.status == "optimal") == (cost == pytest.approx(solution.cost_bound))
    # Instances this small are solved within the time.
    assert cost == pytest.approx(least)
    assert answered(problem, FfdPlus(best_service=False).run(problem)) >= least - 1e-9


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Load for three to five GPUs."""
    return workload_from_groups([(24, 8, 3.0), (12, 16, 1.5), (6, 32, 4.0)], duration_s=WINDOW_S)


def test_counts_are_kept_and_the_rest_goes_elsewhere(workload: Workload) -> None:
    fleet = fleet_of_two(9.0, 1.0, n_cheap=2)
    problem = problem_of(workload, fleet)
    for solver in (MaxPack(best_service=False), FfdPlus(best_service=False)):
        solution = solver.run(problem)
        answered(problem, solution)
        assert solution.placement is not None
        assert fleet.mix(solution.placement)[1] <= 2
        assert fleet.mix(solution.placement)[0] >= 1


def test_search_is_never_dearer_than_filling(workload: Workload) -> None:
    fleet = fleet_of_two(2.0, 1.0)
    problem = problem_of(workload, fleet)
    filled = answered(problem, MaxPack(best_service=False).run(problem))
    assert answered(problem, FfdPlus(best_service=False).run(problem)) <= filled + 1e-9


def test_a_fleet_that_is_too_small_is_said(workload: Workload) -> None:
    problem = problem_of(workload, fleet_of_two(2.0, 1.0, n_dear=1, n_cheap=1))
    solution = MaxPack().run(problem)
    assert solution.placement is None
    assert solution.status == "none_found"
    assert "the fleet's 2 GPUs are used" in solution.message
    proven = Exact(best_service=False).run(problem)
    assert proven.placement is None
    assert proven.status in ("infeasible", "none_found", "time_limit")


def test_a_hot_adapter_is_divided() -> None:
    workload = workload_from_groups([(1, 8, 120.0), (4, 8, 0.5)], duration_s=WINDOW_S)
    problem = problem_of(workload, fleet_of_two(2.0, 1.0))
    solution = MaxPack(best_service=False).run(problem)
    answered(problem, solution)
    assert solution.placement is not None
    assert solution.placement.has_replicas


def test_a_solver_of_one_type_says_so(workload: Workload) -> None:
    from solvers.random_gpu import RandomGpu

    with pytest.raises(UserError, match="solver random places on GPUs of one type"):
        RandomGpu().run(replace(problem_of(workload, fleet_of_two(2.0, 1.0)), max_gpus=4))


def test_one_type_is_answered_as_without_a_fleet(workload: Workload) -> None:
    one = Fleet((GpuType("only", FAST),))
    with_fleet = replace(problem_of(workload, one), max_gpus=8)
    without = replace(with_fleet, fleet=None, objective=MinGpus())
    solver = MaxPack(best_service=False)
    assert solver.run(with_fleet).placement == solver.run(without).placement


def test_answers_that_break_the_fleets_rules_are_refused(workload: Workload) -> None:
    from solvers.base import Tags, checked

    fleet = fleet_of_two(2.0, 1.0, n_dear=1)
    problem = problem_of(workload, fleet)
    placement = MaxPack(best_service=False).run(problem).placement
    assert placement is not None
    tags = Tags(mixed_fleets=True, exact=True)
    cost = fleet.cost(placement)
    assert checked(Solution("feasible", placement, cost_bound=cost), problem, "any", tags).cost_bound == cost
    with pytest.raises(ValueError, match="is above the cost of its placement"):
        checked(Solution("feasible", placement, cost_bound=cost + 1), problem, "any", tags)
    with pytest.raises(ValueError, match="cost_bound=nan"):
        checked(Solution("feasible", placement, cost_bound=math.nan), problem, "any", tags)
    unnamed = Placement(tuple(replace(plan, gpu_type=None) for plan in placement.gpus))
    with pytest.raises(ValueError, match="must be one of fast, slow"):
        checked(Solution("feasible", unnamed), problem, "any", tags)
    with pytest.raises(ValueError, match="names GPU types where there is one only"):
        checked(Solution("feasible", placement), replace(problem, fleet=None), "any", tags)
