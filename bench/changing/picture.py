"""The picture of a day: GPUs in use under each controller, and the load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.changing.rows import BOUND, PICTURED_S, DayRow
from bench.shared.figures import PALE, png_figure


def draw(rows: Sequence[DayRow], path: Path) -> None:
    """GPUs over time for each controller of one day, over the bound; the load below.

    Parameters
    ----------
    rows : sequence of DayRow
        Of one day.
    path : Path
        PNG file.
    """
    with png_figure(path, (8.0, 5.4), font_size=9.5) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        for row in rows:
            hours = np.arange(len(row.gpus_over_time)) * PICTURED_S / 3600
            if row.controller == BOUND:
                top.fill_between(
                    hours, row.gpus_over_time, step="post", color=PALE, alpha=0.3, label="bound", linewidth=0
                )
            else:
                label = f"{row.controller} ({row.gpu_hours:.0f} h, {row.goodput:.1%})"
                top.step(hours, row.gpus_over_time, where="post", label=label, linewidth=1.2)
        load = rows[0].load_over_time
        bottom.plot(np.arange(len(load)) * PICTURED_S / 3600, load, color=PALE, linewidth=1.0)
        top.set_ylabel("GPUs paid for")
        top.set_ylim(bottom=0)
        top.set_title(f"workload {rows[0].workload}, seed {rows[0].seed} (GPU-hours, goodput)", loc="left", fontsize=10)
        top.legend(frameon=False, ncols=2, fontsize=8)
        bottom.set_ylabel("requests/s")
        bottom.set_xlabel("hour")
        bottom.set_ylim(bottom=0)
