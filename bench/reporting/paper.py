"""The same figures and tables as files for a paper: PNG, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from bench.reporting.content import Chart, Drawing, Entry, Part, Table
from bench.reporting.drawing import write_png
from bench.reporting.picture import draw_placements
from bench.shared.files import write_text


def write_paper(folder: Path, parts: Sequence[Part]) -> list[Path]:
    """Write each chart as PNG, the placements of each page in one PNG, and each table as Markdown and CSV.

    Returns
    -------
    list of Path
        What was written, in the order of the parts.
    """
    written = []
    for part in parts:
        drawn = [block.row for block in part.blocks if isinstance(block, Drawing)]
        if drawn:
            path = folder / f"{part.name}-placements.png"
            draw_placements(drawn, path)
            written.append(path)
        for block in part.blocks:
            if isinstance(block, Chart):
                path = folder / f"{block.name}.png"
                write_png(block, path)
                written.append(path)
            elif isinstance(block, Table):
                for suffix, text in ((".md", markdown(block)), (".csv", as_csv(block))):
                    path = folder / f"{block.name}{suffix}"
                    write_text(path, text)
                    written.append(path)
    return written


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, its caption above."""
    heads = [column.label for column in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [[cell.text for cell in line] for line in table.lines]
    body = "\n".join("| " + " | ".join(_in_markdown(text) for text in line) + " |" for line in (heads, rule, *lines))
    return f"{table.caption}\n\n{body}\n"


def as_csv(table: Table) -> str:
    """The table as CSV: figures in full, empty where there is none; an interval has two columns of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    wide = [any(line[place].interval for line in table.lines) for place in range(len(table.columns))]
    heads = [
        [column.label, *([f"{column.label}, low", f"{column.label}, high"] if with_ends else [])]
        for column, with_ends in zip(table.columns, wide, strict=True)
    ]
    writer.writerow(label for head in heads for label in head)
    for line in table.lines:
        cells = [
            [_in_csv(cell), *(_ends(cell) if with_ends else [])] for cell, with_ends in zip(line, wide, strict=True)
        ]
        writer.writerow(value for group in cells for value in group)
    return text.getvalue()


def _in_markdown(text: str) -> str:
    return text.replace("|", "\\|")


def _in_csv(cell: Entry) -> str:
    if cell.value is None:
        return ""
    # A share such as 38/40 and a score such as 4-2-0 say more than the value they are sorted by.
    if isinstance(cell.value, str) or any(mark in cell.text[1:] for mark in "/-"):
        return cell.text
    return f"{cell.value:.10g}"


def _ends(cell: Entry) -> list[str]:
    return ["", ""] if cell.interval is None else [f"{end:.10g}" for end in cell.interval]
