"""What must hold for every shipped solver, whatever its method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solvers.base import Problem, Solver
from solvers.registry import list_solvers
from twin import UserError, Workload, score_placement, workload_from_groups

NAMES = [entry.name for entry in list_solvers()]


def make(name: str) -> Solver:
    entry = next(entry for entry in list_solvers() if entry.name == name)
    assert entry.solver is not None, entry.reason
    return entry.solver()


def with_workload(problem: Problem, workload: Workload) -> Problem:
    return replace(problem, workload=workload)


def test_the_solvers_of_the_first_release_are_there() -> None:
    assert {"exact", "ffd", "ffd_fast", "latency", "max_pack"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_adapter_is_placed_once_and_limits_hold(name: str, problem: Problem) -> None:
    solution = make(name).run(problem)
    assert solution.status in ("optimal", "feasible")
    assert solution.placement is not None
    solution.placement.check(problem.workload)
    assert problem.max_gpus is not None
    assert solution.placement.n_gpus <= problem.max_gpus
    for plan in solution.placement.gpus:
        rank = int(problem.workload.ranks[list(plan.adapters)].max())
        assert 1 <= plan.max_loras <= problem.profile.largest_max_loras(rank)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_solver_calls_feasible_is_so_on_the_twin(name: str, problem: Problem) -> None:
    """Those that ask the predictor keep a margin; those that ask the twin have seen these very requests."""
    solution = make(name).run(problem)
    assert solution.placement is not None
    assert score_placement(problem.workload, solution.placement, problem.profile).feasible


@pytest.mark.parametrize("name", NAMES)
def test_the_same_problem_gets_the_same_answer(name: str, problem: Problem) -> None:
    first, second = make(name).run(problem), make(name).run(problem)
    assert first.placement == second.placement
    assert first.status == second.status


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_changed(name: str, problem: Problem) -> None:
    ranks, rates = problem.workload.ranks.copy(), problem.workload.rates.copy()
    make(name).run(problem)
    np.testing.assert_array_equal(problem.workload.ranks, ranks)
    np.testing.assert_array_equal(problem.workload.rates, rates)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_workload_needs_no_gpu(name: str, problem: Problem) -> None:
    solution = make(name).run(with_workload(problem, workload_from_groups([])))
    assert solution.placement is not None
    assert solution.placement.n_gpus == 0


@pytest.mark.parametrize("name", NAMES)
def test_one_adapter_needs_one_gpu(name: str, problem: Problem) -> None:
    workload = workload_from_groups([(1, 8, 0.5)], duration_s=600.0)
    solution = make(name).run(replace(problem, workload=workload, max_gpus=1))
    assert solution.placement is not None
    assert solution.placement.n_gpus == 1


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_that_starves_a_gpu_alone_is_said(name: str, problem: Problem) -> None:
    workload = workload_from_groups([(2, 8, 0.1), (1, 8, 300.0)], duration_s=600.0)
    solution = make(name).run(with_workload(problem, workload))
    assert solution.status == "infeasible"
    assert solution.message


@pytest.mark.parametrize("name", NAMES)
def test_too_few_gpus_are_said(name: str, problem: Problem) -> None:
    solution = make(name).run(replace(problem, max_gpus=1))
    assert solution.status == "infeasible"
    assert solution.message


@pytest.mark.parametrize("name", NAMES)
def test_a_rank_that_the_profile_does_not_know_is_the_users_mistake(name: str, problem: Problem) -> None:
    workload = workload_from_groups([(2, 64, 0.1)], duration_s=600.0)
    with pytest.raises(UserError, match="rank=64"):
        make(name).run(with_workload(problem, workload))


@pytest.mark.parametrize("name", [name for name in NAMES if make(name).tags.needs_fleet])
def test_a_spreading_solver_wants_its_fleet(name: str, problem: Problem) -> None:
    with pytest.raises(UserError, match="gpus=N"):
        make(name).run(replace(problem, max_gpus=None))


@pytest.mark.parametrize("name", [name for name in NAMES if make(name).tags.needs_predictor])
def test_a_solver_that_learned_says_that_it_wants_a_predictor(name: str, problem: Problem) -> None:
    with pytest.raises(UserError, match="predictor"):
        make(name).run(replace(problem, predictor=None))
