"""Which solvers there are: those of this package, with their variants, and those that others add by entry point.

A shipped solver is a class in `solvers/` with a YAML in `conf/solver` that names it and gives its options. A variant is one more YAML
of the same class, with other options and a name of its own.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import yaml

import solvers
from solvers.base import Solver

#: Entry-point group of solvers in other packages.
ENTRY_POINTS = "lora_placement_bench.solvers"

#: A YAML for each shipped solver and variant; its stem is the name.
SOLVER_YAMLS = Path(solvers.__file__).resolve().parents[1] / "conf" / "solver"


@dataclass(frozen=True)
class SolverEntry:
    """One solver, or why it cannot be used.

    Attributes
    ----------
    name : str
        What it is called in tables and on the command line.
    target : str
        `module.Class`, as Hydra's `_target_` wants it.
    solver : type, optional
        The class; absent when its import failed.
    reason : str
        Why the import failed.
    options : mapping
        What the YAML of the name says, by keyword; nothing for a solver without one.
    """

    name: str
    target: str
    solver: type[Solver] | None = None
    reason: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Solver:
        """The solver with its options.

        Raises
        ------
        ImportError
            When its import failed.
        """
        if self.solver is None:
            raise ImportError(f"{self.target} cannot be imported: {self.reason}")
        return self.solver(**self.options)


def list_solvers() -> list[SolverEntry]:
    """All solvers by name, those whose import failed with the reason."""
    found: dict[str, SolverEntry] = {}
    for entry in (*_shipped(), *_from_other_packages()):
        found.setdefault(entry.name, entry)
    return [found[name] for name in sorted(found)]


def _shipped() -> Iterator[SolverEntry]:
    """An entry for each YAML, and one for each class, or module that cannot be imported, that no YAML names."""
    by_target = {entry.target: entry for entry in _classes()}
    named = set()
    for path in sorted(SOLVER_YAMLS.glob("*.yaml")):
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
        target = options.pop("_target_")
        found = by_target.get(target) or by_target.get(target.rpartition(".")[0])
        named.add(found.target if found else target)
        reason = found.reason if found else f"{target}: there is no such solver"
        yield SolverEntry(path.stem, target, found.solver if found else None, reason, options)
    yield from (entry for target, entry in by_target.items() if target not in named)


def _classes() -> Iterator[SolverEntry]:
    """The solver classes of this package, and modules that cannot be imported."""
    for module in pkgutil.iter_modules(solvers.__path__, "solvers."):
        if module.ispkg:
            continue
        try:
            members = vars(importlib.import_module(module.name)).values()
        except Exception as error:  # noqa: BLE001  # whatever a module raises, the others still list
            yield SolverEntry(module.name.split(".")[-1], module.name, None, _reason(error))
            continue
        for member in members:
            if _is_solver(member) and member.__module__ == module.name:
                yield SolverEntry(member.name, f"{module.name}.{member.__qualname__}", member)


def _from_other_packages() -> Iterator[SolverEntry]:
    for point in entry_points(group=ENTRY_POINTS):
        yield load_entry_point(point)


def load_entry_point(point: EntryPoint) -> SolverEntry:
    """The solver that an entry point names, or the reason why it does not load."""
    target = point.value.replace(":", ".")
    try:
        solver = point.load()
    except Exception as error:  # noqa: BLE001  # whatever a plug-in raises, the others still list
        return SolverEntry(point.name, target, None, _reason(error))
    if not _is_solver(solver):
        return SolverEntry(point.name, target, None, f"{point.value} is not a subclass of solvers.base.Solver")
    return SolverEntry(point.name, target, solver)


def _is_solver(member: object) -> bool:
    return (
        inspect.isclass(member)
        and issubclass(member, Solver)
        and not inspect.isabstract(member)
        and isinstance(getattr(member, "name", None), str)
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
