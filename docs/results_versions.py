# ruff: noqa: INP001  # a script that stands alone
"""Say in results/README.md from which version each folder is, and whose code has changed since: python docs/results_versions.py.

    python docs/results_versions.py                    the table anew; no folder is called newer than it is
    python docs/results_versions.py made=fidelity      after results/fidelity was made anew on the code of today

What a folder was made from is kept in results/versions.json: version, date, and a hash of the code that decides its figures
(comments, docstrings and layout do not count). A folder without a hash is from before there were any.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bench.comparison.sources import source_hash

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
KEPT, PAGE = RESULTS / "versions.json", RESULTS / "README.md"
TABLE = re.compile(r"(<!-- versions -->\n).*?(\n<!-- end of versions -->)", re.DOTALL)

TWIN = ("twin.builders", "twin.score")
SOLVERS = ("solvers.exact", "solvers.ffd_plus", "solvers.max_pack", "solvers.registry")
#: Modules whose code decides the figures of each folder; a folder with others is given here first.
DECIDING: dict[str, tuple[str, ...]] = {
    "benchmarks": (),
    "bounds": (*TWIN, *SOLVERS),
    "fidelity": (*TWIN, "bench.measured.twin_beside_runs"),
    "max_pack": (*TWIN, "bench.studies.max_pack"),
    "mutation": (*TWIN, *SOLVERS, "bench.regress", "bench.plan"),
    "online": (*TWIN, *SOLVERS, "bench.changing.study"),
    "paper": (*TWIN, *SOLVERS, "bench.measured.papers.replays"),
    "pareto": (*TWIN, *SOLVERS, "bench.studies.pareto"),
    "predictors": (*TWIN, "predictors", "bench.training.labels"),
    "profiles": ("bench.estimating.estimate", "bench.estimating.transfer"),
    "reference": (*TWIN, *SOLVERS),
    "reserve": (*TWIN, *SOLVERS, "bench.studies.robustness"),
    "service": (*TWIN, *SOLVERS, "bench.studies.best_service"),
    "vllm": (*TWIN, "bench.vllm.validation"),
}


def main(arguments: list[str]) -> None:
    """Stamp the folders that were made anew, and write the table."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    for argument in arguments:
        option, _, folder = argument.partition("=")
        if option != "made" or folder not in DECIDING:
            raise SystemExit(f"error: {argument}: it must be made=FOLDER, one of {', '.join(DECIDING)}")
        kept[folder] = {
            "version": _version(),
            "date": f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}",
            "code": code_of(folder),
        }
    KEPT.write_text(json.dumps(dict(sorted(kept.items())), indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), kept), encoding="utf-8")


def code_of(folder: str) -> str:
    """Hash of the code that decides the figures of a folder of results, as it is today."""
    return source_hash(DECIDING[folder])[:12] if DECIDING[folder] else ""


def changed_since(folder: str, made: dict[str, str]) -> bool:
    """Whether that code has changed since the folder was made; times of a machine are of no code alone."""
    return made["code"] != code_of(folder)


def with_table(page: str, kept: dict[str, dict[str, str]]) -> str:
    """The page with the table of today."""
    lines = ["| folder | made with | on | code of its figures |", "| --- | --- | --- | --- |"]
    for folder, made in sorted(kept.items()):
        state = "has changed since" if changed_since(folder, made) else "as today"
        if not DECIDING[folder]:
            state = "times of a machine"
        lines.append(f"| `{folder}/` | {made['version']} | {made['date']} | {state} |")
    return TABLE.sub(lambda found: found[1] + "\n".join(lines) + found[2], page)


def _version() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607  # whichever git there is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{metadata.version('lora-placement-bench')} ({commit.stdout.strip()})"


if __name__ == "__main__":
    main(sys.argv[1:])
