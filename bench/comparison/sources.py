"""Which source files a module rests on, and one hash of them: what tells the cache that code has changed."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

#: Packages of this project: imports are followed into them, and into the package of the module asked about.
PROJECT = ("twin", "predictors", "solvers", "bench")


@cache
def source_hash(modules: tuple[str, ...], *, without: tuple[str, ...] = ()) -> str:
    """Hash of the code of some modules and of all that they import, followed within their packages and `PROJECT`.

    Comments, docstrings and layout do not count, nor do imports for type checking alone. The first answer stands for the
    life of the process, which goes on with the code that it has loaded whatever happens to the files.

    Parameters
    ----------
    modules : tuple of str
        Absolute names. One of another project that cannot be found counts by its name.
    without : tuple of str
        Packages that are left out.

    Raises
    ------
    ModuleNotFoundError
        If one of `modules` belongs to this project and is not there: a hash that leaves it out would say nothing.
    """
    total = hashlib.sha256()
    for name, path in sorted(source_files(modules, without=without).items()):
        total.update(f"{name}:{_code_hash(path) if path else 'not found'}\n".encode())
    return total.hexdigest()


def source_files(modules: Iterable[str], *, without: Iterable[str] = ()) -> dict[str, Path | None]:
    """Source file of each module and of all that it imports, at whatever depth; None for a module that cannot be found.

    Raises
    ------
    ModuleNotFoundError
        If one of `modules` belongs to this project and is not there.
    """
    waiting = list(modules)
    for name in waiting:
        if name.partition(".")[0] in PROJECT and find_source(name) is None:
            raise ModuleNotFoundError(f"no module {name} in this project", name=name)
    inside = {*PROJECT, *(name.partition(".")[0] for name in waiting)}.difference(without)
    found: dict[str, Path | None] = {}
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in inside:
            continue
        path = find_source(name)
        found[name] = path
        # Importing a.b runs a/__init__.py first.
        waiting += [parent] if (parent := name.rpartition(".")[0]) else []
        if path is not None:
            waiting += [wanted for wanted in _imports(path, name) if find_source(wanted)]
    return found


@cache
def find_source(name: str) -> Path | None:
    """The source file of a module, found without importing anything."""
    top, *rest = name.split(".")
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        # By its last part: with a full name a folder without `__init__.py` would ask for its parent, which is not imported.
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


@cache
def _code_hash(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    try:
        code = ast.dump(_without_docstrings(ast.parse(text)))
    except SyntaxError:
        code = text
    return hashlib.sha256(code.encode()).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree


@cache
def _imports(path: Path, name: str) -> tuple[str, ...]:
    """Names that the file imports, wherever the statement stands; `from a import b` names both a and a.b."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError:
        return ()
    names: list[str] = []
    # A package that imports its names when they are asked for (PEP 562) says there which they are.
    lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)
    for node in ast.walk(tree) if lazy else _run_time_nodes(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                kept = parts[: len(parts) - node.level + (path.name == "__init__.py")]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(names))


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node below, except what stands under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            for other in child.orelse:
                yield other
                yield from _run_time_nodes(other)
            continue
        yield child
        yield from _run_time_nodes(child)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )
