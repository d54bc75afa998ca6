"""The cases of the gate: what they are there for, and that nothing in the stored reference was cut short by time."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.comparison.differences import is_cut_short
from bench.comparison.rows import Row, read_rows

FOLDER = Path(__file__).resolve().parents[2]
#: Solvers that came after the committed rows were made: empty again when they are made anew.
NEW_SINCE: set[str] = set()


@pytest.fixture(scope="module")
def reference() -> list[Row]:
    return read_rows(FOLDER / "results" / "reference" / "ci.parquet")


def test_nothing_depends_on_the_machine(reference: list[Row]) -> None:
    assert [row.solver_label for row in reference if is_cut_short(row) or row.failed] == []


def test_what_is_covered(reference: list[Row]) -> None:
    assert {row.profile.partition("/")[0] for row in reference} == {"llama-3.1-8b", "qwen-2.5-7b"}
    assert {row.service for row in reference} == {"published", "interactive"}
    assert {row.workload for row in reference if row.reserve} == {"reserve"}
    shipped = {path.stem for path in (FOLDER / "conf" / "solver").glob("*.yaml")}
    assert shipped - {row.solver for row in reference} <= NEW_SINCE
    shared = [row for row in reference if '"shares"' in (row.placement or "")]
    assert {row.solver for row in shared if row.workload == "replicas"} >= {
        "exact",
        "dlora",
        "lora_serve",
        "lora_serve_third",
    }
    proven = {row.workload for row in reference if row.status == "optimal" and (row.lower_bound or 0) > 1}
    assert proven >= {"few_types", "many_types", "bursts"}
    assert {path.stem for path in (FOLDER / "conf" / "case").glob("*.yaml")} >= {row.workload for row in reference}
