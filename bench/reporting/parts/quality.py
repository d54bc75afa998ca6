"""How good the solvers are: performance profiles, GPU ratio and gap with intervals, quality against time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bench.reporting.content import Chart, LegendEntry, Part
from bench.reporting.drawing import FEW, MARKERS, belongs_to, line_style, log_axis, name_dots, plain_axes
from bench.reporting.study import Study
from bench.statistics.bootstrap import Estimate
from bench.statistics.summary import Statistics, gap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.reporting.content import Palette

# Height of a solver's row in inches, by eye: a line of text and a little.
_ROW_IN = 0.19
# Where some gaps are very large, the axis is linear up to here and logarithmic beyond; chosen by eye.
_LINEAR_GAP_PCT = 50.0


def quality(study: Study) -> Part:
    """Charts for each objective and service level."""
    return Part(
        "quality",
        "Quality",
        text=(
            (
                "A performance profile (Dolan and Moré) shows for each solver the share of instances on which it has a feasible placement "
                "within a factor of the best known. Higher is better. The left end says how often a solver is best, the right end "
                "how often it is feasible at all."
            ),
        ),
        blocks=tuple(charts(study)),
    )


def charts(study: Study) -> list[Chart]:
    """Performance profile, ratio, gap, and quality against time, for each objective and service level."""
    return [chart for track in study.tracks for chart in _charts(study, *track)]


def _charts(study: Study, suffix: str, title: str, statistics: Statistics) -> list[Chart]:
    legend = tuple(study.series[solver] for solver in statistics.paired.solvers)
    label = statistics.measure.label

    def spread(name: str, heading: str, middle: str, paint: Callable[..., None]) -> Chart:
        return Chart(
            f"{name}{suffix}",
            f"{heading}{title}",
            f"{middle} and 95 % interval for each solver where it is feasible, with a dot for each instance; "
            + _best_in_words(statistics, name),
            partial(paint, statistics, study.series),
            size_in=(4.6, 0.75 + _ROW_IN * len(legend)),
        )

    charts = [
        Chart(
            f"performance-profile{suffix}",
            f"Performance profile, {label}{title}",
            _profile_in_words(statistics),
            partial(_paint_profile, statistics, study.series),
            legend=legend,
        ),
        spread("ratio", f"{label} over the best known", "Geometric mean", _paint_ratio),
    ]
    if any(case.lower_bound for case in statistics.cases):
        charts.append(spread("gap", "Gap to the lower bound", "Mean gap in percent", _paint_gap))
    charts.append(
        Chart(
            f"quality-time{suffix}",
            f"Quality against time{title}",
            "Each solver by its shifted geometric mean solve time and its ratio to the best known; lower left is better; a hollow dot is "
            "not feasible everywhere.",
            partial(_paint_time, statistics, study.series),
            legend=legend,
        )
    )
    return charts


def _profile_in_words(statistics: Statistics) -> str:
    profile = statistics.profile
    if not profile.n:
        return "No instance has a feasible placement."
    lines = [
        f"{solver} is best on {share[0]:.0%} and feasible on {share[-1]:.0%}"
        for solver, share in zip(profile.solvers, profile.share, strict=True)
    ]
    return f"Of {profile.n} instances: " + "; ".join(lines) + "."


def _best_in_words(statistics: Statistics, what: str) -> str:
    known = [
        (getattr(line, what).n, getattr(line, what).value, line.solver)
        for line in statistics.summaries
        if getattr(line, what).n
    ]
    if not known:
        return "no solver is feasible."
    # A mean over the easy instances only is no feat.
    most = max(getattr(line, what).n for line in statistics.summaries)
    value, solver = min((value, solver) for n, value, solver in known if n == most)
    shown = f"{value:.1%}" if what == "gap" else f"{value:.3f}"
    return f"the least of those that are feasible most often is that of {solver}, {shown}."


def _paint_profile(statistics: Statistics, series: dict[str, LegendEntry], figure: Figure, palette: Palette) -> None:
    axes = figure.subplots()
    profile = statistics.profile
    end = max(float(profile.factors[-1]), 1.05) * 1.04
    for solver, share in zip(reversed(profile.solvers), profile.share[::-1], strict=True):
        entry = series[solver]
        (line,) = axes.step(
            [*profile.factors, end],
            [*share, share[-1]],
            where="post",
            color=entry.colour,
            linestyle=line_style(entry),
            linewidth=1.0 if entry.muted else 1.9,
            zorder=2 if entry.muted else 2.5,
        )
        belongs_to(line, solver, f"{solver}: best on {share[0]:.0%}, feasible on {share[-1]:.0%}")
    if end > 3:
        log_axis(axes.xaxis, base=2)
    axes.set(xlim=(1, end), ylim=(-0.02, 1.03), xlabel=f"factor of the best known ({statistics.measure.label})")
    axes.set_ylabel("share of instances")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    plain_axes(axes, palette)


def _paint_ratio(statistics: Statistics, series: dict[str, LegendEntry], figure: Figure, palette: Palette) -> None:
    axes = figure.subplots()
    ratios = statistics.paired.ratio
    for place, line in enumerate(statistics.summaries):
        column = ratios[:, statistics.paired.solvers.index(line.solver)]
        _row(axes, place, series[line.solver], line.ratio, column[np.isfinite(column)], f"{line.solver}: {{:.3f}}")
    _finish_rows(axes, statistics, palette, f"{statistics.measure.label} over the best known")
    axes.axvline(1, color=palette.ink, linewidth=0.8, linestyle=(0, (4, 2)))
    finite = ratios[np.isfinite(ratios)]
    if finite.size and finite.max() > 4:
        log_axis(axes.xaxis, base=2)


def _paint_gap(statistics: Statistics, series: dict[str, LegendEntry], figure: Figure, palette: Palette) -> None:
    axes = figure.subplots()
    largest = 0.0
    for place, line in enumerate(statistics.summaries):
        values = np.array(
            [100 * gap(case.by_solver[line.solver], case) for case in statistics.cases if line.solver in case.by_solver]
        )
        largest = max(largest, float(values[np.isfinite(values)].max(initial=0.0)))
        percent = _scaled(line.gap, 100)
        _row(axes, place, series[line.solver], percent, values[np.isfinite(values)], f"{line.solver}: {{:.1f}} %")
    _finish_rows(axes, statistics, palette, "gap to the lower bound, %")
    if largest > 10 * _LINEAR_GAP_PCT:
        axes.set_xscale("symlog", linthresh=_LINEAR_GAP_PCT)
        axes.set_xlim(-0.1 * _LINEAR_GAP_PCT, 1.3 * largest)
        axes.set_xticks([0, _LINEAR_GAP_PCT, *10.0 ** np.arange(2, np.log10(largest))])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(0, color=palette.ink, linewidth=0.8, linestyle=(0, (4, 2)))


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    value, low, high = (None if v is None else factor * v for v in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, low, high, estimate.n)


def _row(  # noqa: PLR0913  # what a row shows
    axes: Axes, place: int, entry: LegendEntry, estimate: Estimate, values: np.ndarray, title: str
) -> None:
    if estimate.value is None:
        axes.text(
            0.01,
            place,
            "not feasible anywhere",
            transform=axes.get_yaxis_transform(),
            va="center",
            style="italic",
            fontsize=7.5,
        )
        return
    spread = np.linspace(-0.28, 0.28, len(values)) if len(values) > 1 else np.zeros(len(values))
    dots = axes.scatter(values, place + spread, s=10, color=entry.colour, alpha=0.45, linewidths=0)
    belongs_to(dots, entry.label)
    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    (bar,) = axes.plot([low, high], [place, place], color=entry.colour, linewidth=2.2, solid_capstyle="butt")
    belongs_to(bar, entry.label, title.format(estimate.value))
    (dot,) = axes.plot([estimate.value], [place], marker=MARKERS[entry.marker], markersize=4.5, color=entry.colour)
    belongs_to(dot, entry.label, title.format(estimate.value))


def _finish_rows(axes: Axes, statistics: Statistics, palette: Palette, label: str) -> None:
    lines = statistics.summaries
    names = [
        line.solver if line.feasible == line.instances else f"{line.solver} ({line.feasible}/{line.instances})"
        for line in lines
    ]
    axes.set_yticks(range(len(lines)), names)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    plain_axes(axes, palette)
    axes.grid(visible=False, axis="y")


def _paint_time(statistics: Statistics, series: dict[str, LegendEntry], figure: Figure, palette: Palette) -> None:
    axes = figure.subplots()
    dots: list[tuple[float, float, LegendEntry]] = []
    for line in statistics.summaries:
        if line.ratio.value is None or line.time_s is None:
            continue
        entry = series[line.solver]
        everywhere = line.feasible == line.instances
        (dot,) = axes.plot(
            [max(line.time_s, 1e-4)],
            [line.ratio.value],
            marker=MARKERS[entry.marker],
            markersize=6,
            color=entry.colour,
            markerfacecolor=entry.colour if everywhere else "none",
            linestyle="none",
            zorder=2 if entry.muted else 3,
        )
        dots.append((max(line.time_s, 1e-4), line.ratio.value, entry))
        belongs_to(dot, line.solver, f"{line.solver}: {line.time_s:.3g} s, {line.ratio.value:.3f}")
    log_axis(axes.xaxis)
    log_axis(axes.yaxis, base=2, from_ratio=FEW)
    axes.margins(x=0.15, y=0.1)
    name_dots(axes, dots)
    axes.set_xlabel("solve time, s (shifted geometric mean)")
    axes.set_ylabel(f"{statistics.measure.label} over the best known")
    plain_axes(axes, palette)
