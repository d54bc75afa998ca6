"""Tables on the terminal: the candidates of one run, and the summary of a sweep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.comparison.rows import ERROR, Row, failing_adapters
from bench.reporting.verdict import overall_verdict, verdict
from bench.statistics.bootstrap import Estimate
from bench.statistics.instances import TWIN, by_instance, cases, fewest_gpus, instance, mean_ranks, oracle_of, ranked
from bench.statistics.summary import Statistics, by_track, statistics_of

# Beyond so many candidates a sweep prints its summary only; the rows are in the file. By hand: one screen.
MOST_ROWS_PRINTED = 60
#: A proof that stands by less than this share of its GPUs is said to: as much as the twin's own chance moves a bound.
LITTLE_SLACK = 0.005


def comparison_report(rows: Sequence[Row]) -> RenderableType:
    """Heading, verdict, table and notes of candidates for one workload and seed."""
    drawn = (_DRAWS_COLUMN,) if any(row.draws for row in rows) else ()
    costs = _COST_COLUMNS if any(row.fleet for row in rows) else ()
    # Limits of an objective's own, where somebody misses them.
    limits = ("limits\nkept",) if any(row.missed for row in rows) else ()
    table = _table(
        "solver", "feasible", *limits, *drawn, *costs, "GPUs", "lower\nbound", "adapters\nthat fail", *_SCORE_COLUMNS
    )
    for row in ranked(rows):
        table.add_row(
            row.solver_label,
            _verdict(row),
            *([_kept(row)] if limits else []),
            *([_holds([row])] if drawn else []),
            *([_plain(row.cost), _plain(row.cost_bound)] if costs else []),
            _whole(row.gpus),
            _whole(row.lower_bound),
            _whole(failing_adapters(row)),
            _percent(row.goodput),
            _waits(row.ttft_p95_ms),
            _number(row.itl_ms, 1),
            _throughput(row.throughput, row.offered_throughput),
            _number(row.solve_time_s, 2),
        )
    return Group(Text(heading(rows[0]), style="bold"), Text(verdict(rows)), table, *_notes(rows))


def heading(row: Row) -> str:
    """Two lines: the workload; the serving profile, the seed and what is compared."""
    load = ""
    if row.n_adapters is not None and row.total_rate is not None and row.duration_s is not None:
        adapters = "1 adapter" if row.n_adapters == 1 else f"{row.n_adapters} adapters"
        load = f": {adapters}, {row.total_rate:.4g} requests/s, {row.duration_s:.0f} s"
    limit = f" · GPU limit {row.gpu_limit}" if row.gpu_limit is not None and not row.fleet_searched else ""
    if row.time_limit_s is not None:
        limit += f" · time limit {row.time_limit_s:g} s"
    return (
        f"workload {row.workload_label}{load}\n"
        f"profile {row.profile} · seed {row.seed} · objective {row.objective} · service {row.service}{limit}"
    )


def sweep_report(rows: Sequence[Row]) -> RenderableType:
    """Every candidate of a sweep (if they are not too many) and one summary over the seeds."""
    parts: list[RenderableType] = []
    if len(rows) <= MOST_ROWS_PRINTED:
        for group in by_instance(rows).values():
            parts += [comparison_report(group), Text()]
    parts += [Text(f"summary of {len(rows)} candidates", style="bold"), summary_table(rows)]
    for track, compared in by_track(cases(rows)).items():
        if len(compared) > 1 and len({row.solver_label for case in compared for row in case.rows}) > 1:
            title = f"all {len(compared)} instances, objective {track}"
            statistics = statistics_of(compared)
            parts += [Text(), Text(title, style="bold"), Text(overall_verdict(statistics)), overall_table(statistics)]
    return Group(*parts)


def overall_table(statistics: Statistics) -> Table:
    """One line for each solver over all instances, the best mean rank first; intervals are 95 % bootstrap intervals."""
    measure = statistics.measure
    table = _table(
        "solver", "mean\nrank", "feasible", f"{measure.label} over the\nleast (where feasible)", "gap to the\nbound, %",
        "wins / ties / losses", "solve s\n(geom. mean)",
    )  # fmt: skip
    for line in statistics.summaries:
        table.add_row(
            line.solver,
            _number(line.mean_rank, 2),
            _share(line.feasible, line.instances),
            interval(line.ratio, 3),
            interval(line.gap, 1, 100),
            f"{line.wins} / {line.ties} / {line.losses}",
            _number(line.time_s, 2),
        )
    return table


def interval(estimate: Estimate, digits: int, scale: float = 1.0) -> str:
    """A mean and its interval, such as "1.042 [1.000, 1.083]"."""
    if estimate.value is None:
        return _NONE
    mean = f"{scale * estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} [{scale * estimate.low:.{digits}f}, {scale * estimate.high:.{digits}f}]"


def summary_table(rows: Sequence[Row]) -> Table:
    """One line for each workload and solver: counts and means over the seeds."""
    drawn = (_DRAWS_COLUMN,) if any(row.draws for row in rows) else ()
    costs = _COST_COLUMNS if any(row.fleet for row in rows) else ()
    table = _table(
        "workload",
        "solver",
        "mean\nrank",
        "feasible",
        *drawn,
        *costs,
        "GPUs",
        "lower\nbound",
        "adapters\nthat fail",
        *_SCORE_COLUMNS,
    )
    ranks = {
        (key, solver): rank for key, group in by_instance(rows).items() for solver, rank in mean_ranks(group).items()
    }
    workloads: dict[tuple[Any, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        workloads[instance(row)[:-1]][row.solver_label].append(row)
    for (workload, *_), solvers in workloads.items():
        first = True
        for solver, group in sorted(
            solvers.items(), key=lambda item: _mean([ranks[instance(row), item[0]] for row in item[1]]) or 0
        ):
            placed = [row for row in group if row.gpus is not None]
            table.add_row(
                str(workload) if first else "",
                solver,
                _number(_mean([ranks[instance(row), solver] for row in group]), 2),
                _share(sum(row.feasible for row in group), len(group)),
                *([_holds(placed)] if drawn else []),
                *(
                    [_plain(_mean([r.cost for r in placed])), _plain(_mean([r.cost_bound for r in group]))]
                    if costs
                    else []
                ),
                _spread([row.gpus for row in placed]),
                _spread([row.lower_bound for row in group]),
                _whole(sum(failing_adapters(row) or 0 for row in placed)) if placed else _NONE,
                _percent(_mean([row.goodput for row in placed])),
                _waits(_mean([row.ttft_p95_ms for row in placed])),
                _number(_mean([row.itl_ms for row in placed]), 1),
                _throughput(
                    _mean([row.throughput for row in placed]), _mean([row.offered_throughput for row in placed])
                ),
                _number(_mean([row.solve_time_s for row in group]), 2),
            )
            first = False
        table.add_section()
    return table


_COST_COLUMNS = ("cost", "cost\nbound")
_DRAWS_COLUMN = "other\ndraws"
_SCORE_COLUMNS = ("good-\nput", "TTFT p95\nms", "ITL\nms", "throughput /\noffered, tok/s", "solve\ns")
_NONE = "–"  # noqa: RUF001  # a dash, as printed tables have it


def _table(*columns: str) -> Table:
    table = Table(header_style="bold")
    for column in columns:
        if column in ("workload", "solver"):
            # The names may be long; the figures must stay whole.
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="left" if column == "feasible" else "right", no_wrap=True)
    return table


def _verdict(row: Row) -> Text:
    if row.feasible:
        return Text("yes", style="green")
    if row.gpus is not None:
        return Text("no", style="red")
    return Text(row.status.replace("_", " "), style="red" if row.status == ERROR else "yellow")


def _kept(row: Row) -> Text:
    if row.gpus is None:
        return Text(_NONE)
    return Text("no", style="red") if row.missed else Text("yes", style="green")


def _notes(rows: Sequence[Row]) -> list[RenderableType]:
    notes: list[RenderableType] = [
        Text(f"{row.solver_label}: {row.status.replace('_', ' ')}: {row.message}", style="yellow")
        for row in rows
        if row.gpus is None
    ]
    notes += [Text(f"{row.solver_label}: misses {row.missed}", style="yellow") for row in rows if row.missed]
    notes += [
        Text(f"{row.solver_label}: {row.message}", style="dim") for row in rows if row.gpus is not None and row.message
    ]
    searched = [row for row in rows if row.fleet_searched and row.gpus is not None]
    found = [f"{row.solver_label} {row.gpu_limit}" for row in searched if row.feasible]
    if found:
        line = "no gpus=N is given; the smallest fleet found at which the twin calls it feasible"
        notes.append(Text(f"{line}: {', '.join(found)}", style="dim"))
    missed = [f"{row.solver_label} up to {row.gpu_limit}" for row in searched if not row.feasible]
    if missed:
        notes.append(
            Text(f"no gpus=N is given; no fleet found that the twin calls feasible: {', '.join(missed)}", style="dim")
        )
    starving = sum(row.status == "optimal" and not row.feasible for row in rows)
    fewest = fewest_gpus(rows)
    notes += [
        Text(f"{row.solver_label}: its lower bound of {row.lower_bound} is refuted, {fewest} will do", style="yellow")
        for row in rows
        if fewest is not None and row.lower_bound is not None and row.lower_bound > fewest
    ]
    notes += [
        Text(
            f"{row.solver_label}: its lower bound is for its oracle ({oracle_of(row)}) and proves nothing for the twin",
            style="dim",
        )
        for row in rows
        if row.lower_bound is not None and oracle_of(row) not in ("", TWIN)
    ]
    notes += [
        Text(
            f"{row.solver_label}: its bound stands by {row.bound_slack:.2g} GPUs: "
            f"{(row.lower_bound or 0) - 1 + row.bound_slack:.5g} in fractions, rounded up to {row.lower_bound}",
            style="yellow",
        )
        for row in rows
        if row.bound_slack is not None and row.bound_slack < LITTLE_SLACK * (row.lower_bound or 0)
    ]
    if starving:
        notes.append(Text("optimal is what the oracle says; the twin, which scores, does not agree", style="dim"))
    return notes


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _spread(values: Sequence[int | None]) -> str:
    """Mean, with the range where the values differ."""
    known = [value for value in values if value is not None]
    if not known:
        return _NONE
    low, high = min(known), max(known)
    return str(low) if low == high else f"{sum(known) / len(known):.2f} ({low}-{high})"


def _holds(rows: Sequence[Row]) -> Text | str:
    """On how many of the other draws placements are feasible; all of them are counted together."""
    drawn = [row for row in rows if row.draws]
    if not drawn:
        return _NONE
    return _share(sum(row.holds_on or 0 for row in drawn), sum(row.draws or 0 for row in drawn))


def _share(part: int, whole: int) -> Text:
    return Text(f"{part}/{whole}", style="green" if part == whole else "red")


def _whole(value: int | None) -> str:
    return _NONE if value is None else str(value)


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _plain(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.0f}%" if value in (0, 1) else f"{100 * value:.1f}%"


def _waits(milliseconds: float | None) -> str:
    return _NONE if milliseconds is None else f"{milliseconds:.0f}"


def _throughput(throughput: float | None, offered: float | None) -> str:
    if throughput is None or offered is None:
        return _NONE
    share = f" ({throughput / offered:.1%})" if offered else ""
    return f"{throughput:.0f} / {offered:.0f}{share}"
