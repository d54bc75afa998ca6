"""Speed of the solvers: `make benchmarks`. In other test runs each of these runs once, on less, as a test of itself.

Besides the time, each row carries the GPUs of the placement, what is proven of it, and how much the solver asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from predictors import load_predictor
from solvers.base import Problem, Solution, Solver
from solvers.exact import Exact
from solvers.ffd import GuidedFfd
from solvers.ffd_plus import FfdPlus
from solvers.max_pack import MaxPack
from solvers.objectives.min_gpus import MinGpus
from twin import Workload, load_profile, workload_from_groups

PROFILE = "llama-3.1-8b"
RATES = (3.2, 1.6, 0.8, 0.4, 0.1, 0.05, 0.025, 0.0125)


def of_types(n_adapters: int, n_types: int, seed: int = 0) -> Workload:
    """So many adapters of so many (rank, rate) types, in equal numbers."""
    generator = np.random.default_rng(seed)
    ranks = generator.choice([8, 16, 32], n_types)
    rates = generator.choice(RATES, n_types) * generator.uniform(0.8, 1.25, n_types).round(2)
    counts = np.full(n_types, n_adapters // n_types)
    counts[: n_adapters % n_types] += 1
    return workload_from_groups(list(zip(counts.tolist(), ranks.tolist(), rates.tolist(), strict=True)))


def all_different(n_adapters: int, total_rate: float, seed: int = 0) -> Workload:
    """Adapters with long-tailed rates, no two alike."""
    generator = np.random.default_rng(seed)
    rates = generator.lognormal(0, 1.2, n_adapters)
    return Workload(generator.choice([8, 16, 32], n_adapters), rates / rates.sum() * total_rate)


def problem(workload: Workload, time_limit_s: float = 60.0) -> Problem:
    return Problem(workload, load_profile(PROFILE), MinGpus(), load_predictor(PROFILE), time_limit_s=time_limit_s)


def run(benchmark: BenchmarkFixture, solver: Solver, given: Problem) -> Solution:
    """Solve once: a solve is seconds long, and its answer is what matters."""
    # Compilation and imports are not the solver's time.
    solver.run(problem(workload_from_groups([(3, 8, 0.1)]), 5.0))
    solution: Solution = benchmark.pedantic(solver.run, (given,), rounds=1)  # type: ignore[no-untyped-call]
    if benchmark.stats:
        benchmark.extra_info["status"] = solution.status
        benchmark.extra_info["gpus"] = solution.placement and solution.placement.n_gpus
        benchmark.extra_info["lower_bound"] = solution.lower_bound
        benchmark.extra_info["oracle_calls"] = solution.oracle_calls
    return solution


def size(benchmark: BenchmarkFixture, measured: int, otherwise: int) -> int:
    """A smaller problem where nothing is measured."""
    return measured if benchmark.enabled else otherwise


@pytest.mark.parametrize("twin_check", [False, True], ids=["predictor only", "every GPU simulated"])
def test_a_hundred_thousand_adapters(benchmark: BenchmarkFixture, twin_check: bool) -> None:  # a parameter of the test
    n_adapters = size(benchmark, 100_000, 1000)
    given = problem(all_different(n_adapters, n_adapters / 4), size(benchmark, 300, 4))
    solution = run(benchmark, FfdPlus(twin_check=twin_check), given)
    assert solution.placement is not None
    # Such a fleet's requests need never be drawn at once.
    assert "requests" not in vars(given.workload) or n_adapters < 100_000


GOALS: dict[str, tuple[str, Callable[[], Workload]]] = {
    **{f"distilled, 200 of 12 types, seed {s}": ("distilled", partial(of_types, 200, 12, s)) for s in range(3)},
    **{f"predictor, 200 of 12 types, seed {s}": ("predictor", partial(of_types, 200, 12, s)) for s in range(3)},
    **{f"distilled, 100 different, seed {s}": ("distilled", partial(all_different, 100, 100, s)) for s in range(3)},
    **{f"predictor, 100 different, seed {s}": ("predictor", partial(all_different, 100, 100, s)) for s in range(3)},
    **{f"twin, 96 of 9 types, seed {s}": ("twin", partial(of_types, 96, 9, s)) for s in range(3)},
    "twin, 1000 different": ("twin", partial(all_different, 1000, 100)),
}


@pytest.mark.parametrize("goal", GOALS)
def test_exact(benchmark: BenchmarkFixture, goal: str) -> None:
    oracle, make = GOALS[goal]
    solution = run(benchmark, Exact(oracle=oracle), problem(make(), size(benchmark, 60, 1)))
    assert solution.lower_bound is not None
    assert solution.placement is None or solution.lower_bound <= solution.placement.n_gpus
    if benchmark.stats:
        benchmark.extra_info["gap"] = solution.details["gap"]
        benchmark.extra_info["monotonicity_needed"] = solution.details["monotonicity_needed"]


@pytest.mark.parametrize("solver", [GuidedFfd, FfdPlus, MaxPack], ids=lambda solver: str(solver.name))
def test_a_thousand_adapters(benchmark: BenchmarkFixture, solver: type[Solver]) -> None:
    n_adapters = size(benchmark, 1000, 200)
    run(benchmark, solver(), problem(all_different(n_adapters, n_adapters / 10), size(benchmark, 60, 2)))
