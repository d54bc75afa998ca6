"""What a run of the suite comes to: one line for each solver, one for each instance."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.comparison.rows import Row
from bench.statistics.contradictions import all_contradictions
from bench.statistics.instances import fewest_gpus
from bench.statistics.summary import TIME_SHIFT_S, Counted, counted, share_of_failing, ttft_p95_ms
from bench.suites.bounds import best_bounds, fingerprint, proven_bound
from twin.service import NAMED

#: Columns of `results.csv`.
COLUMNS = (
    "instance", "service", "profile", "seed", "n_adapters", "total_rate", "solver", "reserve", "status", "feasible", "gpus",
    "best_bound", "gap", "lower_bound", "bound_slack", "draws", "holds_on",
    "starved_gpus", "memory_errors", "starved_adapters", "failing_adapters", "goodput", "itl_ms", "ttft_ms", "ttft_p95_ms",
    "ttft_p99_ms", "e2e_ms", "throughput",
    "offered_throughput", "oracle_calls", "simulated_steps", "solve_time_s", "score_time_s", "time_limit_s", "message",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Line(Counted):
    """One solver over all instances, on its own (`Counted`) and beside the others.

    Attributes
    ----------
    best, alone : int
        Instances with a feasible placement on which nobody has one on fewer GPUs; and on which nobody else has one on as few.
    mean_gap : float, optional
        Mean of GPUs over the best bound, less 1, where feasible.
    gpus_over_best : float, optional
        Mean of GPUs over the fewest of any solver, less 1, where feasible.
    ttft_p95_ms : float, optional
        Time to the first token of which one request in twenty waits longer, on the worst GPU: median, where feasible.
    failing : float, optional
        Adapters that the service level is not kept for over all adapters, where feasible.
    holds : float, optional
        Share of the other draws on which placements that are feasible are feasible as well.
    """

    best: int
    alone: int
    mean_gap: float | None
    gpus_over_best: float | None
    ttft_p95_ms: float | None
    failing: float | None
    holds: float | None = None

    @property
    def infeasible_share(self) -> float:
        """Share of the instances without a feasible placement."""
        return 1 - self.feasible / self.instances


def lines(rows: Sequence[Row]) -> list[Line]:
    """One line for each solver: most feasible instances first, then the smallest mean of GPUs over the fewest."""
    fewest = fewest_gpus_of(rows)
    holders: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.feasible and row.gpus == fewest.get(row.instance):
            holders[row.instance] += 1
    found = []
    for solver in dict.fromkeys(row.solver_label for row in rows):
        mine = [row for row in rows if row.solver_label == solver]
        good = [row for row in mine if row.feasible and row.gpus is not None]
        top = [row for row in good if row.gpus == fewest[row.instance]]
        found.append(
            Line(
                **vars(counted(solver, mine)),
                best=len(top),
                alone=sum(holders[row.instance] == 1 for row in top),
                mean_gap=_mean([row.gap for row in good]),
                gpus_over_best=_mean([(row.gpus or 0) / fewest[row.instance] - 1 for row in good]),
                ttft_p95_ms=ttft_p95_ms(good),
                failing=share_of_failing(good),
                holds=_mean([(row.holds_on or 0) / row.draws if row.draws else None for row in good]),
            )
        )
    return sorted(found, key=lambda line: (-line.feasible, line.gpus_over_best or 0.0, line.time_s or 0.0))


def fewest_gpus_of(rows: Sequence[Row]) -> dict[str, int]:
    """Fewest GPUs of a feasible placement, for each instance that has one."""
    of_instance: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_instance[row.instance].append(row)
    found = {name: fewest_gpus(mine) for name, mine in of_instance.items()}
    return {name: gpus for name, gpus in found.items() if gpus is not None}


_HEADINGS = (
    "solver", "feasible", "other draws", "fewest GPUs", "alone", "gap to bound", "GPUs over fewest", "TTFT p95 (ms)",
    "adapters that fail", "time (s)",
)  # fmt: skip


def _cells(line: Line) -> tuple[str, ...]:
    return (
        line.solver,
        f"{line.feasible}/{line.instances}",
        _percent(line.holds),
        str(line.best),
        str(line.alone),
        _percent(line.mean_gap),
        _percent(line.gpus_over_best),
        _number(line.ttft_p95_ms, 0),
        _percent(line.failing),
        _number(line.time_s, 2),
    )


def summary_table(rows: Sequence[Row]) -> Table:
    """The lines of the solvers, for the terminal."""
    table = Table(header_style="bold", title=f"{len({row.instance for row in rows})} instances")
    for number, heading in enumerate(_HEADINGS):
        # The figures may stand below each other, the names must stay whole.
        table.add_column(heading, justify="right" if number else "left", overflow="fold", no_wrap=not number)
    for line in lines(rows):
        table.add_row(*_cells(line))
    return table


def summary_markdown(rows: Sequence[Row], command: str) -> str:
    """The summary as a Markdown page.

    Parameters
    ----------
    rows : sequence of Row
        With `instance`, `best_bound` and `gap`.
    command : str
        That made them.
    """
    solvers = [line.solver for line in lines(rows)]
    names = list(dict.fromkeys(row.instance for row in rows))
    bounds, fewest = best_bounds(rows, {}, rows[0].service), fewest_gpus_of(rows)
    wrong = all_contradictions(rows)
    proven = sum(name in fewest and fewest[name] == bounds.get(name) for name in names)
    text = [
        "# Results on the workload suite\n",
        f"`{command}`\n",
        *_setting(rows),
        "## Solvers\n",
        (
            f"{len(names)} instances. *feasible*: the twin calls the placement feasible, *other draws*: share of "
            "other draws of the requests on which it is so as well, where it is. *fewest GPUs*: instances on which no "
            "solver has a feasible placement on fewer, *alone*: and no other on as few. *gap to bound*: mean of GPUs over the "
            "best lower bound less 1, *GPUs over fewest*: the same over the fewest of any solver; both where the solver is feasible. "
            "*TTFT p95*: on the worst GPU one request in twenty waits longer for its first token, median; *adapters that fail*: of all "
            "adapters, those for which the service level is not kept (by the published rule a GPU may be feasible although some "
            f"starve); both where feasible. *time*: geometric mean shifted by {TIME_SHIFT_S:g} s; a solver without a placement "
            "is counted with the time limit.\n"
        ),
        _markdown(_HEADINGS, [_cells(line) for line in lines(rows)]),
        (
            f"The fewest GPUs are proven on {proven} of {len(names)} instances; summed over all instances the bounds are "
            f"{sum(bounds.get(name, 0) for name in names)} GPUs and the fewest found {sum(fewest.values())}.\n"
        ),
        "## Bounds against placements\n",
        *(
            [f"CONTRADICTION: {line}\n" for line in wrong]
            or ["On every instance every bound proven for the twin is at most the GPUs of every feasible placement.\n"]
        ),
        "## Instances\n",
        (
            "GPUs of each solver; `!` the twin calls the placement infeasible, `-` there is none. *bound* is the best lower bound, "
            "**bold** where the fewest GPUs found equal it.\n"
        ),
        _instances(rows, names, solvers),
    ]
    return "\n".join(text)


def _setting(rows: Sequence[Row]) -> list[str]:
    """What machine, versions and limits the figures hold for."""
    first = rows[0]
    versions = ", ".join(f"{name} {value}" for name, value in json.loads(first.versions).items())
    limits = ", ".join(sorted({f"{row.time_limit_s:g} s" for row in rows if row.time_limit_s is not None}))
    twins = ", ".join(f"{profile} {fingerprint(profile)}" for profile in sorted({row.profile for row in rows}))
    processors = ", ".join(sorted({row.processor for row in rows if row.processor}))
    level = NAMED.get(first.service)
    meaning = f": {level.in_words()}" if level else ""
    return [
        f"Service level `{first.service}`{meaning}.\n",
        (
            f"Time limit {limits} for each solver. Package version {first.version}; {versions}. Processor: {processors}. "
            f"Twin and profile (`bench.suites.bounds.fingerprint`): {twins}.\n"
        ),
    ]


def _instances(rows: Sequence[Row], names: Sequence[str], solvers: Sequence[str]) -> str:
    bounds, fewest = best_bounds(rows, {}, rows[0].service), fewest_gpus_of(rows)
    cells = {(row.instance, row.solver_label): row for row in rows}
    table = []
    for name in names:
        mine = [cells.get((name, solver)) for solver in solvers]
        one = next(row for row in mine if row is not None)
        bound, best = bounds.get(name), fewest.get(name)
        shown = "" if bound is None else f"**{bound}**" if bound == best else str(bound)
        table.append((name, str(one.n_adapters or ""), _number(one.total_rate, 1), shown, *map(_gpus, mine)))
    return _markdown(("instance", "adapters", "requests/s", "bound", *solvers), table)


def _gpus(row: Row | None) -> str:
    if row is None or row.gpus is None:
        return "-"
    return f"{row.gpus}" if row.feasible else f"{row.gpus}!"


def results_csv(rows: Sequence[Row]) -> str:
    """The rows without placements, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "proven_bound"])
    for row in rows:
        values = [getattr(row, name) for name in COLUMNS]
        writer.writerow([_rounded(value) for value in (*values, proven_bound(row))])
    return text.getvalue()


def _rounded(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _markdown(headings: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *table)) + "\n"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
