"""The tutorials' files and commands, run in the order in which a reader would."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.shared.plugins import register_solvers

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


class Reader:
    """Somebody who types what a tutorial shows, in folders of their own.

    Commands of this project are called in this process, which spares their start; what else there is gets one of its own.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder / "work"
        self.packages = folder / "packages"
        self.folder.mkdir()
        self.monkeypatch = monkeypatch
        self.capsys = capsys
        monkeypatch.syspath_prepend(self.packages)

    def run(self, command: str, cwd: str) -> None:
        """Run a command; what it installs goes to a folder, not into the environment of the tests."""
        program, *arguments = shlex.split(command)
        assert program == "python"
        module = arguments[1] if arguments[0] == "-m" else ""
        with self.monkeypatch.context() as patch:
            patch.chdir(self.folder / cwd)
            patch.syspath_prepend(self.folder / cwd)
            own = module.partition(".")[0] == "bench"
            printed = self._called(module, arguments[2:]) if own else self._started(arguments)
        if module == "bench":
            # A solver that fails is a row of the table, and no failure of the command.
            assert "│ yes" in printed, printed
            assert "error" not in printed, printed
        if module == "pytest":
            assert " passed" in printed

    def _called(self, module: str, arguments: list[str]) -> str:
        register_solvers()
        entry = importlib.import_module("bench.__main__" if module == "bench" else module)
        entry.main(arguments)
        printed: str = self.capsys.readouterr().out
        return printed

    def _started(self, arguments: list[str]) -> str:
        if arguments[:3] == ["-m", "pip", "install"]:
            assert arguments[3:] == ["--no-deps", "-e", "."]
            offline = ["-q", "--disable-pip-version-check", "--root-user-action", "ignore", "--no-build-isolation"]
            arguments = ["-m", "pip", "install", *offline, "--no-deps", "--target", str(self.packages), "."]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        call = [sys.executable, *arguments]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def test_every_tutorial_has_something_to_run() -> None:
    assert len(PAGES) == 7
    for page in PAGES:
        steps = list(steps_of(page))
        assert any(step.commands for step in steps)
        assert any(step.title for step in steps)


@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_works(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Reader(tmp_path, monkeypatch, capsys)
    for step in steps_of(page):
        if step.title:
            (reader.folder / step.title).parent.mkdir(parents=True, exist_ok=True)
            (reader.folder / step.title).write_text(step.text, encoding="utf-8")
        for command in step.commands:
            reader.run(command, step.cwd)
