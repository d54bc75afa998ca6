"""The picture of `python -m bench.max_pack`: throughput over adapters, one panel for each rank and rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.shared.figures import INK, PALE, png_figure

if TYPE_CHECKING:
    from bench.studies.max_pack import LargestContent, Point

MARK = "#c0392b"


def draw(points: Sequence[Point], found: Sequence[LargestContent], path: Path, subtitle: str) -> None:
    """Draw rates as rows and ranks as columns.

    Parameters
    ----------
    points : sequence of Point
    found : sequence of LargestContent
        One for each panel.
    path : Path
        PNG file.
    subtitle : str
    """
    import matplotlib as mpl
    from matplotlib.colors import LogNorm

    ranks = sorted({pack.rank for pack in found})
    rates = sorted({pack.rate for pack in found})
    slots = sorted({point.max_loras for point in points})
    norm = LogNorm(slots[0], max(slots[-1], slots[0] + 1))
    with png_figure(path, (3.6 * len(ranks) + 1.2, 2.9 * len(rates) + 1.0)) as figure:
        axes = figure.subplots(len(rates), len(ranks), squeeze=False)
        for row, rate in enumerate(rates):
            for column, rank in enumerate(ranks):
                pack = next(p for p in found if (p.rank, p.rate) == (rank, rate))
                mine = [point for point in points if (point.rank, point.rate) == (rank, rate)]
                _panel(axes[row, column], mine, pack, norm)
                if column == 0:
                    axes[row, column].set_ylabel("throughput (tokens/s)")
                if row == len(rates) - 1:
                    axes[row, column].set_xlabel("adapters on the GPU")
        _legend(figure, axes[0, 0])
        bar = figure.colorbar(mpl.cm.ScalarMappable(norm, "viridis"), ax=axes, label="max_loras", aspect=40, pad=0.02)
        shown = [value for value in (1, 4, 16, 64, 128, 256, 384, 512) if slots[0] <= value <= slots[-1]]
        bar.set_ticks(shown, labels=[str(value) for value in shown])
        bar.minorticks_off()
        figure.suptitle(f"Throughput of one GPU over its adapters, on the twin: {subtitle}", fontsize=10.5)


def _panel(axes: Any, points: Sequence[Point], pack: LargestContent, norm: Any) -> None:  # noqa: ANN401  # Axes and a norm
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"]
    for value in sorted({point.max_loras for point in points}):
        curve = sorted((p for p in points if p.max_loras == value and not p.memory_error), key=lambda p: p.n_adapters)
        axes.plot(
            [p.n_adapters for p in curve], [p.throughput for p in curve], color=colours(norm(value)), linewidth=0.9,
            alpha=0.75,
        )  # fmt: skip
    frontier = sorted((p for p in points if p.frontier), key=lambda p: p.n_adapters)
    counts = [p.n_adapters for p in frontier]
    offered = [p.offered_throughput for p in frontier]
    axes.plot(counts, offered, color=PALE, linestyle=":", linewidth=1.2, label="offered")
    axes.plot(
        counts, [0.9 * value for value in offered], color=PALE, linestyle="--", linewidth=1.0, label="0.9 x offered"
    )
    axes.plot(counts, [p.throughput for p in frontier], color=INK, linewidth=2.0, label="best max_loras (frontier)")
    if pack.n_adapters:
        axes.plot(pack.n_adapters, pack.throughput, "*", color=MARK, markersize=13, label="Max_pack", zorder=5)
        axes.axvline(pack.n_adapters, color=MARK, linewidth=0.7, alpha=0.5)
        axes.annotate(
            f"max_loras {pack.max_loras}", (pack.n_adapters, 0.0), xytext=(4, 6), textcoords="offset points",
            fontsize=8, color=MARK,
        )  # fmt: skip
    more = ">" if pack.capped else ""
    axes.set_title(
        f"rank {pack.rank}, {pack.rate:g} req/s each: Max_pack {more}{pack.n_adapters}",
        fontsize=8.5, loc="left",
    )  # fmt: skip
    axes.set_xlim(0, None)
    axes.set_ylim(0, 1.12 * max((p.throughput for p in frontier), default=1.0))


def _legend(figure: Any, axes: Any) -> None:  # noqa: ANN401  # Figure and Axes
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8.5)
