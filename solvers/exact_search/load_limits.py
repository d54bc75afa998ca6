"""How much load a GPU takes: an oracle asked about made-up contents of more and more adapters."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from solvers.contents.demands import Demands
from solvers.exact_search.frontier import Boxes, boxes_of_frontier
from solvers.limits import Deadline
from solvers.oracles.base import MadeUp, Oracle

#: Adapter counts of made-up contents, for bounds from coarse to fine, with the relative accuracy of their load limits.
#: By hand: a grain has about twice as many counts as the one before. Finer ones prove more, coarser ones sooner; all of them hold.
_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128,
           160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024)  # fmt: skip
_MIDDLES = tuple((low + high) // 2 for low, high in pairwise(_COUNTS[4:]))
GRAINS = (
    (_COUNTS[::4], 0.01),
    (_COUNTS[::2], 0.01),
    (_COUNTS, 0.01),
    (tuple(sorted({*_COUNTS, *_MIDDLES})), 0.003),
)
#: For a start where there are thousands of adapters: coarse, for a bound in seconds.
FAST_GRAIN = (_COUNTS[::4], 0.05)
#: Where no limit is known, the load is raised by this factor until it is too much. By hand: a guess that is right costs two questions.
RAISED = 1.25


class LoadLimits:
    """Least loads at which made-up contents are rejected, found on demand.

    Parameters
    ----------
    oracle : Oracle
    demands : Demands
    counts : array of shape (n_types,)
        How many adapters there are of each type.
    guess : float
        A load that a GPU is known to take, where the search starts.
    """

    def __init__(self, oracle: Oracle, demands: Demands, counts: NDArray[np.int64], guess: float) -> None:
        self.oracle = oracle
        self.demands = demands
        self.total = float(demands.load @ counts)
        self.ranks = np.unique(oracle.workload.ranks)
        self._guess = guess
        self._limits: dict[tuple[int, int], tuple[float, float]] = {}

    def limit(self, n_adapters: int, rank: int, accuracy: float, deadline: Deadline) -> float:
        """Least load found at which the made-up content is rejected; infinity if all there is would be accepted.

        Parameters
        ----------
        n_adapters, rank : int
        accuracy : float
            The content is accepted at a load that is lower by this share, or twice.
        deadline : Deadline
        """
        key = (n_adapters, rank)
        if key not in self._limits or self._limits[key][1] > accuracy:
            # More adapters or a larger rank take no more load.
            known = [value for (n, r), (value, _) in self._limits.items() if n <= n_adapters and r <= rank]
            ceiling = min(known, default=math.inf)
            self._limits[key] = (self._search(n_adapters, rank, ceiling, accuracy, deadline), accuracy)
        return self._limits[key][0]

    def _search(self, n_adapters: int, rank: int, ceiling: float, accuracy: float, deadline: Deadline) -> float:
        def rejected(load: float) -> bool:
            deadline.check()
            return self.oracle.made_up_starves(MadeUp(n_adapters, rank, load))

        low, high = 0.0, ceiling
        if math.isinf(high):
            high = min(self._guess * RAISED, self.total)
            while not rejected(high):
                low = high
                if high >= self.total:
                    return math.inf
                high = min(high * RAISED, self.total)
        else:
            # Neighbours differ little, so steps down from the neighbour's limit start small.
            step = accuracy
            while rejected(trial := high * (1 - step)):
                high, step = trial, min(2 * step, 0.5)
            low = trial
        while high - low > 1.01 * accuracy * high:
            middle = (low + high) / 2
            if rejected(middle):
                high = middle
            else:
                low = middle
        return high

    def points(self) -> list[tuple[int, NDArray[np.float64]]]:
        """Largest rank and sums of the made-up contents that were rejected."""
        return [
            (rank, self.oracle.made_up_sums(MadeUp(n_adapters, rank, load)))
            for (n_adapters, rank), (load, _) in self._limits.items()
            if math.isfinite(load)
        ]

    def boxes(self, grain: tuple[tuple[int, ...], float], deadline: Deadline) -> Boxes:
        """Boxes that hold every accepted content, from the adapter counts and the accuracy of one of `GRAINS`."""
        grid, accuracy = grain
        counts = [count for count in grid if count <= self.oracle.workload.n_adapters]
        limits = np.full((len(self.ranks), len(counts)), math.inf)
        asked = np.zeros((len(self.ranks), len(counts), len(self.demands.values)))
        for r, rank in enumerate(self.ranks):
            for c, count in enumerate(counts):
                load = self.limit(count, int(rank), accuracy, deadline)
                if math.isfinite(load):
                    asked[r, c] = self.oracle.made_up_sums(MadeUp(count, int(rank), load))
                    limits[r, c] = asked[r, c, self.demands.load_row]
        others = [row for row in range(len(self.ranks) - 1, len(self.demands.values)) if row != self.demands.load_row]
        return boxes_of_frontier(self.ranks, limits, asked, np.array(others))
