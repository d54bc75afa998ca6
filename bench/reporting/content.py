"""What a part of the report is made of: text, tables, charts; the page and the paper's files are written from the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.comparison.rows import Row


#: Shown where there is no figure.
NONE = "–"  # noqa: RUF001  # a dash, as printed tables have it
Tone = Literal["", "good", "bad", "warn", "muted"]


@dataclass(frozen=True)
class Entry:
    """One cell of a table.

    Attributes
    ----------
    text : str
        What is shown.
    value : float or str, optional
        What the table is sorted by, and what the CSV holds; None sorts last.
    tone : str
        Colours the text; what it means is always said in words as well.
    link : str
        Target of a link, such as "#workload-1".
    solver : str
        The solver that the cell names, to show its colour.
    interval : tuple of two floats, optional
        Ends of an interval around the value, for the CSV.
    """

    text: str
    value: float | str | None = None
    tone: Tone = ""
    link: str = ""
    solver: str = ""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Column:
    """A column: its heading, what it means, whether a reader may want to choose among its values."""

    label: str
    help: str = ""
    numeric: bool = True
    facet: bool = False


@dataclass(frozen=True)
class Table:
    """A table that sorts and filters.

    Attributes
    ----------
    name : str
        Unique; names the files for a paper.
    caption : str
    columns : tuple of Column
    lines : tuple of tuples of Entry
    filterable : bool
        Has a field to filter by; short tables need none.
    on_page : int, optional
        So many of the lines stand on the page, the first ones; by default all. The files for a paper have all.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[tuple[Entry, ...], ...]
    filterable: bool = False
    on_page: int | None = None

    @property
    def shown(self) -> tuple[tuple[Entry, ...], ...]:
        """The lines that stand on the page."""
        return self.lines[: self.on_page]

    @property
    def facets(self) -> list[tuple[int, Column, list[str]]]:
        """Columns to choose by, with their place and their values."""
        return [
            (place, column, list(dict.fromkeys(line[place].text for line in self.shown)))
            for place, column in enumerate(self.columns)
            if column.facet and len({line[place].text for line in self.shown}) > 1
        ]


@dataclass(frozen=True)
class LegendEntry:
    """An entry of a legend.

    Attributes
    ----------
    label : str
    colour : str
        `#rrggbb`.
    dash : tuple of float
        On and off lengths of the line; empty for a full line.
    marker : int
        Which of the four marks: disc, square, triangle, diamond.
    muted : bool
        Stands back behind the others.
    """

    label: str
    colour: str
    dash: tuple[float, ...] = ()
    marker: int = 0
    muted: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart, painted on a matplotlib figure.

    Attributes
    ----------
    name : str
        Unique; names the picture for a paper.
    title, text : str
        The heading; what it shows, in words, for those who cannot see it.
    paint : callable
        Paints it on an empty figure in the colours of a palette.
    size_in : tuple of two floats
        Width and height; at most 5 inches wide, so that its text can be read on a phone.
    legend : tuple of LegendEntry
        Shown beside the chart on the page and below it in the picture.
    """

    name: str
    title: str
    text: str
    paint: Callable[[Figure, Palette], None]
    size_in: tuple[float, float] = (4.6, 3.0)
    legend: tuple[LegendEntry, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """A placement, drawn as SVG for the page.

    Attributes
    ----------
    title : str
    svg : str
        Made here, every text in it escaped.
    row : Row
        Whose placement it is.
    key : tuple of (str, str)
        Legend: class in the style sheet, label.
    folded : bool
        Shown when the reader asks for it.
    """

    title: str
    svg: str
    row: Row
    key: tuple[tuple[str, str], ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Part:
    """One part of the page.

    Attributes
    ----------
    name, title : str
        Anchor; heading.
    text : tuple of str
        Paragraphs.
    blocks : tuple of Table, Chart, Drawing, Code, Facts
        In their order.
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    blocks: tuple[Table | Chart | Drawing | Code | Facts, ...] = ()

    @property
    def tables(self) -> list[Table]:
        """The tables of the part."""
        return [block for block in self.blocks if isinstance(block, Table)]

    @property
    def charts(self) -> list[Chart]:
        """The charts of the part."""
        return [block for block in self.blocks if isinstance(block, Chart)]


@dataclass(frozen=True)
class Code:
    """Commands to copy, with what they do."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """A few figures that matter most, each with its label."""

    items: tuple[tuple[str, str], ...] = field(default=())


def number(value: float | None, digits: int = 1, *, scale: float = 1.0) -> Entry:
    """A cell with a figure."""
    if value is None or value != value:  # noqa: PLR0124  # NaN
        return Entry(NONE)
    return Entry(f"{scale * value:,.{digits}f}", scale * value)


def words(text: str, *, tone: Tone = "", link: str = "", solver: str = "") -> Entry:
    """A cell with text."""
    return Entry(text, text, tone, link, solver)


def share(part: int, whole: int) -> Entry:
    """A cell such as 38/40."""
    return Entry(f"{part}/{whole}", part / whole if whole else None, "good" if part == whole else "bad")


def slug(text: str) -> str:
    """A name that can be an anchor and a file name."""
    kept = "".join(letter if letter.isalnum() else "-" for letter in text.lower())
    return "-".join(part for part in kept.split("-") if part) or "x"


def unique_slugs(texts: Sequence[str]) -> list[str]:
    """A different name for each text."""
    found: list[str] = []
    for text in texts:
        name, n = slug(text), 2
        while name in found:
            name, n = f"{slug(text)}-{n}", n + 1
        found.append(name)
    return found


@dataclass(frozen=True)
class Palette:
    """Colours that differ between light and dark pages."""

    ink: str
    line: str
    surface: str
