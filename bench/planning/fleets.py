"""What a plan for GPUs of several types says of them: which are used, what they cost, and which mix is proven to be the cheapest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.comparison.build import maker_of
from bench.comparison.cells import fleet_options
from bench.comparison.rows import Row
from twin import Fleet, UserError, fleet_of

#: Sums of prices this near are equal.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class CostBound:
    """A bound on cost that no candidate refutes.

    Attributes
    ----------
    cost : float
    by : str
        Which solver proved it.
    """

    cost: float
    by: str

    def meets(self, cost: float) -> bool:
        """Whether nothing costs less than this."""
        return self.cost >= cost * (1 - _ROUNDING)


def cost_bound(rows: Sequence[Row]) -> CostBound | None:
    """The largest bound on cost among the answers to one question that none of them refutes; None without one."""
    cheapest = min((row.cost for row in rows if row.feasible and row.cost is not None), default=math.inf)
    standing = [
        (row.cost_bound, row.solver)
        for row in rows
        if row.cost_bound is not None and row.cost_bound <= cheapest * (1 + _ROUNDING)
    ]
    return CostBound(*max(standing, key=lambda each: each[0])) if standing else None


def mix_in_words(names: Sequence[str | None]) -> str:
    """How many of each type: 4 h100-80gb + 2 a100-80gb."""
    counts = Counter(name for name in names if name)
    return " + ".join(f"{number} {name}" for name, number in counts.items())


def types_in_words(fleet: Fleet) -> list[str]:
    """A line for each type: its name, profile, price, how many there are, and that nobody measured it."""
    lines = []
    for kind in fleet.types:
        count = "any number" if kind.count is None else f"{kind.count} there"
        estimated = ", estimated" if kind.profile.provenance.get("estimated") else ""
        parallel = kind.profile.tensor_parallel_size
        several = f", a server of {parallel} GPUs" if parallel > 1 else ""
        lines.append(f"type {kind.name}: {count} at {kind.price:g} (profile {kind.profile.name}{estimated}{several})")
    return lines


class Asking(Protocol):
    """Options of a plan that a fleet changes."""

    fleet: Any
    profile: str
    objective: dict[str, Any]


def fleet_asked(options: Asking, overrides: Sequence[str]) -> Fleet | None:
    """The fleet asked for; the profile is then that of its first type, and what is compared is cost unless the user says otherwise.

    Parameters
    ----------
    options : Asking
        Changed to that.
    overrides : sequence of str
        The command line.

    Raises
    ------
    UserError
        For what is no fleet, and for a profile beside one.
    """
    options.fleet = [dict(kind) for kind in fleet_options(options.fleet)] or None
    if options.fleet is None:
        return None
    if any(override.lstrip("+").startswith("profile=") for override in overrides):
        raise UserError(
            f"profile={options.profile}: fleet= is given, whose types have profiles of their own; one of the two would be right"
        )
    options.profile = options.fleet[0]["profile"]
    if not any(override.startswith("objective") for override in overrides):
        options.objective = {"_target_": "solvers.objectives.min_cost.MinCost"}
    return fleet_of(options.fleet)


def for_mixed_fleets(solvers: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The solvers that place on several types, and a line for those that do not.

    Parameters
    ----------
    solvers : dict
        Options of each, by its name.

    Raises
    ------
    UserError
        If none does.
    """
    kept = {name: options for name, options in solvers.items() if maker_of(name, options)().tags.mixed_fleets}
    left_out = [name for name in solvers if name not in kept]
    if not kept:
        raise UserError(
            f"solver: {', '.join(left_out)} place{'s' * (len(left_out) == 1)} on GPUs of one type; exact, ffd_plus and max_pack place on "
            "a fleet of several"
        )
    return kept, [f"{' and '.join(left_out)}: left out, on GPUs of one type only"] if left_out else []
