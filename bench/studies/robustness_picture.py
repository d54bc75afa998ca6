"""The picture of `python -m bench.robustness`: what placements cost against how many of them stay feasible."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.shared.figures import MARKERS, png_figure
from bench.studies.rank_changes import RankChanges, SolverStability


def draw(changes: RankChanges, path: Path) -> None:
    """A point for each solver; those that differ in their reserve only are joined.

    Parameters
    ----------
    changes : RankChanges
    path : Path
        PNG file.
    """
    families: dict[str, list[SolverStability]] = {}
    for line in changes.solvers:
        if not np.isnan(line.ratio):
            families.setdefault(line.solver.partition(" reserve=")[0], []).append(line)
    with png_figure(path, (6.4, 4.0), font_size=9.5) as figure:
        axes = figure.subplots()
        for number, (name, lines) in enumerate(sorted(families.items())):
            lines.sort(key=_reserve)
            ratios, shares = [line.ratio for line in lines], [100 * line.feasible_moved for line in lines]
            axes.plot(ratios, shares, MARKERS[number % len(MARKERS)], linestyle=":", label=name)
            for line, ratio, share in zip(lines, ratios, shares, strict=True):
                if _reserve(line) or len(lines) > 1:
                    axes.annotate(
                        f"{_reserve(line):.0%}",
                        (ratio, share),
                        xytext=(5, 6 if number % 2 else -12),
                        textcoords="offset points",
                        fontsize=8,
                    )
        axes.set_ylim(-3, 103)
        axes.set_xlabel("cost over the least, mean where feasible")
        axes.set_ylabel("placements feasible under moved profiles, %")
        axes.set_title(f"{changes.instances} instances, {changes.samples} moved profiles", loc="left", fontsize=10)
        axes.grid(visible=True, alpha=0.25)
        axes.legend(loc="lower right", frameon=False, title="solver (and reserve)" if _any_reserve(changes) else None)


def _reserve(line: SolverStability) -> float:
    return float(line.solver.partition(" reserve=")[2] or 0.0)


def _any_reserve(changes: RankChanges) -> bool:
    return any(_reserve(line) for line in changes.solvers)
