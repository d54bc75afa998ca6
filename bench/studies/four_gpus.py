"""Methods beside each other on a given fleet, over more and more adapters (Figures 10 to 12 of arXiv 2602.24044)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from bench.comparison.rows import Row


def fleet_table(rows: Iterable[Row]) -> pd.DataFrame:
    """One line for each profile, adapter count and solver.

    Parameters
    ----------
    rows : iterable of Row
        Of one seed.

    Returns
    -------
    DataFrame
        GPUs used, whether the twin calls the placement feasible, throughput over offered, latencies in milliseconds; empty cells
        where there is no placement.
    """
    lines = [
        {
            "profile": row.profile,
            "adapters": row.n_adapters,
            "solver": row.solver,
            "status": row.status,
            "feasible": row.feasible,
            "gpus": row.gpus,
            "throughput_share": None
            if row.throughput is None or not row.offered_throughput
            else row.throughput / row.offered_throughput,
            "itl_ms": row.itl_ms,
            "ttft_ms": row.ttft_ms,
            "e2e_ms": row.e2e_ms,
        }
        for row in rows
    ]
    return pd.DataFrame(lines).sort_values(["profile", "adapters", "solver"], ignore_index=True)


def saving_table(table: pd.DataFrame, solvers: tuple[str, ...], fleet: int) -> pd.DataFrame:
    """What a solver saves of the fleet that the other methods always use.

    Parameters
    ----------
    table : DataFrame
        As `fleet_table` makes it.
    solvers : tuple of str
    fleet : int
        GPUs.

    Returns
    -------
    DataFrame
        For each solver: the loads (profile and adapters), on how many of them it is feasible and the mean saving there in percent; the same
        over the loads on which every one of the other methods is feasible.
    """
    served = table[table.feasible.astype(bool)]
    loads = ["profile", "adapters"]
    others = table[~table.solver.isin(solvers)]
    by_all = others.groupby(loads).feasible.all()
    shared_loads = set(by_all[by_all].index)
    records = []
    for solver in solvers:
        mine = served[served.solver == solver]
        shared = mine[[key in shared_loads for key in zip(mine.profile, mine.adapters, strict=True)]]
        records.append(
            {
                "solver": solver,
                "loads": len(by_all),
                "feasible_on": len(mine),
                "saving_pct": (1 - mine.gpus.astype(float) / fleet).mean() * 100,
                "all_others_feasible_on": len(shared_loads),
                "feasible_there": len(shared),
                "saving_there_pct": (1 - shared.gpus.astype(float) / fleet).mean() * 100,
            }
        )
    return pd.DataFrame(records)


def fewest_table(rows: Iterable[Row]) -> pd.DataFrame:
    """GPUs of every solver on every instance of a suite.

    Parameters
    ----------
    rows : iterable of Row
    """
    lines = [
        {"instance": row.instance, "solver": row.solver, "feasible": row.feasible, "gpus": row.gpus} for row in rows
    ]
    return pd.DataFrame(lines).sort_values(["instance", "solver"], ignore_index=True)


def fair_saving_table(table: pd.DataFrame, solvers: tuple[str, ...], against: str) -> pd.DataFrame:
    """What solvers save against one other where each takes the fewest GPUs that it serves on.

    Parameters
    ----------
    table : DataFrame
        As `fewest_table` makes it.
    solvers : tuple of str
    against : str

    Returns
    -------
    DataFrame
        For each solver and each kind of rates (`low`, `high`, `mixed` in the name of the instance; `paper` for the unnamed), and for
        all: instances on which both are feasible, the mean of 1 - GPUs / GPUs of the other in percent, and the GPUs of both.
    """
    gpus = table[table.feasible.astype(bool)].pivot(index="instance", columns="solver", values="gpus")  # noqa: PD010  # no two of a pair
    records = []
    for solver in solvers:
        both = gpus[[solver, against]].dropna().astype(float)
        kind = both.index.str.extract("-(low|high|mixed)-", expand=False).fillna("paper")
        groups = [(str(name), both[kind == name]) for name in sorted(set(kind))]
        for name, group in [*groups, ("all", both)]:
            saving = (1 - group[solver] / group[against]).mean() * 100
            records.append(
                {
                    "solver": solver,
                    "against": against,
                    "rates": name,
                    "instances": len(group),
                    "saving_pct": saving,
                    "gpus": group[solver].sum(),
                    "gpus_against": group[against].sum(),
                }
            )
    return pd.DataFrame(records)
