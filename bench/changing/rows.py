"""A row for each controller and day: what it cost, what it served."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.shared.files import write_table, write_text
from twin import UserError

#: Name of the row of the bound.
BOUND = "(bound)"
#: Step of what is kept for the picture.
PICTURED_S = 300.0


@dataclass(frozen=True)
class DayRow:
    """What came of one controller on one day.

    Attributes
    ----------
    question : str
        Identity of everything that decided the row.
    controller, workload, service, profile : str
    seed, adapters, requests : int
        Of the day.
    gpu_hours, cost : float
        Paid for, and at the price.
    over_bound : float
        GPU-hours over those of the bound; NaN where none was looked for.
    most_gpus : float
        Mean of the busiest five minutes.
    goodput : float
    starved_minutes : int
        Minutes of an adapter in which too few of its requests met every limit.
    moves_per_adapter : float
        Loads of adapters onto servers where they were not, per adapter and day of 24 hours.
    memory_errors : int
    deciding_cpu_s, simulating_cpu_s : float
    gpus_over_time, load_over_time : list of float
        GPUs paid for and requests per second, every `PICTURED_S`.
    """

    question: str
    controller: str
    workload: str
    service: str
    profile: str
    seed: int
    adapters: int
    requests: int
    gpu_hours: float
    cost: float
    over_bound: float
    most_gpus: float
    goodput: float
    starved_minutes: int
    moves_per_adapter: float
    memory_errors: int
    deciding_cpu_s: float
    simulating_cpu_s: float
    gpus_over_time: list[float]
    load_over_time: list[float]


def read_days(path: Path) -> list[DayRow]:
    """Rows of an earlier run; none where there is no file.

    Raises
    ------
    UserError
        For another file.
    """
    if not path.exists():
        return []
    names = [each.name for each in fields(DayRow)]
    try:
        table = pd.read_parquet(path)
        if list(table.columns) != names:
            raise UserError(
                f"out={path.parent}: {path.name} holds no rows of this release; remove it or name another folder"
            )
        return [DayRow(**_plain(record)) for record in table.to_dict("records")]
    except (OSError, pa.ArrowException, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"out={path.parent}: {path.name} holds no rows ({reason}); remove it or name another folder"
        ) from None


def _plain(record: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(name): np.asarray(value).tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in record.items()
    }


def write_days(rows: Sequence[DayRow], folder: Path) -> None:
    """Write rows.parquet and online.csv, each whole or not at all."""
    write_table(pa.Table.from_pylist([asdict(row) for row in rows]), folder / "rows.parquet")
    shown = [each.name for each in fields(DayRow) if not each.name.endswith("over_time") and each.name != "question"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(shown)
    for row in rows:
        values = [getattr(row, name) for name in shown]
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
    write_text(folder / "online.csv", text.getvalue())


def in_words(rows: Sequence[DayRow], share: float = 0.995) -> str:
    """One sentence of verdict: who serves nearly everything for the fewest GPU-hours.

    Parameters
    ----------
    rows : sequence of DayRow
    share : float
        Goodput that counts as nearly everything.
    """
    means: dict[str, tuple[float, float, float, float]] = {}
    for name in dict.fromkeys(row.controller for row in rows if row.controller != BOUND):
        mine = [row for row in rows if row.controller == name]
        hours, goodput, moves, over = (
            float(np.mean([getattr(row, field) for row in mine]))
            for field in ("gpu_hours", "goodput", "moves_per_adapter", "over_bound")
        )
        means[name] = (hours, goodput, moves, over)
    good = {name: values for name, values in means.items() if values[1] >= share}
    if not good:
        best = max(means, key=lambda name: means[name][1])
        return f"No controller reaches a goodput of {share:.1%}; {best} comes nearest with {means[best][1]:.2%}."
    best = min(good, key=lambda name: good[name][0])
    hours, goodput, moves, over = good[best]
    beside = "" if np.isnan(over) else f", {over - 1:.0%} above the bound"
    return (
        f"{best} needs the fewest GPU-hours of those with a goodput of at least {share:.1%}: {hours:.0f} a day{beside}, goodput "
        f"{goodput:.2%}, {moves:.1f} moves per adapter and day."
    )
