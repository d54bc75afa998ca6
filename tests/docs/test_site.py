"""The documentation builds without a warning and without a network, and its reference has every option."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md"))


def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> str:
    text = hooks().reference()
    assert isinstance(text, str)
    return text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT / "docs").as_posix())
def test_every_page_is_in_the_site(path: Path, site: Path) -> None:
    name = path.relative_to(ROOT / "docs").with_suffix("").as_posix()
    assert (site / ("index.html" if name == "index" else f"{name}/index.html")).exists()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(
            r'<(?:script|img|iframe|link rel="(?:stylesheet|preconnect)")[^>]*(?:src|href)="(https?://[^"]*)"', text
        )
        assert fetched == [], page


def test_the_reference_has_every_command_and_every_option(reference: str) -> None:
    assert "## python -m bench\n" in reference
    for path in (ROOT / "conf").glob("*.yaml"):
        if path.stem in ("common", "config"):
            continue
        section = reference.partition(f"## python -m bench.{path.stem}\n")[2].partition("\n## ")[0]
        assert section, path
        for key in set(yaml.safe_load(path.read_text(encoding="utf-8"))) - {"defaults", "hydra"}:
            assert re.search(rf"^\| `{key}[.`]", section, flags=re.MULTILINE), (path, key)


def test_an_option_stands_with_its_default_and_its_comment(reference: str) -> None:
    assert "| `gpus_per_host` | `8` | GPUs of one host, for ports and CUDA_VISIBLE_DEVICES. |" in reference
    assert "| `what_if.rate` | `{}` | What if an adapter had another rate: what_if.rate.NAME=2. |" in reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# one\na: 1\n", [("a", "1", "one")]),
        ("a: [1, 2]  # both\n", [("a", "[1, 2]", "both")]),
        ("a:\n  # in it\n  b: x|y\n", [("a.b", r"x\|y", "in it")]),
        ("# first\n# second <N>\na: ???\n", [("a", "???", "first second &lt;N>")]),
        ("a:\n", [("a", "null", "")]),
        ("_target_: x\ndefaults: []\nhydra: {}\n", []),
        ("a:\n  - 1\n  - 2\n", [("a", "(see the file)", "")]),
        ("", []),
    ],
)
def test_options_are_read_with_their_comments(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert list(hooks().options(text)) == expected


def test_no_option_of_the_pages_is_made_up() -> None:
    """Options of `bench.plan` that its guide names exist."""
    known = set(yaml.safe_load((ROOT / "conf" / "plan.yaml").read_text(encoding="utf-8"))) | {"solver", "objective"}
    named = re.findall(r"python -m bench\.plan ([^`\n]*)", (ROOT / "docs" / "plan.md").read_text(encoding="utf-8"))
    for arguments in named:
        for word in re.findall(r"(?<!\S)([a-z_]+)[.=]", arguments):
            assert word in known
