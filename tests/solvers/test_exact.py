"""The exact solver against enumeration, and the honesty of its bound."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from solvers.base import Problem
from solvers.exact import Exact
from solvers.oracle import MAX_LORAS_GRID
from solvers.twin_oracle import TwinOracle
from twin import score_placement, workload_from_groups


def enumerated_optimum(problem: Problem) -> int:
    """Fewest GPUs over all ways to split four adapters, each content asked of the twin."""
    oracle = TwinOracle(problem.workload, problem.profile)
    n = problem.workload.n_adapters

    def accepted(content: tuple[int, ...]) -> bool:
        return any(oracle.accepts(content, slots) for slots in MAX_LORAS_GRID if slots <= len(content))

    best = n
    for assignment in product(range(n), repeat=n):
        groups = [tuple(a for a in range(n) if assignment[a] == gpu) for gpu in set(assignment)]
        if len(groups) < best and all(accepted(group) for group in groups):
            best = len(groups)
    return best


@pytest.mark.parametrize("rates", [(12.0, 12.0, 12.0, 12.0), (25.0, 20.0, 10.0, 5.0), (20.0, 20.0, 1.0, 1.0)])
def test_a_proven_optimum_is_the_one_that_enumeration_finds(problem: Problem, rates: tuple[float, ...]) -> None:
    workload = workload_from_groups([(1, 8, rate) for rate in rates], duration_s=600.0)
    small = replace(problem, workload=workload)
    solution = Exact(oracle="twin").run(small)
    assert solution.status == "optimal"
    assert solution.placement is not None
    assert solution.placement.n_gpus == solution.lower_bound == enumerated_optimum(small)


@pytest.mark.parametrize("oracle", ["twin", "predictor", "distilled"])
def test_the_bound_is_never_above_the_placement(problem: Problem, oracle: str) -> None:
    solution = Exact(oracle=oracle).run(problem)
    assert solution.placement is not None
    if solution.lower_bound is not None:
        assert solution.lower_bound <= solution.placement.n_gpus
    assert (solution.status == "optimal") == (solution.lower_bound == solution.placement.n_gpus)


def test_with_the_twin_as_oracle_the_placement_is_feasible(problem: Problem) -> None:
    solution = Exact(oracle="twin").run(problem)
    assert solution.placement is not None
    assert score_placement(problem.workload, solution.placement, problem.profile).feasible


def test_thousands_of_one_kind_get_an_honest_answer(problem: Problem) -> None:
    """Every content that the greedy found may be larger than what a cover can use."""
    many = replace(problem, workload=workload_from_groups([(3000, 32, 0.01)], duration_s=600.0), max_gpus=None)
    solution = Exact(oracle="twin").run(replace(many, time_limit_s=10.0))
    assert solution.status in ("optimal", "feasible", "time_limit")
    if solution.placement is not None and solution.lower_bound is not None:
        assert solution.lower_bound <= solution.placement.n_gpus
