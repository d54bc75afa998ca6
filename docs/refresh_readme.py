# ruff: noqa: INP001  # a script that stands alone
"""Run the commands of README.md and put what they print below them.

    python docs/refresh_readme.py [--data FOLDER] [--only TEXT]

A block that starts with ```console has one command, `$ python ...`; the rest of it is replaced (```console tail=9: by
the last nine lines). The commands run in an
empty folder with the files that README.md shows and, from FOLDER, links to the data that some need; a command
whose data is not there keeps its old output. The picture of the first command becomes docs/comparison.png.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
CONSOLE = re.compile(r"```console(?: tail=(?P<tail>\d+))?\n\$ (?P<command>[^\n]*)\n(?P<output>.*?)```\n", re.DOTALL)
SHOWN_FILE = re.compile(r"```(?:python|csv)\n# (?P<name>\w+\.(?:py|csv))\n(?P<content>.*?)```\n", re.DOTALL)


def printed_by(command: str, folder: Path) -> str | None:
    """What a command prints on stdout in `folder`, or None if the data that it names is not there."""
    program, *arguments = shlex.split(command)
    named = [text.partition("=")[2] for text in arguments if text.startswith(("runs=", "workload.path="))]
    if any(not (folder / name).exists() for name in named):
        return None
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    call = [sys.executable, *arguments] if program == "python" else [program, *arguments]
    done = subprocess.run(call, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def main() -> None:
    """Refresh the blocks one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder whose files and folders the commands may name")
    parser.add_argument("--only", default="", help="refresh the commands that hold this text only")
    options = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for match in SHOWN_FILE.finditer(text):
            (folder / match["name"]).write_text(match["content"], encoding="utf-8")
        for entry in options.data.resolve().rglob("*") if options.data else ():
            if not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)

        def refreshed(match: re.Match[str]) -> str:
            command = match["command"]
            output = printed_by(command, folder) if options.only in command else None
            if command == "python -m bench" and output is not None:
                (picture,) = folder.glob("results/runs/bench/*/*/rows.png")
                shutil.copyfile(picture, ROOT / "docs" / "comparison.png")
            if output is None:
                return match[0]
            lines = output.splitlines(keepends=True)[-int(match["tail"] or 0) :]
            opening = match[0].partition("\n")[0]
            return f"{opening}\n$ {command}\n{''.join(lines)}```\n"

        text = CONSOLE.sub(refreshed, text)
    temporary = README.with_name(f"{README.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(README)


if __name__ == "__main__":
    main()
