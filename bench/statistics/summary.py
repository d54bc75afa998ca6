"""One line for each solver over all instances: feasible, GPU ratio, gap, rank, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.comparison.rows import Row, failing_adapters, gap_to
from bench.statistics.bootstrap import Estimate, estimate, geometric, resampled
from bench.statistics.costs import best_cost_bounds, cost_gap
from bench.statistics.instances import Case
from bench.statistics.paired import Measure, Paired, measure_of, paired
from bench.statistics.pairwise import Pair, pairs
from bench.statistics.profiles import PerformanceProfile, performance_profile

#: Bootstrap samples, and their seed. By hand: 50 of 2000 lie beyond each end of a 95 % interval.
SAMPLES, SEED = 2000, 0

#: Shift of the geometric mean of times, in seconds, so that milliseconds more or less do not decide; by hand.
TIME_SHIFT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What is counted of a solver's rows by themselves, whoever is beside it.

    Attributes
    ----------
    solver : str
    instances, feasible, placed, proven, errors : int
        Rows; of these, with a placement that the twin calls feasible; with any placement; with a proof of optimality
        by the solver's oracle; with an exception, a crash or a kill.
    time_s : float, optional
        Shifted geometric mean of the solve time; without a placement the time limit counts.
    oracle_calls : float, optional
        Mean.
    """

    solver: str
    instances: int
    feasible: int
    placed: int
    proven: int
    errors: int
    time_s: float | None
    oracle_calls: float | None


@dataclass(frozen=True, kw_only=True)
class SolverSummary(Counted):
    """What a solver did over all instances, on its own (`Counted`) and beside the others.

    Attributes
    ----------
    best : int
        Instances on which nobody is better by the measure.
    mean_rank : float
        By the objective, over the instances.
    ratio : Estimate
        Geometric mean of the cost over the least cost of any solver, where feasible.
    gap : Estimate
        Mean of GPUs over the lower bound less 1, where feasible and there is a bound.
    wins, ties, losses : int
        Against each other solver on each instance.
    ttft_p95_s : float, optional
        Of the worst GPU, in seconds: median over the instances where feasible.
    failing : float, optional
        Adapters that the service level is not kept for over all adapters, where feasible.
    """

    best: int
    mean_rank: float
    ratio: Estimate
    gap: Estimate
    wins: int
    ties: int
    losses: int
    ttft_p95_s: float | None = None
    failing: float | None = None


@dataclass(frozen=True)
class Statistics:
    """Everything about one set of instances with the same objective and service level.

    Attributes
    ----------
    paired : Paired
    summaries : tuple of SolverSummary
        The best mean rank first.
    profile : PerformanceProfile
    pairs : tuple of Pair
    samples, seed : int
        Of the bootstrap.
    """

    paired: Paired
    summaries: tuple[SolverSummary, ...]
    profile: PerformanceProfile
    pairs: tuple[Pair, ...]
    samples: int
    seed: int

    @property
    def measure(self) -> Measure:
        """What is compared."""
        return self.paired.measure

    @property
    def cases(self) -> tuple[Case, ...]:
        """The instances."""
        return self.paired.cases

    @property
    def refuted(self) -> list[Case]:
        """Instances with a feasible placement below a claimed bound."""
        return [case for case in self.cases if case.bound_refuted]


def statistics_of(cases: Sequence[Case], *, samples: int = SAMPLES, seed: int = SEED) -> Statistics:
    """Statistics over instances with the same objective, at least one.

    Parameters
    ----------
    cases : sequence of Case
    samples, seed : int
        Of the bootstrap.
    """
    table = paired(cases, measure_of(cases))
    counts = resampled([case.cluster for case in cases], samples, seed)
    met = tuple(pairs(table, counts))
    return Statistics(
        paired=table,
        summaries=tuple(_summary(table, solver, counts, met) for solver in table.solvers),
        profile=performance_profile(table),
        pairs=met,
        samples=samples,
        seed=seed,
    )


def by_track(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The instances of each objective under each service level: placements are ranked by one thing at a time.

    Returns
    -------
    dict
        By the objective's name, followed by the service level's where there are several levels.
    """
    several = len({case.service for case in cases}) > 1
    groups: dict[str, list[Case]] = {}
    for case in cases:
        objective = case.key[2]
        groups.setdefault(f"{objective}, {case.service}" if several else objective, []).append(case)
    return groups


def shifted_geometric_mean(values: Sequence[float], shift: float = TIME_SHIFT_S) -> float | None:
    """exp(mean(log(value + shift))) - shift, None of nothing (Achterberg, 2007, appendix A.3)."""
    if not len(values):
        return None
    return float(np.exp(np.log(np.asarray(values) + shift).mean()) - shift)


def counted_time_s(row: Row) -> float | None:
    """Solve time of a candidate; one without a placement counts as if it had taken all its time."""
    if row.gpus is None and row.time_limit_s is not None:
        return max(row.time_limit_s, row.solve_time_s or 0.0)
    return row.solve_time_s


def counted(solver: str, rows: Sequence[Row]) -> Counted:
    """What the rows of one solver come to."""
    times = [time_s for row in rows if (time_s := counted_time_s(row)) is not None]
    calls = [row.oracle_calls for row in rows if row.oracle_calls is not None]
    return Counted(
        solver=solver,
        instances=len(rows),
        feasible=sum(row.feasible for row in rows),
        placed=sum(row.gpus is not None for row in rows),
        proven=sum(row.status == "optimal" for row in rows),
        errors=sum(row.failed for row in rows),
        time_s=shifted_geometric_mean(times),
        oracle_calls=float(np.mean(calls)) if calls else None,
    )


def ttft_p95_ms(rows: Sequence[Row]) -> float | None:
    """Time to the first token that one request in twenty exceeds on the worst GPU: median of the rows that know it."""
    waits_ms = [row.ttft_p95_ms for row in rows if row.ttft_p95_ms is not None]
    return float(np.median(waits_ms)) if waits_ms else None


def share_of_failing(rows: Sequence[Row]) -> float | None:
    """Adapters that the service level is not kept for over all adapters of the rows that know it."""
    told = [(fails, row.n_adapters) for row in rows if row.n_adapters and (fails := failing_adapters(row)) is not None]
    return sum(fails for fails, _ in told) / sum(adapters for _, adapters in told) if told else None


def gap(row: Row, case: Case) -> float:
    """GPUs above the bound over the bound, of a feasible candidate; with a fleet, cost above its bound. NaN without a bound."""
    bound = best_cost_bounds(case.rows).get(row.workload_label)
    found = cost_gap(row, bound) if row.fleet else gap_to(case.lower_bound, row)
    return float("nan") if found is None else found


def _summary(table: Paired, solver: str, counts: NDArray[np.float64], met: Sequence[Pair]) -> SolverSummary:
    place = table.solvers.index(solver)
    gaps = np.array(
        [gap(case.by_solver[solver], case) if solver in case.by_solver else float("nan") for case in table.cases]
    )
    won = [(pair.wins, pair.ties, pair.losses) for pair in met if pair.first == solver]
    won += [(pair.losses, pair.ties, pair.wins) for pair in met if pair.second == solver]
    mine = [case.by_solver[solver] for case in table.cases if solver in case.by_solver]
    good = [row for row in mine if row.feasible]
    waits_ms = ttft_p95_ms(good)
    return SolverSummary(
        **vars(counted(solver, mine)),
        best=int((table.ratio[:, place] == 1.0).sum()),
        mean_rank=float(np.nanmean(table.rank[:, place])),
        ratio=geometric(table.ratio[:, place], counts),
        gap=estimate(gaps, counts),
        wins=sum(win for win, _, _ in won),
        ties=sum(tie for _, tie, _ in won),
        losses=sum(loss for *_, loss in won),
        ttft_p95_s=None if waits_ms is None else waits_ms / 1000,
        failing=share_of_failing(good),
    )
