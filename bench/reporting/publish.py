"""What a run leaves: rows in Parquet, a picture, a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType

from bench.comparison.rows import Row, write_rows
from bench.shared.files import check_file
from bench.shared.terminal import console


def check_targets(out: str | None, picture: str | None) -> None:
    """Raise `UserError` now if the files could not be written at the end of a long run."""
    for key, name, suffix in (("out", out, ".parquet"), ("picture", picture, ".png")):
        if name is not None:
            check_file(key, name, suffix)


def publish(rows: Sequence[Row], report: RenderableType, out: Path, picture: Path | None = None) -> None:
    """Write rows and picture, print the report and where they are.

    Parameters
    ----------
    rows : sequence of Row
    report : renderable
        For the terminal.
    out : Path
        Parquet file.
    picture : Path, optional
        PNG file; by default beside the rows, with their name.
    """
    from bench.reporting.picture import draw

    write_rows(rows, out)
    terminal = console()
    terminal.print(report)
    terminal.print(f"rows     {_shown(out)}", soft_wrap=True)
    target = picture or out.with_suffix(".png")
    draw(rows, target)
    terminal.print(f"picture  {_shown(target)}", soft_wrap=True)


def _shown(path: Path) -> Path:
    """A path as a user would type it."""
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path
