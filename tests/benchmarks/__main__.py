"""`python -m tests.benchmarks BASE.json NEW.json`: which benchmarks have become slower, as ratios to the calibration loop.

Machines may differ between the two: each time is divided by that of the calibration loop, which runs among the benchmarks.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.figures import in_calibrations


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print a table, and say by the exit code whether anything has become too slow: 0, 1, or 2 for a file that is no such file."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("base", type=Path, help="JSON of pytest-benchmark, of what the change started from")
    parser.add_argument("new", type=Path, help="the same of the change")
    parser.add_argument("--at-most", type=float, default=1.5, help="ratio of new to base above which it fails")
    parser.add_argument("--summary", type=Path, help="the table is appended to this file, too")
    options = parser.parse_args(arguments)
    figures = []
    for path in (options.base, options.new):
        try:
            figures.append(in_calibrations(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError) as why:
            sys.stderr.write(f"{path} is no JSON of pytest-benchmark: {why}\n")
            return 2
        if not figures[-1]:
            sys.stderr.write(f"{path}: no calibration loop and nothing beside it; run tests/benchmarks with it\n")
            return 2
    base, new = figures
    table, slower = compared(base, new, options.at_most)
    sys.stdout.write(table + "\n")
    if options.summary:
        with options.summary.open("a", encoding="utf-8") as file:
            file.write(table + "\n")
    return 1 if slower else 0


def compared(base: Mapping[str, float], new: Mapping[str, float], at_most: float) -> tuple[str, list[str]]:
    """A table in Markdown, the most slowed down first, and the names of those above the ratio.

    Parameters
    ----------
    base, new : mapping of str to float
        Calibration loops that each benchmark takes.
    at_most : float
        Ratio of new to base.
    """
    ratios = {name: new[name] / base[name] for name in base if name in new}
    slower = [name for name, ratio in ratios.items() if not ratio <= at_most]
    lines = ["| benchmark | base | new | ratio |", "| --- | --- | --- | --- |"]
    for name, ratio in sorted(ratios.items(), key=lambda entry: -entry[1]):
        mark = " **slower**" if name in slower else ""
        lines.append(f"| {name} | {base[name]:.3g} | {new[name]:.3g} | {ratio:.2f}{mark} |")
    lines += [f"| {name} | | {new[name]:.3g} | new |" for name in new if name not in base]
    lines += [f"| {name} | {base[name]:.3g} | | gone |" for name in base if name not in new]
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios)) if ratios else math.nan
    head = (
        f"Speed in calibration loops: {len(ratios)} benchmarks, geometric mean of the ratios {mean:.2f}, "
        f"{len(slower)} above {at_most:g}."
    )
    return "\n".join([head, "", *lines]), slower


if __name__ == "__main__":
    raise SystemExit(main())
