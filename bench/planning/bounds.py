"""What the candidates of a plan prove about its number of GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from bench.comparison.rows import Row
from bench.statistics.contradictions import LowerBound, claims


def proven_bound(rows: Sequence[Row]) -> LowerBound | None:
    """The largest lower bound for the twin among the candidates that none of them refutes.

    One for any replicas goes before one that gives each adapter one GPU, unless that says more and a placement without replicas is the
    best there is.
    """
    standing = [claim for claim in claims(rows) if not claim.refuted_by(rows)]
    fewest = min((row.gpus for row in rows if row.feasible and row.gpus is not None), default=None)
    # What rules out whole adapters alone says nothing of a fleet that shares them.
    standing = [claim for claim in standing if fewest is None or claim.bound <= fewest]
    return max(standing, key=lambda claim: (not claim.whole, claim.bound), default=None)
