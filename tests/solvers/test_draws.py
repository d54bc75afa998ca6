"""Placements that hold on several draws of the requests, and the bounds for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solvers.base import Problem, Solution, Solver
from solvers.exact import Exact
from solvers.ffd_plus import FfdPlus
from solvers.oracles.draws import APART, other_seeds
from solvers.oracles.twin import TwinOracle
from twin import (
    INTERACTIVE,
    PUBLISHED,
    GammaArrivals,
    Requests,
    ServiceLevel,
    UserError,
    score_placement,
    workload_from_groups,
)

DRAWS = 4


def near_its_limit(problem: Problem, *, n_adapters: int = 6, rate: float = 5.1) -> Problem:
    """Bursty adapters that one GPU serves with the requests of the workload's own seed, and not with those of others."""
    workload = workload_from_groups([(n_adapters, 16, rate)], duration_s=120.0, seed=1, name="near its limit")
    # It ends by itself, on a busy machine too.
    return replace(
        problem, workload=replace(workload, arrivals=GammaArrivals(cv=2.0)), max_gpus=None, time_limit_s=300.0
    )


def holds(problem: Problem, solution: Solution, seed: int) -> bool:
    """Whether a placement is feasible on a draw."""
    assert solution.placement is not None
    workload = problem.workload.with_seed(seed)
    return score_placement(workload, solution.placement, problem.profile, service=problem.service).feasible


@pytest.mark.parametrize("level", [PUBLISHED, INTERACTIVE], ids=lambda level: str(level.name))
@pytest.mark.parametrize("kind", [Exact, FfdPlus])
def test_a_placement_for_several_draws_holds_on_all_of_them(
    problem: Problem, kind: type[Exact | FfdPlus], level: ServiceLevel
) -> None:
    """One that was found for the workload's own draw does not, so that it is the option that does it."""
    # The learned level of the greedy is the published one; the twin checks what it fills.
    ours = replace(near_its_limit(problem), service=level, time_limit_s=30.0)
    seeds = (ours.workload.seed, *other_seeds(ours.workload, DRAWS))
    found = kind(draws=DRAWS).run(ours)
    assert all(holds(ours, found, seed) for seed in seeds)
    assert found.details["draws"] == DRAWS
    if level is PUBLISHED:
        alone = kind().run(ours)
        assert holds(ours, alone, seeds[0])
        assert not all(holds(ours, alone, seed) for seed in seeds[1:])


def test_a_replica_holds_on_all_draws_too(problem: Problem) -> None:
    """The routing of each draw is that draw's own."""
    hot = near_its_limit(problem, n_adapters=1, rate=60.0)
    solution = FfdPlus(draws=2).run(replace(hot, time_limit_s=30.0))
    assert solution.placement is not None
    assert solution.placement.has_replicas
    assert all(holds(hot, solution, seed) for seed in (hot.workload.seed, *other_seeds(hot.workload, 2)))


def test_more_draws_never_lower_the_cost_nor_the_bound(problem: Problem) -> None:
    """What holds on four holds on two of them."""
    ours = near_its_limit(problem)
    answers = [Exact(draws=draws).run(ours) for draws in (1, 2, DRAWS)]
    gpus = [answer.placement.n_gpus for answer in answers if answer.placement is not None]
    bounds = [int(answer.details.get("lower_bound_of_draws", answer.lower_bound or 0)) for answer in answers]
    assert len(gpus) == len(answers)
    assert gpus == sorted(gpus)
    assert gpus[0] < gpus[-1]
    assert bounds == sorted(bounds)
    assert all(bound <= each for bound, each in zip(bounds, gpus, strict=True))


def test_the_bound_of_draws_is_of_one_of_them(problem: Problem) -> None:
    """One GPU for all fails on another draw, so that two are proven; the bound for the workload's own draw stays what it is."""
    ours = near_its_limit(problem)
    solution = Exact(draws=DRAWS).run(ours)
    assert (solution.status, solution.lower_bound) == ("feasible", 1)
    assert solution.details["lower_bound_of_draws"] == 2
    assert f"proven for what holds on all {DRAWS} draws" in solution.message
    everything = tuple(range(ours.workload.n_adapters))
    alone = [
        TwinOracle(ours.workload.with_seed(seed), ours.profile).verdict(everything, every_value=True).rejected
        for seed in (ours.workload.seed, *other_seeds(ours.workload, DRAWS))
    ]
    assert not alone[0]
    assert any(alone[1:])


def test_more_draws_are_the_same_ones_and_others(problem: Problem) -> None:
    workload = problem.workload
    assert other_seeds(workload, 1) == ()
    assert (
        other_seeds(workload, 5)[:2] == other_seeds(workload, 3) == (workload.seed + APART, workload.seed + 2 * APART)
    )
    assert len({workload.seed, *other_seeds(workload, 100)}) == 100


@pytest.mark.parametrize("kind", [Exact, FfdPlus])
@pytest.mark.parametrize("draws", [0, 101, True])
def test_a_number_that_is_none_is_refused(kind: type[Exact | FfdPlus], draws: int) -> None:
    with pytest.raises(
        UserError, match=rf"solver\.{kind.name}\.draws={draws} must be a whole number, 1 or more and at most 100"
    ):
        kind(draws=draws)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Exact("predictor", draws=2), "only the twin tells draws apart; oracle=twin"),
        (lambda: FfdPlus(twin_check=False, draws=2), "only the twin tells draws apart; twin_check=true"),
    ],
)
def test_who_does_not_ask_the_twin_knows_no_draws(make: type[Solver], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


def test_a_fleet_of_several_types_has_one_draw() -> None:
    """It is refused as by a solver that knows no such fleets, not answered for one draw."""
    assert [kind().tags.mixed_fleets for kind in (Exact, FfdPlus)] == [True, True]
    assert [kind(draws=2).tags.mixed_fleets for kind in (Exact, FfdPlus)] == [False, False]


@pytest.mark.parametrize("kind", [Exact, FfdPlus])
def test_a_recorded_trace_has_one_draw(problem: Problem, kind: type[Exact | FfdPlus]) -> None:
    one = np.array([0])
    trace = Requests(np.array([1.0]), one, np.array([10]), np.array([5]), np.array([5]))
    recorded = replace(problem, workload=replace(problem.workload, trace=trace))
    with pytest.raises(UserError, match="three kinds is a recorded trace, which has one draw; must be 1"):
        kind(draws=2).run(recorded)
