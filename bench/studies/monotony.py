"""How far one more adapter makes up for a shortfall: what the margin of a cut is for, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solvers.oracles.twin import TwinOracle

#: Columns of a line that say what it is about, and those with options that all lines of a table share.
KEY, SETTINGS = ("instance", "service"), ("draws", "steps", "seed")


@dataclass
class MonotonyOptions:
    """Which contents are grown.

    `conf/monotony.yaml` says what each option is for.
    """

    draws: int = 1
    steps: int = 6
    seed: int = 0


@dataclass(frozen=True)
class Growth:
    """Contents that fail, each beside itself with an adapter more, at the `max_loras` that is best for either.

    Attributes
    ----------
    instance, service : str
    pairs : int
        Contents that fail and got an adapter more.
    rises : int
        Those of them whose share (goodput of the GPU, or throughput over offered throughput) rose by it.
    mean_rise, largest_rise : float
        Of these.
    made_good : int
        Contents that keep the level with adapters more.
    made_good_from : float
        How far the share of such a content was below the level's, at most: what a cut's margin has to cover; 0 where there is none.
    beyond_doubt : int
        Contents that fail so far that a bound would rest on them (`TwinOracle.starves`).
    refuted : int
        Those of them that keep the level with adapters more.
    workload_seed : int
        Of the instance's requests.
    draws, steps, seed : int
        The options that the line was made with.
    """

    instance: str
    service: str
    pairs: int
    rises: int
    mean_rise: float
    largest_rise: float
    made_good: int
    made_good_from: float
    beyond_doubt: int
    refuted: int
    workload_seed: int
    draws: int
    steps: int
    seed: int


def grow(instance: str, oracle: TwinOracle, options: MonotonyOptions) -> Growth:
    """Grow contents of a workload in random orders until they fail, and on from there.

    Parameters
    ----------
    instance : str
        Its name.
    oracle : TwinOracle
        Of the workload, by the service level in question.
    options : MonotonyOptions
    """
    generator = np.random.default_rng(options.seed)
    rises: list[float] = []
    good_from: list[float] = []
    pairs = beyond = refuted = 0
    for _ in range(options.draws):
        order = generator.permutation(oracle.workload.n_adapters)
        first = _first_failing(order, oracle)
        shares = [
            (size, *_best(order, size, oracle)) for size in range(first, min(first + options.steps, len(order)) + 1)
        ]
        for place, (size, kept, share) in enumerate(shares[:-1]):
            if kept:
                continue
            pairs += 1
            rises.append(shares[place + 1][2] - share)
            later = any(each[1] for each in shares[place + 1 :])
            if later:
                good_from.append(max(0.0, oracle.service.share - share))
            if oracle.starves(_content(order, size)):
                beyond += 1
                refuted += later
    up = [rise for rise in rises if rise > 0]
    return Growth(
        instance, oracle.service.name, pairs, len(up), float(np.mean(up)) if up else 0.0, max(up, default=0.0),
        len(good_from), max(good_from, default=0.0), beyond, refuted, oracle.workload.seed,
        options.draws, options.steps, options.seed,
    )  # fmt: skip


def _content(order: np.ndarray, size: int) -> tuple[int, ...]:
    return tuple(sorted(order[:size].tolist()))


def _first_failing(order: np.ndarray, oracle: TwinOracle) -> int:
    """Adapters of the smallest content that fails, as far as halving finds it; one more than there are if none does."""
    high = 1
    while high < len(order) and oracle.find_max_loras(_content(order, high)) is not None:
        high = min(2 * high, len(order))
    low = high // 2
    if oracle.find_max_loras(_content(order, high)) is not None:
        return len(order) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if oracle.find_max_loras(_content(order, middle)) is None:
            high = middle
        else:
            low = middle
    return high


def _best(order: np.ndarray, size: int, oracle: TwinOracle) -> tuple[bool, float]:
    """Whether a content keeps the level at some `max_loras`, and the largest share of the whole GPU at any."""
    content = _content(order, size)
    both = [oracle.both_shares(content, value) for value in oracle.slots(content)]
    return any(worst >= oracle.service.share for worst, _ in both), max((whole for _, whole in both), default=-1.0)


def summary_line(found: Sequence[Growth]) -> str:
    """All instances in one line for people."""
    pairs, rises = sum(each.pairs for each in found), sum(each.rises for each in found)
    largest = max((each.largest_rise for each in found), default=0.0)
    return (
        f"{pairs} contents that fail, each with an adapter more: share rose in {rises} ({100 * rises / max(pairs, 1):.1f} %), by "
        f"{100 * largest:.1f} % at most; {sum(each.made_good for each in found)} keep the level with some more, from at most "
        f"{100 * max((each.made_good_from for each in found), default=0.0):.1f} % below it; "
        f"{sum(each.beyond_doubt for each in found)} fail beyond doubt, {sum(each.refuted for each in found)} of these keep it later"
    )
