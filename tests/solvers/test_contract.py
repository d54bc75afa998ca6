"""Every shipped solver keeps the contract, and the checks find each breach of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest

from solvers.base import Problem, Solution, Solver, Tags
from solvers.checks import ContractError, check_solver
from solvers.registry import list_solvers
from twin import GpuPlan, Placement

#: What a shipped solver is known not to do, and why.
EXPECTED_FAILURES: dict[str, dict[str, str]] = {}

ENTRIES = [entry for entry in list_solvers() if entry.target.startswith("solvers.")]


def test_every_shipped_solver_can_be_imported() -> None:
    assert {entry.name: entry.reason for entry in ENTRIES if entry.solver is None} == {}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{entry.name}-{check.name}")
        for entry in ENTRIES
        if entry.solver
        for check in check_solver(entry.make(), expected_failures=EXPECTED_FAILURES.get(entry.name))
    ],
)
def test_contract(check: Callable[[], None]) -> None:
    check()


# --- the checks themselves: each finds the solver that breaks it


class Honest(Solver):
    """One GPU for all, with no claim."""

    name: ClassVar[str] = "honest"

    def solve(self, problem: Problem) -> Solution:
        """All on one GPU."""
        everything = tuple(range(problem.workload.n_adapters))
        plans = (GpuPlan(everything, 1),) if everything else ()
        return Solution("unchecked", Placement(plans))


class Boastful(Honest):
    """Calls anything feasible."""

    def solve(self, problem: Problem) -> Solution:
        """All on one GPU, and all is well."""
        return replace(super().solve(problem), status="feasible")


class Forgetful(Honest):
    """Leaves the last adapter out."""

    def solve(self, problem: Problem) -> Solution:
        """All but one."""
        return Solution("unchecked", Placement((GpuPlan(tuple(range(problem.workload.n_adapters - 1)), 1),)))


class Wasteful(Honest):
    """An empty workload gets an answer of its own, with one GPU too many for one adapter."""

    def solve(self, problem: Problem) -> Solution:
        """One GPU for each adapter, whatever the limit."""
        return Solution("unchecked", Placement(tuple(GpuPlan((a,), 1) for a in range(problem.workload.n_adapters))))


class Moody(Honest):
    """Another answer each time."""

    def __init__(self) -> None:
        self.calls = 0

    def solve(self, problem: Problem) -> Solution:
        """More slots at every call."""
        self.calls += 1
        everything = tuple(range(problem.workload.n_adapters))
        return Solution("unchecked", Placement((GpuPlan(everything, self.calls),)))


class Seeded(Honest):
    """Draws, but says that it does not."""

    def solve(self, problem: Problem) -> Solution:
        """Slots from the seed."""
        everything = tuple(range(problem.workload.n_adapters))
        return Solution("unchecked", Placement((GpuPlan(everything, problem.seed + 1),) if everything else ()))


class Meddler(Honest):
    """Writes into the workload."""

    def solve(self, problem: Problem) -> Solution:
        """Double the rates."""
        if problem.workload.n_adapters:
            object.__setattr__(problem.workload, "rates", problem.workload.rates * 2)
        return super().solve(problem)


class Silent(Honest):
    """Gives no reason."""

    def solve(self, problem: Problem) -> Solution:
        """Resign."""
        return Solution("infeasible")


class Crowding(Honest):
    """More slots than the engine starts with."""

    def solve(self, problem: Problem) -> Solution:
        """Far too many slots."""
        return Solution("feasible", Placement((GpuPlan(tuple(range(problem.workload.n_adapters)), 10_000),)))


class Proud(Honest):
    """Optimal without a bound."""

    tags = Tags(exact=True)

    def solve(self, problem: Problem) -> Solution:
        """Claim it."""
        return replace(super().solve(problem), status="optimal")


class Unsaid(Honest):
    """Details that no JSON takes."""

    def solve(self, problem: Problem) -> Solution:
        """An object among the details."""
        return replace(super().solve(problem), details={"weights": object()})


class Undemanding(Honest):
    """Tagged for a fleet and a predictor that it does not ask for."""

    tags = Tags(needs_fleet=True, needs_predictor=True)

    def check_problem(self, problem: Problem) -> None:
        """Accept anything."""


@pytest.mark.parametrize(
    ("solver", "broken"),
    [
        (Boastful, {"what_it_vouches_for_is_feasible", "impossible_is_said", "too_few_gpus_are_said"}),
        (
            Forgetful,
            {"places_each_adapter_once", "an_empty_workload_needs_no_gpu", "one_adapter_needs_one_gpu"},
        ),
        (Wasteful, {"places_each_adapter_once", "too_few_gpus_are_said"}),
        (Moody, {"same_seed_same_answer", "nothing_is_changed", "an_empty_workload_needs_no_gpu"}),
        (Seeded, {"deterministic_whatever_the_seed"}),
        (Meddler, {"nothing_is_changed"}),
        (Silent, {"places_each_adapter_once", "impossible_is_said", "too_few_gpus_are_said"}),
        (Crowding, {"engines_start", "what_it_vouches_for_is_feasible"}),
        (Proud, {"bounds_are_consistent", "what_it_vouches_for_is_feasible"}),
        (Unsaid, {"details_are_json"}),
        (
            Undemanding,
            {"an_unknown_rank_is_the_users_mistake", "the_fleet_is_asked_for", "the_predictor_is_asked_for"},
        ),
    ],
)
def test_a_breach_is_found(solver: type[Solver], broken: set[str]) -> None:
    found = set()
    for check in check_solver(solver()):
        try:
            check()
        except ContractError:
            found.add(check.name)
    assert broken <= found


def test_an_honest_solver_passes_although_its_placements_starve() -> None:
    for check in check_solver(Honest()):
        check()


def test_an_expected_failure_passes_and_is_told_when_it_no_longer_fails() -> None:
    reason = {"what_it_vouches_for_is_feasible": "asks nobody"}
    (failing,) = [c for c in check_solver(Boastful(), expected_failures=reason) if c.expected_failure]
    failing()
    (passing,) = [c for c in check_solver(Honest(), expected_failures=reason) if c.expected_failure]
    with pytest.raises(ContractError, match="asks nobody"):
        passing()


def test_an_expected_failure_names_a_check() -> None:
    with pytest.raises(ValueError, match="there is no check 'feasable'"):
        list(check_solver(Honest(), expected_failures={"feasable": "typo"}))
