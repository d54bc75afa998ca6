"""Candidates: each solver's placement for one workload, scored on the twin with the same requests."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from bench.comparison.asked import Asked, AskedHere, SolverFailed, failure_of
from bench.comparison.cell import Cell
from bench.comparison.common import Comparison
from bench.comparison.rows import ERROR, PERCENTILES, Row
from bench.evidence.runs import evidence_of
from solvers.base import CERTIFICATE, TIME_BOUND, Solution, Solver, Status
from solvers.fleet import fewest_gpus
from twin import PUBLISHED, Fleet, Placement, Score, fleet_of, load_profile

if TYPE_CHECKING:
    from twin import GpuResult

__all__ = ["Comparison", "bare_row", "base_row", "candidate", "compare", "error_row", "is_user_error", "version"]

DISTRIBUTION = "lora-placement-bench"


@dataclass(frozen=True)
class _Attempt:
    """A solution with its score, where it has a placement."""

    solution: Solution
    score: Score | None = None
    score_time_s: float = 0.0

    @property
    def feasible(self) -> bool:
        return self.score is not None and self.score.feasible

    @property
    def time_bound(self) -> bool:
        return bool(self.solution.details.get(TIME_BOUND)) or self.solution.status == "time_limit"


def compare(comparison: Comparison, solvers: Mapping[str, Callable[[], Solver]]) -> Iterator[Row]:
    """Yield one row for each solver, in the order given, as soon as it is there; all run in this process.

    A solver that raises an exception gets a row with status "error"; the others go on.

    Parameters
    ----------
    comparison : Comparison
    solvers : mapping of str to callable
        For each solver's name what makes it.
    """
    for name, make in solvers.items():
        yield candidate(comparison, name, partial(_asked_here, comparison, make))


def _asked_here(comparison: Comparison, make: Callable[[], Solver]) -> Asked:
    return AskedHere(comparison, make())


def candidate(
    comparison: Comparison, name: str, ask: Callable[[], Asked], on_attempt: Callable[[Row], None] | None = None
) -> Row:
    """The row of one solver; whatever it does wrong is told in it.

    Parameters
    ----------
    comparison : Comparison
    name : str
        Of the solver, in tables and rows.
    ask : callable
        Gives whom to ask for placements.
    on_attempt : callable, optional
        Gets the row as far as it is known, each time before the solver is asked.
    """
    row = base_row(comparison, name)
    try:
        return _candidate(comparison, ask(), row, partial(on_attempt, row) if on_attempt else lambda: None)
    except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001  # nothing that a solver does may end the comparison
        return error_row(error, row)


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
        service=comparison.service.name,
        fleet=fleet_json(comparison.fleet),
        n_adapters=workload.n_adapters,
        total_rate=workload.total_rate,
        duration_s=workload.duration_s,
        mean_request_tokens=workload.lengths.mean_total_tokens,
        adapter_ranks=workload.ranks.tolist(),
        adapter_rates=workload.rates.tolist(),
        version=version(),
    )


def error_row(error: BaseException, row: Row) -> Row:
    """Row of a candidate that ended in an exception."""
    failed = error if isinstance(error, SolverFailed) else failure_of(error)
    return replace(row, status=failed.status, message=failed.message, details=json.dumps(failed.details))


def is_user_error(row: Row) -> bool:
    """Whether the row tells of a user's mistake."""
    return row.status == ERROR and bool(json.loads(row.details).get("user_error"))


def _candidate(comparison: Comparison, asked: Asked, row: Row, on_attempt: Callable[[], None]) -> Row:
    asked.warm_up()

    def attempt(gpus: int | None) -> _Attempt:
        attempts = []
        for _ in range(comparison.repeats):
            on_attempt()
            attempts.append(_attempt(comparison, asked, gpus))
        solve_time_s = min(outcome.solution.solve_time_s for outcome in attempts)
        solution = replace(attempts[0].solution, solve_time_s=solve_time_s)
        return replace(
            attempts[0],
            solution=_time_bound(solution) if any(outcome.time_bound for outcome in attempts) else solution,
            score_time_s=min(outcome.score_time_s for outcome in attempts),
        )

    if not asked.tags.needs_fleet or comparison.gpus is not None:
        return _filled(row, comparison, attempt(comparison.gpus))
    attempts: list[_Attempt] = []

    def remembered(gpus: int) -> _Attempt:
        attempts.append(attempt(gpus))
        return attempts[-1]

    most = max(1, comparison.workload.n_adapters)

    def serves(outcome: _Attempt) -> bool:
        if not comparison.reserve or not outcome.feasible or outcome.solution.placement is None:
            return outcome.feasible
        # The fleet must be large enough for what is planned.
        return comparison.score(outcome.solution.placement, planned=True).feasible

    gpus, best = fewest_gpus(remembered, serves, most)
    if any(outcome.time_bound for outcome in attempts):
        best = replace(best, solution=_time_bound(best.solution))
    row = _filled(replace(row, gpu_limit=gpus, fleet_searched=True), comparison, best)
    # The answer to "how few GPUs" took the whole search.
    return replace(
        row,
        solve_time_s=sum(outcome.solution.solve_time_s for outcome in attempts),
        score_time_s=sum(outcome.score_time_s for outcome in attempts),
        oracle_calls=sum(outcome.solution.oracle_calls for outcome in attempts),
    )


def _time_bound(solution: Solution) -> Solution:
    return replace(solution, details={**solution.details, TIME_BOUND: True})


def _attempt(comparison: Comparison, asked: Asked, gpus: int | None) -> _Attempt:
    solution = asked.solve(gpus)
    if solution.placement is None:
        return _Attempt(solution)
    start = time.perf_counter()
    score = comparison.score(solution.placement)
    return _Attempt(solution, score, time.perf_counter() - start)


def _filled(row: Row, comparison: Comparison, outcome: _Attempt) -> Row:
    solution, score = _of_the_workload(outcome.solution, comparison.reserve), outcome.score
    row = replace(
        row,
        status=solution.status,
        message=solution.message,
        lower_bound=solution.lower_bound,
        cost_bound=solution.cost_bound,
        oracle_calls=solution.oracle_calls,
        solve_time_s=solution.solve_time_s,
        details=json.dumps({name: value for name, value in solution.details.items() if name != CERTIFICATE}),
        certificate=_certificate(solution),
    )
    row = replace(
        row,
        bound_slack=_slack(solution),
        solver_draws=_count(solution, "draws"),
        solver_draws_bound=_count(solution, "lower_bound_of_draws"),
    )
    if score is None or solution.placement is None:
        return row
    holds = comparison.holds_on(solution.placement)
    return replace(
        row,
        draws=None if holds is None else comparison.draws,
        holds_on=holds,
        feasible=score.feasible,
        gpus=score.gpus,
        cost=None if comparison.fleet is None else score.cost,
        failed_gpus=score.failed_gpus,
        failing_adapters=score.failing_adapters,
        goodput=score.goodput,
        worst_gpu_goodput=score.worst_gpu_goodput,
        worst_adapter_goodput=score.worst_adapter_goodput,
        **_percentiles(score),
        starved_gpus=score.starved_gpus,
        memory_errors=score.memory_errors,
        starved_adapters=score.starved_adapters,
        throughput=score.throughput,
        offered_throughput=score.offered_throughput,
        itl_ms=_finite(score.itl_ms),
        ttft_ms=_finite(score.ttft_ms),
        e2e_ms=_finite(score.e2e_ms),
        headroom=score.headroom,
        objective_key=[float(value) for value in comparison.objective.key(score)],
        missed=str(comparison.objective.missed(score)),
        score_time_s=outcome.score_time_s,
        simulated_steps=sum(result.steps for result in score.results),
        preemptions=sum(result.preemptions for result in score.results),
        adapter_loads=sum(result.loads for result in score.results),
        placement=solution.placement.to_json(),
        gpu_results=json.dumps(_gpu_results(score, solution.placement, comparison)),
    )


def _certificate(solution: Solution) -> str | None:
    text = solution.details.get(CERTIFICATE)
    return text if isinstance(text, str) and solution.lower_bound is not None else None


def _count(solution: Solution, name: str) -> int | None:
    """A whole number among a solver's details, if it is one."""
    value = solution.details.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _slack(solution: Solution) -> float | None:
    """What the bound in fractions of GPUs, as a solver's details have it, can lose before the bound in whole GPUs falls."""
    fraction = solution.details.get("fractional_bound")
    bound = solution.lower_bound
    if bound is None or bound < 2 or isinstance(fraction, bool) or not isinstance(fraction, int | float):
        return None
    slack = float(fraction) - (bound - 1)
    # A bound may rest on more than fractions, such as a search through what they leave.
    return slack if 0 < slack <= 1 else None


# What a status is worth where the load was higher.
_WITH_MORE: dict[Status, Status] = {"optimal": "feasible", "infeasible": "none_found"}


def _of_the_workload(solution: Solution, reserve: float) -> Solution:
    """A solution without what it claims of the workload and a reserve: no bound for more load is one for less."""
    if not reserve:
        return solution
    claims = {"status": solution.status, "lower_bound": solution.lower_bound}
    details = dict(solution.details)
    if (bounds := details.pop("bounds_over_time_s", None)) is not None:
        claims["bounds_over_time_s"] = bounds
    if (of_draws := details.pop("lower_bound_of_draws", None)) is not None:
        claims["lower_bound_of_draws"] = of_draws
    notes = [solution.message] if solution.message else []
    if solution.lower_bound is not None:
        notes.append(f"at least {solution.lower_bound} GPUs are needed")
    return replace(
        solution,
        status=_WITH_MORE.get(solution.status, solution.status),
        lower_bound=None,
        cost_bound=None,
        message=f"at {1 + reserve:g} times the load: {'; '.join(notes)}" if notes else "",
        details={**details, "planned": claims},
    )


def _gpu_results(score: Score, placement: Placement, comparison: Comparison) -> list[dict[str, Any]]:
    """The twin's figures of each GPU, and what published runs on real ones say of as much load."""
    known = [evidence_of([plan], comparison.workload, comparison.profile_of(plan))[0] for plan in placement.gpus]
    return [
        {**_figures(result), "real_gpu": evidence.kind} for result, evidence in zip(score.results, known, strict=True)
    ]


def _figures(result: GpuResult) -> dict[str, Any]:
    """The twin's figures of one GPU, JSON-serialisable."""
    return {
        "max_lora_rank": result.max_lora_rank,
        "starved": bool(result.starved),
        "fails": result.fails,
        "failing_adapters": result.failing_adapters.tolist(),
        "goodput": None if result.judgement is None else result.judgement.goodput,
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
            for name in ("ttft", "tpot", "itl", "e2e")
            for key, value in asdict(getattr(result, name)).items()
        },
    }


def _percentiles(score: Score) -> dict[str, Any]:
    return {name: _finite(score.worst_ms(latency, percentile)) for name, (latency, percentile) in PERCENTILES.items()}


def _finite(value: float) -> float | None:
    """JSON and Parquet readers agree on null, not on NaN."""
    return value if math.isfinite(value) else None


def fleet_json(fleet: Fleet | None) -> str:
    """The types of a fleet as rows have them; nothing without one."""
    if fleet is None:
        return ""
    types = [
        {"name": kind.name, "profile": kind.profile.name, "price": kind.price, "count": kind.count}
        for kind in fleet.types
    ]
    return json.dumps(types, separators=(",", ":"))


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
        service=str(cell.service.get("name", PUBLISHED.name)),
        fleet=_name(lambda: fleet_json(fleet_of(cell.fleet)), "") if cell.fleet else "",
        version=version(),
    )


def _name(find: Callable[[], str], otherwise: str) -> str:
    """A name as the rows of a good run have it, if what it names can be made at all."""
    try:
        return find()
    except Exception:  # noqa: BLE001  # the row tells of another error, or of this one
        return otherwise
