"""What all candidates of a comparison have in common."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bench.comparison.reserve import check_reserve, with_reserve
from solvers.base import Problem, Solver
from twin import (
    INTERACTIVE,
    PUBLISHED,
    Fleet,
    GpuPlan,
    Placement,
    Score,
    ServiceLevel,
    ServingProfile,
    UserError,
    Workload,
    score_placement,
)
from twin.numbers import LARGEST_SEED

if TYPE_CHECKING:
    from predictors import Predictor
    from solvers.objectives.base import Objective

#: Most draws of a placement's requests: beyond, ten thousand placements of a suite would be simulated more often than anybody waits for.
MOST_DRAWS = 1000
# Seeds of the draws are so far apart that those of a sweep over seeds are others. By hand, a prime.
_APART = 1_000_003


@dataclass(frozen=True)
class Comparison:
    """What all candidates of a run have in common.

    Attributes
    ----------
    workload, profile, objective
    gpus : int, optional
        GPU limit.
    time_limit_s : float
        For each solver.
    seed : int
        For solvers that draw.
    threads : int
        GPUs that are simulated at the same time.
    repeats : int
        How often each solver runs and each placement is scored; the least of the times counts.
    reserve : float
        Solvers get this share more load than `workload` has, which their placements are scored with.
    draws : int
        Placements are scored with the requests of so many other seeds as well.
    service : ServiceLevel
        What every GPU must keep.
    fleet : Fleet, optional
        GPU types to choose from; `profile` is that of the first.
    load_predictor : callable, optional
        Gives the predictor of the profile's name; by default the shipped one.
    """

    workload: Workload
    profile: ServingProfile
    objective: Objective
    gpus: int | None = None
    time_limit_s: float = 60.0
    seed: int = 0
    threads: int = 2
    repeats: int = 1
    reserve: float = 0.0
    draws: int = 0
    service: ServiceLevel = PUBLISHED
    fleet: Fleet | None = None
    load_predictor: Callable[[str], Predictor] | None = None

    def __post_init__(self) -> None:
        if self.gpus is not None and self.gpus < 1:
            raise UserError(f"gpus={self.gpus} must be 1 or more, or null for no limit")
        if self.gpus is None and not self.objective.minimise_gpus:
            raise UserError(f"objective={self.objective.name} compares placements on a given fleet: add gpus=N")
        if not self.time_limit_s > 0:
            raise UserError(f"time_limit_s={self.time_limit_s} must be a positive number of seconds")
        if self.threads < 1:
            raise UserError(f"threads={self.threads} must be 1 or more")
        if self.repeats < 1:
            raise UserError(f"repeats={self.repeats} must be 1 or more")
        if not 0 <= self.draws <= MOST_DRAWS:
            raise UserError(f"draws={self.draws} must be from 0 to {MOST_DRAWS}")
        check_reserve(self.reserve)

    @cached_property
    def planned(self) -> Workload:
        """The workload that solvers place: that of the comparison and the reserve."""
        return with_reserve(self.workload, self.reserve)

    def problem(self, solver: Solver) -> Problem:
        """The problem as this solver gets it, in copies of its own; arrays, which are read-only, are shared."""
        predictor = None
        if solver.tags.needs_predictor and (self.fleet is None or not self.fleet.is_mixed):
            predictor = (self.load_predictor or _shipped_predictor)(self.profile.name)
        if solver.tags.replays_requests:
            # Drawn once for all of them.
            _ = self.planned.requests
        workload = copy(self.planned)
        if "requests" in vars(workload):
            vars(workload)["requests"] = copy(workload.requests)
        return Problem(
            workload=workload,
            profile=copy(self.profile),
            objective=copy(self.objective),
            predictor=predictor,
            max_gpus=self.gpus,
            time_limit_s=self.time_limit_s,
            seed=self.seed,
            service=copy(self.service),
            fleet=copy(self.fleet),
        )

    def profile_of(self, plan: GpuPlan) -> ServingProfile:
        """Serving profile of the type that a GPU is of."""
        return self.profile if self.fleet is None else self.fleet.type_of(plan).profile

    def score(self, placement: Placement, *, planned: bool = False) -> Score:
        """What the twin says of a placement; under the published rule goodput is counted by the limits of `interactive`.

        Parameters
        ----------
        placement : Placement
        planned : bool
            With the reserve.
        """
        workload = self.planned if planned else self.workload
        return score_placement(
            workload,
            placement,
            self.profile,
            threads=self.threads,
            service=self.service,
            shown=INTERACTIVE,
            fleet=self.fleet,
        )

    def holds_on(self, placement: Placement) -> int | None:
        """On how many of the other draws a placement is feasible; None where there are none: a trace has no others.

        Parameters
        ----------
        placement : Placement
        """
        workload = self.workload
        if not self.draws or workload.trace is not None:
            return None
        # A draw at a time: the requests of ten fleets need not fit into memory.
        others = (
            workload.with_seed((workload.seed + _APART * turn) % LARGEST_SEED) for turn in range(1, self.draws + 1)
        )
        return sum(
            score_placement(
                other, placement, self.profile, threads=self.threads, service=self.service, fleet=self.fleet
            ).feasible
            for other in others
        )


def fewest(*limits: int | None) -> int | None:
    """The smallest limit that there is; None where there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


def _shipped_predictor(profile_name: str) -> Predictor:
    from predictors import load_predictor

    return load_predictor(profile_name)
