"""Anytime curves of exact solvers: the lower bound and the best placement over time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.comparison.rows import Row
from bench.reporting.content import Chart, LegendEntry, Part
from bench.reporting.drawing import belongs_to, line_style, log_axis, plain_axes
from bench.reporting.study import Study, WorkloadCases

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.reporting.content import Palette

# Where the curves begin on a logarithmic axis, in seconds. By hand.
_START_S = 1e-3


@dataclass(frozen=True)
class Curve:
    """Bounds over time of one solve.

    Attributes
    ----------
    row : Row
    times_s : array of shape (n_changes,)
    lower, upper : arrays of shape (n_changes,)
        From that time on; the upper one is NaN while there is no placement.
    """

    row: Row
    times_s: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    @property
    def end_s(self) -> float:
        """When the solver was done."""
        return max(self.row.solve_time_s or 0.0, float(self.times_s[-1]), _START_S)

    def gap(self, moments_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """GPUs of the best placement over the lower bound less 1 at some moments; infinite while there is no placement."""
        place = np.searchsorted(self.times_s, moments_s, side="right") - 1
        gap = self.upper[place] / self.lower[place] - 1
        return np.where((place < 0) | np.isnan(gap), np.inf, gap)


def curve_of(row: Row) -> Curve | None:
    """The curve of a candidate whose solver tells its bounds over time (`solvers.exact_search.progress`)."""
    try:
        history = json.loads(row.details or "{}").get("bounds_over_time_s")
    except (ValueError, AttributeError):
        return None
    if not history:
        return None
    table = np.array([[np.nan if value is None else value for value in entry] for entry in history], dtype=float)
    return Curve(row, table[:, 0], table[:, 1], table[:, 2])


def curves_of(rows: Sequence[Row]) -> dict[str, list[Curve]]:
    """Curves by solver."""
    found: dict[str, list[Curve]] = {}
    for row in rows:
        curve = curve_of(row)
        if curve is not None:
            found.setdefault(row.solver_label, []).append(curve)
    return found


def anytime(study: Study) -> Part | None:
    """Over all instances: the share with a proof, and with a placement close to the bound, at each moment."""
    curves = curves_of([row for case in study.cases for row in case.rows])
    if not curves:
        return None
    legend = tuple(study.series[solver] for solver in curves)
    charts = tuple(
        Chart(
            f"anytime-{name}",
            title,
            _in_words(curves, tolerance, title),
            partial(_paint_share, curves, tolerance, study.series),
            legend=legend,
        )
        for name, title, tolerance in (
            ("proven", "Instances solved to proof over time", 0.0),
            ("within-20", "Instances with at most 20 % more GPUs than the bound over time", 0.2),
        )
    )
    return Part(
        "anytime",
        "Anytime",
        text=(
            (
                "A solver that proves bounds raises its lower bound and improves its placement as it runs; both are for its oracle. The "
                "curve of each workload is on its page."
            ),
        ),
        blocks=charts,
    )


#: Seeds whose curves are drawn on the page of a workload: more of them hide each other, and each takes its time to draw.
SEEDS = 5


def workload_chart(study: Study, workload: WorkloadCases) -> Chart | None:
    """Lower bound and best placement over time of each solver that tells them, on the first seeds."""
    curves = curves_of([row for case in workload.cases[:SEEDS] for row in case.rows])
    if not curves:
        return None
    return Chart(
        f"{workload.name}-anytime",
        "Bounds over time"
        if len(workload.cases) <= SEEDS
        else f"Bounds over time, the first {SEEDS} of {len(workload.cases)} seeds",
        "; ".join(
            f"{solver}, seed {curve.row.seed}: lower bound {curve.lower[-1]:g}, "
            + ("no placement" if np.isnan(curve.upper[-1]) else f"{curve.upper[-1]:g} GPUs")
            + f" after {curve.end_s:.3g} s"
            for solver, group in curves.items()
            for curve in group
        ),
        partial(_paint_bounds, curves, study.series),
        size_in=(4.6, 2.6),
        legend=tuple(study.series[solver] for solver in curves) if len(curves) > 1 else (),
    )


def _in_words(curves: dict[str, list[Curve]], tolerance: float, title: str) -> str:
    ends = []
    for solver, group in curves.items():
        reached = sum(curve.gap(np.array([curve.end_s]))[0] <= tolerance for curve in group)
        ends.append(f"{solver} reaches {reached} of {len(group)}")
    return f"{title}: " + "; ".join(ends) + "."


def _paint_share(
    curves: dict[str, list[Curve]], tolerance: float, series: dict[str, LegendEntry], figure: Figure, palette: Palette
) -> None:
    axes = figure.subplots()
    end = max(curve.end_s for group in curves.values() for curve in group)
    for solver, group in curves.items():
        moments = np.unique(
            np.concatenate([[_START_S, end], *(np.maximum(curve.times_s, _START_S) for curve in group)])
        )
        share = np.mean([curve.gap(moments) <= tolerance for curve in group], axis=0)
        entry = series[solver]
        (line,) = axes.step(
            moments, share, where="post", color=entry.colour, linestyle=line_style(entry), linewidth=1.6
        )
        belongs_to(line, solver, f"{solver}: {share[-1]:.0%} in the end")
    log_axis(axes.xaxis)
    axes.set(xlabel="time, s", ylabel="share of instances", ylim=(-0.02, 1.03), xlim=(_START_S, end))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    plain_axes(axes, palette)


def _paint_bounds(
    curves: dict[str, list[Curve]], series: dict[str, LegendEntry], figure: Figure, palette: Palette
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    for solver, group in curves.items():
        colour = series[solver].colour
        for curve in group:
            moments = [*np.maximum(curve.times_s, _START_S), curve.end_s]
            lower, upper = [*curve.lower, curve.lower[-1]], [*curve.upper, curve.upper[-1]]
            title = f"{solver}, seed {curve.row.seed}"
            (below,) = axes.step(moments, lower, where="post", color=colour, linewidth=1.4, linestyle=(0, (3, 1.5)))
            (above,) = axes.step(moments, upper, where="post", color=colour, linewidth=1.4)
            axes.fill_between(moments, lower, upper, step="post", color=colour, alpha=0.12, linewidth=0)
            (end,) = axes.plot([moments[-1]] * 2, [lower[-1], upper[-1]], "o", color=colour, markersize=3)
            for artist, what in ((below, "lower bound"), (above, "best placement"), (end, "end")):
                belongs_to(artist, solver, f"{title}: {what}")
    log_axis(axes.xaxis)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylim(bottom=0)
    axes.margins(y=0.15)
    axes.set(xlabel="time, s", ylabel="GPUs")
    axes.plot([], [], color=palette.ink, linewidth=1.4, label="best placement")
    axes.plot([], [], color=palette.ink, linewidth=1.4, linestyle=(0, (3, 1.5)), label="lower bound")
    axes.legend(fontsize=7, loc="lower right", labelcolor=palette.ink)
    plain_axes(axes, palette)
