"""Contents ruled out by those that the oracle rejected, and CP-SAT's search among the rest."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from solvers.contents.demands import Demands
from solvers.contents.patterns import Counts, cp_solver
from solvers.exact_search.frontier import Boxes, price_boxes
from solvers.limits import Deadline, OutOfTimeError

#: Sums are whole multiples of their total over all adapters divided by this: fine, so that rounding loses next to nothing, and small
#: enough for CP-SAT's sums.
SCALE = 10**7
#: Share of a unit that is rounding.
CRUMB = 1e-6
#: A dearest content is good enough within this share of its price: the last few thousandths cost most of CP-SAT's
#: time (by hand), and the bound is lower by as much at most.
RELATIVE_GAP = 0.002


class Cuts:
    """Contents that are too much: what asks for at least as much as one of them is rejected.

    A content is ruled out when it reaches all thresholds of a cut's sums, or has at least as many adapters of every type as the
    content that was cut off: rounding could leave that one just below its own thresholds.

    Parameters
    ----------
    demands : Demands
    counts : array of shape (n_types,)
        How many adapters there are of each type.

    Attributes
    ----------
    thresholds : list of dict
        Two for each cut, by sums and by counts: (row: threshold), the rows of the counts after those of the sums. A content that
        reaches all of one is ruled out.
    """

    def __init__(self, demands: Demands, counts: Counts) -> None:
        self.demands = demands
        self.counts = counts
        totals = demands.of(counts)
        self._units = np.where(totals > 0, totals, 1.0) / SCALE
        # Rounded down for what an adapter adds and up for a threshold, a cut only ever rules out too little.
        added = np.floor(demands.values / self._units[:, None]).astype(np.int64)
        self._added = np.vstack([added, np.eye(len(counts), dtype=np.int64)])
        self.thresholds: list[dict[int, int]] = []

    def __len__(self) -> int:
        return len(self.thresholds) // 2

    def add(self, content: Counts) -> None:
        """Rule out whatever asks at least as much as a content given as counts per type."""
        # Less a crumb, which is all that the arithmetic of a whole number of units may leave.
        sums = np.ceil(self.demands.of(content) / self._units - CRUMB).astype(np.int64)
        self.thresholds.append({int(j): int(sums[j]) for j in np.flatnonzero(sums > 0)})
        self.thresholds.append({len(sums) + int(t): int(content[t]) for t in np.flatnonzero(content)})

    def rules_out(self, content: Counts) -> bool:
        """Whether some cut rules out a content given as counts per type."""
        reached = self._added @ content
        return any(all(reached[j] >= value for j, value in cut.items()) for cut in self.thresholds)

    def dearest(
        self, prices: NDArray[np.int64], boxes: Boxes, ranks: NDArray[np.int64], deadline: Deadline, workers: int
    ) -> tuple[Counts, int]:
        """The content of the highest price in any of the boxes that no cut rules out.

        The boxes are searched one by one, those of the highest bound (fractions allowed) first, until no other can hold a
        dearer content than the one found.

        Parameters
        ----------
        prices : array of shape (n_types,), int64
        boxes : Boxes
        ranks : array of shape (n_types,)
        deadline : Deadline
        workers : int

        Returns
        -------
        content : array of shape (n_types,)
        bound : int
            No content that is left has a higher price.

        Raises
        ------
        OutOfTimeError
        """
        scratch = np.empty((len(boxes), len(prices)))
        bounds = price_boxes(
            prices.astype(np.float64), ranks, self.counts.astype(np.float64), self.demands.values,
            self.demands.load_row, boxes.rank, boxes.load, boxes.sum_row, boxes.limit, scratch,
        )  # fmt: skip
        best, bound = np.zeros_like(self.counts), 0
        for box in np.argsort(-bounds, kind="stable"):
            if bounds[box] <= max(bound, int(prices @ best)) * (1 + RELATIVE_GAP):
                bound = max(bound, math.floor(bounds[box] + 1e-6))
                break
            deadline.check()
            content, box_bound = self._dearest_in_box(prices, boxes, int(box), ranks, deadline, workers)
            bound = max(bound, min(box_bound, math.floor(bounds[box] + 1e-6)))
            if prices @ content > prices @ best:
                best = content
        return best, bound

    def _dearest_in_box(  # noqa: PLR0913  # what a model is made of
        self,
        prices: NDArray[np.int64],
        boxes: Boxes,
        box: int,
        ranks: NDArray[np.int64],
        deadline: Deadline,
        workers: int,
    ) -> tuple[Counts, int]:
        model = cp_model.CpModel()
        counts = [
            model.new_int_var(0, int(count) if rank <= boxes.rank[box] else 0, "")
            for count, rank in zip(self.counts, ranks, strict=True)
        ]
        for row, limit in ((self.demands.load_row, boxes.load[box]), (int(boxes.sum_row[box]), boxes.limit[box])):
            if row >= 0 and math.isfinite(limit):
                # What an adapter adds is rounded down, so a limit that is rounded up lets too much through, never too little.
                model.add(self._sum(counts, row) <= math.ceil(limit / self._units[row]))
        self._add_cuts(model, counts)
        model.maximize(cp_model.LinearExpr.weighted_sum(counts, prices.tolist()))
        solver = cp_solver(deadline.left_s, workers)
        # The last few thousandths cost most of the time and next to nothing in the bound.
        solver.parameters.relative_gap_limit = RELATIVE_GAP
        if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            raise OutOfTimeError
        content = np.array([solver.value(c) for c in counts], dtype=np.int64)
        return content, math.floor(solver.best_objective_bound + 1e-6)

    def _sum(self, counts: list[cp_model.IntVar], row: int) -> cp_model.LinearExpr:
        present = np.flatnonzero(self._added[row])
        return cp_model.LinearExpr.weighted_sum([counts[t] for t in present], self._added[row, present].tolist())

    def _add_cuts(self, model: cp_model.CpModel, counts: list[cp_model.IntVar]) -> None:
        reached: dict[tuple[int, int], cp_model.IntVar] = {}
        totals = self._added @ self.counts
        for cut in self.thresholds:
            if any(value > totals[j] for j, value in cut.items()):
                continue
            for j, value in cut.items():
                if (j, value) not in reached:
                    literal = model.new_bool_var("")
                    # Only "not reached" binds: a cut asks for one threshold that is missed.
                    model.add(self._sum(counts, j) <= value - 1).only_enforce_if(literal.negated())
                    reached[j, value] = literal
            model.add_bool_or([reached[j, value].negated() for j, value in cut.items()])
