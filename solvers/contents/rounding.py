"""Types of adapters rounded to classes of one rank each, where there are too many of them to count."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from solvers.contents.adapter_types import AdapterTypes

#: Types of a rank beyond which neighbours are merged to as many before anything else, whatever that costs.
MOST_RATES = 128


def rounded(types: AdapterTypes, most: int, *, up: bool) -> AdapterTypes:
    """Types merged into classes, of one rank each, whose members are taken to be as busy as the busiest, or the idlest.

    Neighbours are merged while there are more than `most` classes (and more than ranks), those first whose requests change least.
    """
    classes: list[AdapterTypes] = []
    for rank in np.unique(types.ranks)[::-1]:
        mine = np.flatnonzero(types.ranks == rank)
        bounds = np.unique(np.linspace(0, len(mine), min(len(mine), MOST_RATES) + 1).astype(int))
        parts = [mine[first:last].tolist() for first, last in pairwise(bounds)]
        classes += [_merged(types, part, up=up) for part in parts]
    fewest = len(np.unique(types.ranks))
    while len(classes) > max(most, fewest):
        costs = [
            _cost(first, second, up=up) if first.ranks[0] == second.ranks[0] else np.inf
            for first, second in pairwise(classes)
        ]
        place = int(np.argmin(costs))
        pair = _joined(classes[place : place + 2])
        classes[place : place + 2] = [_merged(pair, [0, 1], up=up)]
    return _joined(classes)


def _merged(types: AdapterTypes, places: list[int], *, up: bool) -> AdapterTypes:
    rates = types.rates[places]
    return AdapterTypes(
        types.ranks[places[:1]],
        np.array([rates.max() if up else rates.min()]),
        np.array([types.counts[places].sum()]),
        (np.concatenate([types.members[place] for place in places]),),
    )


def _joined(parts: list[AdapterTypes]) -> AdapterTypes:
    return AdapterTypes(
        np.concatenate([part.ranks for part in parts]),
        np.concatenate([part.rates for part in parts]),
        np.concatenate([part.counts for part in parts]),
        tuple(members for part in parts for members in part.members),
    )


def _cost(first: AdapterTypes, second: AdapterTypes, *, up: bool) -> float:
    """Requests per second that merging two neighbours adds, or takes away; rates descend."""
    changed = second if up else first
    return float(changed.counts[0] * (first.rates[0] - second.rates[0]))
