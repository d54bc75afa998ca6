"""The summary: what was compared, and one line for each solver over all instances."""

from __future__ import annotations

from bench.reporting.content import NONE, Column, Entry, Facts, Part, Table, number, share, words
from bench.reporting.study import Study
from bench.reporting.verdict import overall_verdict, verdict
from bench.statistics.bootstrap import Estimate
from bench.statistics.summary import TIME_SHIFT_S, SolverSummary, Statistics
from twin.service import NAMED


def overview(study: Study) -> Part:
    """Facts and one summary table for each objective and service level."""
    tables = [_table(*track) for track in study.tracks]
    return Part(
        "summary",
        "Summary",
        text=(
            *_verdicts(study),
            (
                "Every placement was simulated by the digital twin with the same requests. Feasible means that every GPU keeps the service "
                "level and none has a memory error. Feasibility goes first: a solver without a feasible "
                "placement ranks behind all that have one, whatever its GPU count."
            ),
            *_levels(study),
            *_warnings(study),
        ),
        blocks=(_facts(study), *tables),
    )


def _verdicts(study: Study) -> list[str]:
    """Who wins, in a sentence: of the only instance, or of each objective and service level."""
    if len(study.cases) == 1:
        return [verdict(study.cases[0].rows)]
    several = len(study.statistics) > 1
    return [
        f"{track}: {overall_verdict(statistics)}" if several else overall_verdict(statistics)
        for track, statistics in study.statistics.items()
    ]


def _levels(study: Study) -> list[str]:
    """What each service level of the rows asks for, as far as its name says."""
    names = list(dict.fromkeys(case.service for case in study.cases))
    return [f"Service level {name}: {NAMED[name].in_words()}." for name in names if name in NAMED]


def interval(estimate: Estimate, digits: int, scale: float = 1.0) -> Entry:
    """A cell with a mean and its bootstrap interval, sorted by the mean."""
    if estimate.value is None:
        return Entry(NONE)
    text = f"{scale * estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return Entry(text, scale * estimate.value)
    ends = (scale * estimate.low, scale * estimate.high)
    return Entry(f"{text} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]", scale * estimate.value, interval=ends)


def _facts(study: Study) -> Facts:
    known = [case for case in study.cases if case.best_known is not None]
    closed = [case for case in known if case.lower_bound == case.best_known]
    return Facts(
        (
            (str(len(study.workloads)), "workload" if len(study.workloads) == 1 else "workloads"),
            (str(len(study.cases)), "instances (workload and seed)"),
            (str(len(study.solvers)), "solver" if len(study.solvers) == 1 else "solvers"),
            (str(len(study.rows)), "candidates"),
            (f"{len(known)}/{len(study.cases)}", "instances with a feasible placement"),
            (f"{len(closed)}/{len(study.cases)}", "closed: as few GPUs as the lower bound"),
        )
    )


def _warnings(study: Study) -> list[str]:
    refuted = [case for statistics in study.statistics.values() for case in statistics.refuted]
    other = sum(case.bound_oracle not in ("", "twin") for case in study.cases)
    missing = {
        solver: count
        for solver in study.solvers
        if (count := sum(solver not in case.by_solver for case in study.cases))
    }
    lines = []
    if refuted:
        lines.append(
            f"On {len(refuted)} instance(s) the twin calls a placement feasible that has fewer GPUs than a claimed lower bound, the "
            f"first is {refuted[0].key[0]} with seed {refuted[0].key[-1]}: the bound holds for the oracle that the solver asked, which "
            "the twin contradicts there. The fewer GPUs count as the bound."
        )
    if other:
        lines.append(
            f"On {other} instance(s) the lower bound is proven for a predictor only, which says nothing certain about the twin."
        )
    if missing:
        listed = ", ".join(f"{solver} ({count})" for solver, count in missing.items())
        lines.append(f"Not every solver has a row for every instance; missing are: {listed}.")
    return lines


def _table(suffix: str, title: str, statistics: Statistics) -> Table:
    measure = statistics.measure
    title = title or f", objective {statistics.cases[0].key[2]}"
    unit = "GPUs" if measure.whole else measure.label
    return Table(
        name=f"summary{suffix}",
        caption=f"Solvers over all {len(statistics.cases)} instances{title}. In brackets: 95 % bootstrap intervals "
        f"({statistics.samples} samples of workloads and their seeds, seed {statistics.seed}).",
        columns=(
            Column("Solver", numeric=False),
            Column("Mean rank", "by the objective among the candidates of an instance; 1 is best, ties share"),
            Column("Feasible", "instances with a placement that the twin calls feasible"),
            Column(f"{unit} / best known", "geometric mean over the instances where the solver is feasible"),
            Column(
                "Gap to bound, %", "mean of GPUs over the best lower bound less 1, where feasible and there is a bound"
            ),
            Column(
                "TTFT p95, s",
                "one request in twenty waits longer for its first token on the worst GPU; median over the instances where feasible",
            ),
            Column(
                "Adapters that fail, %",
                "of all adapters, where feasible: by the published rule a GPU may be so although some starve",
            ),
            Column("Best on", "instances on which no solver is better"),
            Column("Proven", "instances that the solver proves optimal for its oracle"),
            Column("Wins", "against every other solver on every instance"),
            Column("Ties", "the same"),
            Column("Losses", "the same"),
            Column(
                "Solve time, s",
                f"geometric mean, shifted by {TIME_SHIFT_S:g} s; without a placement the time limit counts; on the machine of the run",
            ),
            Column("Oracle calls", "mean; GPU contents that the solver asked about"),
        ),
        lines=tuple(_line(summary) for summary in statistics.summaries),
        filterable=True,
    )


def _line(summary: SolverSummary) -> tuple[Entry, ...]:
    return (
        words(summary.solver, solver=summary.solver),
        number(summary.mean_rank, 2),
        share(summary.feasible, summary.instances),
        interval(summary.ratio, 3),
        interval(summary.gap, 1, 100),
        number(summary.ttft_p95_s, 2),
        number(summary.failing, 1, scale=100),
        number(summary.best, 0),
        number(summary.proven, 0),
        number(summary.wins, 0),
        number(summary.ties, 0),
        number(summary.losses, 0),
        number(summary.time_s, 3),
        number(summary.oracle_calls, 0),
    )
