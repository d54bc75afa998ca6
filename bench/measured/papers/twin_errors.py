"""Errors and time of the published twin and of this one on the same runs (Tables 1 and 2)."""

from __future__ import annotations

import pandas as pd

from predictors.errors import smape

#: How the published twin got its requests.
KINDS = {"replay_of_real_arrivals": "arrivals replayed", "from_scratch": "arrivals drawn"}

_FIGURES = {
    "throughput": ("dt_total_throughput", "real_total_throughput", ""),
    "itl": ("dt_itl_ms", "real_mean_itl_ms", "_ms"),
    # The published twin counts requests that were not finished too.
    "ttft": ("dt_ttft_ms", "real_mean_ttft_all_ms", "_ms"),
}


def errors_table(rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Errors in percent, |s - m| / (|s| + |m|), by model and by how the published twin got its requests.

    Parameters
    ----------
    rows : DataFrame
        As `bench.measured.twin_beside_runs.replay_runs` makes them.
    published : DataFrame
        The published twin, by run.

    Returns
    -------
    DataFrame
        `throughput`, `itl`, `ttft` of each; absent where the published twin has no such figure.
    """
    both = _common(rows, published)
    records = []
    for (model, kind), group in both.groupby(["model", "sim_kind"]):
        record: dict[str, object] = {"model": model, "arrivals": KINDS.get(str(kind), kind), "runs": len(group)}
        for name, (theirs, real, unit) in _FIGURES.items():
            record[f"{name}_published_twin"] = smape(group[theirs], group[real])
            record[f"{name}_this_twin"] = smape(group[f"simulated_{name}{unit}"], group[f"measured_{name}{unit}"])
        records.append(record)
    return pd.DataFrame(records)


def times_table(rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Seconds to simulate a run of an hour, over the runs that the published twin has a time for.

    Parameters
    ----------
    rows, published : DataFrame
        As in `errors_table`.

    Returns
    -------
    DataFrame
        Mean, median and most. `this_twin_cpu_s` is CPU time, which other work on the machine hardly moves; the published time is
        wall time on another machine.
    """
    both = _common(rows, published)
    columns = {"published_twin_wall_s": both.dt_wall_s, "this_twin_cpu_s": both.cpu_s, "this_twin_wall_s": both.wall_s}
    return pd.DataFrame(
        [
            {
                "engine": name,
                "runs": len(values),
                "mean_s": values.mean(),
                "median_s": values.median(),
                "most_s": values.max(),
            }
            for name, values in columns.items()
        ]
    )


def _common(rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    served = rows[~rows.measured_memory_error].set_index("run_id")
    columns = ["sim_kind", "dt_wall_s", *(name for theirs, real, _ in _FIGURES.values() for name in (theirs, real))]
    both = served.join(published[columns])
    return both[both.dt_wall_s.notna()]
