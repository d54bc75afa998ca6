"""The cheapest plan that holds with a wanted probability."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from bench.comparison.rows import Row
from bench.planning.answer import feasible_rows
from bench.planning.chance import Load, chance_of
from twin import Fleet, Placement, ServingProfile, UserError
from twin.numbers import number

_log = logging.getLogger(__name__)

#: How often the slowdown that a plan is made for may be tried, and how much further off it is looked for each time.
_TRIES, _FURTHER, _ABOVE, _NEAR = 6, 1.25, 1.01, 0.02


def check_confidence(confidence: float | None, profile: ServingProfile, fleet: Fleet | None = None) -> None:
    """Refuse what is no probability, a profile that has no distribution, and a fleet.

    Raises
    ------
    UserError
    """
    if confidence is None:
        return
    number("confidence", confidence, above=0.0, at_most=0.99)
    if fleet is not None:
        raise UserError(
            f"confidence={confidence:g}: is for a plan with profile=, and fleet= is given; reserve=0.2 plans for a fifth more load"
        )
    if profile.uncertainty is None:
        raise UserError(
            f"confidence={confidence:g}: profile {profile.name} does not say how far it may be off (uncertainty in its JSON); "
            "reserve=0.2 plans for a fifth more load"
        )


@dataclass(frozen=True)
class Sure:
    """The cheapest placement found that holds with a probability, or else the one that holds most often.

    Attributes
    ----------
    row : Row
    share : float
        Of the profiles drawn.
    slowdown : float
        It was made for steps that take so many times as long.
    """

    row: Row
    share: float
    slowdown: float

    def in_words(self, confidence: float) -> str:
        """Why there is no answer."""
        return (
            f"no placement was found that holds with a probability of {confidence:.0%}: the surest, on {self.row.gpus} GPUs, does with "
            f"{self.share:.0%}; a lower confidence=, or more GPUs, would be right"
        )


def _surest(rows: Sequence[Row], load: Load, slowdown: float) -> Sure | None:
    """Of the feasible placements on the fewest GPUs, the one that holds most often."""
    found: Sure | None = None
    seen: set[str] = set()
    for row in feasible_rows(rows):
        if found is not None and row.gpus != found.row.gpus:
            break
        text = row.placement or "[]"
        if text in seen:
            continue
        seen.add(text)
        chance = chance_of(Placement.from_json(text), load)
        if chance is not None and (found is None or chance.share > found.share):
            found = Sure(row, chance.share, slowdown)
    return found


def sure_enough(rows: Sequence[Row], confidence: float, load: Load, solve: Callable[[float], Sequence[Row]]) -> Sure:
    """The cheapest placement found that holds with a probability.

    Solvers know one profile: they are asked for placements on servers whose steps all take longer, and the least slowdown is looked
    for whose placement holds often enough. What it is checked against are the profiles drawn, each simulated.

    Parameters
    ----------
    rows : sequence of Row
        Placements made for the profile itself, one of them feasible at least.
    confidence : float
    load : Load
        Its profile says how far it may be off.
    solve : callable
        Placements for steps that take so many times as long.
    """
    low = _surest(rows, load, 1.0)
    if low is None:
        raise UserError("rows: none is feasible")
    best: Sure | None = low if low.share >= confidence else None
    spread = 0.0 if load.profile.uncertainty is None else load.profile.uncertainty.step_time
    # A little above the quantile that is wanted, were all GPUs of one plan off alike.
    factor = _ABOVE * math.exp(NormalDist().inv_cdf(confidence) * spread)
    for _ in range(_TRIES if best is None else 0):
        found = _surest(solve(factor), load, factor)
        if found is None:
            _log.info("no placement for steps that take %.2f times as long", factor)
            break
        if found.share >= confidence:
            best = found
        else:
            low = found
        # On as many GPUs as what is not sure enough, nothing is cheaper.
        if best is not None and ((best.row.gpus or 0) <= (low.row.gpus or 0) or best.slowdown - low.slowdown < _NEAR):
            break
        factor = 1.0 + (low.slowdown - 1.0) * _FURTHER if best is None else (low.slowdown + best.slowdown) / 2
    return best or low
