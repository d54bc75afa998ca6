"""Files that a command writes: whole or not at all, and refused before hours of work rather than after them."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

from twin.errors import UserError
from twin.files import refusal, write_bytes, write_text, written

__all__ = [
    "check_file",
    "check_files",
    "check_folder",
    "refusal",
    "write_bytes",
    "write_table",
    "write_text",
    "written",
]


def write_table(table: Any, path: Path, named: str = "") -> None:  # noqa: ANN401  # pyarrow has no types
    """Write a Parquet file.

    Parameters
    ----------
    table : pyarrow.Table or pandas.DataFrame
        The index of a frame is left out.
    path : Path
    named : str
        As for `written`.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with written(path, named) as temporary:
        parquet.write_table(table, temporary, compression="zstd")


def check_file(option: str, name: str, suffix: str = "") -> Path:
    """The path of a file to write, once it is clear that it can be.

    Parameters
    ----------
    option : str
        For the message.
    name : str
        Its value.
    suffix : str
        What the name must end with, such as `.png`.

    Raises
    ------
    UserError
        For another ending, a folder, or a place that cannot be written to.
    """
    path = Path(name)
    if suffix and path.suffix != suffix:
        raise UserError(f"{option}={name} must be the name of a {suffix} file")
    try:
        if path.is_dir():
            raise UserError(f"{option}={name} is a folder, not a file")
        if path.exists() and not path.is_file():
            raise UserError(f"{option}={name} is no regular file")
        _check_place(path.absolute().parent)
    except OSError as error:
        raise UserError(f"{option}={name}: cannot be written ({refusal(error)})") from None
    return path


def check_files(**options: str | None) -> None:
    """Raise `UserError` for the first of several options whose file cannot be written; None is no file."""
    for option, name in options.items():
        if name is not None:
            check_file(option, name)


def check_folder(option: str, name: str) -> Path:
    """The path of a folder to write to, once it is clear that it can be.

    Raises
    ------
    UserError
        If it is a file, or cannot be made or written to.
    """
    path = Path(name)
    try:
        if path.exists() and not path.is_dir():
            raise UserError(f"{option}={name} must be a folder")
        _check_place(path.absolute())
    except OSError as error:
        raise UserError(f"{option}={name}: cannot be written to ({refusal(error)})") from None
    return path


def _check_place(folder: Path) -> None:
    """Raise `OSError` unless files can be made in a folder, or in the nearest one above it that there is."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise FileExistsError(0, "", str(existing))
    # Rights alone do not tell: a file system can be read-only, and whoever may do all has every right in it.
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except FileNotFoundError:
        # Says a folder such as /proc, which is there.
        raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None
