"""What the jobs of earlier sweeps were composed to, on disk: composing a job again takes longer than reading its rows.

A job's cells follow from its options, from the files in `conf/`, and from the code. The memory's name is a hash of the latter two,
and of what else Hydra looks at; so whatever changes, the job is composed anew. Only what is certain to come out the same is kept:
nothing that asks the environment or the clock, no fleet of a file, and nothing where a folder of configurations was added. Whether
there are rows for the cells is asked of the cache, as ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.comparison.cell import Cell
from bench.comparison.config import BenchConfig
from bench.comparison.sources import source_hash
from bench.shared.overrides import CONF
from bench.shared.plugins import GROUPS

#: Raised when the same line would no longer mean the same.
VERSION = 1
#: Modules that, with all they import, decide what a job is composed to.
CODE = ("bench.comparison.cells", "bench.comparison.config", "bench.sweeps.resuming")
#: Memories that are kept: those of the last edits.
MOST_FILES = 8
#: Options that say where a job's rows are looked for, and how.
HOW = ("cache", "cache_dir", "isolated", "margin_s", "processes", "retry_failed")

#: Fields of a cell that JSON makes lists of.
_TUPLES = {field.name for field in fields(Cell) if str(field.type).startswith("tuple")}
_RESOLVER = re.compile(r"\$\{[^${}]*:")


@dataclass(frozen=True)
class Composed:
    """What a job was composed to.

    Attributes
    ----------
    cells : list of Cell
    config : BenchConfig
        Of which only the options `HOW` are set.
    """

    cells: list[Cell]
    config: BenchConfig


class ComposedJobs:
    """The jobs that were composed under the present configuration files and code.

    Parameters
    ----------
    folder : Path, optional
        Of the cache; without it nothing is remembered.
    config : DictConfig
        Of the sweep.
    """

    def __init__(self, folder: Path | None, config: DictConfig) -> None:
        self._path: Path | None = None
        self._known: dict[str, Any] = {}
        self._lines: list[str] = []
        if folder is not None and (name := _fingerprint(config)) is not None:
            self._path = folder / "composed" / f"{name}.jsonl"
            self._read()

    def find(self, options: Sequence[str]) -> Composed | None:
        """What a job with these options is composed to, if that is known."""
        known = self._known.get(_key(options))
        if known is None:
            return None
        cells = [Cell(**(values | {name: tuple(values[name]) for name in _TUPLES})) for values in known["cells"]]
        return Composed(cells, BenchConfig(**known["how"]))

    def learn(self, options: Sequence[str], composed: DictConfig, cells: Sequence[Cell], config: BenchConfig) -> None:
        """Remember a job, unless the environment or the clock may have had a part in it.

        Parameters
        ----------
        options : sequence of str
        composed : DictConfig
            With its interpolations as they are written.
        cells : sequence of Cell
        config : BenchConfig
        """
        # What a file of fleets holds may change.
        if (
            self._path is None
            or isinstance(config.fleet, str)
            or _RESOLVER.search(OmegaConf.to_yaml(composed, resolve=False))
        ):
            return
        how = {name: getattr(config, name) for name in HOW}
        known = {"options": list(options), "cells": [asdict(cell) for cell in cells], "how": how}
        with contextlib.suppress(TypeError, ValueError):
            text = json.dumps(known)
            self._known[_key(options)] = json.loads(text)
            found = self.find(options)
            if found is not None and found.cells == list(cells):
                self._lines.append(f"{_checksum(text)} {text}\n")
            else:
                del self._known[_key(options)]

    def keep(self) -> None:
        """Write what is new; where that fails, the jobs are composed again next time."""
        if self._path is None or not self._lines:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Sweeps that run at the same time add to the same file.
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            with os.fdopen(handle, "a", encoding="utf-8") as file:
                file.write("".join(self._lines))
            self._lines.clear()
            files = sorted(self._path.parent.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
            for path in files[:-MOST_FILES]:
                path.unlink(missing_ok=True)

    def _read(self) -> None:
        assert self._path is not None  # noqa: S101  # its only caller has just set it
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines:
            checksum, _, text = line.partition(" ")
            # A line that was cut off when the disk was full, or that somebody has changed, says nothing.
            if checksum == _checksum(text):
                known = json.loads(text)
                self._known[_key(known["options"])] = known


def _key(options: Sequence[str]) -> str:
    return json.dumps(list(options))


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fingerprint(config: DictConfig) -> str | None:
    """Hash of all that composing looks at besides a job's options; None where that is more than this project's own files."""
    sources = {(source.schema, source.path) for source in config.hydra.runtime.config_sources}
    if not sources <= {("pkg", "hydra.conf"), ("file", str(CONF)), ("structured", "")}:
        return None
    total = hashlib.sha256()
    for path in _configuration_files():
        total.update(f"{path}:{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    plugins = sorted((entry.group, entry.name, entry.value) for group in GROUPS.values() for name in group
                     for entry in metadata.entry_points(group=name))  # fmt: skip
    parts = {
        "version": VERSION,
        "code": source_hash(CODE),
        "plugins": plugins,
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in ("hydra-core", "omegaconf")},
        "hydra": OmegaConf.to_container(config.hydra.overrides.hydra),
        "name": config.hydra.job.config_name,
    }
    total.update(json.dumps(parts, sort_keys=True).encode())
    return total.hexdigest()[:32]


def _configuration_files() -> list[Path]:
    return sorted(CONF.rglob("*.yaml"))
