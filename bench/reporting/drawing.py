"""Charts as SVG in the colours of the page, and as PNG for a paper."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np

from bench.reporting.content import Chart, LegendEntry, Palette
from bench.shared.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


#: White paper.
PAPER = Palette("#22303c", "#c3cbd2", "#ffffff")

# Stand for colours of the style sheet: no chart uses these for anything else.
_PAGE = Palette("#010203", "#040506", "#070809")
_VARIABLES = {_PAGE.ink: "var(--ink)", _PAGE.line: "var(--line)", _PAGE.surface: "var(--surface)"}

#: Told apart on a light and on a dark page.
COLOURS = (
    "#3b82c4", "#e0792b", "#3fa66b", "#d6495b", "#9370c8", "#a5742f", "#d76cab", "#7f8a94", "#a8a52e", "#27a9b5",
)  # fmt: skip
#: In line widths, by eye: solid, and three that are still told apart where a curve is short.
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1.2), (5, 1.2, 1, 1.2))
#: More solvers than this are spaghetti: then so many stand out, and the others are grey. By eye.
MOST_COLOURED, HIGHLIGHTED, GREY = 6, 3, "#9aa4ad"
#: Within so many times the least a logarithmic axis would have one figure at its ticks.
FEW = 4.0
GOOD, BAD = "#2a9d8f", "#d6495b"
MARKERS = ("o", "s", "^", "D")
# By eye, at the width of a page's column.
_FONT_SIZE = 9
_DPI = 200

# Prefix of the identifiers that survive into the page: what a reader may point at.
_GROUP = "series:"


def series(labels: Sequence[str]) -> dict[str, LegendEntry]:
    """A colour, a dash and a marker for each of several solvers, the best first; of many, those that follow the first are grey."""
    coloured = len(labels) if len(labels) <= MOST_COLOURED else HIGHLIGHTED
    return {
        label: LegendEntry(
            label,
            COLOURS[place % len(COLOURS)] if place < coloured else GREY,
            DASHES[place // len(COLOURS) % len(DASHES)],
            place // len(COLOURS) % len(MARKERS),
            muted=place >= coloured,
        )
        for place, label in enumerate(labels)
    }


def belongs_to(artist: Artist, label: str, title: str = "") -> None:
    """Mark what is drawn as of a series, so that the page can single it out, with a title to show."""
    artist.set_gid(f"{_GROUP}{label}\t{title or label}")


def name_dots(axes: Axes, dots: Sequence[tuple[float, float, LegendEntry]]) -> None:
    """Write names beside the dots of series, once scales and margins are set: in the legend those that stand back are one entry.

    Where there is no room beside its dot, the name of one that stands back is left out; the page shows it to who points there.
    """
    points = axes.figure.dpi / 72
    at = [axes.transData.transform((x, y)) for x, y, _ in dots]
    taken = [_box(place, 6 * points, 6 * points, (-0.5, -0.5)) for place in at]
    for place, (x, y, entry) in sorted(zip(at, dots, strict=True), key=lambda dot: dot[1][2].muted):
        size = 6 if entry.muted else 8
        # A letter is about .62 of its height wide.
        extent = 0.62 * size * len(entry.label) * points, 1.1 * size * points
        boxes = [_box(place + points * np.array(aside), *extent, part) for aside, part in _BESIDE]
        free = [
            spot
            for spot, box in enumerate(boxes)
            if box[0] >= axes.bbox.x0 and box[2] <= axes.bbox.x1 and not any(_overlap(box, other) for other in taken)
        ]
        if not free and entry.muted:
            continue
        spot = free[0] if free else 0
        taken.append(boxes[spot])
        aside, part = _BESIDE[spot]
        named = axes.annotate(
            entry.label,
            (x, y),
            xytext=aside,
            textcoords="offset points",
            ha="left" if part[0] == 0 else "right",
            va={-0.5: "center", 0.0: "bottom", -1.0: "top"}[part[1]],
            fontsize=size,
            color=entry.colour,
            fontweight="normal" if entry.muted else "bold",
            zorder=1 if entry.muted else 4,
        )
        belongs_to(named, entry.label)


#: Where a name may stand beside its dot: how far aside in points, and how much of the name is left of that and below it; the best
#: place first.
_BESIDE = (
    ((5, 0), (0.0, -0.5)), ((-5, 0), (-1.0, -0.5)), ((2, 4), (0.0, 0.0)), ((2, -4), (0.0, -1.0)), ((-2, 4), (-1.0, 0.0)),
    ((-2, -4), (-1.0, -1.0)),
)  # fmt: skip


def _box(place: Any, width: float, height: float, part: tuple[float, float]) -> tuple[float, float, float, float]:  # noqa: ANN401  # a pair
    left, low = place[0] + part[0] * width, place[1] + part[1] * height
    return left, low, left + width, low + height


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def line_style(entry: LegendEntry) -> Any:  # noqa: ANN401  # matplotlib takes a name or a pair
    """The dash of a series as matplotlib has it."""
    return (0, entry.dash) if entry.dash else "-"


def to_svg(chart: Chart) -> str:
    """The chart as an SVG element whose neutral colours are those of the page."""
    text = io.StringIO()
    _painted(chart, _PAGE, f"chart-{chart.name}", text, "svg")
    return _inline(text.getvalue(), chart)


def write_png(chart: Chart, path: Path) -> None:
    """Write the chart with its legend as PNG."""
    data = io.BytesIO()
    _painted(chart, PAPER, chart.name, data, "png")
    write_bytes(path, data.getvalue())


def legend_handles(chart: Chart) -> list[Any]:
    """The legend of a chart as matplotlib has it."""
    from matplotlib.lines import Line2D

    muted = sum(entry.muted for entry in chart.legend)
    # Grey ones are not told apart: they share an entry.
    entries = [entry for entry in chart.legend if not entry.muted]
    entries += [LegendEntry(f"{muted} others", GREY)] if muted else []
    return [
        Line2D(
            [],
            [],
            color=entry.colour,
            linestyle=line_style(entry),
            linewidth=1.6,
            marker=MARKERS[entry.marker],
            markersize=4,
            label=entry.label,
        )
        for entry in entries
    ]


def plain_axes(axes: Axes, palette: Palette) -> None:
    """A faint grid behind what is drawn."""
    axes.grid(visible=True, color=palette.line, linewidth=0.5, alpha=0.7)
    axes.set_axisbelow(True)


def log_axis(axis: Axis, base: int = 10, *, from_ratio: float = 1.0) -> None:
    """Make an axis logarithmic once all is drawn, with plain figures at its ticks; not where all is within a ratio."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes = axis.axes
    least, most = axis.get_data_interval()
    if most < from_ratio * least:
        return
    if axis is axes.yaxis:
        axes.set_yscale("log")
    else:
        axes.set_xscale("log")
    low, high = axis.get_view_interval()
    # Over more than two decades the figures between the powers would run into each other.
    between = base == 10 and high < 100 * low
    axis.set_major_locator(LogLocator(base=base, subs=(1, 2, 5) if between else (1,), numticks=9))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _painted(chart: Chart, palette: Palette, salt: str, target: Any, kind: str) -> None:  # noqa: ANN401  # a text or byte stream
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": _FONT_SIZE,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.color": palette.ink,
        "axes.labelcolor": palette.ink,
        "axes.edgecolor": palette.line,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": palette.ink,
        "ytick.color": palette.ink,
        "hatch.color": BAD,
        "legend.frameon": False,
    }
    width, height = chart.size_in
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none" if kind == "svg" else "white")
        chart.paint(figure, palette)
        if kind == "png" and chart.legend:
            handles = legend_handles(chart)
            columns = 3
            figure.set_size_inches(width, height + 0.17 * -(-len(handles) // columns) + 0.1)
            figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=7, handlelength=2.6)
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(target, format=kind, dpi=_DPI if kind == "png" else 72, metadata=metadata)


def _inline(svg: str, chart: Chart) -> str:
    """What of a stand-alone SVG belongs into a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="([^"]+)"', svg)
    if view is None:
        raise ValueError(f"chart {chart.name}: no viewBox in what matplotlib wrote")
    head = f'<svg class="chart" viewBox="{view.group(1)}" role="img" aria-label="{escape(chart.text, _QUOTE)}">'
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(rf'<g id="{_GROUP}([^"\t]*)(?:\t|&#9;)([^"]*)">', _marked, svg)
    # Identifiers that nothing refers to would be the same in every chart.
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match.group(0) if match.group(1) in used else "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    # The clip paths of two charts of equal size would have the same name, which does no harm; a hundredth of a point is enough.
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag.group()), svg)
    svg = re.sub(r">\s+<", "><", svg)
    return re.sub(r"\s*\n\s*", " ", svg).strip()


_QUOTE = {'"': "&quot;"}


def _marked(match: re.Match[str]) -> str:
    label, title = match.groups()
    return f'<g class="series" data-series="{label}"><title>{title}</title>'
