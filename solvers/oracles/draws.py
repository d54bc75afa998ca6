"""Several draws of the requests that a placement must hold on: those of the workload's seed, and those of other seeds.

A solver with an option `draws` puts other seeds into its problem; whatever asks the twin about the problem then asks about all of them.
A content is accepted where every draw accepts it. What bounds rest on is asked of the workload's own draw: what fails on one of the draws
does not hold on all of them, so a bound for one is a bound for all, and for the placements that are scored with the workload's own.
"""

from __future__ import annotations

from dataclasses import replace

from solvers.base import Problem
from solvers.oracles.twin import TwinOracle
from twin import UserError, Workload
from twin.numbers import LARGEST_SEED, whole

#: Between the seeds of two draws; a prime, and not the one between the draws that rows are scored with: on how many of those a placement
#: holds is no answer to what it was made for.
APART = 1_000_033
#: Most draws. By hand: every question costs as many simulations.
MOST_DRAWS = 100


def check_draws(draws: int, solver: str) -> None:
    """Raise `UserError` unless the option `draws` of a solver is a number of draws."""
    whole(f"solver.{solver}.draws", draws, at_least=1, at_most=MOST_DRAWS)


def other_seeds(workload: Workload, draws: int) -> tuple[int, ...]:
    """Seeds of the draws but the workload's own; more draws are the same ones and others.

    Parameters
    ----------
    workload : Workload
    draws : int
        The workload's own included.
    """
    return tuple((workload.seed + APART * turn) % LARGEST_SEED for turn in range(1, draws))


def with_draws(problem: Problem, draws: int, solver: str) -> Problem:
    """The problem of a placement that holds on so many draws, or on those that somebody has put into it.

    Raises
    ------
    UserError
        For a recorded trace, which has no other draw.
    """
    if draws == 1 or problem.other_seeds:
        return problem
    if problem.workload.trace is not None:
        raise UserError(
            f"solver.{solver}.draws={draws}: workload {problem.workload.name} is a recorded trace, which has one draw; must be 1"
        )
    return replace(problem, other_seeds=other_seeds(problem.workload, draws))


def draws_of(problem: Problem) -> dict[str, int]:
    """What the details of a solution say of its draws: nothing where there is one."""
    return {"draws": 1 + len(problem.other_seeds)} if problem.other_seeds else {}


def twin_of(problem: Problem, workload: Workload | None = None, *, kind: type[TwinOracle] = TwinOracle) -> TwinOracle:
    """The twin as an oracle for a problem, on all its draws.

    Parameters
    ----------
    problem : Problem
    workload : Workload, optional
        Another than the problem's: one made of it.
    kind : type
        `TwinOracle` or one derived from it.
    """
    workload = problem.workload if workload is None else workload
    oracle = kind(workload, problem.profile, service=problem.service)
    oracle.others = tuple(
        TwinOracle(workload.with_seed(seed), problem.profile, service=problem.service) for seed in problem.other_seeds
    )
    return oracle
