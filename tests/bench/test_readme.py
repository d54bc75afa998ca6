"""README.md: its commands can be composed, its example of a solver works, its table is that of the reference, and it stays short."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import bench.__main__  # noqa: F401  # registers the schema
from bench.comparison.compare import Comparison, compare
from bench.shared.overrides import CONF

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[2:] for line in re.findall(r"^\$ (python -m bench.*)$", README, flags=re.MULTILINE)]


@pytest.fixture(scope="module")
def refresh_readme() -> ModuleType:
    spec = importlib.util.spec_from_file_location("refresh_readme", CONF.parent / "docs" / "refresh_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_fits_a_few_screens() -> None:
    assert len(README.splitlines()) <= 130
    assert len(README.encode()) <= 9000


def test_there_are_commands() -> None:
    assert {command[0] for command in COMMANDS} == {"bench", "bench.plan"}


def test_every_block_with_a_command_is_refreshed(refresh_readme: ModuleType) -> None:
    assert len(refresh_readme.CONSOLE.findall(README)) == README.count("```console") == len(COMMANDS)


def test_the_table_is_that_of_the_reference(refresh_readme: ModuleType) -> None:
    assert f"<!-- who wins -->\n{refresh_readme.who_wins()}\n<!-- end of who wins -->" in README


def test_every_page_of_the_documentation_is_in_its_map() -> None:
    pages = {path.relative_to(CONF.parent).as_posix() for path in (CONF.parent / "docs").rglob("*.md")}
    assert pages - set(re.findall(r"\]\((docs/[^)#]*\.md)", README)) == {"docs/index.md"}


def test_every_link_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]*)", README):
        assert (CONF.parent / target).exists(), target


def test_a_block_shows_what_it_keeps_without_times(refresh_readme: ModuleType) -> None:
    output = "rows here\n┃ solver ┃ solve s ┃\n│ exact  │    0.21 │\n"
    assert refresh_readme.shown(output, "[┃│]", without_times=True) == "┃ solver ┃\n│ exact  │\n"
    assert refresh_readme.shown(output, None, without_times=False) == output


@pytest.mark.parametrize("arguments", [command for command in COMMANDS if command[0] == "bench"], ids=" ".join)
def test_every_comparison_can_be_composed(arguments: list[str]) -> None:
    """Each option exists; of a sweep the first value is taken."""
    overrides = [text for text in arguments[1:] if text != "-m"]
    if "-m" in arguments:
        overrides = [text.partition(",")[0] for text in overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides)
    assert not OmegaConf.missing_keys(config)


@pytest.mark.parametrize("arguments", [command for command in COMMANDS if command[0] != "bench"], ids=" ".join)
def test_every_other_command_has_its_options(arguments: list[str]) -> None:
    options = OmegaConf.load(CONF / f"{arguments[0].removeprefix('bench.')}.yaml")
    assert {text.partition("=")[0] for text in arguments[1:]} <= set(options)


def test_every_command_named_is_there() -> None:
    for module in re.findall(r"python -m bench\.(\w+)", README):
        assert (CONF.parent / "bench" / f"{module}.py").exists()
        assert (CONF / f"{module}.yaml").exists()


def test_the_solver_of_the_readme_works(comparison: Comparison) -> None:
    (code,) = re.findall(r"```python\n# eights\.py\n(.*?)```", README, flags=re.DOTALL)
    scope: dict[str, type] = {"__name__": "eights"}  # type: ignore[dict-item]  # a class statement asks for the name
    exec(code, scope)  # noqa: S102  # the code that the README shows
    (row,) = compare(comparison, {"eights": scope["Eights"]})
    assert (row.status, row.gpus, row.feasible) == ("unchecked", 1, True)


def test_every_solver_is_in_the_documents() -> None:
    document = (CONF.parent / "docs" / "solvers.md").read_text(encoding="utf-8")
    for path in (CONF / "solver").glob("*.yaml"):
        assert f"| `{path.stem}` |" in document
