"""Candidates: each solver's placement for one workload, scored on the twin with the same requests."""

from __future__ import annotations

import contextlib
import json
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from bench.comparison.cell import Cell
from bench.comparison.reserve import check_reserve, with_reserve
from bench.comparison.rows import ERROR, Row
from bench.shared.mistakes import explain
from solvers.base import Problem, Solution, Solver
from solvers.fleet import fewest_gpus
from twin import (
    Lengths,
    Score,
    ServingProfile,
    UserError,
    Workload,
    load_profile,
    score_placement,
    workload_from_groups,
)

if TYPE_CHECKING:
    from predictors import Predictor
    from solvers.objectives.base import Objective
    from twin import GpuResult


DISTRIBUTION = "lora-placement-bench"


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
        check_reserve(self.reserve)

    @cached_property
    def planned(self) -> Workload:
        """The workload that solvers place: that of the comparison and the reserve."""
        return with_reserve(self.workload, self.reserve)

    def problem(self, solver: Solver) -> Problem:
        """The problem as this solver gets it."""
        predictor = None
        if solver.tags.needs_predictor:
            predictor = (self.load_predictor or _shipped_predictor)(self.profile.name)
        return Problem(
            workload=self.planned,
            profile=self.profile,
            objective=self.objective,
            predictor=predictor,
            max_gpus=self.gpus,
            time_limit_s=self.time_limit_s,
            seed=self.seed,
        )


@dataclass(frozen=True)
class _Attempt:
    """A solution with its score, where it has a placement."""

    solution: Solution
    score: Score | None = None
    score_time_s: float = 0.0

    @property
    def feasible(self) -> bool:
        return self.score is not None and self.score.feasible


def compare(
    comparison: Comparison,
    solvers: Mapping[str, Callable[[], Solver]],
    on_attempt: Callable[[Row], None] | None = None,
) -> Iterator[Row]:
    """Yield one row for each solver, in the order given, as soon as it is there.

    A solver that raises an exception gets a row with status "error"; the others go on.

    Parameters
    ----------
    comparison : Comparison
    solvers : mapping of str to callable
        For each solver's name what makes it.
    on_attempt : callable, optional
        Gets the row as far as it is known, each time before a solver is called.
    """
    for name, make in solvers.items():
        row = base_row(comparison, name)
        try:
            yield _candidate(comparison, make(), row, partial(on_attempt, row) if on_attempt else lambda: None)
        except Exception as error:  # noqa: BLE001  # whatever a solver does wrong must not end the comparison
            yield error_row(error, row)


def base_row(comparison: Comparison, solver: str) -> Row:
    """Row of a candidate with what was asked, before anything is known of the answer."""
    workload = comparison.workload
    return Row(
        workload=workload.name,
        seed=comparison.seed,
        solver=solver,
        objective=comparison.objective.name,
        profile=comparison.profile.name,
        status=ERROR,
        time_limit_s=comparison.time_limit_s,
        gpu_limit=comparison.gpus,
        reserve=comparison.reserve,
        n_adapters=workload.n_adapters,
        total_rate=workload.total_rate,
        duration_s=workload.duration_s,
        mean_request_tokens=workload.lengths.mean_total_tokens,
        adapter_ranks=workload.ranks.tolist(),
        adapter_rates=workload.rates.tolist(),
        version=version(),
    )


def error_row(error: Exception, row: Row) -> Row:
    """Row of a candidate that ended in an exception."""
    if isinstance(error, UserError):
        return replace(row, message=str(error), details=json.dumps({"user_error": True}))
    message = explain(error) or f"{type(error).__name__}: {error}"
    details: dict[str, Any] = {"traceback": "".join(traceback.format_exception(error))}
    if isinstance(error, InstantiationException):
        # What the cache asks: a package that is missing today may be installed tomorrow.
        details["not_made"] = True
    return replace(row, message=message, details=json.dumps(details))


def is_user_error(row: Row) -> bool:
    """Whether the row tells of a user's mistake."""
    return row.status == ERROR and bool(json.loads(row.details).get("user_error"))


def _candidate(comparison: Comparison, solver: Solver, row: Row, on_attempt: Callable[[], None]) -> Row:
    problem = comparison.problem(solver)
    _warm_up(solver, problem)

    def attempt(gpus: int | None) -> _Attempt:
        attempts = []
        for _ in range(comparison.repeats):
            on_attempt()
            attempts.append(_attempt(comparison, solver, replace(problem, max_gpus=gpus)))
        solve_time_s = min(outcome.solution.solve_time_s for outcome in attempts)
        return replace(
            attempts[0],
            solution=replace(attempts[0].solution, solve_time_s=solve_time_s),
            score_time_s=min(outcome.score_time_s for outcome in attempts),
        )

    if not solver.tags.needs_fleet or comparison.gpus is not None:
        return _filled(row, comparison, attempt(comparison.gpus))
    attempts: list[_Attempt] = []

    def remembered(gpus: int) -> _Attempt:
        attempts.append(attempt(gpus))
        return attempts[-1]

    most = max(1, comparison.workload.n_adapters)

    def serves(outcome: _Attempt) -> bool:
        if not comparison.reserve or not outcome.feasible or outcome.solution.placement is None:
            return outcome.feasible
        placement, profile = outcome.solution.placement, comparison.profile
        # The fleet must be large enough for what is planned.
        return score_placement(comparison.planned, placement, profile, threads=comparison.threads).feasible

    gpus, best = fewest_gpus(remembered, serves, most)
    row = _filled(replace(row, gpu_limit=gpus, fleet_searched=True), comparison, best)
    # The answer to "how few GPUs" took the whole search.
    return replace(
        row,
        solve_time_s=sum(outcome.solution.solve_time_s for outcome in attempts),
        score_time_s=sum(outcome.score_time_s for outcome in attempts),
        oracle_calls=sum(outcome.solution.oracle_calls for outcome in attempts),
    )


def _attempt(comparison: Comparison, solver: Solver, problem: Problem) -> _Attempt:
    solution = solver.run(problem)
    if solution.placement is None:
        return _Attempt(solution)
    start = time.perf_counter()
    score = score_placement(comparison.workload, solution.placement, comparison.profile, threads=comparison.threads)
    return _Attempt(solution, score, time.perf_counter() - start)


def _warm_up(solver: Solver, problem: Problem) -> None:
    """Solve and score a problem of two adapters, so that no solver's time holds compilation or imports."""
    ranks = problem.profile.ranks
    tiny = workload_from_groups(
        [(2, ranks[0], 0.01)],
        lengths=Lengths(max_total_tokens=problem.workload.lengths.max_total_tokens),
        duration_s=60.0,
    )
    # What is wrong with a solver shows in its real run.
    with contextlib.suppress(Exception):
        solution = solver.run(replace(problem, workload=tiny, max_gpus=problem.max_gpus or 1))
        if solution.placement is not None:
            score_placement(tiny, solution.placement, problem.profile, threads=1)


def _filled(row: Row, comparison: Comparison, outcome: _Attempt) -> Row:
    solution, score = _of_the_workload(outcome.solution, comparison.reserve), outcome.score
    row = replace(
        row,
        status=solution.status,
        message=solution.message,
        lower_bound=solution.lower_bound,
        oracle_calls=solution.oracle_calls,
        solve_time_s=solution.solve_time_s,
        details=json.dumps(solution.details),
    )
    if score is None or solution.placement is None:
        return row
    return replace(
        row,
        feasible=score.feasible,
        gpus=score.gpus,
        starved_gpus=score.starved_gpus,
        memory_errors=score.memory_errors,
        starved_adapters=score.starved_adapters,
        throughput=score.throughput,
        offered_throughput=score.offered_throughput,
        itl_ms=_finite(score.itl_ms),
        ttft_ms=_finite(score.ttft_ms),
        ttft_p99_ms=_finite(score.ttft_p99_ms),
        e2e_ms=_finite(score.e2e_ms),
        headroom=score.headroom,
        objective_key=[float(value) for value in comparison.objective.key(score)],
        score_time_s=outcome.score_time_s,
        simulated_steps=sum(result.steps for result in score.results),
        preemptions=sum(result.preemptions for result in score.results),
        adapter_loads=sum(result.loads for result in score.results),
        placement=solution.placement.to_json(),
        gpu_results=json.dumps([_figures(result) for result in score.results]),
    )


def _of_the_workload(solution: Solution, reserve: float) -> Solution:
    """A solution without what it claims of the workload and a reserve: no bound for more load is one for less."""
    if not reserve:
        return solution
    claims = {"status": solution.status, "lower_bound": solution.lower_bound}
    details = dict(solution.details)
    if (bounds := details.pop("bounds_over_time_s", None)) is not None:
        claims["bounds_over_time_s"] = bounds
    notes = [solution.message] if solution.message else []
    if solution.lower_bound is not None:
        notes.append(f"at least {solution.lower_bound} GPUs are needed")
    return replace(
        solution,
        status="feasible" if solution.status == "optimal" else solution.status,
        lower_bound=None,
        message=f"at {1 + reserve:g} times the load: {'; '.join(notes)}" if notes else "",
        details={**details, "planned": claims},
    )


def _figures(result: GpuResult) -> dict[str, Any]:
    """The twin's figures of one GPU, JSON-serialisable."""
    return {
        "max_lora_rank": result.max_lora_rank,
        "starved": bool(result.starved),
        "memory_error": result.memory_error,
        "throughput": result.throughput,
        "offered_throughput": result.offered_throughput,
        "starved_adapters": result.starved_adapters.tolist(),
        "kv_capacity_tokens": result.kv_capacity_tokens,
        "mean_kv_tokens": result.mean_kv_tokens,
        "mean_running": result.mean_running,
        "mean_waiting": result.mean_waiting,
        "preemptions": result.preemptions,
        "loads": result.loads,
        **{
            f"{name}_{key}": _finite(value)
            for name in ("ttft", "itl", "e2e")
            for key, value in asdict(getattr(result, name)).items()
        },
    }


def _finite(value: float) -> float | None:
    """JSON and Parquet readers agree on null, not on NaN."""
    return value if math.isfinite(value) else None


def _shipped_predictor(profile_name: str) -> Predictor:
    from predictors import load_predictor

    return load_predictor(profile_name)


@cache
def version() -> str:
    """Version of this package."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"


def bare_row(cell: Cell) -> Row:
    """Row of a cell of which nothing is known but what was asked."""
    return Row(
        workload=str(cell.workload.get("name", "")),
        seed=cell.seed,
        solver=cell.solver,
        objective=_name(lambda: instantiate(cell.objective).name, str(cell.objective.get("_target_"))),
        profile=_name(lambda: load_profile(cell.profile).name, cell.profile),
        status=ERROR,
        time_limit_s=cell.time_limit_s,
        gpu_limit=cell.gpus,
        reserve=cell.reserve,
        version=version(),
    )


def _name(find: Callable[[], str], otherwise: str) -> str:
    """A name as the rows of a good run have it, if what it names can be made at all."""
    try:
        return find()
    except Exception:  # noqa: BLE001  # the row tells of another error, or of this one
        return otherwise
