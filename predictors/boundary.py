"""Contents about the boundary of starvation: where it is drawn from, and how far each content is from it.

A label teaches the most where a model is undecided. So a content is scaled, all its rates alike, to where a first model
is undecided (active learning), and then climbs or descends a *ladder*: three more steps of the same content, each where
the twin's answers so far say that the boundary is. The ladder also tells the *feasible load*: the factor by which all
rates of a content can be multiplied before it starves.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from predictors.design import RATE_RANGE, DrawnContent, draw_content, longest_window_s
from predictors.features import content_features, length_stats
from twin.service import STARVATION_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from twin import ServingProfile

# All chosen by hand, none tuned: they say what is simulated, and the errors of the card what came of it.
#: Contents of a ladder: the first where the model is undecided, the others where the twin says.
LADDER = 4
#: The first step up from a content that does not starve, and the largest step either way, as factors.
STEP_UP = 1.06
LARGEST_STEP = 1.5
#: Two steps on either side of the boundary tell where it is if they are this close, as a logarithm of the load, or if one
#: of them misses it by no more than this share of the throughput.
CLOSE = 0.2
CLOSE_SHARE = 0.02


def draw_boundary_content(
    generator: np.random.Generator,
    profile: ServingProfile,
    table: tuple[NDArray[np.float64], NDArray[np.float64]],
    starvation: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> DrawnContent:
    """Draw one content near the boundary of starvation.

    A content is drawn as for the designed sample; of the same with its rates scaled, the one is taken whose
    predicted probability of starvation is closest to one drawn between 0.02 and 0.98.

    Parameters
    ----------
    starvation : callable
        Probability of each content, shape (n, N_FEATURES), of a model trained on the designed sample.
    """
    content = draw_content(generator, profile, table)
    aim = generator.uniform(0.02, 0.98)
    stats = length_stats(content.lengths)
    scales = np.exp(np.linspace(-1.5, 1.0, 26) + 0.1 * generator.random())
    for spread in (0.0, 0.1):
        # Once coarsely over all scales, then finely about the best.
        fine = np.outer(scales, np.exp(np.linspace(-spread, spread, 21 if spread else 1))).ravel()
        scaled = np.clip(content.rates * fine[:, None], *RATE_RANGE)
        rows = [content_features(content.ranks, row, content.max_loras, stats, content.window_s) for row in scaled]
        scales = fine[[int(np.argmin(np.abs(starvation(np.stack(rows)) - aim)))]]
    return scaled_content(content, float(scales[0]))


def scaled_content(content: DrawnContent, factor: float) -> DrawnContent:
    """The same content with all rates multiplied by a factor, within `RATE_RANGE`; its window may have to be cut."""
    rates = np.clip(content.rates * factor, *RATE_RANGE)
    return replace(content, rates=rates, window_s=min(content.window_s, longest_window_s(rates)))


def next_factor(factors: Sequence[float], shares: Sequence[float]) -> float:
    """Where the next content of a ladder stands.

    Parameters
    ----------
    factors : sequence of float
        Multiples of the first content's rates that were simulated.
    shares : sequence of float
        Throughput over offered throughput of each.

    Returns
    -------
    float
        Between two contents on either side of the boundary: where the share crosses it, linearly in logarithms. Below
        contents that all starve: where a saturated GPU would just not (its throughput stays as it is), or, if a step
        brought less than that, where the last two point to. Above contents of which none does: a step of `STEP_UP`,
        then likewise.
    """
    bracket = _bracket(factors, shares)
    if bracket:
        return math.exp(_crossing(*bracket))
    starved = shares[-1] < STARVATION_SHARE
    # A little more than what is wanted, so that the next is likely to lie on the other side.
    wanted = math.log(max(shares[-1], 1e-9) / STARVATION_SHARE) + (-0.01 if starved else 0.01)
    step = wanted if starved else math.log(STEP_UP)
    if len(factors) > 1 and factors[-1] != factors[-2]:
        slope = math.log(max(shares[-1], 1e-9) / max(shares[-2], 1e-9)) / math.log(factors[-1] / factors[-2])
        # A share that hardly falls with the load points far away; one that rises with it points nowhere.
        further = wanted / -slope if slope < 0 else math.copysign(math.inf, step)
        step = min(step, further) if starved else max(step, further)
    limit = math.log(LARGEST_STEP)
    return float(factors[-1] * math.exp(min(limit, max(-limit, step))))


def feasible_load(factors: Sequence[float], shares: Sequence[float]) -> list[float]:
    """By how much the rates of each content of a ladder can be multiplied before it starves.

    Parameters
    ----------
    factors, shares : sequences of float
        As for `next_factor`.

    Returns
    -------
    list of float
        NaN where the ladder does not say.
    """
    bracket = _bracket(factors, shares)
    boundary = math.nan
    if bracket:
        low, high = bracket
        if high[0] - low[0] <= CLOSE or min(low[1], -high[1]) <= CLOSE_SHARE:
            boundary = _crossing(low, high)
    return [math.exp(boundary - math.log(factor)) for factor in factors]


def _bracket(
    factors: Sequence[float], shares: Sequence[float]
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The closest two contents of which the lighter does not starve and the heavier does; (log factor, log margin)."""
    points = sorted(
        (math.log(f), math.log(max(s, 1e-9) / STARVATION_SHARE)) for f, s in zip(factors, shares, strict=True)
    )
    served = [point for point in points if point[1] >= 0]
    starved = [point for point in points if point[1] < 0]
    pairs = [(low, high) for low in served for high in starved if low[0] < high[0]]
    return min(pairs, key=lambda pair: pair[1][0] - pair[0][0], default=None)


def _crossing(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Logarithm of the factor at which the margin is zero, linearly between two points on either side."""
    return low[0] + (high[0] - low[0]) * low[1] / (low[1] - high[1])
