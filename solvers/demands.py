"""What a GPU content asks of a GPU, as sums over its adapters, and contents made up to ask for little.

A content *asks at least as much* as another if it is at least as large in each of these sums: adapters
of each rank or above, load, and expected adapters with a request in service, for a range of times
in service. By the queueing argument of `predictors.features` (Poisson requests, M/G/infinity) nothing else of a
content matters to the mean batch, the mean number of active adapters and the server's flags. An oracle
that accepts a content and rejects one that asks for less is not monotone in this sense.

A *made-up* content asks for little at a given load: all its adapters are equally busy, and all but one have the
smallest rank. When even that is rejected, everything that asks at least as much is rejected too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from solvers.patterns import Counts, cp_solver

#: Sums are whole multiples of their total over all adapters divided by this.
SCALE = 10**5


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
        return self.values[self.load_row]

    def of(self, counts: Counts) -> NDArray[np.float64]:
        """Sums of a content given as counts per type, shape (n_sums,)."""
        return self.values @ counts


#: Times in service at which the twin's contents are compared, in seconds: a request of the shipped length
#: distributions takes between one and a hundred seconds.
SERVICE_TIMES_S = 2.0 ** np.arange(8)


def presence(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each distinct rank above the smallest, which types have at least it; shape (n_distinct - 1, n_types)."""
    return np.array([ranks >= rank for rank in np.unique(ranks)[1:]], dtype=np.float64).reshape(-1, len(ranks))


def expected_active(rates: NDArray[np.float64], service_times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of a request in service, shape (n_times, n_types): 1 - exp(-rate * time)."""
    return -np.expm1(-np.outer(service_times_s, rates))


class Cuts:
    """Sums that are too much: a content that reaches all thresholds of one cut is rejected.

    Parameters
    ----------
    demands : Demands
    counts : array of shape (n_types,)
        How many adapters there are of each type.
    """

    def __init__(self, demands: Demands, counts: Counts) -> None:
        self.demands = demands
        self.counts = counts
        totals = demands.of(counts)
        self._units = np.where(totals > 0, totals, 1.0) / SCALE
        # Rounded down for what an adapter adds and up for a threshold, a cut only ever rules out too little.
        self._added = np.floor(demands.values / self._units[:, None]).astype(np.int64)
        self.thresholds: list[dict[int, int]] = []

    def __len__(self) -> int:
        return len(self.thresholds)

    def add(self, sums: NDArray[np.float64], content: Counts) -> bool:
        """Rule out whatever asks at least as much as `sums`, shape (n_sums,), if that rules out `content`."""
        whole = np.ceil(sums / self._units).astype(np.int64)
        if (self._added @ content < whole).any():
            return False
        self.thresholds.append({int(j): int(whole[j]) for j in np.flatnonzero(whole > 0)})
        return True

    def add_content(self, content: Counts) -> None:
        """Rule out whatever asks at least as much as a content given as counts per type."""
        whole = self._added @ content
        self.thresholds.append({int(j): int(whole[j]) for j in np.flatnonzero(whole > 0)})

    def rules_out(self, content: Counts) -> bool:
        """Whether some cut rules out a content given as counts per type."""
        reached = self._added @ content
        return any(all(reached[j] >= value for j, value in cut.items()) for cut in self.thresholds)

    def dearest(
        self, prices: NDArray[np.int64], time_limit_s: float, workers: int, hint: Counts | None = None
    ) -> tuple[Counts, int] | None:
        """The content of the highest price that no cut rules out.

        Parameters
        ----------
        prices : array of shape (n_types,), int64
        time_limit_s : float
        workers : int
        hint : array of shape (n_types,), optional
            A content to start from.

        Returns
        -------
        content : array of shape (n_types,)
        bound : int
            No content that is left has a higher price.
        """
        model = cp_model.CpModel()
        counts = [model.new_int_var(0, int(count), "") for count in self.counts]
        sums: dict[int, cp_model.IntVar] = {}
        reached: dict[tuple[int, int], cp_model.IntVar] = {}
        totals = self._added @ self.counts
        for cut in self.thresholds:
            if any(value > totals[j] for j, value in cut.items()):
                continue
            for j, value in cut.items():
                if j not in sums:
                    sums[j] = model.new_int_var(0, int(totals[j]), "")
                    present = [int(t) for t in np.flatnonzero(self._added[j])]
                    model.add(
                        sums[j]
                        == cp_model.LinearExpr.weighted_sum(
                            [counts[t] for t in present], [int(self._added[j, t]) for t in present]
                        )
                    )
                if (j, value) not in reached:
                    literal = model.new_bool_var("")
                    # Only "not reached" binds: a cut asks for one threshold that is missed.
                    model.add(sums[j] <= value - 1).only_enforce_if(literal.negated())
                    reached[j, value] = literal
            model.add_bool_or([reached[j, value].negated() for j, value in cut.items()])
        model.maximize(cp_model.LinearExpr.weighted_sum(counts, [int(p) for p in prices]))
        if hint is not None:
            for count, value in zip(counts, hint, strict=True):
                model.add_hint(count, int(value))
        solver = cp_solver(time_limit_s, workers)
        # The last few thousandths cost most of the time and next to nothing in the bound.
        solver.parameters.relative_gap_limit = 0.003
        if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        content = np.array([solver.value(c) for c in counts], dtype=np.int64)
        return content, math.floor(solver.best_objective_bound + 1e-6)
