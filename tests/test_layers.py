"""The layers `bench` > `solvers` > `predictors` > `twin`: an import points down only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("twin", "predictors", "solvers", "bench")
# What no layer may import: it is not there when the package is installed.
OUTSIDE = ("tests",)


def imported_modules(source: str, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute name) of each import, at whatever depth: in functions, under TYPE_CHECKING, by literal name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(module=name, level=0):
                yield node.lineno, name or ""
            case ast.ImportFrom(module=name, names=names, level=level):
                parts = module.split(".")
                base = parts[: len(parts) - level + is_package]
                # `from .. import solvers` names the module only in what it imports.
                yield from ((node.lineno, ".".join([*base, name or alias.name])) for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return one line for each import in `source` that points up, or out of the layers into the tests."""
    layer, *_ = module.split(".")
    above = LAYERS[LAYERS.index(layer) + 1 :] + OUTSIDE
    return [
        f"{module}, line {line}: {layer} must not import {name}"
        for line, name in imported_modules(source, module, is_package=is_package)
        if name.split(".")[0] in above
    ]


def layer_files() -> list[Path]:
    """Return every Python file of the four layers."""
    return sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_is_there(layer: str) -> None:
    """A layer that was renamed would otherwise pass unseen."""
    assert any(path.relative_to(ROOT).parts[0] == layer for path in layer_files())


@pytest.mark.parametrize("path", layer_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    is_package = path.name == "__init__.py"
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = ".".join(parts[:-1] if is_package else parts)
    assert violations(path.read_text(encoding="utf-8"), module, is_package=is_package) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("twin.simulator", "import solvers"),
        ("twin.simulator", "import numpy, predictors.features as features"),
        ("twin.simulator", "from predictors import features"),
        ("predictors.training", "from solvers.base import Solver"),
        ("solvers.exact", "def solve():\n    from bench.score import score\n    return score"),
        ("solvers.exact", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bench import rows"),
        ("twin.simulator", "import importlib\nimportlib.import_module('bench.rows')"),
        ("twin.simulator", "from importlib import import_module\nimport_module('solvers')"),
        ("twin.simulator", "__import__('bench')"),
        ("bench.rows", "from tests.helpers import workload"),
    ],
)
def test_an_import_that_points_up_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("bench.score", "from solvers import base\nfrom predictors import features\nimport twin.simulator"),
        ("bench.score", "from . import rows\nfrom .rows import Row"),
        ("twin.simulator", "import numpy as np\nfrom twin.errors import UserError"),
        ("twin.simulator", "from . import bench"),
        ("twin.simulator", "import benchmarks_of_others\n'import bench'  # import bench"),
    ],
)
def test_an_import_that_points_down_or_stays_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []


@pytest.mark.parametrize(
    ("module", "is_package", "source", "expected"),
    [
        ("twin.kernels.step", False, "from . import slots", "twin.kernels.slots"),
        ("twin.kernels.step", False, "from ..errors import UserError", "twin.errors"),
        ("twin.kernels", True, "from .step import advance", "twin.kernels.step"),
        ("twin.kernels", True, "from .. import errors", "twin.errors"),
    ],
)
def test_relative_imports_are_resolved(module: str, is_package: bool, source: str, expected: str) -> None:
    assert list(imported_modules(source, module, is_package=is_package)) == [(1, expected)]
