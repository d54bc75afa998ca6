"""From prices of clusters to prices of single adapters: what a cover of the clusters is worth as a proof.

A cover is solved over clusters of adapters, for speed. Prices of the single adapters prove a bound (Farley, 1990) however they were
found. Here they are found in two steps: an adapter that asks for more than its cluster does on average is worth more, as much as the
limits of the zone say that the cluster is bought for; then all of them are moved, time and again, towards an even cover, by what the
dearest contents at present hold too often or too seldom (multiplicative weights, as Plotkin, Shmoys and Tardos, 1995, cover with them).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.limits import Deadline
from solvers.zones.clusters import Clusters
from solvers.zones.pricing import FractionalContent, ZonePricing

# By hand, no measurement is on record: whatever they are, the prices prove what Farley's bound says of them.

#: Zones that are within this share of the dearest one's price count as zones that adapters are bought for: all three are
#: tried, and the best prices count.
NEAR_DEAREST = (0.995, 0.98, 0.95)
#: A dearest content is good enough within this share of its price.
FINE_GAP = 1e-3
#: Contents that cost this share of the dearest one are what prices are moved by.
DEAR = 0.99
#: Steps of the second part, how far the first one moves prices, and steps without a gain before the moves get shorter.
STEPS, FIRST_STEP, PATIENCE = 60, 0.02, 3
#: Moves shorter than this are not worth their time, and so are gains.
LAST_STEP, WORTHWHILE = 0.002, 1e-4


def single_prices(
    cover_prices: NDArray[np.float64], clusters: Clusters, sums: NDArray[np.float64], pricing: ZonePricing
) -> Iterator[NDArray[np.float64]]:
    """Prices of single adapters that fit those of their clusters.

    Parameters
    ----------
    cover_prices : array of shape (n_clusters,)
    clusters : Clusters
    sums : array of shape (n_adapters, n_sums)
    pricing : ZonePricing
        Of the clusters.

    Yields
    ------
    array of shape (n_adapters,)
    """
    of, table = clusters.of, pricing.table
    dearest, _ = pricing.dearest(cover_prices, FINE_GAP)
    bounds = pricing.bounds(cover_prices)

    def spread(base: NDArray[np.float64]) -> NDArray[np.float64]:
        mean = np.bincount(of, base) / clusters.counts
        return np.maximum(0.0, cover_prices[of] + base - mean[of])

    for near in NEAR_DEAREST:
        tight = bounds > near * dearest
        multipliers, ranks = table.multipliers[tight], table.ranks[tight]
        # The zone that a cluster is bought for is the one whose limits make it cost about its price.
        costs = np.where(clusters.ranks[:, None] <= ranks, clusters.sums @ multipliers.T, np.inf)
        zone = np.abs(costs - cover_prices[:, None]).argmin(axis=1)
        yield spread(np.einsum("as,as->a", sums, multipliers[zone[of]]))
    load = sums[:, 0]
    typical = clusters.sums[of, 0]
    yield cover_prices[of] * np.divide(load, typical, out=np.ones_like(load), where=typical > 0)


def farley(prices: NDArray[np.float64], pricing: ZonePricing) -> tuple[float, NDArray[np.float64]]:
    """What prices prove, and these prices scaled so that nothing costs more than 1.

    Parameters
    ----------
    prices : array of shape (n_adapters,)
    pricing : ZonePricing
        Of the single adapters.
    """
    dearest, _ = pricing.dearest(prices, FINE_GAP)
    return float(prices.sum()) / dearest, prices / dearest


@dataclass(frozen=True)
class Evened:
    """Prices that cover all adapters about evenly.

    Attributes
    ----------
    value : float
        What they prove.
    prices : array of shape (n_adapters,)
        Nothing costs more than 1.
    dearest : list of FractionalContent
        Contents that cost nearly 1, the dearest first.
    """

    value: float
    prices: NDArray[np.float64]
    dearest: list[FractionalContent]


def evened(prices: NDArray[np.float64], pricing: ZonePricing, enough: float, deadline: Deadline) -> Evened:
    """Prices that prove more, or the same ones where none are found.

    Parameters
    ----------
    prices : array of shape (n_adapters,)
    pricing : ZonePricing
        Of the single adapters.
    enough : float
        A bound that need not be exceeded.
    deadline : Deadline
    """
    best = Evened(0.0, prices, [])
    step, idle = FIRST_STEP, 0
    for _ in range(STEPS):
        dearest, columns = pricing.dearest(prices, FINE_GAP)
        prices = prices / dearest
        value = float(prices.sum())
        dear = [column for column in columns if column.price > DEAR * dearest]
        idle = 0 if value > best.value * (1 + WORTHWHILE) else idle + 1
        if value > best.value:
            best = Evened(value, prices, dear)
        if value > enough or not deadline.left_s or not dear:
            break
        if idle > PATIENCE:
            step, idle = step / 2, 0
            prices, dear = best.prices, best.dearest
            if step < LAST_STEP:
                break
        held = np.mean([column.amounts for column in dear], axis=0)
        # Held more often than others: worth less.
        often = np.clip(held / max(float(held.mean()), 1e-12) - 1.0, -1.0, 1.0)
        prices = prices * np.exp(-step * often)
    return best
