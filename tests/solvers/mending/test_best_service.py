"""The best service within the GPUs that were found: never worse, never infeasible, and better where there is room."""

from dataclasses import replace

import numpy as np
import pytest

from solvers.base import Problem
from solvers.limits import Deadline
from solvers.max_pack import MaxPack
from solvers.mending.best_service import best_service
from solvers.objectives.min_gpus import MinGpus
from twin import INTERACTIVE, GpuPlan, Placement, ServingProfile, Workload, score_placement, simulate_gpu
from twin.builders import zipf


@pytest.fixture(scope="module")
def uneven(profile: ServingProfile) -> Problem:
    workload = zipf(profile, n_adapters=40, total_rate=16.0, exponent=0.8, ranks=[8, 16], duration_s=120.0, seed=4)
    return Problem(workload, profile, MinGpus(), time_limit_s=60.0)


@pytest.fixture(scope="module")
def lopsided(uneven: Problem) -> Placement:
    """All the busy adapters on one GPU with few slots, and the quiet ones on another with far too many."""
    return Placement((GpuPlan(tuple(range(24)), 8), GpuPlan(tuple(range(24, 40)), 64)))


def worst_wait_ms(problem: Problem, placement: Placement) -> float:
    return max(
        simulate_gpu(problem.workload, plan.adapters, problem.profile, plan.max_loras).wait_ms
        for plan in placement.gpus
    )


def test_the_worst_gpu_becomes_better_at_equal_cost(uneven: Problem, lopsided: Placement) -> None:
    better, calls = best_service(uneven, lopsided, Deadline.after(60.0))
    assert calls > 0
    assert better.n_gpus == lopsided.n_gpus
    better.check(uneven.workload)
    assert worst_wait_ms(uneven, better) < 0.5 * worst_wait_ms(uneven, lopsided)
    assert all(plan.max_loras <= len(plan.adapters) for plan in better.gpus)
    before, after = (score_placement(uneven.workload, each, uneven.profile) for each in (lopsided, better))
    assert after.headroom > before.headroom
    assert after.feasible


def test_the_same_problem_gives_the_same_answer(uneven: Problem, lopsided: Placement) -> None:
    first, second = (best_service(uneven, lopsided, Deadline.after(60.0))[0] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("seed", range(4))
def test_no_answer_of_a_solver_becomes_worse(uneven: Problem, seed: int) -> None:
    """Whatever is drawn: as many GPUs, all of them still feasible, and requests wait no longer in sum."""
    problem = replace(uneven, workload=uneven.workload.with_seed(seed), seed=seed)
    plain = MaxPack(best_service=False).run(problem).placement
    assert plain is not None
    better = MaxPack().run(problem).placement
    assert better is not None
    assert better.n_gpus == plain.n_gpus
    assert score_placement(problem.workload, better, problem.profile).feasible

    def waits_ms(placement: Placement) -> float:
        total = 0.0
        for plan in placement.gpus:
            result = simulate_gpu(problem.workload, plan.adapters, problem.profile, plan.max_loras)
            total += result.wait_ms * result.arrived
        return total

    assert waits_ms(better) <= waits_ms(plain) + 1e-6
    assert worst_wait_ms(problem, better) <= worst_wait_ms(problem, plain) + 1e-6


def test_a_gpu_that_fails_the_level_comes_first(uneven: Problem, lopsided: Placement) -> None:
    """Under a goodput rule what fails is mended before anything is made faster."""
    problem = replace(uneven, service=INTERACTIVE)
    better, _ = best_service(problem, lopsided, Deadline.after(60.0))
    before, after = (
        score_placement(problem.workload, each, problem.profile, service=INTERACTIVE) for each in (lopsided, better)
    )
    assert before.failed_gpus == 1
    assert after.feasible


def test_without_time_nothing_is_changed(uneven: Problem, lopsided: Placement) -> None:
    assert best_service(uneven, lopsided, Deadline.after(0.0)) == (lopsided, 0)


def test_shares_are_evened_out(profile: ServingProfile) -> None:
    """Two GPUs share a hot adapter, nine parts in ten on one of them: the other takes more of it, and both serve."""
    problem = Problem(
        Workload(np.array([8]), np.array([45.0]), duration_s=60.0), profile, MinGpus(), service=INTERACTIVE
    )
    placement = Placement((GpuPlan((0,), 1, (0.9,)), GpuPlan((0,), 1, (0.1,))))
    better, calls = best_service(problem, placement, Deadline.after(60.0))
    better.check(problem.workload)
    assert calls
    assert better.n_gpus == 2
    assert 0.1 < min(plan.shares[0] for plan in better.gpus if plan.shares) <= 0.5
    before, after = (
        score_placement(problem.workload, each, profile, service=INTERACTIVE) for each in (placement, better)
    )
    assert after.feasible
    assert after.ttft_ms < before.ttft_ms


def test_a_single_adapter_gets_one_slot(profile: ServingProfile) -> None:
    problem = Problem(Workload(np.array([8]), np.array([0.5]), duration_s=60.0), profile, MinGpus())
    better, _ = best_service(problem, Placement((GpuPlan((0,), 32),)), Deadline.after(10.0))
    assert better == Placement((GpuPlan((0,), 1),))
