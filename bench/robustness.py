"""`python -m bench.robustness RESULTS`: whether placements and ranking stand if the twin's profile is off by its fit error.

Every placement is simulated again with profiles whose step-time coefficients are moved at random, by as much as the profile
missed the step times of runs that it was not fitted on. `python -m bench.report` shows the outcome.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from bench.comparison.rows import Row, read_any
from bench.shared.command import command
from bench.shared.files import check_file, check_files, write_table, write_text
from bench.shared.terminal import console, tracked
from bench.statistics.instances import Case, cases
from bench.statistics.summary import by_track
from bench.studies.lines import as_csv
from bench.studies.rank_changes import RankChanges, SolverStability, changes_by_track
from bench.studies.robustness import RobustnessOptions, finished, moved, scores_of, target_beside
from twin import UserError


@dataclass
class RobustnessConfig(RobustnessOptions):
    """Options of `python -m bench.robustness`; `conf/robustness.yaml` says what each is for.

    Attributes
    ----------
    rows : str
        Folder or Parquet file.
    out : str, optional
        Parquet file.
    table, picture : str, optional
        CSV and PNG file.
    samples, seed : int
        Moved profiles for each profile; of the draws.
    error_pct : float, optional
        Mean absolute error of the step time in percent.
    solvers : list of str
        Only these, if any.
    threads : int
        GPUs that are simulated at the same time.
    trust : list of str
        Builders that the rows may name besides those that are known.
    """

    out: str | None = None
    table: str | None = None
    picture: str | None = None
    solvers: list[str] = field(default_factory=list)


@command("robustness", RobustnessConfig, positional="rows")
def main(config: RobustnessConfig) -> None:
    """Simulate, write after each instance, and print how often the order changes."""
    if config.samples < 1:
        raise UserError(f"samples={config.samples} must be 1 or more")
    source = Path(config.rows)
    rows = read_any(source)
    out = check_file("out", config.out or str(target_beside(source)))
    check_files(table=config.table, picture=config.picture)
    chosen = cases([row for row in rows if not config.solvers or row.solver_label in config.solvers])
    _check(config, rows, chosen)
    done = finished(out, config)
    profiles = {name: moved(name, chosen, config) for name in dict.fromkeys(case.key[1] for case in chosen)}
    terminal = console()
    terminal.print(f"{len(chosen)} instances, each placement under {config.samples} moved profiles, seed {config.seed}")
    for case in tracked(chosen, "simulating"):
        if json.dumps(case.key) in done:
            continue
        done[json.dumps(case.key)] = pd.DataFrame(list(scores_of(case, profiles[case.key[1]], config)))
        write_table(pd.concat(done.values(), ignore_index=True), out)
    table = pd.concat([frame for frame in done.values() if len(frame)], ignore_index=True)
    _show(changes_by_track(table), out, config)


def _check(config: RobustnessConfig, rows: Sequence[Row], chosen: Sequence[Case]) -> None:
    """Raise `UserError` for a solver that there is not, and for one table or picture of several tracks."""
    known = {row.solver_label for row in rows}
    for name in config.solvers:
        if name not in known:
            raise UserError(f"solvers={name}: no such solver in the rows; there are {', '.join(sorted(known))}")
    several = by_track(chosen)
    if len(several) > 1 and (config.table or config.picture):
        raise UserError(
            f"rows={config.rows}: {' and '.join(several)}: table and picture are of one of these, give its rows"
        )


def _show(tracks: Mapping[str, RankChanges], out: Path, config: RobustnessConfig) -> None:
    """Print the outcome; write table and picture of the only track."""
    terminal = console()
    for track, changes in tracks.items():
        if len(tracks) > 1:
            terminal.print(track, style="bold")
        for line in changes.in_words():
            terminal.print(line)
        terminal.print(_table(changes))
    terminal.print(f"scores   {out}", soft_wrap=True)
    changes = next(iter(tracks.values()))
    if config.table is not None:
        write_text(Path(config.table), as_csv(SolverStability, changes.solvers))
        terminal.print(f"table    {config.table}", soft_wrap=True)
    if config.picture is not None:
        from bench.studies.robustness_picture import draw

        draw(changes, Path(config.picture))
        terminal.print(f"picture  {config.picture}", soft_wrap=True)


def _table(changes: RankChanges) -> Table:
    """One line for each solver, the best mean rank first."""
    table = Table(header_style="bold")
    for name in (
        "solver",
        "instances",
        "mean cost\n(where feasible)",
        "over the\nleast",
        "feasible",
        "feasible,\nmoved",
    ):
        table.add_column(name, justify="left" if name == "solver" else "right", overflow="fold")
    for line in changes.solvers:
        cost, ratio = ("" if np.isnan(value) else f"{value:.3f}" for value in (line.cost, line.ratio))
        table.add_row(
            line.solver, str(line.instances), cost, ratio, f"{line.feasible:.1%}", f"{line.feasible_moved:.1%}"
        )
    return table


if __name__ == "__main__":
    main()
