"""What is proven of the cost of fleets, and how far above it placements are."""

from __future__ import annotations

from collections.abc import Iterable

from bench.comparison.rows import Row

#: Sums of prices this near are equal.
_ROUNDING = 1e-9


def best_cost_bounds(rows: Iterable[Row]) -> dict[str, float]:
    """The largest bound on cost of each workload that no feasible placement refutes."""
    rows = [row for row in rows if row.fleet]
    least: dict[str, float] = {}
    for row in rows:
        if row.feasible and row.cost is not None:
            least[row.workload_label] = min(row.cost, least.get(row.workload_label, row.cost))
    bounds: dict[str, float] = {}
    for row in rows:
        name = row.workload_label
        if row.cost_bound is not None and row.cost_bound <= least.get(name, row.cost_bound) * (1 + _ROUNDING):
            bounds[name] = max(row.cost_bound, bounds.get(name, 0.0))
    return bounds


def cost_gap(row: Row, bound: float | None) -> float | None:
    """Cost of a feasible placement above a bound, over the bound; None without one of the two."""
    if not row.feasible or row.cost is None or not bound:
        return None
    return max(0.0, row.cost / bound - 1)
