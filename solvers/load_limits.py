"""How much load a GPU takes: an oracle asked about made-up contents of more and more adapters."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from solvers.demands import Demands
from solvers.frontier import Boxes, boxes_of_frontier
from solvers.oracle import MadeUp, Oracle
from solvers.packing import Deadline

#: Adapter counts of made-up contents; the first round takes every fourth.
COUNT_GRID = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128,
              160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024)  # fmt: skip
TOLERANCE = 0.01


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
        self._limits: dict[tuple[int, int], float] = {}

    def limit(self, n_adapters: int, rank: int, deadline: Deadline) -> float:
        """Least load found at which the made-up content is rejected; infinity if all there is would be accepted."""
        key = (n_adapters, rank)
        if key not in self._limits:
            # More adapters or a larger rank take no more load.
            known = [value for (n, r), value in self._limits.items() if n <= n_adapters and r <= rank]
            self._limits[key] = self._search(n_adapters, rank, min(known, default=math.inf), deadline)
        return self._limits[key]

    def _search(self, n_adapters: int, rank: int, ceiling: float, deadline: Deadline) -> float:
        def rejected(load: float) -> bool:
            deadline.check()
            return self.oracle.made_up_starves(MadeUp(n_adapters, rank, load))

        low, high = 0.0, ceiling
        if math.isinf(high):
            step, high = 1.25, min(self._guess * 1.25, self.total)
            while not rejected(high):
                low = high
                if high >= self.total:
                    return math.inf
                high = min(high * step, self.total)
        else:
            # Neighbours differ little, so steps down from the neighbour's limit start small.
            step = TOLERANCE
            while rejected(trial := high * (1 - step)):
                high, step = trial, min(2 * step, 0.5)
            low = trial
        while high - low > 1.01 * TOLERANCE * high:
            middle = (low + high) / 2
            if rejected(middle):
                high = middle
            else:
                low = middle
        return high

    def boxes(self, stride: int, deadline: Deadline) -> Boxes:
        """Boxes that hold every accepted content, from every `stride`-th adapter count."""
        counts = [count for count in COUNT_GRID[::stride] if count <= self.oracle.workload.n_adapters]
        limits = np.full((len(self.ranks), len(counts)), math.inf)
        asked = np.zeros((len(self.ranks), len(counts), len(self.demands.values)))
        for r, rank in enumerate(self.ranks):
            for c, count in enumerate(counts):
                load = self.limit(count, int(rank), deadline)
                if math.isfinite(load):
                    asked[r, c] = self.asked(count, int(rank), load)
                    limits[r, c] = asked[r, c, self.demands.load_row]
        others = [row for row in range(len(self.ranks) - 1, len(self.demands.values)) if row != self.demands.load_row]
        return boxes_of_frontier(self.ranks, limits, asked, np.array(others))

    def asked(self, n_adapters: int, rank: int, load: float) -> NDArray[np.float64]:
        """Sums of a made-up content, shape (n_sums,)."""
        return self.oracle.made_up_sums(MadeUp(n_adapters, rank, load))
