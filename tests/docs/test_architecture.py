"""docs/architecture.md: its picture and its table are those of the code, and what it names is there."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FOLDERS = [
    ROOT,
    *(path for name in ("bench", "solvers") for path in (ROOT / name, *(ROOT / name).rglob("*")) if path.is_dir()),
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architecture_diagram", ROOT / "docs" / "architecture_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_that_of_the_code(script: ModuleType) -> None:
    committed = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert committed == script.picture(), "run python docs/architecture_diagram.py"


def test_the_table_is_that_of_the_code(script: ModuleType) -> None:
    assert script.page() == PAGE, "run python docs/architecture_diagram.py"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+(?:\.py|/))`", PAGE))))
def test_a_file_or_folder_that_it_names_is_there(name: str) -> None:
    assert any((folder / name).exists() for folder in FOLDERS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(?:\w+\.)?(?!(?:py|toml)`)([A-Za-z]\w*[a-z]\w*)`", PAGE))))
def test_a_name_of_the_code_that_it_uses_is_defined(name: str) -> None:
    """Classes, functions and options, by their last part."""
    words = {path.stem for path in (ROOT / "conf").rglob("*.yaml")} | {"bench", "solvers", "predictors", "twin"}
    defined = re.compile(rf"^\s*(?:class |def )?{name}\b", re.MULTILINE)
    files = [path for layer in ("bench", "solvers", "predictors", "twin") for path in (ROOT / layer).rglob("*.py")]
    assert name in words or any(defined.search(path.read_text(encoding="utf-8")) for path in files)
