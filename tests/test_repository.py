"""What holds for the repository as a whole: its folders, its code, its configuration files, its locks."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from tests.test_layers import LAYERS, imported_by_name, layer_files

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {".ci", ".github", "bench", "conf", "docs", "predictors", "results", "solvers", "tests", "twin"}


# --- folders


def test_top_level_folders_are_the_pipeline() -> None:
    """Somebody who opens the repository sees the layers, not one folder per idea."""
    if not (ROOT / ".git").exists():
        pytest.skip("an unpacked archive has no list of tracked files")
    git = ["git", "ls-files", "-z"]
    tracked = subprocess.run(git, cwd=ROOT, check=True, capture_output=True, text=True)
    folders = {name.split("/")[0] for name in tracked.stdout.split("\0") if "/" in name}
    assert folders <= FOLDERS


# --- what is long says why, and a name is one class

#: Lines of a file and of a function, and parameters of a function, beyond which there is a reason for it.
MOST_IN_FILE, MOST_IN_FUNCTION, MOST_PARAMETERS = 400, 60, 7
#: One compiled loop on one state, at the side of which `twin/stepwise.py` stands as the readable version.
LONG_FILES = {"twin/engine.py"}


def long_without_a_reason(source: str) -> list[str]:
    """Return `line: function` of each function that is too long, or takes too much, and does not say why.

    A compiled kernel may be long, as calls and structures cost it time. Any other says beside its name what takes it past 60
    lines. Many parameters are what ruff asks a `noqa` of; a second comment behind that is the reason, for a kernel too.
    """
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        beside = lines[node.lineno - 1]
        compiled = any(ast.unparse(decorator).split("(")[0] == "njit" for decorator in node.decorator_list)
        taken = node.args
        parameters = len(taken.posonlyargs) + len(taken.args) + len(taken.kwonlyargs)
        long = (node.end_lineno or node.lineno) - node.lineno + 1 > MOST_IN_FUNCTION
        explained = compiled or re.search(r"# .*past 60 lines by \w", beside)
        listed = re.search(r"# noqa: [\w, ]*PLR0913[\w, ]*  # \w", beside)
        if (long and not explained) or (parameters > MOST_PARAMETERS and not listed):
            found.append(f"{node.lineno}: {node.name}")
    return found


@pytest.mark.parametrize("path", layer_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_long_says_why(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert long_without_a_reason(source) == []
    is_long = source.count("\n") > MOST_IN_FILE
    assert is_long == (str(path.relative_to(ROOT)) in LONG_FILES)


MANY = ", ".join(f"{letter}: int" for letter in "abcdefgh")
BODY = "    pass\n" * 60


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"def f():\n{BODY[:-9]}", []),
        (f"def f():\n{BODY}", ["1: f"]),
        (f"class A:\n    async def f():\n{BODY.replace('    ', '        ')}", ["2: f"]),
        (f"def f():  # noqa: C901  # one table\n{BODY}", ["1: f"]),
        (f"def f():  # past 60 lines by its docstring\n{BODY}", []),
        (f"def f():  # noqa: C901  # one table, past 60 lines by its entries\n{BODY}", []),
        (f"@njit(cache=True)\ndef f():\n{BODY}", []),
        (f"@cache\ndef f():\n{BODY}", ["2: f"]),
        (f"def f({MANY[:-8]}): ...", []),
        (f"def f({MANY}): ...", ["1: f"]),
        (f"def f(*, {MANY}): ...", ["1: f"]),
        (f"def f({MANY}): ...  # noqa: PLR0913", ["1: f"]),
        (f"def f({MANY}): ...  # noqa: PLR0912  # flags", ["1: f"]),
        (f"def f({MANY}): ...  # noqa: C901, PLR0913  # flags", []),
        (f"@njit\ndef f({MANY}): ...", ["2: f"]),
    ],
)
def test_what_is_long_without_a_reason_is_found(source: str, expected: list[str]) -> None:
    assert long_without_a_reason(source) == expected


def test_one_name_is_one_class() -> None:
    """Two classes of one name make a reader ask which is meant."""
    places: dict[str, list[str]] = {}
    for path in layer_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(places) > 100
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


# --- every option in conf/ says what it does


def options(node: yaml.Node) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """Yield (key, value) of each leaf option: what a user can override, at whatever depth."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from options(value)
        elif not re.fullmatch(r"_\w+_", key.value):  # `_target_` and the like are Hydra's
            yield key, value


def uncommented_options(text: str) -> list[str]:
    """Return `line: key` of each option with neither a comment on its line nor a comment line directly above it."""
    lines = text.splitlines()
    missing = []
    for key, value in options(yaml.compose(text, Loader=yaml.SafeLoader) or yaml.MappingNode("", [])):
        if key.value == "defaults" and key.start_mark.column == 0:
            continue
        line = key.start_mark.line
        # A value on the key's line ends before its comment, and may hold a # of its own.
        one_line = value.end_mark.line == line
        rest = lines[line][(value if one_line else key).end_mark.column :]
        above = lines[line - 1].lstrip() if line else ""
        # Hydra's `# @package` line explains nothing.
        if not re.search(r"(^|\s)#\s*\S", rest) and not re.match(r"#\s*(?!@package)\S", above):
            missing.append(f"{line + 1}: {key.value}")
    return missing


def configurations() -> list[Path]:
    """Return every YAML file that a user composes a run from."""
    return sorted((ROOT / "conf").rglob("*.yaml"))


def test_there_are_configurations() -> None:
    assert configurations()


@pytest.mark.parametrize("path", configurations(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_is_explained(path: Path) -> None:
    assert uncommented_options(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 0  # of the workload", []),
        ("# of the workload\nseed: 0", []),
        ("seed: 0", ["1: seed"]),
        ("# of the workload\n\nseed: 0", ["3: seed"]),
        ("# one\na: 1\nb: 2", ["3: b"]),
        ("name: 'a # b'", ["1: name"]),
        ("name: a#b", ["1: name"]),
        ("ranks: [8, 16]  # of the adapters", []),
        ("ranks:  # of the adapters\n  - 8\n  - 16", []),
        ("ranks:\n  - 8  # small", ["1: ranks"]),
        ("limits:\n  gpus: 4  # at most\n  time_s: 60", ["3: time_s"]),
        ("limits: {gpus: 4, time_s: 60}  # of a solve", []),
        ("limits: {gpus: 4, time_s: 60}", ["1: gpus", "1: time_s"]),
        ("defaults:\n  - solver: exact\n  - _self_\n_target_: solvers.exact.Exact", []),
        ("solver:\n  defaults: 1", ["2: defaults"]),
        ("extra: {}", ["1: extra"]),
        ("limit:  # none", []),
        ("limit:", ["1: limit"]),
        ("text: |\n  # not a comment\n  b", ["1: text"]),
        ("# @package _global_\nseed: 0", ["2: seed"]),
        ("# @package _global_\n", []),
        ("", []),
    ],
)
def test_an_option_without_a_comment_is_found(text: str, expected: list[str]) -> None:
    assert uncommented_options(text) == expected


# --- dependencies and locks


def project() -> dict[str, Any]:
    """Return the project table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def undeclared(modules: Iterable[str]) -> set[NormalizedName]:
    """Return the distributions of `modules` that an installation of this package does not bring along."""
    extras = project()["optional-dependencies"]
    texts = project()["dependencies"] + extras["launchers"] + extras["vllm"]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    owners = packages_distributions()
    return {
        canonicalize_name(owner)
        for module in {name.split(".")[0] for name in modules} - sys.stdlib_module_names - {*LAYERS, "conf"}
        for owner in owners.get(module, [module])
    } - declared


def test_every_import_is_declared() -> None:
    """What comes along with another package today may be gone tomorrow."""
    graph = grimp.build_graph(*LAYERS, include_external_packages=True, cache_dir=None)
    imported = {name for name in graph.modules if graph.is_module_squashed(name)}
    by_name = {name for path in layer_files() for name in imported_by_name(path.read_text(encoding="utf-8"))}
    assert "numpy" in imported
    assert undeclared(imported | by_name) == set()


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (["os", "sklearn.tree", "twin.errors", "vllm"], set()),
        (["mypy.api"], {"mypy"}),
        (["no_such_module"], {"no-such-module"}),
    ],
)
def test_an_undeclared_import_is_found(modules: list[str], expected: set[str]) -> None:
    assert undeclared(modules) == expected


def locked(name: str) -> dict[NormalizedName, set[str]]:
    """Return the versions that a lock file pins, by canonical package name."""
    pins: dict[NormalizedName, set[str]] = {}
    text = (ROOT / name).read_text(encoding="utf-8")
    for package, version in re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, flags=re.MULTILINE):
        pins.setdefault(canonicalize_name(package), set()).add(version)
    return pins


LOCKS = {
    "requirements.lock": ["dev", "launchers"],
    "requirements-vllm-cpu.lock": ["conformance"],
}


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_satisfies_the_declared_dependencies(name: str) -> None:
    """A range that was changed without `make lock` would be installed by nobody."""
    declared = project()["dependencies"] + [
        text for extra in LOCKS[name] for text in project()["optional-dependencies"][extra]
    ]
    pins = locked(name)
    for requirement in map(Requirement, declared):
        versions = pins.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement.name} is not in {name}: run make lock"
        assert all(map(requirement.specifier.contains, versions)), (
            f"{name} has {requirement.name} {versions}: run make lock"
        )


@pytest.mark.parametrize("name", [*LOCKS, "requirements-build.lock"])
def test_the_lock_installs_from_any_index(name: str) -> None:
    """Every entry is a pinned version with hashes: no address, no path, no option."""
    text = (ROOT / name).read_text(encoding="utf-8")
    entries = re.sub(r"\\\n|#.*", "", text).strip().splitlines()
    entry = re.compile(r"[\w.-]+==[\w.+!-]+( ; [^@]*?)?\s+(--hash=sha256:[0-9a-f]{64}\s*)+")
    assert [line for line in entries if line.strip() and not entry.fullmatch(line)] == []
