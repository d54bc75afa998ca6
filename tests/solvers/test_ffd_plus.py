"""Our greedy: what each step may and may not do, on small fleets and on one that is looked at in samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.base import Problem
from solvers.ffd import GuidedFfd
from solvers.ffd_plus import FfdPlus
from solvers.filling.model import FillModel
from solvers.limits import Deadline
from solvers.max_pack import MaxPack
from solvers.mending.checked import LARGE_FLEET, checked
from solvers.oracles.predictor import PredictorOracle
from tests.examples import examples
from twin import Workload, score_placement, workload_from_groups
from twin.builders import zipf


@pytest.fixture(scope="module")
def mixed(problem: Problem) -> Problem:
    """A hundred adapters, no two alike, for four GPUs or five."""
    generator = np.random.default_rng(1)
    rates = generator.lognormal(0, 1.2, 100)
    workload = Workload(generator.choice([8, 16, 32], 100), rates / rates.sum() * 130, duration_s=600.0)
    return replace(problem, workload=workload, max_gpus=None)


def accepted(problem: Problem, groups: list[list[int]]) -> list[bool]:
    assert problem.predictor is not None
    oracle = PredictorOracle(problem.workload, problem.profile, problem.predictor)
    return [oracle.find_max_loras(tuple(group)) is not None for group in groups]


def test_many_adapters_get_no_more_gpus_than_by_filling_on_the_twin(problem: Problem) -> None:
    """With a few values of `max_loras` for each GPU, four are the fewest that is found here."""
    adapters = zipf(
        problem.profile, n_adapters=160, total_rate=40.0, exponent=1.0, ranks=[8, 16, 32], duration_s=120.0, seed=1
    )
    # Time enough on a machine that does much else.
    many = replace(problem, workload=adapters, max_gpus=None, time_limit_s=300.0)
    found, filled = FfdPlus().run(many).placement, MaxPack().run(many).placement
    assert found is not None
    assert filled is not None
    assert found.n_gpus <= filled.n_gpus == 3
    assert score_placement(adapters, found, problem.profile).feasible


def test_the_predictor_accepts_every_gpu_that_it_filled(mixed: Problem) -> None:
    model = FillModel(mixed, distilled=False)
    for order in model.orders():
        filling = model.filled(order)
        assert sorted(a for group in filling.groups() for a in group) == list(range(100))
        assert all(accepted(mixed, filling.groups()))


def test_a_gpu_is_only_closed_when_the_next_adapter_does_not_fit(mixed: Problem) -> None:
    model = FillModel(mixed, distilled=False)
    order = model.orders()[0]
    filling = model.filled(order)
    for gpu, group in enumerate(filling.groups()[:-1]):
        # The first adapter in order that came to lie on a later GPU was refused on this one.
        later = next(a for a in order.tolist() if filling.gpu_of[a] > gpu)
        assert not accepted(mixed, [sorted([*group, later])])[0]


def test_local_search_never_uses_more_gpus_and_keeps_what_the_predictor_accepts(mixed: Problem) -> None:
    model = FillModel(mixed, distilled=False)
    filled = model.filled(model.orders()[1])
    searched = model.refilled(model.drained(filled, Deadline.after(20)), Deadline.after(20))
    assert searched.n_gpus <= filled.n_gpus
    assert sorted(a for group in searched.groups() for a in group) == list(range(100))
    assert all(accepted(mixed, searched.groups()))


@examples(10)
@given(seed=st.integers(0, 1000), n_gpus=st.integers(2, 6))
def test_annealing_says_accepted_only_of_what_the_oracle_accepts(problem: Problem, seed: int, n_gpus: int) -> None:
    generator = np.random.default_rng(seed)
    workload = Workload(generator.choice([8, 16, 32], 40), generator.lognormal(-0.5, 1.0, 40), duration_s=600.0)
    some = replace(problem, workload=workload)
    filling, says = FillModel(some, distilled=True).annealed(n_gpus, Deadline.after(20), proposals=1000)
    assert np.bincount(filling.gpu_of, minlength=n_gpus).sum() == 40
    assert some.predictor is not None
    oracle = PredictorOracle(workload, some.profile, some.predictor, distilled=True)
    if says:
        assert all(oracle.find_max_loras(tuple(group)) is not None for group in filling.groups() if group)


def test_annealing_finds_two_gpus_for_what_fills_two(problem: Problem) -> None:
    """Ten large and many small that fit only when they are dealt evenly."""
    model = FillModel(problem, distilled=False)
    n_gpus = model.filled(model.orders()[0]).n_gpus
    _, says = model.annealed(n_gpus, Deadline.after(20))
    assert says


def test_no_more_gpus_than_the_published_greedy(mixed: Problem) -> None:
    ours, published = FfdPlus().run(replace(mixed, time_limit_s=5.0)), GuidedFfd().run(mixed)
    assert ours.placement is not None
    assert published.placement is not None
    assert ours.placement.n_gpus <= published.placement.n_gpus
    assert score_placement(mixed.workload, ours.placement, mixed.profile).feasible


def test_what_the_twin_refuses_is_mended(mixed: Problem) -> None:
    """GPUs that are filled far beyond what the predictor accepts."""
    model = FillModel(mixed, distilled=False)
    overfull = model.filled(model.orders()[0], stretch=0.6)
    assert not score_placement(mixed.workload, overfull.placement(mixed.workload), mixed.profile).feasible
    mended = checked(mixed, model, overfull, Deadline.after(60))
    assert mended.unchecked_gpus == 0
    assert mended.placement.n_gpus > overfull.n_gpus
    mended.placement.check(mixed.workload)
    assert score_placement(mixed.workload, mended.placement, mixed.profile).feasible


def test_a_large_fleet_is_checked_gpu_by_gpu_without_drawing_all_requests(problem: Problem) -> None:
    generator = np.random.default_rng(0)
    rates = generator.lognormal(0, 1.0, 3000)
    workload = Workload(generator.choice([8, 16], 3000), rates / rates.sum() * 2000, duration_s=300.0)
    answer = FfdPlus().run(replace(problem, workload=workload, max_gpus=None, time_limit_s=120.0))
    assert answer.placement is not None
    assert answer.placement.n_gpus >= LARGE_FLEET
    assert (answer.status, answer.details["unchecked_gpus"]) == ("feasible", 0)
    assert "requests" not in vars(workload)
    assert score_placement(workload, answer.placement, problem.profile).feasible


def test_a_check_that_ran_out_of_time_is_told(problem: Problem) -> None:
    answer = FfdPlus().run(replace(problem, time_limit_s=1e-6))
    assert answer.status == "unchecked"
    assert "had no time to check" in answer.message


def test_a_lone_adapter_that_no_gpu_takes_is_named(problem: Problem) -> None:
    workload = workload_from_groups([(3, 8, 0.1), (1, 16, 500.0)], duration_s=60.0)
    answer = FfdPlus(replicas=False).run(replace(problem, workload=workload))
    assert answer.status == "none_found"
    assert "adapter 3 (rank 16, rate 500 req/s)" in answer.message
