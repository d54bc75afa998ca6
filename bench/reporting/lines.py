"""Lines of a table as HTML: a page has hundreds of thousands of cells, and each byte and microsecond of one is spent so often."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from bench.reporting.content import NONE, Column, Entry, LegendEntry, Table


def lines_html(table: Table, series: Mapping[str, LegendEntry]) -> str:
    """The lines of a table that stand on the page.

    Figures are sorted by as they are shown, and stand to the right unless their cell says otherwise (`style.css`).

    Parameters
    ----------
    table : Table
    series : mapping of str to LegendEntry
        Colour and mark of each solver; the style sheet of the page numbers the colours in this order (`s0`, `s1`, ...).
    """
    dots = {
        label: f'<i class="dot k{entry.marker} s{place}"></i>' for place, (label, entry) in enumerate(series.items())
    }
    return "\n".join(
        f"<tr>{_cell(line[0], table.columns[0], dots, 'th')}"
        f"{''.join(_cell(entry, column, dots, 'td') for entry, column in zip(line[1:], table.columns[1:], strict=True))}</tr>"
        for line in table.shown
    )


# Heads of lines stand to the left, other cells to the right.
_ASIDE = {("th", True): "n", ("td", False): "w"}


def _cell(entry: Entry, column: Column, dots: Mapping[str, str], tag: str) -> str:
    text = escape(entry.text)
    if column.numeric and tag == "td" and not (entry.tone or entry.link or entry.solver):
        return f"<td{_sorted_by(entry)}>{text}</td>"
    kinds = [kind for kind in (_ASIDE.get((tag, column.numeric), ""), entry.tone) if kind]
    marks = ' scope="row"' if tag == "th" else ""
    if kinds:
        marks += f' class="{" ".join(kinds)}"'
    marks += _sorted_by(entry)
    if entry.link:
        text = f'<a href="{escape(entry.link)}">{text}</a>'
    return f"<{tag}{marks}>{dots.get(entry.solver, '')}{text}</{tag}>"


def _sorted_by(entry: Entry) -> str:
    """What a line is sorted by, where its text does not say it."""
    value = entry.value
    if value is None:
        return "" if entry.text in (NONE, "") else ' data-v=""'
    if isinstance(value, str):
        return "" if value == entry.text else f' data-v="{escape(value)}"'
    return "" if _is_figure(entry.text) else f' data-v="{value:.6g}"'


def _is_figure(text: str) -> bool:
    return text.replace(",", "").replace(".", "").removeprefix("-").isdigit()
