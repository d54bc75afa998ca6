"""All candidates in one table."""

from __future__ import annotations

from bench.comparison.rows import Row, failing_adapters
from bench.reporting.content import NONE, Column, Entry, Part, Table, number, words
from bench.reporting.study import Study, WorkloadCases
from bench.statistics.instances import Case
from bench.statistics.summary import gap
from twin import PUBLISHED

#: Lines of candidates on the page, of each kind of table: a browser still sorts so many at once, and each costs half a kilobyte.
MOST_LINES = 3000


def candidates(study: Study) -> Part:
    """Every row of the comparison."""
    whole = len(study.rows) <= MOST_LINES
    instances = study.cases if whole else study.in_turn()
    costs = any(row.fleet for case in instances for row in case.rows)
    lines = tuple(
        candidate_line(case, row, study.workload_of(case), costs=costs) for case in instances for row in case.rows
    )
    return Part(
        "candidates",
        "All candidates" if whole else "Candidates",
        text=() if whole else (f"The page has {MOST_LINES:,} of {len(lines):,} candidates: {_FIRST_SEEDS}",),
        blocks=(
            Table(
                "candidates",
                "Every solver on every instance" if whole else "Every solver on the first seeds of every workload",
                candidate_columns(workload=True, costs=costs),
                lines,
                filterable=True,
                on_page=MOST_LINES,
            ),
        ),
    )


_FIRST_SEEDS = "the first seeds of every workload. The file of rows has all of them, and so have the tables that paper=FOLDER writes."


def candidate_columns(*, workload: bool, costs: bool = False) -> tuple[Column, ...]:
    """Columns of a table of candidates, with costs where GPUs have prices."""
    priced = (
        Column("Cost", "sum of the prices of the GPUs used"),
        Column("Cost bound", "that this solver proves: no placement costs less"),
    )
    first = (Column("Workload", numeric=False, facet=True),) if workload else ()
    return (
        *first,
        Column("Solver", numeric=False, facet=workload),
        Column("Seed"),
        Column("Verdict", "of the twin; without a placement what the solver says", numeric=False, facet=workload),
        Column("Other draws, %", "of the requests, with other seeds, on which the placement is feasible as well"),
        *(priced if costs else ()),
        Column("GPUs"),
        Column("Bound", "the lower bound that this solver proves for its oracle"),
        Column(
            "Slack",
            "by how many GPUs the bound in fractions is above the whole number below the bound: what the proof can lose",
        ),
        Column("Gap, %", "GPUs over the best lower bound of any solver less 1"),
        Column("Adapters that fail", "for which the service level is not kept; of old releases: that starve"),
        Column(
            "Goodput, %", "judged requests that met their limits; under the published rule those of service=interactive"
        ),
        Column("TTFT p95, ms", "the worst GPU's"),
        Column("TPOT p95, ms", "the worst GPU's"),
        Column("Starved GPUs"),
        Column("Starved adapters", "below 90 % of their offered throughput, also on GPUs that do not starve"),
        Column(
            "Headroom",
            "how far the worst GPU is above what its service level asks for: least throughput / offered, less 0.9",
        ),
        Column("Served, %", "throughput of the offered one"),
        Column("ITL, ms", "mean time between tokens"),
        Column("TTFT, ms", "mean time to the first token"),
        Column("E2E, s", "mean end-to-end latency"),
        Column("Solve, s"),
        Column("Oracle calls"),
    )


def candidate_line(case: Case, row: Row, workload: WorkloadCases | None, *, costs: bool = False) -> tuple[Entry, ...]:
    """One candidate; with its workload and its cost, where the table has these columns."""
    first = (words(workload.label, link=workload.link),) if workload else ()
    served = (
        100 * row.throughput / row.offered_throughput if row.throughput is not None and row.offered_throughput else None
    )
    return (
        *first,
        words(row.solver_label, solver=row.solver_label),
        number(row.seed, 0),
        verdict(row),
        number(None if row.holds_on is None or not row.draws else row.holds_on / row.draws, 0, scale=100),
        *((number(row.cost, 2), number(row.cost_bound, 2)) if costs else ()),
        number(row.gpus, 0),
        number(row.lower_bound, 0),
        number(row.bound_slack, 3),
        number(gap(row, case), 1, scale=100),
        number(failing_adapters(row), 0),
        number(row.goodput, 1, scale=100),
        number(row.ttft_p95_ms, 0),
        number(row.tpot_p95_ms, 1),
        number(row.starved_gpus, 0),
        number(row.starved_adapters, 0),
        number(row.headroom, 3),
        number(served, 1),
        number(row.itl_ms, 1),
        number(row.ttft_ms, 0),
        number(None if row.e2e_ms is None else row.e2e_ms / 1000, 2),
        number(row.solve_time_s, 3),
        number(row.oracle_calls, 0),
    )


def verdict(row: Row) -> Entry:
    """Feasible, failing, or why there is no placement."""
    if row.feasible:
        return words("feasible", tone="good")
    if row.gpus is not None:
        fails = "starves" if row.service == PUBLISHED.name else "fails"
        return words("does not start" if row.memory_errors else fails, tone="bad")
    return words(row.status.replace("_", " ") or NONE, tone="bad" if row.failed else "warn")
