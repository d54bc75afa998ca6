"""What a placement solver gets and what it returns."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from solvers.cut_short import times_cut_short
from twin.errors import UserError
from twin.fleet import Fleet
from twin.placement import Placement
from twin.service import PUBLISHED, ServiceLevel

if TYPE_CHECKING:
    from predictors import Predictor
    from solvers.objectives.base import Objective
    from twin import ServingProfile, Workload

Status = Literal["optimal", "feasible", "unchecked", "infeasible", "none_found", "time_limit"]

#: Statuses that come with a placement.
PLACED: tuple[Status, ...] = ("optimal", "feasible", "unchecked")
#: Statuses by which a solver vouches for its placement.
VOUCHED: tuple[Status, ...] = ("optimal", "feasible")

#: True in the `details` of a solution where time has cut a search short, so that what was found depends on the machine. Set
#: for solvers that keep time by `solvers.limits.Deadline`; others may set it themselves.
TIME_BOUND = "time_bound"

#: Key in the `details` of a solution of what its lower bound rests on, as JSON, for `python -m bench.verify`; None where there is nothing.
CERTIFICATE = "certificate"

#: Longest message of a solution, in characters, and longest `details`, in characters of JSON.
LONGEST_MESSAGE, LONGEST_DETAILS = 10_000, 4_000_000
# Counts of several answers are added up, and written as 64-bit numbers.
_MOST = 2**53
# A bound is drawn and compared with those of others, so it must be of their size.
_MOST_WITH_REPLICAS = 1_000_000
# Sums of prices are rounded.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Tags:
    """What is special about a solver; the defaults fit a plain deterministic packer.

    Attributes
    ----------
    deterministic : bool
        The same problem gives the same placement, whatever the seed.
    needs_fleet : bool
        Spreads over all the GPUs it is given, so `Problem.max_gpus` must be set.
    exact : bool
        Can return status "optimal" and a lower bound.
    uses_replicas : bool
        May place an adapter on several GPUs with shares.
    needs_predictor : bool
        Asks `Problem.predictor`.
    mixed_fleets : bool
        Places on a fleet of several GPU types (`Problem.fleet`); of one type every solver places.
    replays_requests : bool
        Simulates the workload's requests, so that they are drawn before the clock starts; otherwise a fleet's worth of them
        need never be in memory at once.
    """

    deterministic: bool = True
    needs_fleet: bool = False
    exact: bool = False
    uses_replicas: bool = False
    needs_predictor: bool = False
    replays_requests: bool = False
    mixed_fleets: bool = False


@dataclass(frozen=True)
class Problem:
    """One placement problem.

    Attributes
    ----------
    workload, profile : Workload, ServingProfile
    objective : Objective
        What the harness compares candidates by; a solver may use its hints.
    predictor : Predictor, optional
        Learned throughput and starvation, for solvers tagged `needs_predictor`; what it says of starvation is about the service
        level, where it has learned that (`Predictor.knows`).
    max_gpus : int, optional
        GPU limit; for solvers tagged `needs_fleet`, the fleet that they spread over.
    time_limit_s : float
    seed : int
        For solvers that draw; the workload has its own.
    service : ServiceLevel
        What every GPU must keep; the published rule by default.
    fleet : Fleet, optional
        GPU types to choose from, where there are several: each plan of the placement names one of them, and `profile` is that of the
        first. With one type the problem is of its profile and `max_gpus`, as without a fleet.
    other_seeds : tuple of int
        Seeds of other draws of the workload that a placement must hold on too. The harness sets none: a solver's option `draws` does
        (`solvers.oracles.draws`).
    """

    workload: Workload
    profile: ServingProfile
    objective: Objective
    predictor: Predictor | None = None
    max_gpus: int | None = None
    time_limit_s: float = 60.0
    seed: int = 0
    service: ServiceLevel = PUBLISHED
    fleet: Fleet | None = None
    other_seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.predictor is not None:
            object.__setattr__(self, "predictor", self.predictor.under(self.service))

    @property
    def mixed_fleet(self) -> Fleet | None:
        """The fleet, where it has several types."""
        return self.fleet if self.fleet is not None and self.fleet.is_mixed else None


@dataclass(frozen=True)
class Solution:
    """What a solver answers.

    Attributes
    ----------
    status : str
        "optimal" (proven for the oracle in use), "feasible" (its oracle accepts every GPU), "unchecked" (placed by
        a rule, no oracle was asked whether anyone starves), "infeasible" (proven: there is no placement, and `message` says
        why), "none_found" (none was found, and `message` says what was in the way) or "time_limit" (none in time).
    placement : Placement, optional
        Present exactly when the status is "optimal", "feasible" or "unchecked".
    lower_bound : int, optional
        No placement that the oracle accepts uses fewer GPUs; absent: not proven.
    cost_bound : float, optional
        With a fleet of several types: no placement that the oracle accepts costs less.
    oracle_calls : int
        How many GPU contents the solver asked the oracle about.
    solve_time_s : float
        Filled in by `Solver.run`.
    message : str
        One line for people.
    details : dict
        Anything else, JSON-serialisable. `TIME_BOUND` in it says that time has cut a search short.
    """

    status: Status
    placement: Placement | None = None
    lower_bound: int | None = None
    oracle_calls: int = 0
    solve_time_s: float = 0.0
    message: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    cost_bound: float | None = None


class Solver(ABC):
    """Base of all solvers: set `name` and write `solve`; everything else has a default."""

    name: ClassVar[str]
    #: Set on the class, or in `__init__` where they depend on an option.
    tags: Tags = Tags()

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Place the adapters of `problem.workload`.

        Never changes what it is given. An empty workload is solved by an empty placement.
        """

    def warm_up(self, problem: Problem) -> None:  # noqa: B027  # most solvers have nothing to compile
        """Compile what solving a tiny problem does not reach; the harness calls it before the clock starts. By default nothing.

        Parameters
        ----------
        problem : Problem
            A tiny one, otherwise as the one to come.
        """

    def check_problem(self, problem: Problem) -> None:
        """Raise `UserError` when the problem lacks what the solver's tags ask for.

        Raises
        ------
        UserError
            For a missing GPU count or predictor, a value that is not positive, or a rank that the
            profile does not know.
        """
        if problem.max_gpus is None and self.tags.needs_fleet:
            raise UserError(f"gpus=N is needed by solver {self.name}: the fleet that it spreads over")
        if problem.max_gpus is not None and problem.max_gpus < 1:
            raise UserError(f"gpus={problem.max_gpus}: must be 1 or more")
        if not problem.time_limit_s > 0:
            raise UserError(f"time_limit_s={problem.time_limit_s}: must be a positive number of seconds")
        mixed = problem.mixed_fleet
        if mixed is not None and not self.tags.mixed_fleets:
            raise UserError(
                f"solver {self.name} places on GPUs of one type, and fleet=... has {len(mixed.types)}: take a solver that its "
                "tags call good for mixed fleets (python -m bench.solvers), or a fleet of one type"
            )
        if problem.predictor is None and self.tags.needs_predictor and mixed is None:
            raise UserError(
                f"solver {self.name} needs a predictor, and there is none for profile "
                f"{problem.profile.name}: train one with `python -m bench.train profile={problem.profile.name}`"
            )
        if mixed is not None:
            mixed.check_ranks(problem.workload.ranks)
        problem.profile.check_ranks(problem.workload.ranks)

    def run(self, problem: Problem) -> Solution:
        """Solve, time it, and check that the answer is well formed.

        Raises
        ------
        UserError
            As `check_problem`.
        ValueError
            For an answer that contradicts itself, the workload, the GPU limit or the solver's tags.
        """
        self.check_problem(problem)
        if self.tags.replays_requests:
            _ = problem.workload.requests  # sampling is the harness's work, not the solver's
        before = times_cut_short()
        start = time.perf_counter()
        solution = self.solve(problem)
        elapsed_s = time.perf_counter() - start
        solution = replace(checked(solution, problem, self.name, self.tags), solve_time_s=elapsed_s)
        if times_cut_short() > before:
            return replace(solution, details={**solution.details, TIME_BOUND: True})
        return solution


def checked(solution: object, problem: Problem, name: str, tags: Tags) -> Solution:
    """A solver's answer, once it is known to be well formed; whole numbers of NumPy become Python's.

    Parameters
    ----------
    solution : object
        Whatever the solver has returned.
    problem : Problem
        What it was asked.
    name : str
        Of the solver, for the message.
    tags : Tags
        What the solver may do.

    Raises
    ------
    ValueError
        For an answer that is none, that contradicts itself, the workload, the GPU limit or the tags, or that cannot be
        written to a file of rows.
    """
    if not isinstance(solution, Solution):
        raise ValueError(f"{name}: returned {type(solution).__name__}, not a Solution")  # noqa: TRY004  # all alike
    solution = _plain(solution, name)
    placement, bound = solution.placement, solution.lower_bound
    most = _MOST_WITH_REPLICAS if tags.uses_replicas else problem.workload.n_adapters
    if bound is not None and bound > most + 1:
        raise ValueError(f"{name}: lower bound {bound} is above the {most} GPUs that can be of use")
    if (solution.status in PLACED) != (placement is not None):
        raise ValueError(f"{name}: status {solution.status!r} does not go with its placement")
    if solution.status == "optimal" and not tags.exact:
        raise ValueError(f"{name}: only a solver tagged exact can call a placement optimal")
    if placement is None:
        return solution
    placement.check(problem.workload)
    if problem.max_gpus is not None and placement.n_gpus > problem.max_gpus:
        raise ValueError(f"{name}: uses {placement.n_gpus} GPUs of {problem.max_gpus}")
    if placement.has_replicas and not tags.uses_replicas:
        raise ValueError(f"{name}: places replicas without the tag uses_replicas")
    if bound is not None and bound > placement.n_gpus:
        raise ValueError(f"{name}: lower bound {bound} is above the {placement.n_gpus} GPUs of its placement")
    _check_fleet(solution, placement, problem, name)
    return solution


def _check_fleet(solution: Solution, placement: Placement, problem: Problem, name: str) -> None:
    """Raise `ValueError` for types that there are not, or a bound on cost above what the placement costs."""
    if problem.mixed_fleet is None:
        if any(plan.gpu_type is not None for plan in placement.gpus):
            raise ValueError(f"{name}: names GPU types where there is one only")
        return
    try:
        problem.mixed_fleet.check(placement)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    cost, bound = problem.mixed_fleet.cost(placement), solution.cost_bound
    if bound is not None and bound > cost * (1 + _ROUNDING):
        raise ValueError(f"{name}: cost bound {bound:.6g} is above the cost of its placement, {cost:.6g}")


def _plain(solution: Solution, name: str) -> Solution:
    """The solution in Python's own types, each value of the type that `Solution` says."""
    if solution.status not in get_args(Status):
        raise ValueError(f"{name}: status {str(solution.status)[:40]!r} must be one of {', '.join(get_args(Status))}")
    if not (solution.placement is None or isinstance(solution.placement, Placement)):
        raise ValueError(f"{name}: placement is a {type(solution.placement).__name__}, not a Placement")
    message: object = solution.message
    if not isinstance(message, str) or len(message) > LONGEST_MESSAGE or not _can_be_written(message):
        raise ValueError(f"{name}: message must be text of at most {LONGEST_MESSAGE} characters that UTF-8 can write")
    bound = solution.lower_bound
    return replace(
        solution,
        placement=None if solution.placement is None else solution.placement.plain(),
        lower_bound=None if bound is None else _count(bound, f"{name}: lower_bound"),
        oracle_calls=_count(solution.oracle_calls, f"{name}: oracle_calls"),
        details=_plain_details(solution.details, name),
        cost_bound=None if solution.cost_bound is None else _cost(solution.cost_bound, f"{name}: cost_bound"),
    )


def _cost(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < _MOST:
        raise ValueError(f"{what}={str(value)[:40]} must be a number, 0 or more and below {_MOST}")
    return float(value)


def _count(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < _MOST:
        raise ValueError(f"{what}={str(value)[:40]} must be a whole number, 0 or more and below {_MOST}")
    return int(value)


def _can_be_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain_details(details: object, name: str) -> dict[str, Any]:
    """The details as JSON has them."""
    if not isinstance(details, dict):
        raise ValueError(f"{name}: details must be a dict, not {type(details).__name__}")  # noqa: TRY004  # all alike
    try:
        text = json.dumps(details, allow_nan=False, default=_of_numpy, ensure_ascii=False)
        plain = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: details cannot be written as JSON ({str(error)[:200]})") from None
    # Rows hold them in ASCII, where a character may take twelve.
    if len(json.dumps(plain)) > LONGEST_DETAILS or not _can_be_written(text):
        raise ValueError(f"{name}: details must be at most {LONGEST_DETAILS} characters of JSON that UTF-8 can write")
    return dict(plain)


def _of_numpy(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON-serialisable")
