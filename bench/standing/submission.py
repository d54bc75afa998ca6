"""A submission: a solver's rows on the benchmark tier and who made them, as a folder that can be handed in."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bench.comparison.rows import FILE_NAME, Row, read_rows, write_rows
from bench.shared.files import write_text
from bench.suites.bounds import is_of
from bench.suites.instance import Instance
from twin import UserError
from twin.inputs import read_json

ABOUT = "submission.json"
#: Folder with the code, where it is handed in as well.
CODE = "code"
#: Bytes and files that such a folder may have, and what is no code.
_MOST_BYTES, _MOST_FILES = 1_000_000, 100
_IGNORED = shutil.ignore_patterns("__pycache__", ".git", ".venv", "*.pyc", "*.egg-info", "build", ".pytest_cache")
#: Service levels that are ranked: each is a track of its own.
TRACKS = ("published", "interactive")
#: Seconds that a solver of the leaderboard may take for an instance, on whatever machine it says.
TIME_LIMIT_S = 60.0
# What it may take beyond, to end and to hand its answer over.
_GRACE_S = 10.0
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_LONGEST = 600


@dataclass(frozen=True)
class About:
    """Who hands in what.

    Attributes
    ----------
    name : str
        Of the method, on the leaderboard and of the folder.
    version : str
        Of its code.
    authors : tuple of str
    date : str
        Year, month and day.
    code : str
        Where it can be read: an https address, or `code` for the folder of this name in the submission.
    description : str
        What it does, in a few sentences.
    hardware : str
        What it ran on.
    """

    name: str
    version: str
    authors: tuple[str, ...]
    date: str
    code: str
    description: str
    hardware: str

    def mistakes(self) -> list[str]:
        """A line for each key that says nothing, or not what it should."""
        said = []
        if not _NAME.fullmatch(self.name):
            said.append(
                f"name={self.name!r} must be small letters, digits, '-', '_' and '.', 40 at most, and begin with one of the first two"
            )
        said += [
            f"{key} is empty"
            for key in ("version", "code", "description", "hardware")
            if not getattr(self, key).strip()
        ]
        if not self.authors or not all(author.strip() for author in self.authors):
            said.append("authors must be a list with at least one name")
        if self.code.strip() and self.code != CODE and not re.fullmatch(r"https://\S+", self.code):
            said.append(
                f"code={self.code!r} must be an https address, or {CODE!r} for the folder beside the description"
            )
        try:
            dt.date.fromisoformat(self.date)
        except ValueError:
            said.append(f"date={self.date!r} must be year-month-day, as 2026-01-31")
        texts = [*(str(value) for key, value in asdict(self).items() if key != "authors"), *self.authors]
        said += [
            f"{text[:40]!r}... must be printable characters, {_LONGEST} at most"
            for text in texts
            if len(text) > _LONGEST or not text.isprintable()
        ]
        return said


@dataclass(frozen=True)
class Submission:
    """What was handed in.

    Attributes
    ----------
    about : About
    rows : tuple of Row
        Of one solver, for one or more tracks.
    """

    about: About
    rows: tuple[Row, ...]

    def of_track(self, track: str) -> list[Row]:
        """The rows of a track."""
        return [row for row in self.rows if row.service == track]

    def write(self, folder: Path) -> None:
        """Write the folder."""
        about = {**asdict(self.about), "authors": list(self.about.authors)}
        write_text(folder / ABOUT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
        write_rows(list(self.rows), folder / FILE_NAME)


def check_code(source: Path) -> None:
    """Look at code that is to be handed in, before any of it is read.

    Raises
    ------
    UserError
        If there is none, it is too large to be read by anybody, or something in it is neither a file nor a folder: what a link
        leads to is not part of what is handed in.
    """
    if source.is_symlink() or not source.is_dir():
        raise UserError(f"code={CODE}: no folder {source}; put the code there, or give an https address")
    count = size = 0
    for place, folders, files in os.walk(source):
        ignored = _IGNORED(place, [*folders, *files])
        folders[:] = [name for name in folders if name not in ignored]
        for path in (Path(place) / name for name in (*folders, *files) if name not in ignored):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"code={CODE}: {path} is a link or no plain file; plain files and folders are taken")
            count, size = count + 1, size + status.st_size
    if not count or size > _MOST_BYTES or count > _MOST_FILES:
        raise UserError(
            f"code={CODE}: {source} has {count} files of {size} bytes; 1 to {_MOST_FILES} files of {_MOST_BYTES} bytes are taken"
        )


def keep_code(source: Path, folder: Path) -> None:
    """Put the code that is handed in beside the description into a submission.

    Raises
    ------
    UserError
        As `check_code` has it.
    """
    check_code(source)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        copy = Path(shutil.copytree(source, Path(place) / CODE, symlinks=True, ignore=_IGNORED))
        shutil.rmtree(folder / CODE, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        copy.rename(folder / CODE)


def read_submission(folder: Path) -> Submission:
    """A submission from its folder.

    Raises
    ------
    UserError
        If a file is missing or is none, or a key is missing, unknown or of another kind.
    """
    path = folder / ABOUT
    if not path.is_file():
        raise UserError(f"{folder}: no {ABOUT} in it; python -m bench.submit makes such folders")
    return Submission(
        about_of(read_json(path, "a description of a submission"), str(path)), tuple(read_rows(folder / FILE_NAME))
    )


def about_of(data: Any, where: str) -> About:  # noqa: ANN401  # JSON
    """Who hands in what, from JSON.

    Raises
    ------
    UserError
        Naming the file and the key.
    """
    known = [entry.name for entry in fields(About)]
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: must be an object with the keys {', '.join(known)}")
    for key in data:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")
    for key in known:
        value = data.get(key)
        is_right = isinstance(value, str)
        if key == "authors":
            is_right = isinstance(value, list) and all(isinstance(author, str) for author in value)
        if not is_right:
            raise UserError(f"{where}: {key} must be {'a list of names' if key == 'authors' else 'a text'}")
    return About(**{**data, "authors": tuple(data["authors"])})


def mistakes_of(rows: Sequence[Row], instances: Sequence[Instance]) -> list[str]:
    """What of a solver's rows is against the rules, a line each; nothing is simulated.

    Parameters
    ----------
    rows : sequence of Row
    instances : sequence of Instance
        Of the benchmark tier: each must be there, as it stands in the suite, on each track once.
    """
    said = []
    if strange := sorted({row.service for row in rows} - set(TRACKS)):
        said.append(f"service={strange[0]}: tracks are {', '.join(TRACKS)}")
    if len(names := sorted({row.solver_label for row in rows})) != 1:
        said.append(f"the rows are of {len(names)} solvers ({', '.join(names[:4])}); hand in one")
    for track in TRACKS:
        mine = [row for row in rows if row.service == track]
        if mine:
            said += [f"{track}: {line}" for line in _mistakes_on_track(mine, instances)]
    return said


def _mistakes_on_track(rows: Sequence[Row], instances: Sequence[Instance]) -> list[str]:
    said = []
    of_tier = {instance.id: instance for instance in instances}
    counts = Counter(row.instance for row in rows)
    if missing := [name for name in of_tier if not counts[name]]:
        said.append(f"{len(missing)} of {len(of_tier)} instances are missing, the first is {missing[0]}")
    if twice := [name for name, count in counts.items() if count > 1]:
        said.append(f"{twice[0]} is there {counts[twice[0]]} times; each instance counts once")
    said += [line for row in rows for line in _mistakes_in_row(row, of_tier)]
    if len(limits := {row.time_limit_s for row in rows}) > 1:
        said.append(f"time limits {', '.join(sorted(map(str, limits)))}: use one")
    return said


def _mistakes_in_row(row: Row, of_tier: Mapping[str, Instance]) -> list[str]:
    said = []
    where = row.instance or row.workload
    if row.instance not in of_tier:
        said.append(f"{where} is not in the benchmark tier")
    elif not is_of(row, of_tier[row.instance]):
        said.append(f"{where}: workload, seed, profile or window are not those of the suite")
    if row.reserve:
        said.append(f"{where}: placed with reserve={row.reserve:g}; the leaderboard is without")
    if row.time_limit_s is None or row.time_limit_s > TIME_LIMIT_S:
        said.append(f"{where}: time limit {row.time_limit_s} s; it must be {TIME_LIMIT_S:g} s or less")
    if row.solve_time_s is not None and not 0 <= row.solve_time_s <= TIME_LIMIT_S + _GRACE_S:
        said.append(f"{where}: solved in {row.solve_time_s:g} s; it must be {TIME_LIMIT_S + _GRACE_S:g} s or less")
    return said
