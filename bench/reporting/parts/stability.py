"""Whether the ranking would stand if the twin were off by its own error."""

from __future__ import annotations

import shlex
from pathlib import Path

import pandas as pd

from bench.measured.tables import read_written
from bench.reporting.content import Code, Column, Entry, Part, Table, number, slug, words
from bench.studies.rank_changes import SolverStability, changes_by_track


def stability(scores: Path | None) -> Part | None:
    """What `python -m bench.robustness` found; None where it was not run.

    Raises
    ------
    UserError
        If the file holds something else.
    """
    if scores is None:
        return None
    needed = ("instance", "objective", "solver", "sample", "feasible", "cost")
    table = read_written(scores, "robustness", needed, key="robustness")
    lines: list[str] = []
    blocks: list[Table | Code] = []
    tracks = changes_by_track(table)
    several = len(tracks) > 1
    for track, changes in tracks.items():
        lines += [f"{track}: {line}" if several else line for line in changes.in_words()]
        blocks.append(
            Table(
                f"robustness-{slug(track)}" if several else "robustness",
                f"Solvers under moved profiles, {track}" if several else "Solvers under moved profiles",
                _COLUMNS,
                tuple(_line(solver) for solver in changes.solvers),
            )
        )
    blocks.append(Code("These figures come from", (_command(table),)))
    return Part(
        "robustness",
        "Robustness",
        (
            (
                "Every placement was simulated again under versions of the serving profile whose step-time coefficients are moved at "
                "random, so that the step times are off by as much as the profile missed those of runs left out of the fit."
            ),
            *lines,
        ),
        tuple(blocks),
    )


_COLUMNS = (
    Column("Solver", numeric=False),
    Column("Mean rank", "under the profile itself; equal GPUs share a rank"),
    Column("Least", "of the mean ranks under the moved profiles"),
    Column("Largest", "the same"),
    Column("Feasible, %", "under the profile itself"),
    Column("Feasible, moved, %", "under the moved profiles"),
    Column("Verdicts kept, %", "feasible or not, as under the profile itself"),
)


def _command(table: pd.DataFrame) -> str:
    """The command that made the scores, as far as they tell."""
    options = [
        f"{name}={table[name].iloc[0]:g}"
        for name in ("samples", "seed", "error_pct")
        if name in table and table[name].iloc[0] >= 0
    ]
    options.append(f"solvers=[{','.join(sorted(table.solver.unique()))}]")
    return shlex.join(["python", "-m", "bench.robustness", "RESULTS", *options])


def _line(solver: SolverStability) -> tuple[Entry, ...]:
    return (
        words(solver.solver, solver=solver.solver),
        number(solver.mean_rank, 2),
        number(solver.lowest_rank, 2),
        number(solver.highest_rank, 2),
        number(solver.feasible, 1, scale=100),
        number(solver.feasible_moved, 1, scale=100),
        number(solver.verdicts_kept, 1, scale=100),
    )
