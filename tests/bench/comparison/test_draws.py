"""Chance: on how many other draws of the requests a placement holds, and by how little a proof stands."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import ClassVar

import numpy as np
import pytest
from rich.console import Console, RenderableType

from bench.comparison.cache import cell_key
from bench.comparison.cell import Cell
from bench.comparison.compare import Comparison, compare
from bench.comparison.rows import Row
from bench.reporting.table import comparison_report, summary_table
from solvers.base import Problem, Solution, Solver, Tags
from twin import GpuPlan, Placement, Requests, UserError, score_placement


class Shared(Solver):
    """Half of the adapters on each of two GPUs, with a bound in fractions."""

    name: ClassVar[str] = "shared"
    tags = Tags(exact=True)

    def solve(self, problem: Problem) -> Solution:
        """Even and odd adapters."""
        adapters = range(problem.workload.n_adapters)
        plans = tuple(GpuPlan(tuple(adapters[first::2]), 3) for first in (0, 1))
        details = {"oracle": "twin", "fractional_bound": 1.004, "draws": 3, "lower_bound_of_draws": 2}
        return Solution("optimal", Placement(plans), lower_bound=2, details=details)


def rows_of(comparison: Comparison, **changes: object) -> Row:
    """The row of that solver."""
    (row,) = compare(replace(comparison, **changes), {"shared": Shared})  # type: ignore[arg-type]
    return row


def near_its_limit(comparison: Comparison) -> Comparison:
    """A load that two GPUs serve on some draws only."""
    return replace(
        comparison, workload=replace(comparison.workload, rates=comparison.workload.rates * 7.8, duration_s=120.0)
    )


def test_a_placement_is_scored_on_other_draws(comparison: Comparison) -> None:
    """As often as it is feasible with other requests, none of which are those that it is ranked by."""
    comparison = near_its_limit(comparison)
    row = rows_of(comparison, draws=8)
    assert row.placement is not None
    placement = Placement.from_json(row.placement)
    seeds = [comparison.workload.seed + 1_000_003 * turn for turn in range(1, 9)]
    holds = [
        score_placement(comparison.workload.with_seed(seed), placement, comparison.profile).feasible for seed in seeds
    ]
    assert (row.draws, row.holds_on) == (8, sum(holds))
    assert 0 < sum(holds) < 8
    same = rows_of(comparison)
    assert (same.draws, same.holds_on) == (None, None)
    assert (same.feasible, same.gpus, same.throughput) == (row.feasible, row.gpus, row.throughput)


def test_a_trace_has_no_other_draws(comparison: Comparison) -> None:
    one = np.array([0])
    trace = Requests(np.array([1.0]), one, np.array([10]), np.array([5]), np.array([5]))
    row = rows_of(comparison, draws=3, workload=replace(comparison.workload, trace=trace))
    assert row.feasible
    assert (row.draws, row.holds_on) == (None, None)


def test_the_slack_of_a_proof_is_in_the_row_and_told(comparison: Comparison) -> None:
    row = rows_of(comparison)
    assert row.bound_slack == pytest.approx(0.004)
    assert "stands by 0.004 GPUs: 1.004 in fractions" in text(comparison_report([row]))
    # A bound for more load than there is is none.
    assert rows_of(comparison, reserve=0.1).bound_slack is None


def test_a_row_says_what_a_solver_has_looked_at(comparison: Comparison) -> None:
    """And what it has proven of placements that hold on all of it, unless that was for more load."""
    row = rows_of(comparison)
    assert (row.solver_draws, row.solver_draws_bound) == (3, 2)
    row = rows_of(comparison, reserve=0.1)
    assert (row.solver_draws, row.solver_draws_bound) == (3, None)


def test_tables_show_draws_where_there_are_any(comparison: Comparison) -> None:
    row = rows_of(comparison, draws=2)
    without = rows_of(comparison)
    several = [row, replace(without, solver="b")]
    assert "other" in text(comparison_report(several))
    assert "other" in text(summary_table(several))
    assert "other" not in text(comparison_report([without]))
    assert "other" not in text(summary_table([without]))
    assert "2/2" in text(comparison_report([row]))


def test_a_cell_of_an_earlier_release_has_no_draws() -> None:
    cell = Cell(
        solver="s", solver_options={"_target_": "solvers.ffd.GuidedFfd"}, workload={"_target_": "twin.builders.groups"}
    )
    values = json.loads(cell.to_json())
    del values["draws"]
    assert Cell.from_json(json.dumps(values)) == cell
    assert cell_key(replace(cell, draws=1)) != cell_key(cell)


@pytest.mark.parametrize("draws", [-1, 1001])
def test_draws_are_counted(comparison: Comparison, draws: int) -> None:
    with pytest.raises(UserError, match="draws"):
        replace(comparison, draws=draws)


def text(report: RenderableType) -> str:
    """What a wide terminal shows."""
    shown = StringIO()
    Console(width=200, file=shown).print(report)
    return shown.getvalue()
