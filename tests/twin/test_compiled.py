"""Machine code kept on disk: taken again while it holds, made anew when anything that it was made of has changed."""

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.extending import is_jitted

import predictors
import solvers
import twin
from twin.compiled import contents, njit

ROOT = Path(twin.__file__).parent.parent

ENTRY = """
from kernels import numbers
from kernels.middle import doubled, inlined
from twin.compiled import njit


@njit(cache=True)
def entry(x):
    return doubled(x) + inlined(x) + numbers.OFFSET + inner(x)


@njit(cache=True)
def inner(x):
    return 0 * x
"""
MIDDLE = """
from kernels.deep import times
from twin.compiled import njit

FACTOR = 2


@njit(cache=True)
def doubled(x):
    return times(x, FACTOR)


@njit(cache=True, inline="always")
def inlined(x):
    return 10 * x
"""
DEEP = """
from twin.compiled import njit


@njit(cache=True)
def times(x, factor):
    return x * factor
"""
NUMBERS = """
OFFSET = 1000
UNUSED = 1
"""
ASK = "from kernels.entry import entry; print(entry(1), sum(entry.stats.cache_hits.values()))"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "kernels"
    folder.mkdir()
    sources = {"__init__": "", "entry": ENTRY, "middle": MIDDLE, "deep": DEEP, "numbers": NUMBERS}
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def run(code: str, *folders: Path, **settings: str) -> str:
    """What a process of its own prints."""
    # Python itself would take a module that was changed within a second for the old one.
    path = os.pathsep.join(map(str, (*folders, ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **settings}
    return subprocess.run(
        # The current folder comes first in the search for modules.
        [sys.executable, "-c", code],
        env=environment,
        cwd=folders[0],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "old", "new", "answer"),
    [
        pytest.param("deep", "x * factor", "x * factor * 3", "1016", id="callee-of-a-callee"),
        pytest.param("middle", "FACTOR = 2", "FACTOR = 5", "1015", id="constant-of-a-callee"),
        pytest.param("middle", "10 * x", "20 * x", "1022", id="inlined-callee"),
        pytest.param("numbers", "OFFSET = 1000", "OFFSET = 2000", "2012", id="constant-of-another-module"),
    ],
)
def test_a_change_in_what_a_kernel_takes_in_is_compiled_anew(
    package: Path, module: str, old: str, new: str, answer: str
) -> None:
    assert run(ASK, package.parent) == "1012 0"
    assert run(ASK, package.parent) == "1012 1"
    edit(package / f"{module}.py", old, new)
    assert run(ASK, package.parent) == f"{answer} 0"
    assert run(ASK, package.parent) == f"{answer} 1"


def test_a_change_beside_what_a_kernel_takes_in_compiles_nothing(package: Path) -> None:
    assert run(ASK, package.parent) == "1012 0"
    edit(package / "numbers.py", "UNUSED = 1", "UNUSED = 2  # and a comment")
    assert run(ASK, package.parent) == "1012 1"


def test_the_key_is_the_same_in_every_process(package: Path) -> None:
    code = "from kernels.entry import entry; from twin.compiled import contents; print(contents(entry))"
    assert len({run(code, package.parent, PYTHONHASHSEED=seed) for seed in ("1", "2", "3")}) == 1


def test_kernels_run_where_nothing_can_be_written(package: Path) -> None:
    # A file in the place of each folder that Numba would write to keeps out even the superuser.
    (package / "__pycache__").write_text("", encoding="utf-8")
    home = package / "home"
    home.write_text("", encoding="utf-8")
    print_answer = "from kernels.entry import entry; print(entry(1))"
    settings = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "NUMBA_CACHE_DIR": ""}
    assert run(print_answer, package.parent, **settings) == "1012"


def test_kernels_are_plain_functions_when_compilation_is_off(package: Path) -> None:
    assert run("from kernels.entry import entry; print(entry(1))", package.parent, NUMBA_DISABLE_JIT="1") == "1012"


def test_the_engine_rests_on_the_queues(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "twin", tmp_path / "twin", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from twin.engine import run_engine; from twin.compiled import contents; print(contents(run_engine))"
    before = run(code, tmp_path)
    edit(tmp_path / "twin" / "queues.py", "    last = before[sentinel]\n", "    last = before[sentinel] + 0\n")
    assert run(code, tmp_path) != before


def test_a_kernel_that_calls_itself_or_holds_a_set_has_a_key() -> None:
    @njit()
    def down(n: int) -> int:
        return 0 if n in {1, 2, 3} else down(n - 1)

    assert down(9) == 0
    assert contents(down) == contents(down)


@pytest.mark.parametrize("package", [twin, predictors, solvers], ids=lambda package: package.__name__)
def test_every_kernel_is_kept_by_all_that_it_is_made_of(package: object) -> None:
    kernels = [
        kernel
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")  # type: ignore[attr-defined]
        for kernel in vars(importlib.import_module(module.name)).values()
        if is_jitted(kernel)
    ]
    assert kernels
    assert {type(vars(kernel)["_cache"]).__module__ for kernel in kernels} == {"twin.compiled"}
