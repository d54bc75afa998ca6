"""The local search on the twin: what it may and may not do, on workloads of a few GPUs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from solvers.base import Problem
from solvers.limits import Deadline
from solvers.max_pack import MaxPack
from solvers.mending.exchanges import TwinSearch, fewer_on_twin
from solvers.oracles.twin import TwinOracle
from tests.examples import examples
from twin import GpuPlan, Placement, Workload, score_placement
from twin.arrivals import GammaArrivals
from twin.builders import zipf
from twin.lengths import Lengths, LogNormalTokens


def small(seed: int, n_adapters: int = 16, requests_per_s: float = 75.0) -> Workload:
    """Adapters of many sizes, for a few GPUs."""
    generator = np.random.default_rng(seed)
    rates = generator.lognormal(0, 0.7, n_adapters)
    ranks = generator.choice([8, 16, 32], n_adapters)
    return Workload(ranks, rates / rates.sum() * requests_per_s, duration_s=120.0, seed=seed)


def start(problem: Problem) -> Placement:
    placement = MaxPack(replicas=False).run(problem).placement
    assert placement is not None
    return placement


def searched(problem: Problem, placement: Placement, seed: int = 0, time_limit_s: float = 60.0) -> Placement:
    oracle = TwinOracle(problem.workload, problem.profile)
    weights = problem.workload.rates
    return fewer_on_twin(placement, weights, oracle, Deadline.after(time_limit_s), seed)


@examples(8)
@given(seed=st.integers(0, 1000))
def test_the_answer_is_feasible_on_no_more_gpus_with_every_adapter_once(problem: Problem, seed: int) -> None:
    mine = replace(problem, workload=small(seed), max_gpus=None)
    before = start(mine)
    after = searched(mine, before)
    assert after.n_gpus <= before.n_gpus
    after.check(mine.workload)
    assert sorted(a for plan in after.gpus for a in plan.adapters) == list(range(mine.workload.n_adapters))
    assert score_placement(mine.workload, after, mine.profile).feasible


def test_exchanges_save_a_gpu_that_filling_needs(problem: Problem) -> None:
    mine = replace(problem, workload=small(5, n_adapters=24, requests_per_s=100.0), max_gpus=None)
    before = start(mine)
    after = searched(mine, before)
    assert after.n_gpus < before.n_gpus


def test_the_same_seed_gives_the_same_answer(problem: Problem) -> None:
    mine = replace(problem, workload=small(5, n_adapters=24, requests_per_s=100.0), max_gpus=None)
    before = start(mine)
    assert searched(mine, before, seed=3) == searched(mine, before, seed=3)


def test_without_time_the_placement_stays_as_it_is(problem: Problem) -> None:
    mine = replace(problem, workload=small(5, n_adapters=24, requests_per_s=100.0), max_gpus=None)
    before = start(mine)
    oracle = TwinOracle(mine.workload, mine.profile)
    assert fewer_on_twin(before, mine.workload.rates, oracle, Deadline.after(0.0), 0) is before
    assert oracle.calls == 0


def test_one_gpu_for_all_is_taken_or_left(problem: Problem) -> None:
    """With a single GPU there is nothing to exchange."""
    taken = []
    for requests_per_s in (20.0, 25.0, 26.0, 27.0, 28.0, 30.0, 40.0):
        workload = small(0, requests_per_s=requests_per_s)
        oracle = TwinOracle(workload, problem.profile)
        placement = TwinSearch(oracle, workload.rates, np.random.default_rng(0)).on(1, 8, Deadline.after(60.0))
        taken.append(placement is not None)
        assert taken[-1] == (oracle.find_max_loras(tuple(range(workload.n_adapters))) is not None)
    assert taken[0]
    assert not taken[-1]


def test_what_is_hopeless_is_given_up_after_the_starts(problem: Problem) -> None:
    """A fifth of the GPUs that the load needs."""
    mine = replace(problem, workload=small(2, n_adapters=80, requests_per_s=300.0), max_gpus=None)
    n_gpus = start(mine).n_gpus // 5
    assert n_gpus
    oracle = TwinOracle(mine.workload, mine.profile)
    search = TwinSearch(oracle, mine.workload.rates, np.random.default_rng(0))
    assert search.on(n_gpus, 8, Deadline.after(60.0)) is None
    assert oracle.calls <= 4 * n_gpus * 8


def test_a_gpu_less_is_found_where_adapters_must_be_dealt_just_so(problem: Problem) -> None:
    """The instance zipf-llama-0008 of the suite: eight busy adapters with bursts, which fit three GPUs in few ways."""
    adapters = zipf(
        problem.profile, n_adapters=8, total_rate=39.08, exponent=0.4, ranks=[16, 32], duration_s=600.0,
        lengths=Lengths(LogNormalTokens(150, 1.0, 4, 1024), LogNormalTokens(600, 0.8, 16, 2048), 3072, correlation=0.0),
        arrivals=GammaArrivals(2.0), seed=89837,
    )  # fmt: skip
    oracle = TwinOracle(adapters, problem.profile)
    two_each = Placement(tuple(GpuPlan((2 * number, 2 * number + 1), 2) for number in range(4)))
    found = fewer_on_twin(two_each, adapters.rates, oracle, Deadline.after(60.0), seed=0)
    assert found.n_gpus == 3
    assert score_placement(adapters, found, problem.profile).feasible
