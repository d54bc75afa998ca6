"""The cheapest cover of counted adapters with fractions of known contents, as a linear programme that grows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver import pywraplp
from scipy.optimize import linprog

from solvers.zones.pricing import FractionalContent


class CoverProgramme:
    """Columns in use so far; each type alone is one more, so that there always is a cover.

    Parameters
    ----------
    counts : array of shape (n_types,)
        How many adapters there are of each type.

    Attributes
    ----------
    columns : list of FractionalContent
    """

    def __init__(self, counts: NDArray[np.float64]) -> None:
        self.counts = counts
        self.columns: list[FractionalContent] = []
        self._start()

    def _start(self) -> None:
        self._solver = pywraplp.Solver.CreateSolver("GLOP")
        self._rows = [self._solver.Constraint(count, self._solver.infinity()) for count in self.counts.tolist()]
        self._solver.Objective().SetMinimization()
        self._uses: list[pywraplp.Variable] = []
        self._solved: tuple[float, NDArray[np.float64], NDArray[np.float64]] | None = None
        for alone in np.eye(len(self._rows)):
            self._add(alone)

    def _add(self, amounts: NDArray[np.float64]) -> None:
        self._solved = None
        use = self._solver.NumVar(0.0, self._solver.infinity(), "")
        self._solver.Objective().SetCoefficient(use, 1.0)
        present = np.flatnonzero(amounts)
        for kind, amount in zip(present.tolist(), amounts[present].tolist(), strict=True):
            self._rows[kind].SetCoefficient(use, amount)
        self._uses.append(use)

    def extend(self, columns: list[FractionalContent]) -> None:
        """Add columns."""
        self.columns.extend(columns)
        for column in columns:
            self._add(column.amounts)

    def keep(self, columns: list[FractionalContent]) -> None:
        """Forget all columns but these."""
        if len(columns) == len(self.columns):
            return
        self.columns = []
        self._start()
        self.extend(columns)

    def solve(self) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """The cheapest cover.

        Returns
        -------
        value : float
        prices : array of shape (n_types,)
            Not negative.
        uses : array of shape (n_columns,)
            How often each column is used.

        Raises
        ------
        ArithmeticError
            When two solvers fail, which none has been seen to do.
        """
        if self._solved is None:
            if self._solver.Solve() == pywraplp.Solver.OPTIMAL:
                prices = np.array([max(0.0, row.dual_value()) for row in self._rows])
                uses = np.array([use.solution_value() for use in self._uses[len(self._rows) :]])
                self._solved = self._solver.Objective().Value(), prices, uses
            else:
                # Badly scaled covers upset GLOP now and then.
                self._solved = self._solve_otherwise()
        return self._solved

    def _solve_otherwise(self) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        matrix = np.vstack([np.eye(len(self._rows)), *(column.amounts for column in self.columns)])
        answer = linprog(np.ones(len(matrix)), A_ub=-matrix.T, b_ub=-self.counts, method="highs")
        if not answer.success:
            raise ArithmeticError(f"the cover could not be solved: {answer.message}")
        return float(answer.fun), np.maximum(0.0, -answer.ineqlin.marginals), answer.x[len(self._rows) :]
