"""The rows that a command is pointed at."""

from __future__ import annotations

from pathlib import Path

from bench.rows import FILE_NAME, Row, gather, read_rows
from twin import UserError


def read_any(path: Path) -> list[Row]:
    """Rows of a Parquet file, or of every run in a folder.

    Raises
    ------
    UserError
        If there are none.
    """
    if not path.exists():
        raise UserError(f"rows={path}: no such file or folder")
    rows = gather(path) if path.is_dir() else read_rows(path)
    if not rows:
        raise UserError(f"rows={path}: holds no rows (files called {FILE_NAME}) of `python -m bench`")
    return rows
