"""What the candidates of a plan prove about its number of GPUs, and whether one of them refutes it."""

from __future__ import annotations

from collections.abc import Sequence

from bench.comparison.rows import Row
from bench.statistics.instances import TWIN, oracle_of
from twin import Placement

#: What a bound of `exact` rests on (`solvers.exact`); whoever shows one says it.
SCOPE = "one GPU per adapter"


def proven_bound(rows: Sequence[Row]) -> tuple[int | None, str]:
    """The largest lower bound for the twin among the candidates that none of them refutes, and whose it is.

    A bound for a predictor, which a solver's `details` name as its oracle, says nothing about the twin.
    """
    proven = [(bound, row.solver) for row, bound in _claims(rows) if not _refuting(bound, rows)]
    return max(proven, key=lambda pair: pair[0]) if proven else (None, "")


def contradictions(rows: Sequence[Row]) -> list[str]:
    """A line for each bound that a feasible placement refutes; one with replicas refutes none."""
    return [
        f"{row.solver} has a feasible placement on {row.gpus} GPU{'s' * (row.gpus != 1)}, below the bound of {bound} by {claim.solver}"
        for claim, bound in _claims(rows)
        for row in _refuting(bound, rows)[:1]
    ]


def _claims(rows: Sequence[Row]) -> list[tuple[Row, int]]:
    return [(row, row.lower_bound) for row in rows if row.lower_bound is not None and oracle_of(row) in ("", TWIN)]


def _refuting(bound: int, rows: Sequence[Row]) -> list[Row]:
    fewer = [row for row in rows if row.feasible and row.gpus is not None and row.gpus < bound]
    return [row for row in fewer if not _has_replicas(row)]


def _has_replicas(row: Row) -> bool:
    return any(plan.shares is not None for plan in Placement.from_json(row.placement or "[]").gpus)
