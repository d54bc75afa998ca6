"""Max_pack of real GPUs beside that of the twin, from the runs of each (model, scenario) over adapters and slots."""

from __future__ import annotations

import numpy as np
import pandas as pd


def pairs_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Max_pack of every (model, scenario): the most adapters such that they and every smaller measured count do not starve.

    Parameters
    ----------
    rows : DataFrame
        As `bench.measured.twin_beside_runs.replay_runs` makes them.

    Returns
    -------
    DataFrame
        One row for each pair: adapters, `max_loras` with the most throughput there, and that throughput in tokens/s, of the
        real GPU and of the twin.
    """
    records = []
    for (model, scenario), group in rows.groupby(["model", "scenario"]):
        record: dict[str, object] = {"model": model, "scenario": scenario}
        for side in ("measured", "simulated"):
            record |= {f"{side}_{name}": value for name, value in _largest(group, side).items()}
        records.append(record)
    return pd.DataFrame(records)


def _largest(group: pd.DataFrame, side: str) -> dict[str, object]:
    """Of one pair, by what was measured or by the twin."""
    found: dict[str, object] = {"adapters": 0, "max_loras": 0, "throughput": np.nan}
    for count, points in group.groupby("n_adapters"):
        served = points[~points[f"{side}_starved"]]
        if served.empty:
            break
        _, best = next(served.sort_values(f"{side}_throughput", ascending=False).iterrows())
        found = {"adapters": count, "max_loras": int(best.max_loras), "throughput": best[f"{side}_throughput"]}
    return found


def curves_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Throughput over adapters at one `max_loras`: the last point before the first that starves, of both (0 if that is the first).

    `started` tells the curves on which a real server started at all.

    Parameters
    ----------
    rows : DataFrame
        As in `pairs_table`.
    """
    records = []
    for (model, scenario, slots), group in rows.groupby(["model", "scenario", "max_loras"]):
        points = group.sort_values("n_adapters")
        started = bool((~points.measured_memory_error).any())
        record = {"model": model, "scenario": scenario, "max_loras": slots, "points": len(points), "started": started}
        for side in ("measured", "simulated"):
            before = ~points[f"{side}_starved"].cummax()
            record[f"{side}_adapters"] = int(points.n_adapters[before].max()) if before.any() else 0
        records.append(record)
    return pd.DataFrame(records)
