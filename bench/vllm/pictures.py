"""The picture of a validation: running and waiting requests over time, measured and simulated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.shared.figures import png_figure
from bench.vllm.comparison import GpuComparison

MEASURED, SIMULATED = "#2a9d8f", "#d1495b"


def draw(comparisons: Sequence[GpuComparison], path: Path, title: str) -> None:
    """Draw one row of two panels per GPU to a PNG file, written atomically.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    with png_figure(path, (11, 1.0 + 1.9 * len(comparisons)), font_size=8.5, dpi=130) as figure:
        figure.suptitle(title, x=0.012, ha="left", fontsize=10.5, fontweight="bold")
        panels = np.asarray(figure.subplots(len(comparisons), 2, squeeze=False))
        for gpu, row in zip(comparisons, panels, strict=True):
            for panel, column in zip(row, ("running", "waiting"), strict=True):
                _curves(panel, gpu, column)
            row[0].set_title(
                f"GPU {gpu.number}: {gpu.mean('throughput'):.0f} measured, {gpu.simulated.throughput:.0f} simulated, "
                f"{gpu.simulated.offered_throughput:.0f} offered tokens/s",
                loc="left",
                fontsize=9,
                fontweight="bold",
            )
        for panel in panels[-1]:
            panel.set_xlabel("seconds")
        panels[0][1].legend(frameon=False, ncols=2, loc="upper left")


def _curves(panel: Any, gpu: GpuComparison, column: str) -> None:  # noqa: ANN401  # matplotlib Axes
    for run, metrics in enumerate(gpu.metrics):
        label = "measured" if run == 0 else None
        panel.plot(metrics.time_s, metrics[column], color=MEASURED, linewidth=1.1, alpha=0.75, label=label)
    panel.plot(gpu.curves.time_s, gpu.curves[column], color=SIMULATED, linewidth=1.1, label="simulated")
    panel.set_ylabel(column)
    highest = max([1.0, float(gpu.curves[column].max()), *(float(m[column].max()) for m in gpu.metrics if len(m))])
    panel.set_ylim(0, 1.08 * highest)
    panel.margins(x=0.01)
