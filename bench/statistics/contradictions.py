"""Lower bounds that a feasible placement refutes: found here for every command, and said in one way."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from bench.comparison.rows import Row
from bench.shared.terminal import plain
from bench.statistics.instances import TWIN, oracle_of
from twin import Placement

#: Exit code of a command that has seen a placement below a proven bound.
CONTRADICTION = 3
# Sums of prices are rounded.
_ROUNDING = 1e-9


@dataclass(frozen=True, order=True)
class LowerBound:
    """A lower bound on GPUs, for the twin.

    Attributes
    ----------
    bound : int
    by : str
        Which solver proved it.
    whole : bool
        It is of placements that give each adapter one GPU: a placement with replicas says nothing against it.
    """

    bound: int
    by: str
    whole: bool

    @property
    def scope(self) -> str:
        """What the bound is about, in words."""
        return "one GPU per adapter" if self.whole else "any max_loras, any replicas"

    def refuted_by(self, rows: Iterable[Row]) -> list[Row]:
        """Rows of the same question with a feasible placement on fewer GPUs."""
        fewer = [row for row in rows if row.feasible and row.gpus is not None and row.gpus < self.bound]
        return [row for row in fewer if not (self.whole and has_replicas(row))]


def claims(rows: Iterable[Row]) -> list[LowerBound]:
    """The bounds that rows of one question prove for the twin; one for a predictor says nothing about it."""
    found = []
    for row in rows:
        if row.lower_bound is not None and oracle_of(row) in ("", TWIN):
            allowed = json.loads(row.details or "{}").get("replicas") is True
            found.append(LowerBound(row.lower_bound, row.solver, not allowed))
    return found


def has_replicas(row: Row) -> bool:
    """Whether a row's placement gives some adapter to several GPUs."""
    return row.placement is not None and Placement.from_json(row.placement).has_replicas


def standing_bound(rows: Sequence[Row]) -> LowerBound | None:
    """The largest lower bound for the twin among the answers to one question that none of them refutes; None without one.

    One for any replicas goes before one that gives each adapter one GPU, unless that says more and a placement without replicas is the
    best there is.
    """
    standing = [claim for claim in claims(rows) if not claim.refuted_by(rows)]
    fewest = min((row.gpus for row in rows if row.feasible and row.gpus is not None), default=None)
    # What rules out whole adapters alone says nothing of a fleet that shares them.
    standing = [claim for claim in standing if fewest is None or claim.bound <= fewest]
    return max(standing, key=lambda claim: (not claim.whole, claim.bound), default=None)


def contradictions(rows: Sequence[Row]) -> list[str]:
    """A line for each bound that a feasible placement of the same question refutes.

    Parameters
    ----------
    rows : sequence of Row
        Answers to one question.
    """
    lines = []
    for claim in claims(rows):
        lines += [_line(row, claim) for row in claim.refuted_by(rows)[:1]]
    return lines + _cheaper(rows)


def _cheaper(rows: Sequence[Row]) -> list[str]:
    """A line for each bound on cost that a feasible placement refutes."""
    bounds = [(row.cost_bound, row.solver) for row in rows if row.cost_bound is not None]
    cost, who = min(
        ((row.cost, row.solver_label) for row in rows if row.feasible and row.cost is not None),
        default=(math.inf, ""),
    )
    return [
        f"{who} has a feasible placement that costs {cost:.6g}, below the bound of {bound:.6g} by {by}"
        for bound, by in bounds
        if cost < bound * (1 - _ROUNDING)
    ]


def _line(row: Row, claim: LowerBound) -> str:
    gpus = f"{row.gpus} GPU{'s' * (row.gpus != 1)}"
    return f"{row.solver_label} has a feasible placement on {gpus}, below the bound of {claim.bound} by {claim.by}"


def all_contradictions(rows: Iterable[Row]) -> list[str]:
    """As `contradictions`, of answers to several questions, each line with its workload; best bounds of earlier runs included."""
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.workload_label, row.profile, row.objective, row.seed, row.service].append(row)
    lines = []
    for (workload, *_), group in groups.items():
        found = contradictions(group)
        known = [row.best_bound for row in group if row.best_bound is not None]
        if known and not found:
            # Bounds of earlier runs do not say what they are about: what they say of whole adapters at least holds.
            earlier = LowerBound(max(known), "an earlier run", whole=True)
            found = [_line(row, earlier) for row in earlier.refuted_by(group)[:1]]
        lines += [f"{workload}: {line}" for line in found]
    return lines


def end_with(lines: Sequence[str]) -> None:
    """Say contradictions, if there are any, and end with their exit code.

    Raises
    ------
    SystemExit
    """
    if lines:
        _fail(lines)


def _fail(lines: Sequence[str]) -> NoReturn:
    sys.stderr.write("".join(f"CONTRADICTION: {plain(line)}\n" for line in lines))
    raise SystemExit(CONTRADICTION)
