"""The exact solver against enumeration, and the honesty of its bound."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from solvers.base import Problem
from solvers.exact import Exact
from solvers.exact_search.assignment_loop import AssignmentLoop
from solvers.exact_search.monotone_check import sample_monotonicity
from solvers.exact_search.progress import Progress
from solvers.exact_search.search import STEPS
from solvers.ffd import GuidedFfd
from solvers.limits import Deadline
from solvers.oracles.base import MAX_LORAS_GRID
from solvers.oracles.predictor import PredictorOracle
from solvers.oracles.twin import TwinOracle
from twin import GpuPlan, Placement, UserError, Workload, load_profile, score_placement, workload_from_groups


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
    # It ends when it is proven, on a busy machine too.
    small = replace(problem, workload=workload, time_limit_s=600.0)
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


def test_the_answer_says_how_its_bounds_moved_and_what_they_rest_on(problem: Problem) -> None:
    solution = Exact(oracle="twin").run(problem)
    details = solution.details
    times = [second for second, _, _ in details["bounds_over_time_s"]]
    bounds = [bound for _, bound, _ in details["bounds_over_time_s"]]
    found = [gpus for _, _, gpus in details["bounds_over_time_s"] if gpus is not None]
    assert times == sorted(times)
    assert bounds == sorted(bounds)
    assert found == sorted(found, reverse=True)
    assert solution.placement is not None
    assert (bounds[-1], found[-1]) == (solution.lower_bound, solution.placement.n_gpus)
    assert details["gap"] == pytest.approx((found[-1] - bounds[-1]) / found[-1], abs=1e-4)
    assert (details["monotonicity_pairs"] > 0) == (
        details["monotonicity_needed"] or details["interchangeability_needed"]
    )
    assert details["monotonicity_violations"] == 0


class Odd(PredictorOracle):
    """Accepts odd numbers of adapters only."""

    def find_max_loras(self, adapters: tuple[int, ...], hint: int | None = None) -> int | None:
        """None for an even number."""
        return super().find_max_loras(adapters, hint) if len(adapters) % 2 else None


@pytest.mark.parametrize(("kind", "broken"), [(PredictorOracle, False), (Odd, True)])
def test_a_breach_of_the_order_is_seen(
    problem: Problem, kind: type[PredictorOracle], broken: bool
) -> None:  # a parameter of the test
    assert problem.predictor is not None
    oracle = kind(problem.workload, problem.profile, problem.predictor)
    placement = Placement((GpuPlan(tuple(range(11)), 8), GpuPlan((11, 30, 41), 4)))
    assert all(oracle.find_max_loras(plan.adapters) for plan in placement.gpus)
    sample = sample_monotonicity(oracle, placement, seed=0, deadline=Deadline.after(20))
    assert sample.pairs > 10
    assert (sample.violations > 0) == broken


def optimum_on(n_gpus: int, oracle: TwinOracle) -> bool:
    """Whether any way to deal the adapters to so many GPUs is accepted everywhere."""
    n = oracle.workload.n_adapters
    groups = [tuple(a for a in range(n) if mask >> a & 1) for mask in range(1, 2**n)]
    good = {group for group in groups if oracle.find_max_loras(group) is not None}
    reachable = {frozenset[int]()}
    for _ in range(n_gpus):
        reachable |= {have | set(group) for have in reachable for group in good if not have & set(group)}
    return frozenset(range(n)) in reachable


def test_assigning_single_adapters_ends_with_the_optimum(problem: Problem) -> None:
    """Prices so low that they prove nothing: everything is left to the cuts."""
    workload = workload_from_groups([(1, 8, rate) for rate in (30.0, 25.0, 22.0, 18.0, 9.0, 6.0)], duration_s=600.0)
    oracle = TwinOracle(workload, problem.profile)
    progress = Progress(None, oracle.name)
    progress.keep(Placement(tuple(GpuPlan((adapter,), 1) for adapter in range(6))))
    loop = AssignmentLoop(oracle, progress, Deadline.after(60), 1, [workload.rates / 1000.0])
    loop.run()
    assert progress.proven
    assert loop.covers
    assert loop.needs == {"monotonicity"}
    fresh = TwinOracle(workload, problem.profile)
    assert optimum_on(progress.gpus, fresh)
    assert not optimum_on(progress.gpus - 1, fresh)


def test_many_types_of_a_learned_oracle_are_annealed_onto_few_gpus(problem: Problem) -> None:
    generator = np.random.default_rng(0)
    rates = generator.lognormal(0, 1.2, 100)
    workload = Workload(generator.choice([8, 16, 32], 100), rates / rates.sum() * 100, duration_s=600.0)
    different = replace(problem, workload=workload, max_gpus=None, time_limit_s=5.0)
    solution = Exact(oracle="predictor").run(different)
    assert solution.placement is not None
    assert problem.predictor is not None
    oracle = PredictorOracle(workload, problem.profile, problem.predictor)
    assert all(oracle.find_max_loras(plan.adapters) is not None for plan in solution.placement.gpus)
    greedy = GuidedFfd().run(different).placement
    assert greedy is not None
    assert solution.placement.n_gpus <= greedy.n_gpus


@pytest.mark.parametrize(
    ("name", "group"), [("qwen-2.5-7b", (69, 8, 0.4)), ("llama-3.1-8b", (104, 32, 0.2))], ids=["69-slots", "77-slots"]
)
def test_one_gpu_is_found_where_only_a_value_off_the_grid_serves(
    problem: Problem, name: str, group: tuple[int, int, float]
) -> None:
    """No value of the grid serves these; a bound of two would be wrong."""
    workload = workload_from_groups([group])
    profile = load_profile(name)
    oracle = TwinOracle(workload, profile)
    everything = tuple(range(group[0]))
    assert not any(oracle.accepts(everything, slots) for slots in MAX_LORAS_GRID)
    solution = Exact(oracle="twin").run(
        replace(problem, workload=workload, profile=profile, predictor=None, max_gpus=None)
    )
    assert solution.status == "optimal"
    assert solution.placement is not None
    assert solution.placement.n_gpus == solution.lower_bound == 1


def test_a_step_to_leave_out_must_be_one(problem: Problem) -> None:
    with pytest.raises(UserError, match=r"solver.without=zone of solver exact: must be among greedy, zones, .*cuts"):
        Exact(without=["zone"])
    assert Exact(without=["zones", "cuts"]).without == ("zones", "cuts")


@pytest.mark.parametrize("left_out", [(), ("zones",), STEPS], ids=["none", "zones", "all"])
def test_whatever_is_left_out_bound_and_placement_hold(problem: Problem, left_out: tuple[str, ...]) -> None:
    whole = Exact(without=left_out).run(replace(problem, time_limit_s=5.0))
    assert whole.placement is not None
    assert whole.lower_bound is not None
    assert score_placement(problem.workload, whole.placement, problem.profile).feasible
