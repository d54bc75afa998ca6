"""Published runs replayed scenario by scenario, so that an interrupted command goes on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.measured.tables import read_written
from bench.measured.twin_beside_runs import COLUMNS, ReplayOptions, profiles_of, replay_runs, write_csv
from twin import UserError


def kept_replays(runs: pd.DataFrame, path: Path, options: ReplayOptions, terminal: Console) -> pd.DataFrame:
    """The twin beside every run; those that the file has are not simulated again.

    Parameters
    ----------
    runs : DataFrame
        As `bench.measured.published.read_runs` gives them.
    path : Path
        A CSV file, written after each scenario.
    options : ReplayOptions
    terminal : Console

    Raises
    ------
    UserError
        If the file is something else, or of other runs or of another seed.
    """
    done = pd.DataFrame(columns=[*COLUMNS, "seed"])
    if path.exists():
        done = read_written(path, "paper", (*COLUMNS, "seed"), key="replays")
        if not (done.seed == options.seed).all() or not set(done.run_id) <= set(runs.run_id):
            raise UserError(f"replays={path}: is of other runs or of another seed; remove it or name another file")
    profiles = profiles_of(runs, None)
    for (model, scenario), group in runs.groupby(["model", "scenario"]):
        missing = group[~group.run_id.isin(done.run_id)]
        if missing.empty:
            continue
        terminal.print(f"replaying {len(missing)} runs of {model}, {scenario}")
        if missing.memory_error.all():
            missing = group
            done = done[~done.run_id.isin(group.run_id)]
        rows = replay_runs(missing, profiles, options, terminal).assign(seed=options.seed)
        done = rows if done.empty else pd.concat([done, rows], ignore_index=True)
        write_csv(done, path)
    return done.set_index("run_id").loc[runs.run_id].reset_index()
