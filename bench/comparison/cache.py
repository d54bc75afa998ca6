"""Rows that have been computed, on disk: a cell is run again only when something that it rests on has changed.

The key of a cell is a hash of its options, of the content of the files that they name, of the serving profile, of the
predictor where the solver asks one, and of the code: the solver's module and what it imports, the objective's and the
workload's, the twin's and the scoring's. Editing one solver changes the keys of that solver's cells alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.comparison.known import is_shipped
from bench.comparison.machine import versions
from bench.comparison.rows import CRASH, TERMINATED, TIMEOUT, Row
from bench.comparison.sources import find_source, source_hash
from bench.shared.files import write_text
from twin.errors import UserError

if TYPE_CHECKING:
    from bench.comparison.cell import Cell

#: Raised when the same key would no longer mean the same row.
KEY_VERSION = 2

#: What makes a row of a cell: with all that it imports, this decides the figures, whichever solver is asked.
SCORING = ("bench.comparison.run",)


class RowCache:
    """A folder with one small JSON file for each cell that has been run.

    Parameters
    ----------
    folder : Path
        Made when the first row is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, cell: Cell, *, failed: bool = True) -> Row | None:
        """The row of a cell, or None if it must be run.

        Parameters
        ----------
        cell : Cell
        failed : bool
            Take a row that tells of a crash, a time-out or an error as well.
        """
        key = cell_key(cell)
        try:
            content = json.loads(self._path(key).read_text(encoding="utf-8"))
            row = _row(content["row"]) if content["checksum"] == _checksum(key, content["row"]) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            # Whatever has become of the file: the cell is run again.
            return None
        return None if row is None or (row.failed and not failed) else row

    def store(self, cell: Cell, row: Row) -> None:
        """Keep the row of a cell, atomically; not one that tells of a mistake in the options, which costs nothing to find again.

        Raises
        ------
        UserError
            If the folder cannot be written to.
        """
        if not _worth_keeping(row):
            return
        parts = key_parts(cell)
        key, values = _hash(parts), asdict(row)
        # What the key was made of tells a curious user why a cell was run again.
        content = {"made_of": parts, "row": values, "checksum": _checksum(key, values)}
        write_text(self._path(key), json.dumps(content), f"cache_dir={self.folder}")

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def cell_key(cell: Cell) -> str:
    """Hash of everything that the row of a cell rests on; names and labels, which only tables show, are left out."""
    return _hash(key_parts(cell))


def _hash(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _checksum(key: str, values: Mapping[str, Any]) -> str:
    """Hash of a row as it is stored, and of the question that it answers: a file under another name is no answer."""
    return _hash({"key": key, "row": values})


def _row(values: Mapping[str, Any]) -> Row:
    """A row of stored values.

    Raises
    ------
    TypeError
        If a value is missing, unknown or of another type than its column.
    """
    for name, each in _COLUMNS.items():
        if not _FITS[str(each.type).removesuffix(" | None")](values[name]) and not (
            values[name] is None and str(each.type).endswith("| None")
        ):
            raise TypeError(f"{name}={values[name]!r}")
    return Row(**values)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FITS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": _is_whole,
    "float": _is_number,
    "list[int]": lambda value: isinstance(value, list) and all(map(_is_whole, value)),
    "list[float]": lambda value: isinstance(value, list) and all(map(_is_number, value)),
}
_COLUMNS = {field.name: field for field in fields(Row)}


def key_parts(cell: Cell) -> dict[str, Any]:
    """What the key of a cell is made of, by name."""
    needs_predictor = _needs_predictor(json.dumps(cell.solver_options, sort_keys=True))
    code = {
        "solver": source_hash(modules_of(_targets(cell.solver_options))),
        "objective": source_hash(modules_of(_targets(cell.objective))),
        "workload": source_hash(modules_of(_targets(cell.workload))),
        "twin": source_hash(("twin",)),
        # Predictors are imported for the solvers that ask one.
        "scoring": source_hash(SCORING, without=("predictors",)),
    }
    if needs_predictor:
        code["predictors"] = source_hash(("predictors",))
    return {
        "version": KEY_VERSION,
        "solver": canonical(cell.solver_options),
        "workload": canonical(cell.workload),
        "objective": canonical(cell.objective),
        "service": canonical(cell.service),
        "seed": cell.seed,
        "gpus": cell.gpus,
        "time_limit_s": cell.time_limit_s,
        "repeats": cell.repeats,
        "reserve": cell.reserve,
        "draws": cell.draws,
        "profile": _profile_hash(cell.profile),
        "predictor": _predictor_hash(cell.profile) if needs_predictor else None,
        "code": code,
        "libraries": json.loads(versions()),
        **({"fleet": [_type_parts(kind) for kind in cell.fleet]} if cell.fleet else {}),
    }


def _type_parts(kind: Mapping[str, Any]) -> dict[str, Any]:
    return {**kind, "profile": _profile_hash(str(kind.get("profile")))}


def canonical(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """The value with every path of a file in it replaced by a hash of the file's content."""
    if isinstance(value, Mapping):
        return {str(key): canonical(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [canonical(entry) for entry in value]
    if isinstance(value, str) and ("/" in value or "." in value) and Path(value).is_file():
        path = Path(value).resolve()
        return f"file:{_file_hash(path, path.stat().st_mtime_ns)}"
    return value


def _worth_keeping(row: Row) -> bool:
    if row.status == CRASH and row.message.endswith(TERMINATED):
        # Somebody has ended it, which says nothing of the solver.
        return False
    if not row.failed or row.status in (CRASH, TIMEOUT):
        return True
    details = json.loads(row.details)
    # What could not be imported today may be installed tomorrow.
    return not details.get("user_error") and not details.get("not_made")


def _targets(value: Any) -> Iterator[str]:  # noqa: ANN401  # any JSON value
    """Every `_target_` in some options, at whatever depth."""
    if isinstance(value, Mapping):
        if isinstance(target := value.get("_target_"), str):
            yield target
        for entry in value.values():
            yield from _targets(entry)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for entry in value:
            yield from _targets(entry)


def modules_of(targets: Iterable[str]) -> tuple[str, ...]:
    """Modules of `package.module.Class`, `package.module.Class.method` and `package.module.function`.

    Of a name that leads nowhere the package that it begins with; the cell itself tells what is wrong with it.
    """
    return tuple(sorted({_module(target) for target in targets}))


def _module(target: str) -> str:
    name = otherwise = target.rpartition(".")[0] or target
    while name and find_source(name) is None:
        name = name.rpartition(".")[0]
    return name or otherwise


@lru_cache(maxsize=1024)
def _needs_predictor(solver_options: str) -> bool:
    """Whether the harness hands the predictor to a solver; it knows when it is made, since its options decide.

    Code of others is not run here, where scores may be made: a solver that is not shipped counts as one that asks.
    """
    from hydra.utils import instantiate

    options = json.loads(solver_options)
    if not is_shipped(options, "solver"):
        return True
    try:
        return bool(instantiate(options, _convert_="all").tags.needs_predictor)
    except Exception:  # noqa: BLE001  # the cell itself tells what is wrong with it
        return False


def _profile_hash(profile: str) -> str:
    path = Path(profile)
    if path.is_file():
        return _file_hash(path.resolve(), path.stat().st_mtime_ns)
    return _shipped_profile_hash(profile)


@lru_cache(maxsize=64)
def _shipped_profile_hash(profile: str) -> str:
    from twin.profile_files import load_profile

    try:
        shipped = resources.files("twin") / "profiles" / f"{load_profile(profile).name.replace('/', '__')}.json"
        return hashlib.sha256(shipped.read_bytes()).hexdigest()
    except (UserError, OSError):
        return profile


def _predictor_hash(profile: str) -> str | None:
    from twin.profile_files import load_profile

    try:
        model = resources.files("predictors") / "models" / f"{load_profile(profile).name.replace('/', '__')}.npz"
        return hashlib.sha256(model.read_bytes()).hexdigest()
    except (UserError, OSError):
        return None


@lru_cache(maxsize=4096)
def _file_hash(path: Path, modified: int) -> str:  # noqa: ARG001  # a file that was changed is read again
    try:
        # What the kernel makes up, as in /proc, has no size, and may have no end; whoever reads it as an input refuses it.
        data = path.read_bytes() if path.stat().st_size else b""
    except OSError as error:
        return f"{path}: {error.strerror}"
    return hashlib.sha256(data).hexdigest()
