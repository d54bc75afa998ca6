"""Tables of studies: one line for each thing that was studied, in a CSV file with which an interrupted command goes on."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from bench.shared.files import write_text
from twin import UserError

Line = TypeVar("Line")


class StudyLines(Generic[Line]):
    """Lines of a study by what they are about; each is written as soon as it is made, and never made twice.

    Parameters
    ----------
    kind : data class
        Of a line; its fields are the columns.
    table : str, optional
        CSV file; without one nothing is kept.
    key : sequence of str
        Columns that say what a line is about.
    options : object
        With an attribute for each of `settings`.
    settings : sequence of str
        Columns that hold an option which all lines must have been made with.

    Raises
    ------
    UserError
        If the file is of another study, or its lines were made with other options.
    """

    def __init__(
        self, kind: type[Line], table: str | None, key: Sequence[str], options: object, settings: Sequence[str]
    ) -> None:
        self._kind = kind
        self._table = None if table is None else Path(table)
        self._key = tuple(key)
        lines = [] if self._table is None or not self._table.exists() else self._read(self._table, options, settings)
        self._lines = {self._key_of(line): line for line in lines}

    def line(self, key: Sequence[object], make: Callable[[], Line]) -> Line:
        """The line about something, made if there is none yet.

        Parameters
        ----------
        key : sequence
            Values of the key's columns.
        make : callable
            Makes the line.
        """
        known = tuple(key)
        if known not in self._lines:
            self._lines[known] = make()
            if self._table is not None:
                write_text(self._table, as_csv(self._kind, self._lines.values()))
        return self._lines[known]

    def _key_of(self, line: Line) -> tuple[object, ...]:
        return tuple(getattr(line, name) for name in self._key)

    def _read(self, table: Path, options: object, settings: Sequence[str]) -> list[Line]:
        advice = "remove it or name another file"
        try:
            frame = pd.read_csv(table)
        except (OSError, UnicodeDecodeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"table={table}: no table of an earlier run ({reason}); {advice}") from None
        names = _columns(self._kind)
        if list(frame.columns) != names:
            raise UserError(f"table={table}: its columns must be {', '.join(names)}; {advice}")
        lines = [self._kind(*values) for values in frame.itertuples(index=False)]
        for name in settings:
            if any(not math.isclose(getattr(line, name), getattr(options, name)) for line in lines):
                raise UserError(f"table={table}: holds lines made with another {name}; {advice}")
        return lines


def as_csv(kind: type[Line], lines: Iterable[Line]) -> str:
    """Lines as CSV, figures to six digits, empty where there is none.

    Parameters
    ----------
    kind : data class
        Of the lines; its fields are the columns.
    lines : iterable
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_columns(kind))
    for line in lines:
        writer.writerow(_short(getattr(line, name)) for name in _columns(kind))
    return text.getvalue()


def _columns(kind: Any) -> list[str]:  # noqa: ANN401  # a data class, of which there is no type that is not a stub's
    return [each.name for each in fields(kind)]


def _short(value: Any) -> Any:  # noqa: ANN401  # whatever a line holds
    return float(f"{value:.6g}") if isinstance(value, float) else value
