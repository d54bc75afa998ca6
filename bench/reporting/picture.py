"""The picture of a comparison: GPUs per solver against the lower bound, and the placements drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.comparison.rows import Row
from bench.reporting.table import heading
from bench.shared.figures import INK, PALE, png_figure
from bench.statistics.contradictions import standing_bound
from bench.statistics.instances import by_instance, cases, ranked
from bench.statistics.paired import GPUS, measure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEASIBLE, STARVED, BOUND = "#2a9d8f", "#d1495b", INK
STARVES, DOES_NOT_START = "//", "xx"

# Limits of what can be read on one page, all chosen by eye. Bars of a few GPUs look the same as those of many.
FEWEST_GPUS_ACROSS = 6
# Above so many adapters in one placement each rank of a GPU is drawn as one block.
MOST_ADAPTERS_DRAWN = 3000
# Above so many GPUs the labels below the bars would run into each other.
MOST_GPUS_LABELLED = 24
# Bars of more GPUs are narrower than a pixel, and take minutes.
MOST_GPUS_DRAWN = 2000
# Of more different placements than this the best are drawn, and one that starves.
MOST_PLACEMENTS_DRAWN = 6
# Above so many workloads there is no panel for each.
MOST_WORKLOADS_DRAWN = 12


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the candidates to a PNG file, written atomically.

    Candidates for one workload: GPUs per solver (over several seeds the mean, with a dot for each) and the placements of
    the first seed, of many the best. For several workloads: GPUs per solver, one panel each.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    groups = list(by_instance(rows).values())
    workloads: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        workloads.setdefault((row.workload_label, row.profile, row.objective), []).append(row)
    with png_figure(path) as figure:
        if len(workloads) == 1:
            _one_workload(figure, rows, groups[0])
        elif len(workloads) <= MOST_WORKLOADS_DRAWN:
            _many_workloads(figure, list(workloads.values()))
        else:
            _all_instances(figure, rows)


def draw_placements(rows: Sequence[Row], path: Path) -> None:
    """Draw placements of the same workload below each other to a PNG file, written atomically.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    with png_figure(path) as figure:
        most_gpus = max(row.gpus or 0 for row in rows)
        figure.set_size_inches(min(2.2 + 0.42 * max(most_gpus, FEWEST_GPUS_ACROSS), 13), 0.6 + 1.75 * len(rows))
        _placements(figure, rows)


def _one_workload(figure: Figure, rows: Sequence[Row], first: Sequence[Row]) -> None:
    drawn = _worth_drawing([row for row in first if row.placement not in (None, "[]")])
    n_solvers = len({row.solver_label for row in rows})
    figure.set_size_inches(13, max(3.8, 1.3 + 1.75 * len(drawn), 1.3 + 0.36 * n_solvers))
    seeds = sorted({row.seed for row in rows})
    title = heading(first[0])
    if len(seeds) > 1:
        title += f" (placements; GPUs over {len(seeds)} seeds)"
    figure.suptitle(title, x=0.012, ha="left", fontsize=10.5, fontweight="bold")
    # matplotlib's types do not know that this is an array of two.
    halves: Any = figure.subfigures(1, 2, width_ratios=[0.30, 0.70], wspace=0.02)
    left, right = halves
    _bars_of_solvers(left.subplots(), rows)
    if not drawn:
        panel = right.subplots()
        panel.set_axis_off()
        panel.text(0.5, 0.5, "no placement to draw", ha="center", va="center", color=PALE, fontsize=12)
        return
    _placements(right, drawn)


def _worth_drawing(placed: Sequence[Row]) -> Sequence[Row]:
    """All in the order given, if they are few; else the best different ones, and the best that starves at the end."""
    placed = [row for row in placed if (row.gpus or 0) <= MOST_GPUS_DRAWN]
    if len(placed) <= MOST_PLACEMENTS_DRAWN:
        return placed
    different: dict[str | None, Row] = {}
    for row in ranked(placed):
        different.setdefault(row.placement, row)
    best = list(different.values())
    drawn = best[:MOST_PLACEMENTS_DRAWN]
    starving = next((row for row in best if not row.feasible), None)
    if starving is not None and starving not in drawn:
        drawn[-1] = starving
    return drawn


def _placements(figure: Any, drawn: Sequence[Row]) -> None:  # noqa: ANN401  # a Figure or a SubFigure
    panels = np.atleast_1d(figure.subplots(len(drawn), 1, sharey=True))
    known_ranks = sorted({rank for row in drawn for rank in row.adapter_ranks or []})
    colours = _rank_colours(known_ranks)
    most_gpus = max(row.gpus or 0 for row in drawn)
    for panel, row in zip(panels, drawn, strict=True):
        _placement(panel, row, colours, most_gpus)
    _legend(figure, colours, [gpu for row in drawn for gpu in row.gpu_figures])


def _many_workloads(figure: Figure, workloads: Sequence[Sequence[Row]]) -> None:
    columns = 2 if len(workloads) > 1 else 1
    lines = -(-len(workloads) // columns)
    solvers = max(len({row.solver_label for row in rows}) for rows in workloads)
    figure.set_size_inches(12, lines * (1.4 + 0.4 * solvers))
    axes = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for panel, rows in zip(axes, workloads, strict=False):
        _bars_of_solvers(panel, rows)
        panel.set_title(f"{rows[0].workload_label} · {rows[0].profile}", loc="left", fontsize=10, fontweight="bold")
    for panel in axes[len(workloads) :]:
        panel.set_axis_off()


def _all_instances(figure: Figure, rows: Sequence[Row]) -> None:
    """Too many workloads for a panel each: the charts over all instances, as in the report."""
    from bench.reporting.drawing import PAPER, legend_handles
    from bench.reporting.parts.quality import charts
    from bench.reporting.study import Study
    from bench.statistics.summary import SAMPLES, SEED

    drawn = [
        chart for chart in charts(Study(rows, samples=SAMPLES, seed=SEED)) if not chart.name.startswith("quality-time")
    ]
    figure.set_size_inches(5.6, sum(chart.size_in[1] + 0.5 for chart in drawn))
    parts: Any = figure.subfigures(
        len(drawn), 1, height_ratios=[chart.size_in[1] + 0.5 for chart in drawn], squeeze=False
    )
    for part, chart in zip(parts[:, 0], drawn, strict=True):
        chart.paint(part, PAPER)
        part.suptitle(chart.title, x=0.012, ha="left", fontsize=10.5, fontweight="bold")
        if chart.legend:
            handles = legend_handles(chart)
            part.legend(handles=handles, loc="outside right upper", fontsize=7, handlelength=2.6)


def _bars_of_solvers(axes: Axes, rows: Sequence[Row]) -> None:
    """Horizontal bars of what the objective is about, the best solver on top; a dot for each seed where there are several."""
    from matplotlib.ticker import MaxNLocator

    solvers: dict[str, list[Row]] = {}
    for row in ranked(rows):
        solvers.setdefault(row.solver_label, []).append(row)
    measure = measure_of(cases(rows))
    values = [value for row in rows if (value := measure.of(row)) is not None and np.isfinite(value)]
    widest = max(values, default=0.0) or 1.0
    for place, group in enumerate(solvers.values()):
        placed = [row for row in group if (value := measure.of(row)) is not None and np.isfinite(value)]
        if not placed:
            axes.text(0, place, f" {group[0].status.replace('_', ' ')}", va="center", color=STARVED, style="italic")
            continue
        counts = [measure.of(row) or 0.0 for row in placed]
        mean = sum(counts) / len(counts)
        feasible = all(row.feasible for row in group)
        axes.barh(
            place,
            mean,
            height=0.4,
            color=FEASIBLE if feasible else "white",
            edgecolor=FEASIBLE if feasible else STARVED,
            hatch=None if feasible else "////",
            linewidth=1.2,
        )
        if len(counts) > 1:
            spread = np.linspace(-0.18, 0.18, len(counts))
            axes.scatter(counts, place + spread, s=9, color=INK, zorder=3)
        label = f"{mean:.3g}" if measure is GPUS else f"{mean:.3g} on {_mean_gpus(placed)}"
        infeasible = sum(not row.feasible for row in placed)
        if infeasible:
            label += (
                f"  ({placed[0].starved_gpus} starved)"
                if len(placed) == 1
                else f"  ({infeasible}/{len(placed)} starve)"
            )
        axes.text(max([mean, *counts]) + 0.02 * widest, place, label, va="center", fontweight="bold")
    bounds = [known.bound for group in by_instance(rows).values() if (known := standing_bound(group)) is not None]
    if bounds and measure is GPUS:
        bound = sum(bounds) / len(bounds)
        axes.axvline(bound, color=BOUND, linestyle=(0, (4, 2)), linewidth=1.3, zorder=4)
        axes.text(bound + 0.015 * widest, -0.62, f"lower bound {bound:.3g}", ha="left", va="center", fontsize=8.5)
    axes.set_yticks(range(len(solvers)), list(solvers))
    axes.set_ylim(len(solvers) - 0.5, -0.8)
    axes.set_xlim(0, widest * 1.32)
    axes.xaxis.set_major_locator(MaxNLocator(10 if measure.whole else 5, integer=measure.whole))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(measure.label)


def _mean_gpus(rows: Sequence[Row]) -> str:
    gpus = sum(row.gpus or 0 for row in rows) / len(rows)
    return f"{gpus:.3g} GPU" + ("" if gpus == 1 else "s")


def _placement(axes: Axes, row: Row, colours: dict[int, Any], most_gpus: int) -> None:
    """GPUs as bars of adapters, coloured by rank; height is the offered load, a line the throughput."""
    ranks, rates = np.array(row.adapter_ranks), np.array(row.adapter_rates)
    figures = row.gpu_figures
    n_placed = sum(len(gpu["adapters"]) for gpu in figures)
    for place, gpu in enumerate(figures):
        adapters = np.array(gpu["adapters"])
        shares = np.array(gpu.get("shares", np.ones(len(adapters))))
        load = rates[adapters] * shares
        # The bar is as high as the load that really came, which a mean rate misses by a little.
        load *= gpu["offered_throughput"] / load.sum() if load.sum() else 0.0
        order = np.lexsort((-load, -ranks[adapters]))
        rank, height = ranks[adapters][order], load[order]
        if n_placed > MOST_ADAPTERS_DRAWN:
            rank, inverse = np.unique(-rank, return_inverse=True)
            rank, height = -rank, np.bincount(inverse, height)
        bottom = np.cumsum(height) - height
        axes.bar(
            np.full(len(height), place),
            height,
            bottom=bottom,
            width=0.8,
            color=[colours[int(value)] for value in rank],
            edgecolor="white",
            # A line around an adapter of little load would hide it.
            linewidth=np.clip(6 * height / max(gpu["offered_throughput"], 1e-9), 0, 0.4).tolist(),
        )
        starved = gpu["starved"]
        if starved:
            hatch = DOES_NOT_START if gpu["memory_error"] else STARVES
            axes.bar(
                place, gpu["offered_throughput"], width=0.8, fill=False, edgecolor=STARVED, linewidth=1.8, hatch=hatch
            )
        axes.hlines(gpu["throughput"], place - 0.46, place + 0.46, color=STARVED if starved else INK, linewidth=1.4)
    bound = f", lower bound {row.lower_bound}" if row.lower_bound is not None else ""
    verdict = "feasible" if row.feasible else f"{row.starved_gpus} starved"
    if row.memory_errors:
        verdict += f" ({row.memory_errors} do not start)"
    axes.set_title(
        f"{row.solver_label}: {row.gpus} GPUs, {verdict}{bound}", loc="left", fontsize=9.5, fontweight="bold", pad=4
    )
    axes.set_xlim(-0.65, max(most_gpus, FEWEST_GPUS_ACROSS) - 0.35)
    labels = [f"{gpu['max_loras']}\n{len(gpu['adapters'])}" for gpu in figures]
    every = -(-len(labels) // MOST_GPUS_LABELLED)
    axes.set_xticks(range(0, len(labels), every), labels[::every], fontsize=8)
    axes.tick_params(axis="x", length=0, pad=2)
    axes.annotate(
        "max_loras\nadapters",
        (0, 0),
        xycoords="axes fraction",
        xytext=(-6, -3.5),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=7.5,
        color=PALE,
    )
    axes.set_ylabel("tokens/s")
    axes.margins(y=0.16)


def _rank_colours(ranks: Sequence[int]) -> dict[int, Any]:
    import matplotlib as mpl

    scale = mpl.colormaps["YlGnBu"]
    return {rank: scale(0.28 + 0.6 * i / max(len(ranks) - 1, 1)) for i, rank in enumerate(ranks)}


def _legend(figure: Any, colours: dict[int, Any], gpus: Sequence[dict[str, Any]]) -> None:  # noqa: ANN401  # a SubFigure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=colour, label=f"rank {rank}") for rank, colour in colours.items()]
    handles.append(Line2D([], [], color=INK, linewidth=1.4, label="throughput"))
    if any(gpu["starved"] and not gpu["memory_error"] for gpu in gpus):
        handles.append(Patch(facecolor="white", edgecolor=STARVED, hatch=STARVES, label="starved GPU"))
    if any(gpu["memory_error"] for gpu in gpus):
        handles.append(Patch(facecolor="white", edgecolor=STARVED, hatch=DOES_NOT_START, label="does not start"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8.5)
