"""The picture of a comparison: GPUs per solver against the lower bound, and the placements drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.comparison.rows import Row
from bench.reporting.bars import STARVED, STARVES, bars_of_solvers
from bench.reporting.table import heading
from bench.reporting.verdict import verdicts
from bench.shared.figures import INK, PALE, png_figure
from bench.statistics.instances import by_instance, ranked
from twin import PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOES_NOT_START = "xx"

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
#: Letters of a title that fit into an inch of a figure.
LETTERS_AN_INCH = 11.0


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
    figure.set_size_inches(13, max(3.8, 1.3 + 1.75 * len(drawn), 1.6 + 0.42 * n_solvers))
    seeds = sorted({row.seed for row in rows})
    title = heading(first[0])
    if len(seeds) > 1:
        title += f" (placements; GPUs over {len(seeds)} seeds)"
    _title(figure, verdicts(rows), title)
    # matplotlib's types do not know that this is an array of two.
    halves: Any = figure.subfigures(1, 2, width_ratios=[0.30, 0.70], wspace=0.02)
    left, right = halves
    bars_of_solvers(left.subplots(), rows)
    if not drawn:
        panel = right.subplots()
        panel.set_axis_off()
        panel.text(0.5, 0.5, "no placement to draw", ha="center", va="center", color=PALE, fontsize=12)
        return
    _placements(right, drawn)


def _title(figure: Figure, sentences: Sequence[str], below: str = "") -> None:
    """What the picture says, in as many lines as its width takes; below it what it is of."""
    width = int(figure.get_size_inches()[0] * LETTERS_AN_INCH)
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, width)]
    lines += [line for part in below.splitlines() for line in textwrap.wrap(part, width)]
    figure.suptitle("\n".join(lines), x=0.012, ha="left", fontsize=10.5, fontweight="bold")


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
    _legend(figure, colours, [gpu for row in drawn for gpu in row.gpu_figures], _failing(drawn[0]))


def _many_workloads(figure: Figure, workloads: Sequence[Sequence[Row]]) -> None:
    columns = 2 if len(workloads) > 1 else 1
    lines = -(-len(workloads) // columns)
    solvers = max(len({row.solver_label for row in rows}) for rows in workloads)
    figure.set_size_inches(12, 0.5 + lines * (1.7 + 0.42 * solvers))
    _title(figure, verdicts([row for rows in workloads for row in rows]))
    axes = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for panel, rows in zip(axes, workloads, strict=False):
        bars_of_solvers(panel, rows)
        name = f"{rows[0].workload_label} · {rows[0].profile} · {rows[0].objective}"
        panel.set_title("\n".join(textwrap.wrap(name, 56)), loc="left", fontsize=10, fontweight="bold")
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
    figure.set_size_inches(5.6, 0.9 + sum(chart.size_in[1] + 0.5 for chart in drawn))
    _title(figure, verdicts(rows))
    parts: Any = figure.subfigures(
        len(drawn), 1, height_ratios=[chart.size_in[1] + 0.5 for chart in drawn], squeeze=False
    )
    for part, chart in zip(parts[:, 0], drawn, strict=True):
        chart.paint(part, PAPER)
        part.suptitle(chart.title, x=0.012, ha="left", fontsize=10.5, fontweight="bold")
        if chart.legend:
            handles = legend_handles(chart)
            part.legend(
                handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=7, handlelength=2.6
            )


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
    verdict = "feasible" if row.feasible else f"{row.starved_gpus} {_failing(row)}"
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


def _failing(row: Row) -> str:
    return "starved" if row.service == PUBLISHED.name else "failing"


def _rank_colours(ranks: Sequence[int]) -> dict[int, Any]:
    import matplotlib as mpl

    scale = mpl.colormaps["YlGnBu"]
    return {rank: scale(0.28 + 0.6 * i / max(len(ranks) - 1, 1)) for i, rank in enumerate(ranks)}


def _legend(figure: Any, colours: dict[int, Any], gpus: Sequence[dict[str, Any]], failing: str) -> None:  # noqa: ANN401  # a SubFigure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=colour, label=f"rank {rank}") for rank, colour in colours.items()]
    handles.append(Line2D([], [], color=INK, linewidth=1.4, label="throughput"))
    if any(gpu["starved"] and not gpu["memory_error"] for gpu in gpus):
        handles.append(Patch(facecolor="white", edgecolor=STARVED, hatch=STARVES, label=f"{failing} GPU"))
    if any(gpu["memory_error"] for gpu in gpus):
        handles.append(Patch(facecolor="white", edgecolor=STARVED, hatch=DOES_NOT_START, label="does not start"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8.5)
