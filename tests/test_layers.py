"""Imports point down: `make lint` holds the contracts; here is that they see what they are for, and what they do not see."""

import ast
import graphlib
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("twin", "predictors", "solvers", "bench")


def layer_files() -> list[Path]:
    """Return every Python file of the four layers."""
    return sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Who imports whom, imports in functions and under TYPE_CHECKING included."""
    return grimp.build_graph(*LAYERS, cache_dir=None)


# --- the contracts see what they are for


def contracts() -> dict[str, dict[str, Any]]:
    """Return the contracts of pyproject.toml by their id."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    return {table["id"]: table for table in tables}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts on the packages in `folder`, as `make lint` does."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    call = [sys.executable, "-c", code, "--no-logo", "--no-cache"]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with the four packages' code and the contracts."""
    for path in [*layer_files(), ROOT / "pyproject.toml"]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "source", "broken"),
    [
        ("twin/errors.py", "def lazily():\n    from solvers import base\n", "packages"),
        (
            "predictors/errors.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bench.plan\n",
            "packages",
        ),
        ("twin/errors.py", "from tests.conftest import ROOT\n", "tests"),
        ("bench/shared/__init__.py", "def lazily():\n    from bench.plan import main\n", "bench"),
        ("bench/comparison/__init__.py", "import bench.reporting\n", "bench"),
        ("bench/attic/__init__.py", "", "bench"),
        ("solvers/oracles/__init__.py", "import solvers.filling\n", "solvers"),
        ("solvers/my_solver.py", "", "solvers"),
        ("twin/errors.py", "def lazily():\n    from twin import score\n", "circles"),
    ],
)
def test_an_import_that_points_up_breaks_a_contract(copy: Path, file: str, source: str, broken: str) -> None:
    path = copy / file
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(source)
    done = lint_imports(copy)
    assert done.returncode == 1
    assert f"{contracts()[broken]['name']} BROKEN" in done.stdout.replace("\n", " ")


def test_the_code_keeps_the_contracts(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout


def test_the_commands_are_on_top_of_bench() -> None:
    """A command on a lower line could be imported by a folder."""
    top = {name.strip() for name in contracts()["bench"]["layers"][0].split("|")}
    assert top == {path.stem for path in (ROOT / "bench").glob("*.py")} - {"__init__"}


# --- what import-linter does not see


def test_no_circle_joins_a_package_and_its_modules(graph: grimp.ImportGraph) -> None:
    """Siblings are compared by a contract; a module that imports from the package that it is in is no sibling of it."""
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    list(graphlib.TopologicalSorter(imports).static_order())


def imported_by_name(source: str) -> Iterator[str]:
    """Yield each module that `source` imports by a literal name, at whatever depth."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def test_no_module_of_this_project_is_imported_by_name() -> None:
    """An import by name would get around the contracts."""
    named = {path: set(imported_by_name(path.read_text(encoding="utf-8"))) for path in layer_files()}
    ours = {*LAYERS, "tests"}
    assert [path for path, names in named.items() if ours & {name.split(".")[0] for name in names}] == []


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\nimportlib.import_module('bench.rows')",
        "from importlib import import_module\nimport_module('bench.rows')",
        "def lazily():\n\n    return __import__('bench.rows')",
    ],
)
def test_an_import_by_name_is_found(source: str) -> None:
    assert list(imported_by_name(source)) == ["bench.rows"]
