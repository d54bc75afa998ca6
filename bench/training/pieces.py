"""Pieces of a labelled sample: made by whoever is free, kept in a folder until all are there."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.shared.files import write_text
from twin import UserError

#: Parts of a sample: drawn from the whole range, and near to where the labels change.
DESIGNED, BOUNDARY = "designed", "boundary"


@dataclass(frozen=True)
class Piece:
    """Contents `first` to `last - 1` of a part of the sample."""

    part: str
    first: int
    last: int

    @property
    def file_name(self) -> str:
        """Where the piece stands until all are there."""
        return f"{self.part}-{self.first:08d}.parquet"


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write down whose pieces are in a folder, or refuse it if they belong to another sample."""
    note = folder / "settings.json"
    if not note.is_file():
        write_text(note, json.dumps(settings))
    elif json.loads(note.read_text()) != settings:
        raise UserError(
            f"out: {folder} holds pieces of another sample (other points, seed or profile); "
            "remove that folder or give another out"
        )


def pieces_of(part: str, n_contents: int, size: int) -> list[Piece]:
    """A part of a sample in pieces of a size."""
    return [Piece(part, first, min(first + size, n_contents)) for first in range(0, n_contents, size)]


def missing(pieces: Sequence[Piece], folder: Path) -> list[Piece]:
    """The pieces that are not in the folder yet."""
    return [piece for piece in pieces if not (folder / piece.file_name).is_file()]


def in_turn(*parts: Sequence[Piece]) -> list[Piece]:
    """The pieces of several parts in turn, in proportion to how many there are of each."""
    places = [(n / max(1, len(part)), piece) for part in parts for n, piece in enumerate(part)]
    return [piece for _, piece in sorted(places, key=lambda place: place[0])]


def in_processes(work: Callable[[Piece], int], pieces: Sequence[Piece], workers: int) -> Iterator[int]:
    """Make pieces, in so many processes; yields how many contents each has."""
    if workers == 1 or len(pieces) <= 1:
        yield from map(work, pieces)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(pieces)), mp_context=context) as pool:
        try:
            yield from pool.map(work, pieces)
        except BaseException:
            # Pieces that have not begun would keep an interrupted command waiting.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def joined(folder: Path, pieces: Sequence[Piece]) -> pa.Table:
    """The rows of some pieces that are there."""
    return pa.concat_tables([pq.read_table(folder / piece.file_name) for piece in pieces])
