"""`python -m bench.regress`: runs the cells of a reference again and fails where something has become worse, or just different."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.table import Table
from rich.text import Text

from bench.comparison.cell import Cell
from bench.comparison.differences import (
    CUT_SHORT,
    Difference,
    either_cut_short,
    faster,
    figure_differences,
    markdown,
    missing_figures,
    time_differences,
    verdict,
)
from bench.comparison.execution import Execution, run_cells
from bench.comparison.machine import processor
from bench.comparison.rows import Row, read_rows, write_rows
from bench.reporting.publish import check_targets
from bench.shared.command import command
from bench.shared.files import check_file, write_bytes
from bench.shared.terminal import console
from twin import UserError

#: Exit code where something has changed.
REGRESSION = 1

CHECKS = ("figures", "time")
TIMES = ("auto", "always")


@dataclass
class RegressConfig:
    """Options of `python -m bench.regress`.

    Attributes
    ----------
    reference : str
        Rows to compare with.
    check : list of str
        What is compared: figures (exactly, unless time has cut the solver short), time (with a margin).
    time : str
        When times are compared: auto (the reference is of a processor of the same model) or always.
    time_margin : float
        0.25 lets a solver become a quarter slower.
    time_floor_ms : float
        Differences below it are noise.
    retries : int
        How often a candidate that seems slower is timed again.
    margin_s : float
        As in `python -m bench`.
    trust : list of str
        Solvers, objectives and builders that the reference may name besides those that are known.
    out, summary : str, optional
        Parquet file for the rows of this run, Markdown file for the differences.
    update, yes : bool
        Write the rows of this run as the new reference; without being asked.
    """

    reference: str = "results/reference/ci.parquet"
    check: list[str] = field(default_factory=lambda: list(CHECKS))
    time: str = "auto"
    time_margin: float = 0.25
    time_floor_ms: float = 25.0
    retries: int = 3
    margin_s: float = 60.0
    trust: list[str] = field(default_factory=list)
    out: str | None = None
    summary: str | None = None
    update: bool = False
    yes: bool = False


@command("regress", RegressConfig)
def main(config: RegressConfig) -> None:
    """Run, compare, tell, and exit with `REGRESSION` where the gate must not let it through."""
    _check(config)
    reference = read_rows(Path(config.reference))
    cells = _cells(reference, config)
    execution = Execution(margin_s=config.margin_s)
    judged, note = _judges_time(reference, config)
    if not judged and not config.out and not config.update:
        # Repeats are there for the least of their times; rows that are written say how they were made.
        cells = [replace(cell, repeats=1) for cell in cells]
    rows = run_cells(cells, execution)
    if judged:
        rows = _timed_again(cells, reference, rows, execution, config)
    found = [
        difference
        for before, now in zip(reference, rows, strict=True)
        for difference in _compared(before, now, config, judged)
    ]
    notes = [f"reference {config.reference}", *note, *_left_out(reference, config)]
    cut_short = sum(either_cut_short(before, now) for before, now in zip(reference, rows, strict=True))
    _tell(found, len(rows), notes, cut_short)
    if config.out:
        write_rows(rows, Path(config.out))
    if config.summary:
        _append(Path(config.summary), markdown(found, len(rows), notes, cut_short=cut_short))
    if config.update:
        _update(found, rows, config)
    elif any(difference.fails for difference in found):
        raise SystemExit(REGRESSION)


def _check(config: RegressConfig) -> None:
    check_targets(config.out, None)
    if config.summary:
        check_file("summary", config.summary)
    if config.update:
        check_file("reference", config.reference)
    if unknown := set(config.check) - set(CHECKS):
        raise UserError(f"check={min(unknown)}: must be some of {', '.join(CHECKS)}")
    if not config.check:
        raise UserError("check=[]: nothing is left to compare")
    if config.time not in TIMES:
        raise UserError(f"time={config.time}: must be one of {', '.join(TIMES)}")
    if config.time_margin < 0 or config.time_floor_ms < 0 or config.retries < 0:
        raise UserError("time_margin, time_floor_ms and retries must be 0 or more")


def _cells(reference: Sequence[Row], config: RegressConfig) -> list[Cell]:
    """What to run, so that row for row can be compared."""
    name = config.reference
    if not reference:
        raise UserError(f"reference={name}: holds no rows")
    if any(not row.cell for row in reference):
        raise UserError(
            f"reference={name}: its rows do not say what they were made from; make it anew with python -m bench"
        )
    return [Cell.from_json(row.cell, f"reference={name}", trust=config.trust) for row in reference]


def _judges_time(reference: Sequence[Row], config: RegressConfig) -> tuple[bool, list[str]]:
    """Whether times are compared, and a note on why not."""
    if "time" not in config.check:
        return False, ["times are not compared (check)"]
    if any(row.calibration_s is None for row in reference):
        return False, ["times are not compared: the reference was made without the calibration loop"]
    theirs = {row.processor for row in reference}
    if config.time == "auto" and theirs != {processor()}:
        return False, [
            f"times are not compared: the reference is of {', '.join(sorted(theirs))}, this is {processor()}"
        ]
    return True, []


def _compared(before: Row, now: Row, config: RegressConfig, judged: bool) -> list[Difference]:
    found = figure_differences(before, now) if "figures" in config.check else []
    return found + (_slower(before, now, config) if judged else [])


def _slower(before: Row, now: Row, config: RegressConfig) -> list[Difference]:
    return time_differences(before, now, config.time_margin, config.time_floor_ms / 1000)


def _timed_again(
    cells: Sequence[Cell], reference: Sequence[Row], rows: Sequence[Row], execution: Execution, config: RegressConfig
) -> list[Row]:
    """The rows, each with the best of its times; what seems slower may have been disturbed, so it is timed again."""
    best = list(rows)
    for _ in range(config.retries):
        doubtful = [i for i, row in enumerate(best) if any(d.fails for d in _slower(reference[i], row, config))]
        if not doubtful:
            break
        for index, row in zip(doubtful, run_cells([cells[i] for i in doubtful], execution), strict=True):
            best[index] = faster(best[index], row)
    return best


def _left_out(reference: Sequence[Row], config: RegressConfig) -> list[str]:
    """What cannot be compared because the release that wrote the reference did not have it."""
    names = dict.fromkeys(name for row in reference for name in missing_figures(row))
    if not names or "figures" not in config.check:
        return []
    return [f"not compared, the reference being older than these figures: {', '.join(names)}"]


def _tell(found: Sequence[Difference], candidates: int, notes: Sequence[str], cut_short: int) -> None:
    terminal = console()
    if plain := [difference for difference in found if not difference.cut_short]:
        terminal.print(_table(plain))
    if timed := [difference for difference in found if difference.cut_short]:
        terminal.print(f"{CUT_SHORT}: what these find depends on the machine", style="bold")
        terminal.print(_table(timed))
    for note in notes:
        terminal.print(note, style="dim", soft_wrap=True)
    counted = f"; {cut_short} of them {CUT_SHORT}" if cut_short else ""
    terminal.print(f"{candidates} candidates: {verdict(sum(difference.fails for difference in found))}{counted}")


def _table(differences: Sequence[Difference]) -> Table:
    table = Table("", "solver", "workload", "seed", "figure", "reference", "now", header_style="bold")
    for d in differences:
        style = "red" if d.fails else "yellow" if d.cut_short else "green"
        table.add_row(Text(d.verdict, style=style), d.solver, d.workload, str(d.seed), d.figure, d.before, d.now)
    return table


def _append(path: Path, text: str) -> None:
    """Add to a file, as a job summary wants it."""
    before = path.read_bytes() if path.exists() else b""
    write_bytes(path, before + text.encode(), f"summary={path}")


def _update(found: Sequence[Difference], rows: Sequence[Row], config: RegressConfig) -> None:
    """Write the rows as the new reference, after the differences have been shown."""
    if not config.yes:
        if not sys.stdin.isatty():
            raise UserError("update=true asks before it writes, and there is nobody to ask: add yes=true")
        count = f"{len(found)} differences" if found else "no difference but in times"
        if input(f"write {config.reference} ({count})? [y/N] ").strip().lower() not in ("y", "yes"):
            raise UserError(f"{config.reference} is left as it was")
    write_rows(rows, Path(config.reference))
    console().print(f"written  {config.reference}", soft_wrap=True)


if __name__ == "__main__":
    main()
