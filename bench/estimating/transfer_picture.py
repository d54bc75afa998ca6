"""The picture of `python -m bench.profile runs=DIR`: estimated against measured step times."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.shared.figures import INK, png_figure


def draw(rows: pd.DataFrame, path: Path) -> None:
    """One panel for each direction, one point for each published run, the diagonal and a fifth off on both sides.

    Parameters
    ----------
    rows : DataFrame
        As `bench.estimating.transfer.transfers` returns it.
    path : Path
        PNG file.
    """
    import matplotlib as mpl

    targets = list(dict.fromkeys(rows.target))
    with png_figure(path, (8.4, 4.4), font_size=9.5) as figure:
        panels = figure.subplots(1, len(targets), squeeze=False)[0]
        for axes, target in zip(panels, targets, strict=True):
            mine = rows[rows.target == target]
            error = (mine.estimated_ms / mine.measured_ms - 1).abs().mean() * 100
            ends = [mine.measured_ms.min() * 0.9, mine.measured_ms.max() * 1.1]
            axes.fill_between(
                ends, [0.8 * end for end in ends], [1.2 * end for end in ends], color=INK, alpha=0.08, linewidth=0
            )
            axes.plot(ends, ends, color=INK, linewidth=1)
            axes.scatter(mine.measured_ms, mine.estimated_ms, s=9, alpha=0.6, linewidth=0)
            axes.set_xscale("log")
            axes.set_yscale("log")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(mpl.ticker.ScalarFormatter())
                axis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
                axis.set_minor_formatter(mpl.ticker.NullFormatter())
            axes.set_xlabel("measured step time (ms)")
            axes.set_ylabel("estimated (ms)")
            axes.set_title(f"{target} from {mine.source.iloc[0]}: {error:.1f} % off", loc="left", fontsize=10)
            axes.grid(visible=True, alpha=0.25, which="both")
