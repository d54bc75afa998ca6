"""`python -m bench.bound_check RESULTS`: whether what the twin accepts contradicts the bounds that `exact` proves with it.

A bound rests on contents of a GPU that starve beyond doubt, and on everything that asks for more starving too (`solvers.zones.bound`). Both
hold up to the chance of single requests, so both are put to the test on contents that were not asked about: those of all feasible
placements in the rows, those with replicas among them, and, to look for luck on purpose, what these become when adapters
and shares of them are exchanged for busier ones, at any `max_loras`, as long as the twin accepts it. The bound's prices say that no
accepted content costs more than 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from omegaconf import MISSING
from rich.table import Table

from bench.comparison.rows import read_any
from bench.shared.command import command
from bench.shared.files import check_files
from bench.shared.terminal import console, tracked
from bench.statistics.instances import cases
from bench.studies.bound_check import KEY, SETTINGS, BoundCheckOptions, CheckedBound, check, key_of, name_of, served
from bench.studies.lines import StudyLines
from twin import UserError


@dataclass
class BoundCheckConfig(BoundCheckOptions):
    """Options of `python -m bench.bound_check`; `conf/bound_check.yaml` says what each is for.

    Attributes
    ----------
    rows : str
        Folder or Parquet file.
    instances : list of str
        Only these, if any.
    adapters : int
        Only instances of at most so many.
    seconds : float
        For the bound of an instance.
    gpus, exchanges, seed : int
        GPUs from which luck is looked for, and exchanges tried on each; of the draws.
    trust : list of str
        Builders that the rows may name besides those that are known.
    table : str, optional
        CSV file.
    """

    rows: str = MISSING
    instances: list[str] = field(default_factory=list)
    adapters: int = 1_000_000
    table: str | None = None


@command("bound_check", BoundCheckConfig, positional="rows")
def main(config: BoundCheckConfig) -> None:
    """Bound each instance anew, collect contents, compare; exit code 3 if a bound in whole GPUs is refuted."""
    for name, least in (("seconds", 0.0), ("gpus", 0), ("exchanges", 0), ("adapters", 1)):
        if getattr(config, name) < least:
            raise UserError(f"{name}={getattr(config, name)} must be {least:g} or more")
    check_files(table=config.table)
    found = cases(read_any(Path(config.rows)))
    known = {name_of(case) for case in found}
    for name in config.instances:
        if name not in known:
            raise UserError(f"instances={name}: no such instance in the rows; there are {', '.join(sorted(known))}")
    chosen = [
        case
        for case in found
        if served(case)
        and (not config.instances or name_of(case) in config.instances)
        and (case.rows[0].n_adapters or 0) <= config.adapters
    ]
    terminal = console()
    terminal.print(
        f"{len(chosen)} instances with feasible placements, {config.seconds:g} s for each bound, seed {config.seed}"
    )
    lines = StudyLines(CheckedBound, config.table, KEY, config, SETTINGS)
    checked = [lines.line(key_of(case), partial(check, case, config)) for case in tracked(chosen, "checking")]
    terminal.print(_table(checked))
    total = sum(each.accepted + each.lucky for each in checked)
    lower = [f"{each.instance} ({each.service})" for each in checked if each.is_lower]
    terminal.print(
        f"{total} accepted contents: {sum(each.ruled_out for each in checked)} ask for as much as a cut, "
        f"{sum(each.refuting for each in checked)} cost more than 1; in whole GPUs that lowers {len(lower)} bounds"
    )
    if config.table is not None:
        terminal.print(f"table    {config.table}", soft_wrap=True)
    if lower:
        terminal.print(f"refuted  {', '.join(lower)}")
        sys.exit(3)


def _table(checked: Sequence[CheckedBound]) -> Table:
    table = Table(header_style="bold")
    for name in (
        "instance",
        "service",
        "bound",
        "fewest",
        "cuts",
        "accepted",
        "lucky",
        "with\nshares",
        "as much\nas a cut",
        "dearest",
        "over 1",
    ):
        table.add_column(name, justify="left" if name in ("instance", "service") else "right", overflow="fold")
    for each in checked:
        table.add_row(
            each.instance, each.service, f"{each.bound:.3f}", str(each.fewest), str(each.cuts), str(each.accepted), str(each.lucky),
            str(each.divided), str(each.ruled_out), f"{each.dearest:.3f}", str(each.refuting),
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
