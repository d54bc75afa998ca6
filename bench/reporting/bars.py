"""Bars of what an objective is about, one for each solver, with how long requests wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.comparison.rows import Row
from bench.reporting.verdict import waited
from bench.shared.figures import INK
from bench.statistics.contradictions import standing_bound
from bench.statistics.instances import by_instance, cases, ranked
from bench.statistics.paired import GPUS, Measure, measure_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEASIBLE, STARVED, BOUND = "#2a9d8f", "#d1495b", INK
STARVES = "//"
#: A bar that is so many times the middle one is cut, and the axis ends at this many times the longest that is not; by eye.
DWARFS, CUT = 4.0, 1.25


def bars_of_solvers(axes: Axes, rows: Sequence[Row]) -> None:
    """Horizontal bars, the best solver on top; a dot for each seed where there are several. Bars that dwarf all others are cut."""
    solvers: dict[str, list[Row]] = {}
    for row in ranked(rows):
        solvers.setdefault(row.solver_label, []).append(row)
    measure = measure_of(cases(rows))
    placed = {name: [row for row in group if _value(measure, row) is not None] for name, group in solvers.items()}
    end = _end([_value(measure, row) or 0.0 for group in placed.values() for row in group])
    for place, (name, group) in enumerate(solvers.items()):
        if placed[name]:
            _bar(axes, place, group, placed[name], measure, end)
        else:
            axes.text(0, place, f" {group[0].status.replace('_', ' ')}", va="center", color=STARVED, style="italic")
    _bound(axes, rows, measure, end)
    _key(axes, rows, [group for name, group in solvers.items() if placed[name]], len(solvers))
    axes.set_yticks(range(len(solvers)), list(solvers))
    axes.set_ylim(len(solvers) - 0.4, -0.85)
    # Beside the longest bar is room for its figures.
    axes.set_xlim(0, end * 1.45)
    _ticks(axes, measure, end)
    axes.set_xlabel(measure.label)


def _value(measure: Measure, row: Row) -> float | None:
    value = measure.of(row)
    return value if value is not None and np.isfinite(value) else None


def _end(values: Sequence[float]) -> float:
    """Where the longest bar ends: of those that do not dwarf the others, a little beyond the longest where others are cut."""
    longest, middle = max(values, default=0.0), float(np.median(values)) if values else 0.0
    if longest <= DWARFS * middle or not middle:
        return longest or 1.0
    return CUT * max(value for value in values if value <= DWARFS * middle)


def _bar(  # noqa: PLR0913  # what a bar shows
    axes: Axes, place: int, group: Sequence[Row], placed: Sequence[Row], measure: Measure, end: float
) -> None:
    values = [_value(measure, row) or 0.0 for row in placed]
    mean = sum(values) / len(values)
    feasible = sum(row.feasible for row in group)
    whole = feasible == len(group)
    axes.barh(
        place,
        min(mean, end),
        height=0.4,
        color=FEASIBLE if whole else "white",
        edgecolor=FEASIBLE if whole else STARVED,
        hatch=None if whole else 2 * STARVES,
        linewidth=1.2,
    )
    if mean > end:
        for aside in (0.92, 0.945):
            axes.plot(
                [aside * end - 0.008 * end, aside * end + 0.008 * end],
                [place + 0.26, place - 0.26],
                color="white",
                linewidth=2.4,
                zorder=3,
            )
    if len(values) > 1:
        spread = np.linspace(-0.18, 0.18, len(values))
        shown = [(value, aside) for value, aside in zip(values, spread, strict=True) if value <= end]
        axes.scatter([value for value, _ in shown], [place + aside for _, aside in shown], s=9, color=INK, zorder=4)
    label = f"{mean:.3g}" if measure is GPUS else f"{mean:.3g} on {_mean_gpus(placed)}"
    axes.text(
        max(min(value, end) for value in (mean, *values)) + 0.02 * end,
        place,
        label,
        va="center",
        fontweight="bold",
        zorder=5,
    )
    below = [*([] if whole else [_failing(group, feasible)]), *([wait] if (wait := waited(placed)) else [])]
    axes.annotate(
        ", ".join(below), (0.01 * end, place + 0.2), xytext=(0, -7), textcoords="offset points", va="center", fontsize=8
    )


def _failing(group: Sequence[Row], feasible: int) -> str:
    if len(group) > 1:
        return f"feasible on {feasible} of {len(group)} seeds"
    fails = "starves" if group[0].service == "published" else "fails"
    gpus = group[0].starved_gpus
    return f"1 GPU {fails}" if gpus == 1 else f"{gpus} GPUs {fails.removesuffix('s')}"


def _mean_gpus(rows: Sequence[Row]) -> str:
    gpus = sum(row.gpus or 0 for row in rows) / len(rows)
    return f"{gpus:.3g} GPU" + ("" if gpus == 1 else "s")


def _bound(axes: Axes, rows: Sequence[Row], measure: Measure, end: float) -> None:
    bounds = [known.bound for group in by_instance(rows).values() if (known := standing_bound(group)) is not None]
    if bounds and measure is GPUS:
        bound = sum(bounds) / len(bounds)
        axes.axvline(bound, color=BOUND, linestyle=(0, (4, 2)), linewidth=1.3, zorder=4)
        axes.text(bound + 0.015 * end, -0.62, f"lower bound {bound:.3g}", ha="left", va="center", fontsize=8.5)


def _key(axes: Axes, rows: Sequence[Row], drawn: Sequence[Sequence[Row]], solvers: int) -> None:
    """A legend for what is not plain to see: hatching, and dots."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    several = len({row.seed for row in rows}) > 1
    handles: list[Any] = []
    if any(not row.feasible for group in drawn for row in group):
        text = "not feasible on every seed" if several else "not feasible"
        handles.append(Patch(facecolor="white", edgecolor=STARVED, hatch=2 * STARVES, label=text))
    if several:
        handles.append(Line2D([], [], color=INK, marker="o", markersize=3, linestyle="none", label="one seed"))
    if handles:
        # Below the axis, by so much of its height as its label and ticks take: bars are as many as solvers.
        axes.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.9 / (solvers + 0.5)), ncols=2, frameon=False,
            fontsize=8,
        )  # fmt: skip


def _ticks(axes: Axes, measure: Measure, end: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(8 if measure.whole else 5, integer=measure.whole))
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1.02 * end])
    axes.tick_params(axis="y", length=0)
