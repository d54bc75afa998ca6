"""Running and waiting requests over a run, the twin beside the server's own counts (Figure 9)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.measured.published import read_table, replay, run_of_row
from bench.measured.tables import read_frame
from bench.shared.figures import PALE, png_figure
from twin import UserError, engine, load_profile

_COLUMNS = ("run_id", "series_file", "series_active_start_s", "series_mean_running")


def chosen_runs(runs: pd.DataFrame) -> list[str]:
    """A run of each model whose client had ports throughout: of those that starved, if any did, the one with the most requests running.

    Parameters
    ----------
    runs : DataFrame
        As `bench.measured.published.read_runs` gives them.
    """
    usable = runs[~runs.port_exhaustion & ~runs.memory_error & runs.series_mean_running.notna()]
    starved = usable.starved_est.map(str).str.lower() == "true"
    order = usable.assign(starved=starved).sort_values(["model", "starved", "series_mean_running"])
    return [str(run_id) for run_id in order.drop_duplicates("model", keep="last").run_id]


def over_time_table(
    folder: str, runs: pd.DataFrame, run_ids: list[str], profiles: dict[str, str], seed: int
) -> pd.DataFrame:
    """Requests running and waiting at the times at which the server was asked.

    Parameters
    ----------
    folder : str
        With `runs.csv` and `series/`.
    runs : DataFrame
        As `bench.measured.published.read_runs` gives them.
    run_ids : list of str
    profiles : dict
        Names, by model.
    seed : int
        Of the simulated requests: when each came in the real run is not known.

    Raises
    ------
    UserError
        If a run or its series is missing.
    """
    places = read_table(folder, "runs.csv", _COLUMNS)
    parts = []
    for run_id in run_ids:
        _, place = next(places[places.run_id == run_id].iterrows())
        _, row = next(runs[runs.run_id == run_id].iterrows())
        path = Path(folder) / "series" / str(place.series_file)
        series = read_frame(path, "the series of published runs")
        series = series[series.run_id == run_id]
        if series.empty:
            raise UserError(f"{path}: no series of run {run_id} in it")
        profile = load_profile(profiles[row.model])
        samples = replay(run_of_row(row, profile, seed=seed), profile, sample_every_s=1.0).samples
        times = series.t_s.to_numpy(dtype=float) - float(place.series_active_start_s)
        inside = (times >= 0) & (times <= float(row.total_time_s))
        at = np.searchsorted(samples[:, engine.SAMPLE_START], times[inside], side="right") - 1
        seen = samples[np.maximum(at, 0)]
        parts.append(
            pd.DataFrame(
                {
                    "model": row.model,
                    "run_id": run_id,
                    "t_s": times[inside],
                    "measured_running": series.running.to_numpy()[inside],
                    "simulated_running": seen[:, engine.SAMPLE_RUNNING],
                    "measured_waiting": series.waiting.to_numpy()[inside],
                    "simulated_waiting": seen[:, engine.SAMPLE_WAITING],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def draw(table: pd.DataFrame, path: Path) -> None:
    """A column of panels for each run: running above, waiting below.

    Parameters
    ----------
    table : DataFrame
        As `over_time_table` makes it.
    path : Path
        A PNG file.
    """
    names = list(table.run_id.unique())
    with png_figure(path, (5.2 * len(names), 5.2)) as figure:
        panels = figure.subplots(2, len(names), squeeze=False, sharex=True)
        for column, name in enumerate(names):
            run = table[table.run_id == name]
            for panel, what in zip(panels[:, column], ("running", "waiting"), strict=True):
                panel.plot(run.t_s / 60, run[f"measured_{what}"], color=PALE, lw=2.2, label="real GPU")
                panel.plot(run.t_s / 60, run[f"simulated_{what}"], color="#e4572e", lw=1, label="twin")
                panel.set_ylabel(f"requests {what}")
                panel.set_ylim(bottom=0)
            panels[0, column].set_title(name, fontsize=8)
            panels[1, column].set_xlabel("minutes")
        panels[0, 0].legend(frameon=False)


def errors_table(table: pd.DataFrame) -> pd.DataFrame:
    """Means over each run: requests running and waiting, measured and simulated, and the mean distance of the two curves.

    Parameters
    ----------
    table : DataFrame
        As `over_time_table` makes it.
    """
    records = []
    for (model, run_id), run in table.groupby(["model", "run_id"]):
        record: dict[str, object] = {"model": model, "run_id": run_id, "times": len(run)}
        for what in ("running", "waiting"):
            measured, simulated = run[f"measured_{what}"], run[f"simulated_{what}"]
            record |= {
                f"measured_{what}": measured.mean(),
                f"simulated_{what}": simulated.mean(),
                f"distance_{what}": (measured - simulated).abs().mean(),
            }
        records.append(record)
    return pd.DataFrame(records)
