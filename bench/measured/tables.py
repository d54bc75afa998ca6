"""Tables that a user gives, CSV or Parquet, read with one clear line for whatever is wrong with them."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from twin import UserError
from twin.inputs import read_text
from twin.numbers import shown

_PAGE = ("# HELP", "# TYPE", "vllm:")


def read_frame(path: Path, what: str, *, key: str = "") -> pd.DataFrame:
    """A table.

    Parameters
    ----------
    path : Path
        Parquet by its suffix, otherwise CSV with a header.
    what : str
        What it should be, for messages.
    key : str
        The option that names it.

    Raises
    ------
    UserError
        If it cannot be read, or is no table.
    """
    import pyarrow as pa

    where = f"{key}={path}" if key else str(path)
    if path.suffix == ".parquet":
        if not path.is_file():
            raise UserError(f"{where}: {'is a folder' if path.is_dir() else 'no such file'}; it must be {what}")
        try:
            return pd.read_parquet(path)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise UserError(f"{where}: not a readable Parquet file ({_first_line(error)}); it must be {what}") from None
    text = read_text(path, what, key=key)
    if text.lstrip().startswith(_PAGE):
        raise UserError(
            f"{where}: is a page of Prometheus metrics; it must be {what}, with a row for each page that was saved (docs/twin.md)"
        )
    try:
        table = pd.read_csv(io.StringIO(text), low_memory=False)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where}: not a table ({_first_line(error)}); it must be {what}") from None
    if len(set(table.columns)) < len(table.columns):
        raise UserError(f"{where}: a column is there twice")
    return table


def read_written(path: Path, command: str, columns: Collection[str], *, key: str) -> pd.DataFrame:
    """A table that a command of this project wrote, which is known by its columns.

    Parameters
    ----------
    path : Path
        As `read_frame` has it.
    command : str
        Its name behind `bench.`.
    columns : collection of str
        Those that must be there.
    key : str
        The option that names the file.

    Raises
    ------
    UserError
        If it cannot be read, or holds something else.
    """
    table = read_frame(path, f"what `python -m bench.{command}` wrote", key=key)
    missing = set(columns) - set(table.columns)
    if missing:
        raise UserError(f"{key}={path}: not written by `python -m bench.{command}`; it lacks {sorted(missing)}")
    return table


def check_columns(
    table: pd.DataFrame, path: str | Path, columns: Sequence[str], *, least: float = 0.0, empty: bool = False
) -> None:
    """Refuse columns with anything but finite numbers.

    Parameters
    ----------
    table : DataFrame
        Its index counts rows from 0 below the header.
    path : str or Path
        For messages.
    columns : sequence of str
    least : float
        No number is below it.
    empty : bool
        Whether values may be missing.

    Raises
    ------
    UserError
        Naming the column, the row (as a text editor counts lines) and the value.
    """
    for column in columns:
        # Dates would count as nanoseconds.
        given = table[column] if table[column].dtype.kind not in "mM" else table[column].astype(str)
        numbers = pd.to_numeric(given, errors="coerce").to_numpy(dtype=float)
        missing = table[column].isna().to_numpy()
        wrong = (~missing & ~((numbers >= least) & (numbers < math.inf))) | (missing & (not empty))
        if wrong.any():
            place = int(wrong.argmax())
            row = int(table.index[place]) + 2
            raise UserError(
                f"{path}: row {row}, column {column}: {shown(table[column].iloc[place])} must be a number, {least:g} or more"
            )


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
