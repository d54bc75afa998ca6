"""Rows of every kind from one comparison: two workloads, two seeds, a starved placement, errors, bounds over time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from bench.comparison.compare import Comparison, compare
from bench.comparison.rows import Row
from solvers.base import Solver

#: A placement on four GPUs, then the proof that two are needed, then a placement on two.
BOUNDS = {"oracle": "twin", "bounds_over_time_s": [[0.01, 1, None], [0.02, 1, 4], [0.4, 2, 4], [0.5, 2, 2]]}

#: Would break a page or a table that forgot to escape it.
NASTY = "<script>alert('x')</script> & \"|\""


def rows_of_every_kind(comparison: Comparison, makers: dict[str, Callable[[], Solver]]) -> list[Row]:
    """Rows for two seeds of two workloads; the solver "dealt" tells its bounds over time."""
    first = [_telling(row) for row in compare(comparison, makers)]
    second = [replace(row, seed=row.seed + 1) for row in first]
    other = [replace(row, workload="other", workload_options=f"name={NASTY}") for row in first]
    return [*first, *second, *other]


def _telling(row: Row) -> Row:
    if row.solver != "dealt":
        return row
    return replace(row, status="optimal", lower_bound=row.gpus, details=json.dumps(BOUNDS))
