# ruff: noqa: INP001  # a script that stands alone
"""Run the commands of README.md and put what they print below them; make its table of the reference anew.

    python docs/refresh_readme.py [--only TEXT]

A block that starts with ```console has one command, `$ python ...`; the rest of it is replaced. With `keep=PATTERN` the lines
stay that a regular expression finds, with `without_times` a table loses its last column, times of one machine. The commands run in
an empty folder with the files that README.md shows. The picture of the comparison becomes docs/comparison.png.

The table between `<!-- who wins -->` and `<!-- end of who wins -->` comes from results/reference/LEVEL/rows.parquet.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "results" / "reference"
LEVELS = ("published", "interactive")
CONSOLE = re.compile(
    r"```console(?: keep=(?P<keep>\S+))?(?P<without_times> without_times)?\n\$ (?P<command>[^\n]*)\n(?P<output>.*?)```\n",
    re.DOTALL,
)
SHOWN_FILE = re.compile(r"```(?:python|csv)\n# (?P<name>\w+\.(?:py|csv))\n(?P<content>.*?)```\n", re.DOTALL)
TABLE = re.compile(r"(<!-- who wins -->\n).*?(<!-- end of who wins -->\n)", re.DOTALL)
#: Whose picture stands in README.md.
PICTURED = "python -m bench 'solver=[exact"
#: The solvers of the table, and what they are.
SOLVERS = {
    "exact": "fewest GPUs, with a lower bound",
    "ffd_plus": "our greedy, mended on the twin",
    "max_pack": "each GPU filled to its limit",
    "ffd": "published greedy (arXiv 2602.24044)",
    "dlora": "published spreading (dLoRA)",
    "hrw": "hashing",
}
#: What ends a line of a table when its last column is gone.
ENDS = {"┳": "┓", "╇": "┩", "┴": "┘", "┃": "┃", "│": "│"}


def who_wins() -> str:
    """The table of the reference, in Markdown: GPUs beside waiting, under each service level that there are results of."""
    levels = {
        level: pd.read_parquet(path) for level in LEVELS if (path := REFERENCE / level / "rows.parquet").is_file()
    }
    heads, columns = ["solver"], [[f"`{solver}`: {what}" for solver, what in SOLVERS.items()]]
    for level, rows in levels.items():
        # Rows of old releases do not know the 95th percentile.
        wait = "p95" if "ttft_p95_ms" in rows else "p99"
        mine = [rows[rows.solver == solver] for solver in SOLVERS]
        good = [one[one.feasible] for one in mine]
        before = f"{level}: " if len(levels) > 1 else ""
        heads += [f"{before}feasible", "GPUs over bound", f"TTFT {wait}"]
        columns += [
            [f"{len(yes)} of {len(one)}" for yes, one in zip(good, mine, strict=True)],
            [f"{100 * yes.gap.mean():.1f} %" if len(yes) else "" for yes in good],
            [_seconds(yes[f"ttft_{wait}_ms"]) if len(yes) else "" for yes in good],
        ]
        if level == LEVELS[0]:
            heads.append("starved adapters in")
            columns.append([f"{(yes.starved_adapters > 0).sum()} of {len(yes)}" for yes in good])
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *zip(*columns, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _seconds(times_ms: Iterable[float]) -> str:
    median_s = statistics.median(times_ms) / 1000
    return f"{median_s:.0f} s" if median_s >= 1 else f"{median_s:.2f} s"


def shown(output: str, keep: str | None, *, without_times: bool) -> str:
    """What a block shows of an output."""
    lines = [line for line in output.splitlines() if keep is None or re.search(keep, line)]
    if without_times:
        lines = [_without_last_column(line) for line in lines]
    return "".join(f"{line}\n" for line in lines)


def _without_last_column(line: str) -> str:
    place = max(line.rfind(mark, 0, len(line) - 1) for mark in ENDS)
    return line if place <= 0 else line[:place] + ENDS[line[place]]


def printed_by(command: str, folder: Path) -> str:
    """What a command prints on stdout in `folder`."""
    program, *arguments = shlex.split(command)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    call = [sys.executable, *arguments] if program == "python" else [program, *arguments]
    done = subprocess.run(call, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def refresher(folder: Path, only: str) -> Callable[[re.Match[str]], str]:
    """What gives a block its new output, by running its command in `folder`."""

    def refreshed(match: re.Match[str]) -> str:
        command = match["command"]
        if only not in command:
            return match[0]
        output = printed_by(command, folder)
        if command.startswith(PICTURED):
            picture = max(folder.glob("results/runs/bench/*/*/rows.png"), key=lambda path: path.stat().st_mtime)
            shutil.copyfile(picture, ROOT / "docs" / "comparison.png")
        opening = match[0].partition("\n")[0]
        return (
            f"{opening}\n$ {command}\n{shown(output, match['keep'], without_times=bool(match['without_times']))}```\n"
        )

    return refreshed


def main() -> None:
    """Refresh the blocks one after another, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="refresh the commands that hold this text only")
    options = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for match in SHOWN_FILE.finditer(text):
            (folder / match["name"]).write_text(match["content"], encoding="utf-8")
        text = CONSOLE.sub(refresher(folder, options.only), text)
    text = TABLE.sub(lambda match: f"{match[1]}{who_wins()}\n{match[2]}", text)
    temporary = README.with_name(f"{README.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(README)


if __name__ == "__main__":
    main()
