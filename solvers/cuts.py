"""Contents ruled out by those that the oracle rejected, and CP-SAT's search among the rest."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from solvers.demands import Demands
from solvers.frontier import Boxes
from solvers.patterns import Counts, cp_solver

#: Sums are whole multiples of their total over all adapters divided by this.
SCALE = 10**5


class Cuts:
    """Sums that are too much: a content that reaches all thresholds of one cut is rejected.

    Parameters
    ----------
    demands : Demands
    counts : array of shape (n_types,)
        How many adapters there are of each type.

    Attributes
    ----------
    thresholds : list of dict
        For each cut, (row of the sums: threshold); a content that reaches all of them is ruled out.
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

    def add(self, content: Counts) -> None:
        """Rule out whatever asks at least as much as a content given as counts per type."""
        whole = self._added @ content
        self.thresholds.append({int(j): int(whole[j]) for j in np.flatnonzero(whole > 0)})

    def rules_out(self, content: Counts) -> bool:
        """Whether some cut rules out a content given as counts per type."""
        reached = self._added @ content
        return any(all(reached[j] >= value for j, value in cut.items()) for cut in self.thresholds)

    def dearest(  # what a model is made of
        self,
        prices: NDArray[np.int64],
        boxes: Boxes,
        ranks: NDArray[np.int64],
        time_limit_s: float,
        workers: int,
    ) -> tuple[Counts, int] | None:
        """The content of the highest price in any of the boxes that no cut rules out.

        Parameters
        ----------
        prices : array of shape (n_types,), int64
        boxes : Boxes
        ranks : array of shape (n_types,)
        time_limit_s : float
        workers : int

        Returns
        -------
        content : array of shape (n_types,)
        bound : int
            No content that is left has a higher price. None if the time was too short for an answer.
        """
        model = cp_model.CpModel()
        counts = [model.new_int_var(0, int(count), "") for count in self.counts]
        sums = [self._sum(model, counts, row) for row in range(len(self._added))]
        reached: dict[tuple[int, int], cp_model.IntVar] = {}
        totals = self._added @ self.counts
        for cut in self.thresholds:
            if any(value > totals[j] for j, value in cut.items()):
                continue
            for j, value in cut.items():
                if (j, value) not in reached:
                    literal = model.new_bool_var("")
                    # Only "not reached" binds: a cut asks for one threshold that is missed.
                    model.add(sums[j] <= value - 1).only_enforce_if(literal.negated())
                    reached[j, value] = literal
            model.add_bool_or([reached[j, value].negated() for j, value in cut.items()])
        self._in_one_box(model, counts, sums, boxes, ranks)
        model.maximize(cp_model.LinearExpr.weighted_sum(counts, [int(p) for p in prices]))
        solver = cp_solver(time_limit_s, workers)
        # The last few thousandths cost most of the time and next to nothing in the bound.
        solver.parameters.relative_gap_limit = 0.003
        if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        content = np.array([solver.value(c) for c in counts], dtype=np.int64)
        return content, math.floor(solver.best_objective_bound + 1e-6)

    def _sum(self, model: cp_model.CpModel, counts: list[cp_model.IntVar], row: int) -> cp_model.IntVar:
        present = np.flatnonzero(self._added[row])
        total = model.new_int_var(0, int(self._added[row] @ self.counts), "")
        model.add(
            total
            == cp_model.LinearExpr.weighted_sum(
                [counts[t] for t in present], [int(self._added[row, t]) for t in present]
            )
        )
        return total

    def _in_one_box(
        self,
        model: cp_model.CpModel,
        counts: list[cp_model.IntVar],
        sums: list[cp_model.IntVar],
        boxes: Boxes,
        ranks: NDArray[np.int64],
    ) -> None:
        chosen = [model.new_bool_var("") for _ in range(len(boxes))]
        model.add_exactly_one(chosen)
        load_row = self.demands.load_row
        for box, literal in enumerate(chosen):
            for t in np.flatnonzero(ranks > boxes.rank[box]):
                model.add(counts[t] == 0).only_enforce_if(literal)
            for row, limit in ((load_row, boxes.load[box]), (int(boxes.sum_row[box]), boxes.limit[box])):
                if row >= 0 and math.isfinite(limit):
                    # What an adapter adds is rounded down, so a limit that is rounded up lets too much through, never too little.
                    model.add(sums[row] <= math.ceil(limit / self._units[row])).only_enforce_if(literal)
