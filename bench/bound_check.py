"""`python -m bench.bound_check RESULTS`: whether what the twin accepts contradicts the bounds that `exact` proves with it.

A bound rests on contents of a GPU that starve beyond doubt, and on everything that asks for more starving too (`solvers.zones.bound`). Both
hold up to the chance of single requests, so both are put to the test on contents that were not asked about: those of all feasible
placements in the rows, those with replicas among them, and, to look for luck on purpose, what these become when adapters
and shares of them are exchanged for busier ones, at any `max_loras`, as long as the twin accepts it. The bound's prices say that no
accepted content costs more than 1.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import MISSING
from rich.table import Table

from bench.comparison.rows import read_any
from bench.shared.command import command
from bench.shared.files import check_files, write_text
from bench.shared.terminal import console, tracked
from bench.statistics.instances import cases
from bench.studies.bound_check import BoundCheckOptions, CheckedBound, check, key_of, served, settings_of
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
    table: str | None = None


@command("bound_check", BoundCheckConfig, positional="rows")
def main(config: BoundCheckConfig) -> None:
    """Bound each instance anew, collect contents, compare; exit code 3 if a bound in whole GPUs is refuted."""
    for name, least in (("seconds", 0.0), ("gpus", 0), ("exchanges", 0)):
        if getattr(config, name) < least:
            raise UserError(f"{name}={getattr(config, name)} must be {least:g} or more")
    check_files(table=config.table)
    found = cases(read_any(Path(config.rows)))
    known = {case.key[0] for case in found}
    for name in config.instances:
        if name not in known:
            raise UserError(f"instances={name}: no such instance in the rows; there are {', '.join(sorted(known))}")
    chosen = [case for case in found if served(case) and (not config.instances or case.key[0] in config.instances)]
    terminal = console()
    terminal.print(
        f"{len(chosen)} instances with feasible placements, {config.seconds:g} s for each bound, seed {config.seed}"
    )
    done = {} if config.table is None else _done(Path(config.table), config)
    for case in tracked(chosen, "checking"):
        if key_of(case) not in done:
            done[key_of(case)] = check(case, config)
        if config.table is not None:
            write_text(Path(config.table), _csv(done.values()))
    checked = [done[key_of(case)] for case in chosen]
    terminal.print(_table(checked))
    total = sum(each.accepted + each.lucky for each in checked)
    lower = [each.instance for each in checked if each.is_lower]
    terminal.print(
        f"{total} accepted contents: {sum(each.ruled_out for each in checked)} ask for as much as a cut, "
        f"{sum(each.refuting for each in checked)} cost more than 1; in whole GPUs that lowers {len(lower)} bounds"
    )
    if config.table is not None:
        terminal.print(f"table    {config.table}", soft_wrap=True)
    if lower:
        terminal.print(f"refuted  {', '.join(lower)}")
        sys.exit(3)


def _done(table: Path, config: BoundCheckConfig) -> dict[tuple[str, int], CheckedBound]:
    """Instances that an earlier, interrupted run has finished."""
    if not table.exists():
        return {}
    frame = pd.read_csv(table)
    for name, value in settings_of(config).items():
        if name not in frame or not np.isclose(frame[name], value).all():
            raise UserError(f"table={table}: holds lines made with another {name}; remove it or name another file")
    names = [each.name for each in fields(CheckedBound)]
    if lacking := [name for name in names if name not in frame]:
        raise UserError(
            f"table={table}: has no column {lacking[0]}: another release made it; remove it or name another file"
        )
    lines = [CheckedBound(*values) for values in frame[names].itertuples(index=False)]
    return {(line.instance, line.workload_seed): line for line in lines}


def _table(checked: Sequence[CheckedBound]) -> Table:
    table = Table(header_style="bold")
    for name in (
        "instance",
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
        table.add_column(name, justify="left" if name == "instance" else "right", overflow="fold")
    for each in checked:
        table.add_row(
            each.instance, f"{each.bound:.3f}", str(each.fewest), str(each.cuts), str(each.accepted), str(each.lucky),
            str(each.divided), str(each.ruled_out), f"{each.dearest:.3f}", str(each.refuting),
        )  # fmt: skip
    return table


def _csv(checked: Iterable[CheckedBound]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([each.name for each in fields(CheckedBound)])
    for line in checked:
        writer.writerow([f"{value:.4f}" if isinstance(value, float) else value for value in asdict(line).values()])
    return text.getvalue()


if __name__ == "__main__":
    main()
