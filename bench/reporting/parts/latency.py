"""Latency against GPUs: what fewer GPUs cost the requests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bench.comparison.rows import Row
from bench.reporting.content import Chart, LegendEntry, Part
from bench.reporting.drawing import BAD, FEW, MARKERS, belongs_to, log_axis, name_dots, plain_axes
from bench.reporting.study import Study, WorkloadCases
from bench.statistics.instances import Case
from bench.statistics.summary import Statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.reporting.content import Palette

#: What is drawn: the mean end-to-end latency of finished requests.
_LATENCY = "mean end-to-end latency"


def front(rows: Sequence[Row]) -> list[Row]:
    """Feasible candidates that no other beats on both GPUs and latency, fewest GPUs first."""
    found: list[Row] = []
    for row in sorted(
        (row for row in rows if row.feasible and row.gpus is not None and row.e2e_ms is not None),
        key=lambda row: (row.gpus or 0, row.e2e_ms or 0.0),
    ):
        if not found or (row.e2e_ms or 0.0) < (found[-1].e2e_ms or 0.0):
            found.append(row)
    return found


def latency(study: Study) -> Part | None:
    """Each solver by the GPUs and the latency that its placements have relative to the least of the instance."""
    charts = [chart for track in study.tracks if (chart := _chart(study, *track)) is not None]
    if not charts:
        return None
    return Part(
        "latency",
        "Latency against GPUs",
        text=(
            (
                "Fewer GPUs mean fuller ones. Each solver is drawn at the geometric means of its GPUs and of its mean end-to-end latency "
                "over the least of any feasible placement of the instance; the front of each workload is on its page."
            ),
        ),
        blocks=tuple(charts),
    )


def _chart(study: Study, suffix: str, title: str, statistics: Statistics) -> Chart | None:
    points = _relative(statistics)
    if not points:
        return None
    text = "; ".join(
        f"{solver} {gpus:.2f} times the GPUs, {slow:.2f} times the latency" for solver, (gpus, slow) in points.items()
    )
    return Chart(
        f"latency-gpus{suffix}",
        f"Latency against GPUs, all instances{title}",
        f"Geometric means over the instances where each solver is feasible: {text}.",
        partial(_paint_relative, points, study.series),
        legend=tuple(study.series[solver] for solver in points),
    )


def workload_chart(study: Study, workload: WorkloadCases) -> Chart | None:
    """The candidates of the first seed, and their front."""
    case = workload.cases[0]
    drawn = [row for row in case.rows if row.gpus and row.e2e_ms is not None]
    if not drawn:
        return None
    best = front(drawn)
    words = ", ".join(f"{row.gpus} GPUs at {(row.e2e_ms or 0) / 1000:.3g} s ({row.solver_label})" for row in best)
    return Chart(
        f"{workload.name}-front",
        f"Latency against GPUs, seed {case.rows[0].seed}",
        f"The front of feasible placements: {words or 'none is feasible'}. Crosses starve.",
        partial(_paint_front, case, best, study.series),
        size_in=(4.6, 2.8),
        legend=tuple(study.series[row.solver_label] for row in drawn),
    )


def _relative(statistics: Statistics) -> dict[str, tuple[float, float]]:
    ratios: dict[str, list[tuple[float, float]]] = {}
    for case in statistics.cases:
        rows = [row for row in case.rows if row.feasible and row.gpus and row.e2e_ms]
        if not rows:
            continue
        gpus, slow = min(row.gpus or 0 for row in rows), min(row.e2e_ms or 0.0 for row in rows)
        for row in rows:
            ratios.setdefault(row.solver_label, []).append(((row.gpus or 0) / gpus, (row.e2e_ms or 0.0) / slow))
    means = {solver: np.exp(np.log(np.array(pairs)).mean(axis=0)) for solver, pairs in ratios.items()}
    return {
        solver: (float(means[solver][0]), float(means[solver][1]))
        for solver in statistics.paired.solvers
        if solver in means
    }


def _paint_relative(
    points: dict[str, tuple[float, float]], series: dict[str, LegendEntry], figure: Figure, palette: Palette
) -> None:
    axes = figure.subplots()
    for solver, (gpus, slow) in points.items():
        entry = series[solver]
        (dot,) = axes.plot(
            [gpus], [slow], MARKERS[entry.marker], markersize=6, color=entry.colour, zorder=2 if entry.muted else 3
        )
        belongs_to(dot, solver, f"{solver}: {gpus:.2f} times the GPUs, {slow:.2f} times the latency")
    log_axis(axes.yaxis, from_ratio=FEW)
    log_axis(axes.xaxis, base=2, from_ratio=FEW)
    axes.margins(x=0.15, y=0.1)
    name_dots(axes, [(gpus, slow, series[solver]) for solver, (gpus, slow) in points.items()])
    axes.set_xlabel("GPUs over the least")
    axes.set_ylabel("latency over the least")
    plain_axes(axes, palette)


def _paint_front(
    case: Case, best: Sequence[Row], series: dict[str, LegendEntry], figure: Figure, palette: Palette
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    if best:
        axes.step(
            [row.gpus or 0 for row in best],
            [(row.e2e_ms or 0.0) / 1000 for row in best],
            where="post",
            color=palette.ink,
            linewidth=0.9,
            linestyle=(0, (4, 2)),
        )
    drawn = [row for row in case.rows if row.gpus and row.e2e_ms is not None]
    for row in drawn:
        colour = series[row.solver_label].colour
        # Solvers often meet in one point; a little aside, each can be seen and pointed at.
        same = [other for other in drawn if other.gpus == row.gpus and _close(other, row)]
        aside = (same.index(row) - (len(same) - 1) / 2) * 0.02 * (row.gpus or 0)
        (dot,) = axes.plot(
            [(row.gpus or 0) + aside],
            [(row.e2e_ms or 0.0) / 1000],
            linestyle="none",
            markersize=6,
            marker=MARKERS[series[row.solver_label].marker] if row.feasible else "X",
            markerfacecolor=colour if row.feasible else "none",
            markeredgecolor=colour if row.feasible else BAD,
        )
        verdict = "" if row.feasible else ", starves"
        belongs_to(
            dot, row.solver_label, f"{row.solver_label}: {row.gpus} GPUs, {(row.e2e_ms or 0.0) / 1000:.3g} s{verdict}"
        )
    log_axis(axes.yaxis)
    counts = [row.gpus or 0 for row in drawn]
    if max(counts) > 4 * min(counts):
        log_axis(axes.xaxis, base=2)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(x=0.12)
    axes.set_xlabel("GPUs")
    axes.set_ylabel(f"{_LATENCY}, s")
    plain_axes(axes, palette)


def _close(one: Row, other: Row) -> bool:
    return bool(abs(np.log((one.e2e_ms or 1.0) / (other.e2e_ms or 1.0))) < 0.03)
