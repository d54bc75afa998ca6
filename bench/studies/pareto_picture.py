"""The picture of `python -m bench.pareto`: GPUs against latency, with the front drawn as steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.shared.figures import INK, MARKERS, png_figure

if TYPE_CHECKING:
    from bench.studies.pareto import Candidate

LABELS = {
    "e2e_ms": "mean end-to-end latency (s)",
    "itl_ms": "mean inter-token latency (ms)",
    "ttft_ms": "mean TTFT (s)",
}


def draw(found: Sequence[Candidate], metric: str, path: Path) -> None:
    """Draw feasible candidates, the front, and as crosses below the axis the fleets on which a solver starves somebody.

    Parameters
    ----------
    found : sequence of Candidate
    metric : {"e2e_ms", "itl_ms", "ttft_ms"}
    path : Path
        PNG file.
    """
    import matplotlib as mpl

    scale = 1.0 if metric == "itl_ms" else 1e-3
    solvers = list(dict.fromkeys(one.row.solver_label for one in found))
    colours = mpl.colormaps["tab20" if len(solvers) > 10 else "tab10"]
    with png_figure(path, (8.4, 5.0), font_size=9.5) as figure:
        axes = figure.subplots()
        front = sorted({(one.row.gpus or 0, (one.latency_ms or 0.0) * scale) for one in found if one.on_front})
        if front:
            axes.step(*zip(*front, strict=True), where="post", color=INK, linewidth=1.4, zorder=1, label="front")
        for number, solver in enumerate(solvers):
            mine = [one for one in found if one.row.solver_label == solver and one.latency_ms is not None]
            axes.plot(
                [one.row.gpus or 0 for one in mine], [(one.latency_ms or 0.0) * scale for one in mine],
                MARKERS[number % len(MARKERS)], color=colours(number % colours.N), markersize=6.5, alpha=0.85,
                label=f"{solver}{'' if mine else ' (never feasible)'}", linestyle=":", linewidth=0.8,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
        axes.yaxis.set_minor_formatter(mpl.ticker.LogFormatter(minor_thresholds=(1.5, 0.6)))
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        axes.set_xlabel("GPUs used")
        axes.set_ylabel(LABELS[metric])
        row = found[0].row
        axes.set_title(
            f"workload {row.workload_label}, profile {row.profile}, seed {row.seed}: feasible placements",
            loc="left", fontsize=10,
        )  # fmt: skip
        axes.grid(visible=True, alpha=0.25)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8.5)
