"""The tutorials' files and commands, run in the order in which a reader would."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = ["plan.md", *(f"tutorials/{path.name}" for path in sorted((DOCS / "tutorials").glob("*.md")))]
BLOCK = re.compile(r"^```(?P<language>\w+)(?P<attributes>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A file to write, or commands to run."""

    language: str
    text: str
    title: str = ""
    cwd: str = "."

    @property
    def commands(self) -> list[str]:
        """Of a block that shows a console."""
        return re.findall(r"^\$ (.*)$", self.text, flags=re.MULTILINE) if self.language == "console" else []


def steps_of(page: str) -> Iterator[Step]:
    """Yield the blocks of a page that are files or commands."""
    for match in BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")):
        attributes = dict(text.partition("=")[::2] for text in shlex.split(match["attributes"]))
        if match["language"] == "console" or "title" in attributes:
            yield Step(match["language"], match["text"], attributes.get("title", ""), attributes.get("cwd", "."))


def run(command: str, folder: Path, packages: Path) -> None:
    """Run a command of a tutorial; what it installs goes to `packages`, not into the environment of the tests."""
    program, *arguments = shlex.split(command)
    assert program == "python"
    if arguments[:3] == ["-m", "pip", "install"]:
        assert arguments[3:] == ["--no-deps", "-e", "."]
        arguments = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(packages), "."]
    path = os.pathsep.join([str(ROOT), str(packages)])
    settings = {"PYTHONPATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    environment = {**os.environ, **settings}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    if arguments[:2] == ["-m", "bench"]:
        # A solver that fails is a row of the table, and no failure of the command.
        assert "│ yes" in done.stdout, done.stdout
        assert "error" not in done.stdout, done.stdout
    if arguments[:2] == ["-m", "pytest"]:
        assert " passed" in done.stdout


def test_every_tutorial_has_something_to_run() -> None:
    assert len(PAGES) == 5
    for page in PAGES:
        steps = list(steps_of(page))
        assert any(step.commands for step in steps)
        assert any(step.title for step in steps)


@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_works(page: str, tmp_path: Path) -> None:
    folder, packages = tmp_path / "work", tmp_path / "packages"
    folder.mkdir()
    for step in steps_of(page):
        if step.title:
            (folder / step.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / step.title).write_text(step.text, encoding="utf-8")
        for command in step.commands:
            run(command, folder / step.cwd, packages)
