"""The published rule on the committed reference: whatever service levels there are, its verdicts stay what they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.comparison.build import build_workload, service_of
from bench.comparison.cell import Cell
from bench.comparison.rows import Row, read_any
from twin import PUBLISHED, Placement, load_profile, score_placement

REFERENCE = Path(__file__).parents[3] / "results/reference"
#: Placements of so few adapters are simulated again, which takes some seconds for all of them.
FEW_ADAPTERS = 10


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    found = [row for row in read_any(REFERENCE) if row.placement not in (None, "[]") and row.service == PUBLISHED.name]
    assert len(found) > 500
    return found


def test_every_row_has_the_verdict_of_nine_tenths_of_the_offered_throughput(rows: list[Row]) -> None:
    """By hand, from the figures of the GPUs in the row."""
    for row in rows:
        starved = [
            gpu["memory_error"] or gpu["throughput"] < 0.9 * gpu["offered_throughput"] for gpu in row.gpu_figures
        ]
        assert row.feasible == (not any(starved)), row.workload
        assert row.starved_gpus == sum(starved), row.workload


def test_todays_twin_says_the_same_under_the_published_level(rows: list[Row]) -> None:
    small = [row for row in rows if row.cell and (row.n_adapters or FEW_ADAPTERS + 1) <= FEW_ADAPTERS]
    assert len({row.workload for row in small}) >= 3
    assert {row.feasible for row in small} == {True, False}
    for row in small:
        cell = Cell.from_json(row.cell, row.workload, makes=["workload"])
        assert service_of(cell) == PUBLISHED
        profile = load_profile(cell.profile)
        score = score_placement(
            build_workload(cell.workload, profile), Placement.from_json(row.placement or ""), profile, service=PUBLISHED
        )
        assert (score.feasible, score.starved_gpus) == (row.feasible, row.starved_gpus), (row.workload, row.solver)
        assert score.throughput == pytest.approx(row.throughput, rel=1e-9)
