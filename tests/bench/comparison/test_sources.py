"""The hash of a module's code: it changes with the code that the module rests on, and with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.comparison import sources
from bench.comparison.cache import SCORING, modules_of
from bench.comparison.sources import find_source, source_files, source_hash
from bench.suites.bounds import DECIDING


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of another project, with a module that rests on a helper, and one that does not."""
    folder = tmp_path / "outside_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "helper.py").write_text("FACTOR = 2\n")
    (folder / "types_only.py").write_text("class Thing: ...\n")
    (folder / "other.py").write_text("X = 1\n")
    (folder / "solver.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import numpy\n"
        "from solvers.base import Solver\n"
        "if TYPE_CHECKING:\n    from outside_package.types_only import Thing\n"
        "def solve():\n    from .helper import FACTOR\n    return FACTOR\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    return folder


def forget() -> None:
    """What another process would find."""
    for function in (source_hash, find_source, sources._imports, sources._code_hash):
        function.cache_clear()


def hashes() -> tuple[str, str]:
    forget()
    return source_hash(("outside_package.solver",)), source_hash(("outside_package.other",))


def test_imports_are_followed_into_its_own_package_and_this_project(package: Path) -> None:
    files = source_files(["outside_package.solver"])
    assert {"outside_package", "outside_package.helper", "outside_package.solver", "solvers.base"} <= set(files)
    assert "twin.errors" in files, "what solvers.base imports"
    assert not {
        name for name in files if name.startswith(("numpy", "outside_package.types_only", "outside_package.other"))
    }
    assert files["outside_package.helper"] == package / "helper.py"


def test_a_package_that_imports_its_names_when_asked_rests_on_their_modules(package: Path) -> None:
    (package / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from outside_package.helper import FACTOR\n"
        "def __getattr__(name):\n    return name\n"
    )
    forget()
    assert "outside_package.helper" in source_files(["outside_package.other"])
    assert {"twin.engine", "twin.streams", "twin.workload"} <= set(source_files(["twin"]))


def test_a_changed_helper_changes_what_rests_on_it_and_nothing_else(package: Path) -> None:
    solver, other = hashes()
    (package / "helper.py").write_text("FACTOR = 3\n")
    assert hashes()[0] != solver
    assert hashes()[1] == other


def test_comments_docstrings_layout_and_types_do_not_count(package: Path) -> None:
    before = hashes()
    (package / "helper.py").write_text('"""What it is."""\n# why\n\nFACTOR = (2)\n')
    (package / "types_only.py").write_text("class Thing: x = 1\n")
    assert hashes() == before


def test_a_module_that_is_gone_or_broken_has_a_hash_of_its_own(package: Path) -> None:
    before, _ = hashes()
    (package / "helper.py").write_text("FACTOR = (\n")
    broken, _ = hashes()
    (package / "helper.py").unlink()
    assert len({before, broken, hashes()[0]}) == 3
    assert find_source("no_such_package.module") is None


@pytest.mark.parametrize("name", ["twin.not_there", "bench.comparison.not_there", "solvers.ffd.FFD"])
def test_a_module_of_this_project_that_is_not_there_has_no_hash(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=name):
        source_hash(("twin", name))


def test_a_package_is_left_out_on_demand(package: Path) -> None:
    files = source_files(["outside_package.solver"], without=["twin"])
    assert "solvers.base" in files
    assert not any(name.partition(".")[0] == "twin" for name in files)


def test_one_process_keeps_to_the_code_that_it_has_loaded(package: Path) -> None:
    before = source_hash(("outside_package.solver",))
    (package / "helper.py").write_text("FACTOR = 4\n")
    assert source_hash(("outside_package.solver",)) == before


def test_editing_one_shipped_solver_leaves_the_others_alone() -> None:
    """No solver imports another one, and none of them the harness."""
    for name in ("ffd", "max_pack", "hrw", "lora_serve"):
        files = set(source_files([f"solvers.{name}"]))
        assert not files & {f"solvers.{other}" for other in ("exact", "ffd_plus", "dlora") if other != name}
        assert not any(module.split(".")[0] == "bench" for module in files)


def test_scoring_is_what_makes_a_row_and_neither_tables_nor_solvers() -> None:
    files = set(source_files(SCORING, without=["predictors"]))
    assert {
        "bench.comparison.build",
        "bench.comparison.compare",
        "bench.comparison.reserve",
        "solvers.base",
        "solvers.fleet",
        "solvers.limits",
        "twin.queues",
        "twin.results",
    } <= files
    assert not files & {"bench.comparison.config", "bench.comparison.differences", "bench.comparison.execution"}
    assert not {name for name in files if name.startswith(("bench.reporting", "bench.suites", "predictors"))}
    assert not files & {f"solvers.{name}" for name in ("exact", "ffd", "ffd_plus", "max_pack", "hrw", "lora_serve")}


def test_the_twin_of_known_bounds_has_every_module_that_makes_a_workload_or_simulates_one() -> None:
    files = set(source_files(DECIDING))
    assert {
        f"twin.{name}" for name in ("builders", "traces", "results", "profile", "queues", "stepwise", "workload")
    } <= files
    assert {name.partition(".")[0] for name in files} == {"twin"}


@pytest.mark.parametrize(
    ("target", "module"),
    [
        ("solvers.ffd.FFD", "solvers.ffd"),
        ("twin.lengths.LogNormalTokens.of", "twin.lengths"),
        ("twin.Lengths", "twin"),
        ("solvers.not_there.Nothing", "solvers"),
        ("not_installed.module.Solver", "not_installed.module"),
    ],
)
def test_the_module_of_a_target(target: str, module: str) -> None:
    assert modules_of([target]) == (module,)


def test_a_module_in_folders_without_init_is_found_before_anything_of_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "plain_folder" / "inner").mkdir(parents=True)
    (tmp_path / "plain_folder" / "inner" / "mine.py").write_text("raise SystemExit", encoding="utf-8")
    code = "from bench.comparison.sources import find_source; print(find_source('plain_folder.inner.mine'))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "plain_folder" / "inner" / "mine.py")
