"""Solvers that spread over all the GPUs they are given, and the search for the fewest with which they do well.

Such a solver uses the whole fleet, so that comparing its GPU count with that of a packer needs the search.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from solvers.base import Problem, Solution, Solver, Tags
from solvers.limits import Deadline, OutOfTimeError
from twin import score_placement

Attempt = TypeVar("Attempt")


def fewest_gpus(
    attempt: Callable[[int], Attempt], succeeded: Callable[[Attempt], bool], most: int
) -> tuple[int, Attempt]:
    """Search for the smallest fleet: double it until an attempt succeeds, then halve the interval.

    Parameters
    ----------
    attempt : callable
        Solves and scores for a number of GPUs.
    succeeded : callable
        Whether the outcome of an attempt is feasible.
    most : int
        The largest fleet to try, 1 or more.

    Returns
    -------
    gpus : int
    outcome : Attempt
        Of the smallest fleet found that succeeds (the smallest of all, if more GPUs never do harm); of `most` GPUs if none does.
    """
    failed, gpus = 0, 1
    while not succeeded(outcome := attempt(gpus)):
        if gpus == most:
            return gpus, outcome
        failed, gpus = gpus, min(2 * gpus, most)
    while gpus - failed > 1:
        middle = (failed + gpus) // 2
        trial = attempt(middle)
        if succeeded(trial):
            gpus, outcome = middle, trial
        else:
            failed = middle
    return gpus, outcome


@dataclass(frozen=True)
class _Trial:
    """What came of one fleet: the solution, and whether the twin accepts it (not so when there was no time left to ask)."""

    solution: Solution
    feasible: bool


class FleetSolver(Solver):
    """Base of the solvers that spread over a fleet: write `spread`.

    Parameters
    ----------
    search : bool
        Look for the fewest GPUs, at most `Problem.max_gpus`, on which the twin calls the placement feasible. Otherwise the
        placement is on all GPUs of the fleet, as published.
    """

    #: Tags of the solver as published.
    spread_tags: ClassVar[Tags] = Tags(needs_fleet=True)

    def __init__(self, *, search: bool = False) -> None:
        self.search = search
        self.tags = self.spread_tags
        if search:
            self.tags = replace(self.tags, needs_fleet=False, replays_requests=True)

    @abstractmethod
    def spread(self, problem: Problem) -> Solution:
        """Place on the fleet of `Problem.max_gpus`."""

    def solve(self, problem: Problem) -> Solution:
        """Spread over the fleet, or over the fewest GPUs that do."""
        deadline = Deadline.after(problem.time_limit_s)
        try:
            return self._searched(problem, deadline) if self.search else self.spread(problem)
        except OutOfTimeError:
            return Solution("time_limit", message=f"not spread over {problem.max_gpus} GPUs within the time limit")

    def _searched(self, problem: Problem, deadline: Deadline) -> Solution:
        tried: list[int] = []
        calls = 0

        def attempt(gpus: int) -> _Trial:
            nonlocal calls
            tried.append(gpus)
            try:
                deadline.check()
                solution = self.spread(replace(problem, max_gpus=gpus, time_limit_s=deadline.left_s))
            except OutOfTimeError:
                return _Trial(Solution("time_limit"), feasible=False)
            calls += solution.oracle_calls
            if solution.placement is None or not deadline.left_s:
                return _Trial(solution, feasible=False)
            calls += solution.placement.n_gpus
            score = score_placement(
                problem.workload, solution.placement, problem.profile, threads=1, service=problem.service
            )
            return _Trial(solution, score.feasible)

        most = min(problem.max_gpus or problem.workload.n_adapters, max(problem.workload.n_adapters, 1))
        gpus, trial = fewest_gpus(attempt, lambda outcome: outcome.feasible, max(most, 1))
        details = {**trial.solution.details, "fleets_tried": tried}
        if trial.feasible:
            return replace(trial.solution, status="feasible", oracle_calls=calls, details=details)
        if not deadline.left_s:
            message = f"no feasible fleet found in time; the largest tried has {max(tried)} GPUs"
            return Solution("time_limit", oracle_calls=calls, message=message, details=details)
        why = trial.solution.message or "some GPU fails its service level in the twin"
        message = f"not feasible on any fleet tried, up to {gpus} GPUs: {why}"
        return Solution("none_found", oracle_calls=calls, message=message, details=details)
