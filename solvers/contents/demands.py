"""What a GPU content asks of a GPU, as sums over its adapters, and contents made up to ask for little.

A content *asks at least as much* as another if it is at least as large in each of these sums: adapters
of each rank or above, load, and expected adapters with a request in service, for a range of times
in service. By the queueing argument of `predictors.features` (Poisson requests, M/G/infinity) nothing else of a
content matters to the mean batch, the mean number of active adapters and the server's flags. Requests of other processes
are counted: an adapter is active while one of its requests is in service (`solvers.oracles.twin`). An oracle
that accepts a content and rejects one that asks for less is not monotone in this sense.

A *made-up* content asks for little at a given load: all its adapters are equally busy, and all but one have the
smallest rank. When even that is rejected, everything that asks at least as much is rejected too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.contents.patterns import Counts


@dataclass(frozen=True)
class Demands:
    """Sums by which contents are compared.

    Attributes
    ----------
    values : array of shape (n_sums, n_types)
        What one adapter of a type adds to each sum; not negative.
    load_row : int
        Which sum is the load.
    """

    values: NDArray[np.float64]
    load_row: int

    @property
    def load(self) -> NDArray[np.float64]:
        """Load of one adapter of each type, shape (n_types,)."""
        load: NDArray[np.float64] = self.values[self.load_row]
        return load

    def of(self, counts: Counts) -> NDArray[np.float64]:
        """Sums of a content given as counts per type, shape (n_sums,)."""
        return self.values @ counts


def presence(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each distinct rank above the smallest, which types have at least it; shape (n_distinct - 1, n_types)."""
    return np.array([ranks >= rank for rank in np.unique(ranks)[1:]], dtype=np.float64).reshape(-1, len(ranks))
