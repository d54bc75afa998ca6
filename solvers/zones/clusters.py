"""Adapters that ask for about the same, counted together: what keeps a bound over thousands of adapters small."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.contents.adapter_types import AdapterTypes

#: Most clusters, and how much more the busiest of one may ask for than the idlest: widened until there are so few. By hand: with
#: more the cover takes longer; what clusters lose, prices of single adapters make good (`solvers.zones.certify`).
MOST_CLUSTERS, FIRST_WIDTH = 50, 1.1


@dataclass(frozen=True)
class Clusters:
    """Adapters of one rank that send about as many requests.

    Attributes
    ----------
    members : tuple of arrays
        Workload indices of each cluster, by ascending load.
    of : array of shape (n_adapters,), int64
        Cluster of each adapter.
    ranks : array of shape (n_clusters,), int64
    counts : array of shape (n_clusters,)
    sums : array of shape (n_clusters, n_sums)
        What a member asks for on average; the load comes first.
    """

    members: tuple[NDArray[np.int64], ...]
    of: NDArray[np.int64]
    ranks: NDArray[np.int64]
    counts: NDArray[np.float64]
    sums: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.members)

    def content(self, amounts: NDArray[np.float64], share: float = 1.0) -> tuple[int, ...]:
        """Adapters that ask for about as much as a share of a content given in fractions, or a little less.

        Parameters
        ----------
        amounts : array of shape (n_clusters,)
            How many of each cluster, fractions allowed.
        share : float

        Returns
        -------
        tuple of int
            Ascending workload indices. What is too little for one adapter is taken on to the next cluster of less load.
        """
        chosen: list[int] = []
        carry = 0.0
        for cluster in np.lexsort((-self.sums[:, 0], -self.ranks)).tolist():
            if not self.sums[cluster, 0]:
                continue
            members = self.members[cluster]
            wanted = amounts[cluster] * share + carry
            taken = min(math.floor(wanted + 1e-9), len(members))
            carry = min(wanted - taken, 1.0)
            # Evenly from the idlest to the busiest.
            places = np.floor((np.arange(taken) + 0.5) * len(members) / max(taken, 1)).astype(np.int64)
            chosen.extend(members[places].tolist())
        return tuple(sorted(chosen))


def cluster_adapters(ranks: NDArray[np.int64], requests: NDArray[Any], sums: NDArray[np.float64]) -> Clusters:
    """Group adapters by rank and by how many requests they send.

    Parameters
    ----------
    ranks, requests : arrays of shape (n_adapters,)
        Requests may be rates as well, as multiples of the smallest.
    sums : array of shape (n_adapters, n_sums)
        What each asks for; the load comes first.
    """
    width = FIRST_WIDTH
    while True:
        size = np.where(requests > 0, np.floor(np.log(np.maximum(requests, 1)) / math.log(width)), -1)
        _, of = np.unique(np.column_stack([ranks, size]), axis=0, return_inverse=True)
        of = of.reshape(-1).astype(np.int64)
        if of.max(initial=-1) < MOST_CLUSTERS or width > 1e6:
            break
        width = width**1.25
    return _clusters(of, ranks, sums)


def cluster_types(types: AdapterTypes, sums: NDArray[np.float64]) -> Clusters:
    """A cluster for each adapter type.

    Parameters
    ----------
    types : AdapterTypes
    sums : array of shape (n_adapters, n_sums)
    """
    of = np.empty(len(sums), dtype=np.int64)
    ranks = np.empty(len(sums), dtype=np.int64)
    for cluster, (members, rank) in enumerate(zip(types.members, types.ranks, strict=True)):
        of[members] = cluster
        ranks[members] = rank
    return _clusters(of, ranks, sums)


def _clusters(of: NDArray[np.int64], ranks: NDArray[np.int64], sums: NDArray[np.float64]) -> Clusters:
    order = np.lexsort((sums[:, 0], of))
    members = np.split(order, np.cumsum(np.bincount(of))[:-1]) if len(of) else []
    return Clusters(
        members=tuple(members),
        of=of,
        ranks=np.array([ranks[mine[0]] for mine in members], dtype=np.int64),
        counts=np.array([len(mine) for mine in members], dtype=np.float64),
        sums=np.array([sums[mine].mean(axis=0) if len(mine) > 1 else sums[mine[0]] for mine in members]).reshape(
            len(members), sums.shape[1]
        ),
    )
