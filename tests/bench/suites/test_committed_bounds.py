"""Over all committed results no placement is below a bound, whoever proved the one and found the other."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from bench.comparison.rows import Row, read_rows
from bench.statistics.contradictions import all_contradictions
from bench.suites.bounds import is_of
from bench.suites.library import load_suite, read_best_known
from twin.service import NAMED

RESULTS = Path(__file__).parents[3] / "results"
#: Files of rows: solvers' answers, with bounds and placements.
ROWS = [*sorted((RESULTS / "reference").rglob("rows.parquet")), RESULTS / "reference/ci.parquet"]


def table(name: str) -> list[dict[str, str]]:
    """Lines of a committed CSV file."""
    lines = list(csv.DictReader((RESULTS / "bounds" / name).read_text(encoding="utf-8").splitlines()))
    assert lines
    return lines


@pytest.fixture(scope="module", params=ROWS, ids=lambda path: path.parent.name + "/" + path.name)
def rows(request: pytest.FixtureRequest) -> list[Row]:
    return read_rows(request.param)


def test_no_answer_is_below_a_bound_of_the_same_rows(rows: list[Row]) -> None:
    """The best bounds that rows carry of earlier runs included."""
    assert any(row.lower_bound is not None for row in rows)
    assert all_contradictions(rows) == []


def test_no_answer_is_below_a_bound_of_the_suite(rows: list[Row]) -> None:
    instances = {instance.id: instance for instance in load_suite("collection")}
    for level in NAMED:
        known = read_best_known(service=level)
        for row in rows:
            if row.feasible and row.service == level and row.workload in known and is_of(row, instances[row.workload]):
                assert row.gpus is not None
                assert row.gpus >= known[row.workload].lower_bound, (row.workload, row.solver_label)


@pytest.mark.parametrize("level", list(NAMED))
def test_no_best_known_bound_is_above_the_fewest_gpus(level: str) -> None:
    for name, best in read_best_known(service=level).items():
        assert best.gpus is None or best.lower_bound <= best.gpus, name


@pytest.mark.parametrize("level", ["published", "interactive"])
def test_the_bounds_of_the_tier_and_those_of_the_suite_agree(level: str) -> None:
    """Neither is above a placement of the other."""
    known = read_best_known(service=level)
    for line in table(f"tier_{level}.csv"):
        best = known[line["instance"]]
        assert best.gpus is None or int(line["lower_bound"]) <= best.gpus, line["instance"]
        if line["feasible"] == "True":
            assert best.lower_bound <= int(line["gpus"]), line["instance"]


def test_brute_force_has_refuted_nothing() -> None:
    """Read off the figures, whatever the column `refuted` says."""
    lines = table("refute.csv")
    assert [line["instance"] for line in lines if line["refuted"]] == []
    claimed = [line for line in lines if line["lower_bound"] and line["fewest"]]
    assert any(int(line["lower_bound"]) > 1 for line in claimed)
    # `exact` and `ffd_plus` may place replicas, so what they say is about those too.
    assert [
        line["instance"]
        for line in claimed
        if line["solver"] == "exact" and int(line["lower_bound"]) > int(line["fewest"])
    ] == []


def test_no_content_that_a_gpu_serves_lowers_a_bound() -> None:
    """One that is dearer than the bound allows makes the bound smaller by as much, which must not be a whole GPU."""
    for line in table("check.csv"):
        bound, dearest = float(line["bound"]), max(1.0, float(line["dearest"]))
        assert math.ceil(bound / dearest) == math.ceil(bound), line["instance"]
