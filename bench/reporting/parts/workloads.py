"""The index of the workloads, and one page for each."""

from __future__ import annotations

from dataclasses import dataclass

from bench.comparison.rows import Row
from bench.reporting.content import NONE, Column, Drawing, Entry, Part, Table, number, words
from bench.reporting.parts import anytime, latency
from bench.reporting.parts.candidates import MOST_LINES, candidate_columns, candidate_line
from bench.reporting.parts.placement import drawn_placement, placement_key
from bench.reporting.study import Study, WorkloadCases
from bench.reporting.table import heading
from bench.statistics.instances import Case


@dataclass(frozen=True)
class Options:
    """How much is drawn.

    Attributes
    ----------
    placements : int
        Placements drawn for each workload, the best first; equal ones are drawn once.
    """

    placements: int = 4


def index(study: Study) -> Part:
    """One line for each workload, with a link to its page."""
    columns = (
        Column("Workload", numeric=False),
        Column("Adapters"),
        Column("Requests/s"),
        Column("Seeds"),
        Column("Best known GPUs", "fewest of a feasible placement; mean over the seeds"),
        Column("Lower bound", "largest that is proven; mean over the seeds"),
        Column("Feasible solvers", "with a feasible placement on every seed"),
        Column("Best solver", "by the objective, on the first seed", numeric=False, facet=True),
    )
    return Part(
        "workloads",
        "Workloads",
        blocks=(
            Table(
                "workloads",
                "Workloads; each has a page with its placements",
                columns,
                tuple(_index_line(w) for w in study.workloads),
                filterable=True,
            ),
        ),
    )


def pages(study: Study, options: Options) -> list[Part]:
    """One page for each workload."""
    return [_page(study, workload, options) for workload in study.workloads]


def _index_line(workload: WorkloadCases) -> tuple[Entry, ...]:
    row = workload.first
    solvers = {name for case in workload.cases for name in case.by_solver}
    everywhere = [
        name
        for name in solvers
        if all(name in case.by_solver and case.by_solver[name].feasible for case in workload.cases)
    ]
    best = workload.cases[0].rows[0]
    return (
        words(workload.label, link=workload.link),
        number(row.n_adapters, 0),
        number(row.total_rate, 2),
        number(len(workload.cases), 0),
        _mean([case.best_known for case in workload.cases]),
        _mean([case.lower_bound for case in workload.cases]),
        Entry(f"{len(everywhere)}/{len(solvers)}", len(everywhere)),
        words(best.solver_label, solver=best.solver_label) if best.feasible else Entry(NONE),
    )


def _mean(values: list[int | None]) -> Entry:
    known = [value for value in values if value is not None]
    if not known:
        return Entry(NONE)
    mean = sum(known) / len(known)
    return Entry(f"{mean:g}" if len(set(known)) == 1 else f"{mean:.2f}", mean)


def _page(study: Study, workload: WorkloadCases, options: Options) -> Part:
    first = workload.cases[0]
    ranks = sorted({rank for row in first.rows for rank in row.adapter_ranks or []})
    drawings = [
        Drawing(
            _placement_title(rows),
            drawn_placement(rows[0], ranks),
            rows[0],
            placement_key(rows[0], ranks),
            folded=place > 0,
        )
        for place, rows in enumerate(_worth_drawing(first, options.placements))
    ]
    charts = [chart for part in (latency, anytime) if (chart := part.workload_chart(study, workload)) is not None]
    text = (*heading(first.rows[0]).split("\n"), *_notes(workload))
    return Part(workload.name, workload.label, text, (*drawings, *charts, _table(study, workload)))


def _table(study: Study, workload: WorkloadCases) -> Table:
    """All candidates of a workload; of very many, those of its first seeds, of which every workload shows as many lines."""
    most = max(MOST_LINES // len(study.workloads), len(workload.cases[0].rows))
    whole = len(study.rows) <= MOST_LINES
    costs = any(row.fleet for case in workload.cases for row in case.rows)
    return Table(
        f"{workload.name}-candidates",
        "Candidates, the best first" if whole else "Candidates on the first seeds, the best first",
        candidate_columns(workload=False, costs=costs),
        tuple(candidate_line(case, row, None, costs=costs) for case in workload.cases for row in case.rows),
        on_page=None if whole else most,
    )


def _worth_drawing(case: Case, most: int) -> list[list[Row]]:
    """The best placements, equal ones together; the first candidates that starve follow the feasible ones."""
    found: dict[str, list[Row]] = {}
    for row in case.rows:
        if row.placement not in (None, "[]") and row.gpu_results:
            found.setdefault(str(row.placement), []).append(row)
    return list(found.values())[:most]


def _placement_title(rows: list[Row]) -> str:
    row = rows[0]
    solvers = " = ".join(row.solver_label for row in rows)
    gpus = "1 GPU" if row.gpus == 1 else f"{row.gpus} GPUs"
    verdict = "feasible" if row.feasible else f"{row.starved_gpus} starved"
    if row.memory_errors:
        verdict += f", {row.memory_errors} do not start"
    return f"{solvers}: {gpus}, {verdict} (seed {row.seed})"


def _notes(workload: WorkloadCases) -> list[str]:
    return [
        f"{row.solver_label}, seed {row.seed}: {row.status.replace('_', ' ')}: {row.message}"
        for case in workload.cases
        for row in case.rows
        if row.message and not row.feasible
    ]
