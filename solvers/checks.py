"""The contract that every solver keeps, as checks that work for solvers of other packages too.

In a test file of your own::

    import pytest
    from solvers.checks import check_solver


    @pytest.mark.parametrize("check", check_solver(MySolver()), ids=str)
    def test_contract(check):
        check()
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache

import numpy as np

from solvers.base import PLACED, VOUCHED, Problem, Solution, Solver, Tags
from solvers.objectives.min_cost import MinCost
from solvers.objectives.min_gpus import MinGpus
from twin import (
    Fleet,
    GpuType,
    Placement,
    ServingProfile,
    UserError,
    Workload,
    load_profile,
    score_placement,
    shipped_profiles,
    workload_from_groups,
)

#: Window of the workloads that the checks use, in seconds.
WINDOW_S = 600.0
#: Time that a solver gets in each check.
TIME_LIMIT_S = 20.0


class ContractError(AssertionError):
    """A solver breaks the contract; the message says how."""


@dataclass(frozen=True)
class SolverCheck:
    """One check of one solver; call it.

    Attributes
    ----------
    name : str
        What must hold.
    solver : Solver
    expected_failure : str
        Why the check is known to fail; empty if it should pass.
    """

    name: str
    solver: Solver
    expected_failure: str
    _function: Callable[[Solver, Problem], None]
    _problem: Callable[[], Problem]

    def __str__(self) -> str:
        return f"{self.solver.name}-{self.name}"

    def __call__(self) -> None:
        """Run the check.

        A check that is expected to fail passes when it does, and only then: a reason that is out of date is told.

        Raises
        ------
        ContractError
            When the solver breaks the contract, or keeps it where that is not expected.
        """
        try:
            self._function(self.solver, self._problem())
        except ContractError:
            if self.expected_failure:
                return
            raise
        if self.expected_failure:
            raise ContractError(
                f"{self.solver.name}: {self.name} passes, although it is expected to fail: {self.expected_failure}"
            )


def check_solver(
    solver: Solver,
    *,
    expected_failures: Mapping[str, str] | None = None,
    profile: ServingProfile | None = None,
) -> Iterator[SolverCheck]:
    """Yield the contract checks for a solver, each with a name.

    Parameters
    ----------
    solver : Solver
        With the options that it is to be checked with. A check never changes it.
    expected_failures : mapping of str to str, optional
        Checks by name that are known to fail, with the reason.
    profile : ServingProfile, optional
        By default the first shipped one. A solver tagged `needs_predictor` gets the predictor shipped for it.

    Raises
    ------
    ValueError
        For an expected failure of a check that there is not.
    """
    expected = dict(expected_failures or {})
    unknown = sorted(set(expected) - set(_CHECKS))
    if unknown:
        raise ValueError(f"expected_failures: there is no check {unknown[0]!r}; the checks are {list(_CHECKS)}")

    def problem() -> Problem:
        return _problem(profile or _default_profile(), needs_predictor=solver.tags.needs_predictor)

    for name, (applies, function) in _CHECKS.items():
        if applies(solver.tags):
            yield SolverCheck(name, solver, expected.get(name, ""), function, problem)


@cache
def _default_profile() -> ServingProfile:
    return load_profile(shipped_profiles()[0])


def _problem(profile: ServingProfile, *, needs_predictor: bool) -> Problem:
    """Some load for two GPUs or three, of three kinds of adapters, and six GPUs."""
    from predictors import load_predictor

    ranks = profile.ranks
    groups = [(24, ranks[0], 0.8), (12, ranks[len(ranks) // 2], 0.4), (6, ranks[-1], 1.6)]
    return Problem(
        workload=workload_from_groups(groups, duration_s=WINDOW_S, name="three kinds"),
        profile=profile,
        objective=MinGpus(),
        predictor=load_predictor(profile.name) if needs_predictor else None,
        max_gpus=6,
        time_limit_s=TIME_LIMIT_S,
    )


# --- the checks


def _demand(condition: object, message: str) -> None:
    if not condition:
        raise ContractError(message)


def _run(solver: Solver, problem: Problem) -> Solution:
    """Solve; an answer that `Solver.run` finds malformed, or an exception, breaks the contract."""
    try:
        return solver.run(problem)
    except (Exception, SystemExit, GeneratorExit) as error:
        raise ContractError(f"{solver.name}: {type(error).__name__}: {error}") from error


def _placed(solver: Solver, problem: Problem) -> Placement:
    solution = _run(solver, problem)
    _demand(solution.placement is not None, f"{solver.name}: {solution.status}: {solution.message}")
    assert solution.placement is not None  # noqa: S101  # for the type checker
    return solution.placement


def _has_a_name_and_tags(solver: Solver, _: Problem) -> None:
    _demand(isinstance(getattr(solver, "name", None), str) and solver.name, f"{type(solver).__name__}.name: a str")
    _demand(isinstance(solver.tags, Tags), f"{solver.name}.tags: solvers.base.Tags")


def _places_each_adapter_once(solver: Solver, problem: Problem) -> None:
    """`Solver.run` checks the placement, its shares and the GPU limit."""
    _placed(solver, problem)


def _engines_start(solver: Solver, problem: Problem) -> None:
    solution = _run(solver, problem)
    if solution.status not in VOUCHED or solution.placement is None:
        return
    for number, plan in enumerate(solution.placement.gpus):
        rank = int(problem.workload.ranks[list(plan.adapters)].max())
        most = problem.profile.largest_max_loras(rank)
        _demand(
            plan.max_loras <= most,
            f"{solver.name}: GPU {number} does not start: max_loras={plan.max_loras} at rank {rank}, at most {most} do",
        )


def _what_it_vouches_for_is_feasible(solver: Solver, problem: Problem) -> None:
    solution = _run(solver, problem)
    if solution.status in VOUCHED and solution.placement is not None:
        score = score_placement(problem.workload, solution.placement, problem.profile, service=problem.service)
        _demand(
            score.feasible,
            f"{solver.name}: says {solution.status}; in the twin {score.starved_gpus} of {score.gpus} GPUs starve",
        )


def _same_seed_same_answer(solver: Solver, problem: Problem) -> None:
    first = _run(solver, problem)
    _run(solver, replace(problem, workload=workload_from_groups([(3, problem.profile.ranks[0], 0.1)])))
    second = _run(solver, problem)
    _demand(
        (first.status, first.placement) == (second.status, second.placement),
        f"{solver.name}: the same problem got two answers",
    )


def _deterministic_whatever_the_seed(solver: Solver, problem: Problem) -> None:
    first, second = _run(solver, problem), _run(solver, replace(problem, seed=problem.seed + 1))
    _demand(first.placement == second.placement, f"{solver.name}: tagged deterministic, but the seed matters")


def _nothing_is_changed(solver: Solver, problem: Problem) -> None:
    before = _snapshot(problem), _snapshot(vars(solver))
    _run(solver, problem)
    _demand(_snapshot(problem) == before[0], f"{solver.name}: the problem was changed")
    _demand(_snapshot(vars(solver)) == before[1], f"{solver.name}: the solver was changed by a solve")


def _snapshot(value: object) -> object:
    """What must stay the same, in a form that compares: declared fields only, so that a cache may fill."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if is_dataclass(value) and not isinstance(value, type):
        return [_snapshot(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, Mapping):
        return [(key, _snapshot(value[key])) for key in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return [_snapshot(item) for item in value]
    return repr(value)


def _an_empty_workload_needs_no_gpu(solver: Solver, problem: Problem) -> None:
    placement = _placed(solver, replace(problem, workload=workload_from_groups([])))
    _demand(placement.n_gpus == 0, f"{solver.name}: {placement.n_gpus} GPUs for no adapters")


def _one_adapter_needs_one_gpu(solver: Solver, problem: Problem) -> None:
    workload = workload_from_groups([(1, problem.profile.ranks[0], 0.5)], duration_s=WINDOW_S)
    placement = _placed(solver, replace(problem, workload=workload, max_gpus=1))
    _demand(placement.n_gpus == 1, f"{solver.name}: {placement.n_gpus} GPUs for one adapter on a fleet of one")


def _idle_adapters_are_placed(solver: Solver, problem: Problem) -> None:
    workload = workload_from_groups([(5, problem.profile.ranks[0], 0.0)], duration_s=WINDOW_S)
    _placed(solver, replace(problem, workload=workload))


def _impossible_is_said(solver: Solver, problem: Problem) -> None:
    """An adapter that starves any GPU: even a whole fleet serves only a part of its requests."""
    ranks = problem.profile.ranks
    workload = workload_from_groups([(2, ranks[0], 0.1), (1, ranks[0], 3000.0)], duration_s=60.0)
    _vouches_for_nothing(solver, replace(problem, workload=workload))


def _too_few_gpus_are_said(solver: Solver, problem: Problem) -> None:
    _vouches_for_nothing(solver, replace(problem, max_gpus=1))


def _vouches_for_nothing(solver: Solver, problem: Problem) -> None:
    solution = _run(solver, problem)
    _demand(solution.status not in VOUCHED, f"{solver.name}: says {solution.status} of what cannot be")
    _demand(
        solution.status in PLACED or solution.message,
        f"{solver.name}: {solution.status} without a message that says why",
    )


def _no_time_is_no_error(solver: Solver, problem: Problem) -> None:
    _run(solver, replace(problem, time_limit_s=1e-6))


def _bounds_are_consistent(solver: Solver, problem: Problem) -> None:
    """A bound is never above the placement (`Solver.run` checks it), and optimal means that they meet."""
    solution = _run(solver, problem)
    meet = solution.placement is not None and solution.lower_bound == solution.placement.n_gpus
    _demand(
        meet or solution.status != "optimal",
        f"{solver.name}: says optimal with a lower bound of {solution.lower_bound}",
    )


def _details_are_json(solver: Solver, problem: Problem) -> None:
    try:
        json.dumps(_run(solver, problem).details)
    except TypeError as error:
        raise ContractError(f"{solver.name}: details: {error}") from error


def _wrongs_are_the_users(solver: Solver, problem: Problem, match: str) -> None:
    try:
        solver.run(problem)
    except UserError as error:
        _demand(match in str(error), f"{solver.name}: {error} does not name {match}")
    except Exception as error:
        raise ContractError(f"{solver.name}: {type(error).__name__} instead of twin.UserError: {error}") from error
    else:
        raise ContractError(f"{solver.name}: no twin.UserError that names {match}")


def _an_unknown_rank_is_the_users_mistake(solver: Solver, problem: Problem) -> None:
    rank = 2 * max(problem.profile.ranks)
    workload: Workload = workload_from_groups([(2, rank, 0.1)], duration_s=WINDOW_S)
    _wrongs_are_the_users(solver, replace(problem, workload=workload), f"rank={rank}")


def _the_fleet_is_asked_for(solver: Solver, problem: Problem) -> None:
    _wrongs_are_the_users(solver, replace(problem, max_gpus=None), "gpus=N")


def _the_predictor_is_asked_for(solver: Solver, problem: Problem) -> None:
    _wrongs_are_the_users(solver, replace(problem, predictor=None), "predictor")


def _mixed(problem: Problem) -> Problem:
    """The problem on a fleet of two types: one GPU that is there, and others that cost twice as much."""
    types = (GpuType("owned", problem.profile, 1.0, 1), GpuType("rented", problem.profile, 2.0))
    return replace(problem, fleet=Fleet(types), objective=MinCost(), predictor=None)


def _a_mixed_fleet_is_placed_on(solver: Solver, problem: Problem) -> None:
    """`Solver.run` checks that each GPU is of a type of the fleet, and that no type is used more often than it is there."""
    mixed = _mixed(problem)
    solution = _run(solver, mixed)
    _demand(solution.placement is not None, f"{solver.name}: {solution.status}: {solution.message}")
    assert solution.placement is not None  # noqa: S101  # for the type checker
    score = score_placement(mixed.workload, solution.placement, mixed.profile, service=mixed.service, fleet=mixed.fleet)
    _demand(
        score.feasible or solution.status not in VOUCHED,
        f"{solver.name}: says {solution.status} on a mixed fleet; in the twin {score.failed_gpus} of {score.gpus} GPUs fail",
    )
    bound = solution.cost_bound
    _demand(
        solution.status != "optimal" or (bound is not None and bound >= score.cost * (1 - 1e-9)),
        f"{solver.name}: says optimal at a cost of {score.cost:g} with a bound of {bound}",
    )


def _a_mixed_fleet_is_refused(solver: Solver, problem: Problem) -> None:
    """By a solver that does not say that it can."""
    _wrongs_are_the_users(solver, _mixed(problem), "fleet")


def _always(_: Tags) -> bool:
    return True


_CHECKS: dict[str, tuple[Callable[[Tags], bool], Callable[[Solver, Problem], None]]] = {
    "has_a_name_and_tags": (_always, _has_a_name_and_tags),
    "places_each_adapter_once": (_always, _places_each_adapter_once),
    "engines_start": (_always, _engines_start),
    "what_it_vouches_for_is_feasible": (_always, _what_it_vouches_for_is_feasible),
    "same_seed_same_answer": (_always, _same_seed_same_answer),
    "deterministic_whatever_the_seed": (lambda tags: tags.deterministic, _deterministic_whatever_the_seed),
    "nothing_is_changed": (_always, _nothing_is_changed),
    "an_empty_workload_needs_no_gpu": (_always, _an_empty_workload_needs_no_gpu),
    "one_adapter_needs_one_gpu": (_always, _one_adapter_needs_one_gpu),
    "idle_adapters_are_placed": (_always, _idle_adapters_are_placed),
    "impossible_is_said": (_always, _impossible_is_said),
    "too_few_gpus_are_said": (_always, _too_few_gpus_are_said),
    "no_time_is_no_error": (_always, _no_time_is_no_error),
    "bounds_are_consistent": (_always, _bounds_are_consistent),
    "details_are_json": (_always, _details_are_json),
    "an_unknown_rank_is_the_users_mistake": (_always, _an_unknown_rank_is_the_users_mistake),
    "a_mixed_fleet_is_placed_on": (lambda tags: tags.mixed_fleets, _a_mixed_fleet_is_placed_on),
    "a_mixed_fleet_is_refused": (lambda tags: not tags.mixed_fleets, _a_mixed_fleet_is_refused),
    "the_fleet_is_asked_for": (lambda tags: tags.needs_fleet, _the_fleet_is_asked_for),
    "the_predictor_is_asked_for": (lambda tags: tags.needs_predictor, _the_predictor_is_asked_for),
}
