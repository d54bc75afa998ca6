"""The share of mistakes that the tests notice, as CONTRIBUTING.md has it, is that of the mutants in results/mutation."""

from __future__ import annotations

import csv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_counts_the_mutants() -> None:
    with (ROOT / "results" / "mutation" / "mutants.csv").open(encoding="utf-8", newline="") as file:
        outcomes = [(row["group"], row["killed"] == "True") for row in csv.DictReader(file)]
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.split("<!-- mutants -->\n")[1].split("\n<!-- end of mutants -->")[0].splitlines()[2:]
    groups = [*sorted({group for group, _ in outcomes}), "all"]
    expected = []
    for name in groups:
        killed = [was for group, was in outcomes if name in (group, "all")]
        expected.append(f"| {name} | {len(killed)} | {sum(killed)} | {100 * sum(killed) / len(killed):.0f} % |")
    assert table == expected
