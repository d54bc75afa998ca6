"""What a data file may name: builders, lengths and arrivals of workloads, solvers and objectives that are known here.

A configuration makes objects of whatever class its `_target_` names, and what a user types runs with the user's rights
anyway. A file of rows or a placement comes from somebody else: naming `os.system` in it must run nothing. Known are those that
are shipped and those that an installed package declares as entry points.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import solvers
import twin
from bench.shared.plugins import GROUPS
from solvers.base import Solver
from solvers.objectives.base import Objective
from twin.errors import UserError

Kind = Literal["workload", "solver", "objective"]

_WORKLOAD_MODULES = ("twin.builders", "twin.lengths", "twin.arrivals", "twin.curves")
# What `python -m bench.plan` writes beside its placement.
_PLANNED = "bench.planning.adapters.planned"
# Characters of a name that a message repeats, and that a name may have. By hand.
_SHOWN = 80


def refuse_unknown(options: object, kind: Kind, origin: str, trust: Sequence[str] = ()) -> None:
    """Raise `UserError` if options from a data file name anything that is not known.

    Parameters
    ----------
    options : object
        What stands in the file: `_target_` and options, nested to any depth.
    kind : str
        What they make.
    origin : str
        The file, for the message.
    trust : sequence of str
        What the user allows besides, as `package.module.name`.

    Raises
    ------
    UserError
        Naming the file and what it names.
    """
    if not isinstance(options, Mapping) or not isinstance(options.get("_target_"), str):
        raise UserError(f"{origin}: {kind} must be an object with a _target_ and its options")
    try:
        _refuse(options, kind, origin, trust)
    except RecursionError:
        raise UserError(f"{origin}: {kind} is nested too deeply") from None


def is_shipped(options: Mapping[str, Any], kind: Kind) -> bool:
    """Whether some options name nothing but what is shipped here."""
    return all(isinstance(target, str) and _shipped(target, kind) for target in targets(options))


def targets(value: object) -> Iterator[object]:
    """Every `_target_` in some options, at whatever depth."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield value["_target_"]
        for entry in value.values():
            yield from targets(entry)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for entry in value:
            yield from targets(entry)


def _refuse(value: object, kind: Kind, origin: str, trust: Sequence[str]) -> None:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key == "_target_":
                _refuse_target(entry, kind, origin, trust)
            elif not isinstance(key, str) or key.startswith("_"):
                raise UserError(f"{origin}: {kind}: {_shown(key)} is an option that no data file may give")
            else:
                _refuse(entry, kind, origin, trust)
    elif isinstance(value, str):
        if "${" in value:
            raise UserError(f"{origin}: {kind}: {_shown(value)} is an interpolation, which no data file may hold")
        if value == "???":
            raise UserError(f"{origin}: {kind}: ??? stands for a value that is to be given; a data file must hold it")
    elif isinstance(value, Sequence):
        for entry in value:
            _refuse(entry, kind, origin, trust)


def _refuse_target(target: object, kind: Kind, origin: str, trust: Sequence[str]) -> None:
    if isinstance(target, str) and (target in trust or target in _declared(kind) or _shipped(target, kind)):
        return
    known = "builders, lengths and arrivals" if kind == "workload" else f"{kind}s"
    allow = f"; if you know what it does, trust=[{target}] allows it" if _is_name(target) else ""
    raise UserError(f"{origin}: {kind} names {_shown(target)}, which is none of the known {known}{allow}")


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _is_name(target: object) -> bool:
    return isinstance(target, str) and len(target) <= _SHOWN and all(part.isidentifier() for part in target.split("."))


def _shipped(target: str, kind: Kind) -> bool:
    if kind == "workload":
        return target in _shipped_for_workloads()
    folder, base = ("solvers", Solver) if kind == "solver" else ("solvers.objectives", Objective)
    module, _, name = target.rpartition(".")
    package, _, leaf = module.rpartition(".")
    # A module is looked for as a file before it is imported, which runs its code.
    root = Path(solvers.__path__[0]).joinpath(*folder.split(".")[1:])
    if package != folder or not leaf.isidentifier() or not (root / f"{leaf}.py").is_file():
        return False
    made = vars(importlib.import_module(module)).get(name)
    return inspect.isclass(made) and issubclass(made, base)


@cache
def _shipped_for_workloads() -> frozenset[str]:
    found = {_PLANNED}
    known: set[Callable[..., Any]] = set()
    for module in map(importlib.import_module, _WORKLOAD_MODULES):
        for name, made in vars(module).items():
            if not name.startswith("_") and callable(made) and getattr(made, "__module__", None) == module.__name__:
                found.add(f"{module.__name__}.{name}")
                known.add(made)
    found |= {f"twin.{name}" for name in twin.__all__ if getattr(twin, name) in known}
    return frozenset(found)


@cache
def _declared(kind: Kind) -> frozenset[str]:
    """What installed packages declare, as `package.module.name`; nothing of them is imported."""
    return frozenset(
        entry.value.partition("[")[0].strip().replace(":", ".")
        for group in GROUPS[kind]
        for entry in metadata.entry_points(group=group)
    )
