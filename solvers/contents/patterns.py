"""Bounds and covers over GPU contents counted by type: the mathematics of the exact solver.

A *pattern* is a GPU content as counts per adapter type. Packing is covering the counts of all types with
accepted patterns (Gilmore and Gomory, 1961). Its linear relaxation prices the types; by Farley's bound,
`sum(price * count) / (highest price of any accepted pattern)` is a lower bound for any prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver import pywraplp
from ortools.sat.python import cp_model
from scipy.optimize import linprog

from solvers.cut_short import note_cut_short

#: Prices are whole multiples of this fraction, so that bounds computed from them are exact; sums of millions of them
#: fit into 64 bits, and rounding loses less than a thousandth of a GPU with a thousand types.
PRICE_SCALE = 10**6

Counts = NDArray[np.int64]


def cover_prices(patterns: list[Counts], demand: Counts) -> tuple[float, NDArray[np.int64]]:
    """Fewest patterns, fractions allowed, that cover the demand, and the price of each type.

    Parameters
    ----------
    patterns : list of arrays of shape (n_types,)
        Together they must hold every type that is asked for.
    demand : array of shape (n_types,)

    Returns
    -------
    value : float
    prices : array of shape (n_types,), int64
        In units of 1 / PRICE_SCALE; not negative.
    """
    value, prices = cover_value(patterns, demand)
    return value, np.rint(prices * PRICE_SCALE).astype(np.int64)


def cover_value(patterns: Sequence[NDArray[Any]], demand: Counts) -> tuple[float, NDArray[np.float64]]:
    """As `cover_prices`, with the prices as they come and patterns that may be fractions."""
    solver = pywraplp.Solver.CreateSolver("GLOP")
    infinity = solver.infinity()
    rows = [solver.Constraint(float(count), infinity) for count in demand]
    objective = solver.Objective()
    for pattern in patterns:
        use = solver.NumVar(0.0, infinity, "")
        objective.SetCoefficient(use, 1.0)
        for kind in np.flatnonzero(pattern):
            rows[kind].SetCoefficient(use, float(pattern[kind]))
    objective.SetMinimization()
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        # Badly scaled covers upset GLOP now and then; any prices give a valid bound, so a second solver's will do.
        return _cover_value_otherwise(patterns, demand)
    prices = np.array([max(0.0, row.dual_value()) for row in rows])
    return objective.Value(), prices


def _cover_value_otherwise(patterns: Sequence[NDArray[Any]], demand: Counts) -> tuple[float, NDArray[np.float64]]:
    matrix = np.array(patterns, dtype=np.float64).T
    answer = linprog(np.ones(len(patterns)), A_ub=-matrix, b_ub=-demand.astype(np.float64), method="highs")
    if not answer.success:
        raise ArithmeticError(f"the pattern cover could not be solved: {answer.message}")
    return float(answer.fun), np.maximum(0.0, -answer.ineqlin.marginals)


def whole_cover(patterns: list[Counts], demand: Counts, time_limit_s: float, workers: int) -> list[int] | None:
    """How often to use each pattern so that few patterns cover the demand.

    Parameters
    ----------
    patterns : list of arrays of shape (n_types,)
    demand : array of shape (n_types,)
    time_limit_s : float
    workers : int

    Returns
    -------
    list of int, or None if the time was too short or there is no pattern to use.
    """
    if not patterns:
        return None
    model = cp_model.CpModel()
    most = int(demand.sum())
    uses = [model.new_int_var(0, most, "") for _ in patterns]
    matrix = np.array(patterns)
    for kind, count in enumerate(demand):
        holding = np.flatnonzero(matrix[:, kind])
        model.add(
            cp_model.LinearExpr.weighted_sum([uses[p] for p in holding], [int(matrix[p, kind]) for p in holding])
            >= int(count)
        )
    model.minimize(cp_model.LinearExpr.sum(uses))
    solver = cp_solver(time_limit_s, workers)
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return [solver.value(use) for use in uses]


class _TimedSolver(cp_model.CpSolver):
    """Says when its time limit has ended the search."""

    def solve(
        self, model: cp_model.CpModel, solution_callback: cp_model.CpSolverSolutionCallback | None = None
    ) -> cp_model.CpSolverStatus:
        status = super().solve(model, solution_callback)
        if status in (cp_model.FEASIBLE, cp_model.UNKNOWN):
            note_cut_short()
        return status


def cp_solver(time_limit_s: float, workers: int) -> cp_model.CpSolver:
    """A CP-SAT solver with this project's settings."""
    solver = _TimedSolver()
    solver.parameters.max_time_in_seconds = max(0.01, time_limit_s)
    solver.parameters.num_workers = workers
    # The interleaved search gives the same answer whatever the machine's timing.
    solver.parameters.interleave_search = workers > 1
    solver.parameters.random_seed = 0
    return solver


def maximal(patterns: list[Counts]) -> list[Counts]:
    """Patterns without those that another one covers."""
    matrix = np.unique(np.array(patterns), axis=0)
    covered = [
        any(other != row and (matrix[other] >= matrix[row]).all() for other in range(len(matrix)))
        for row in range(len(matrix))
    ]
    return [pattern for pattern, drop in zip(matrix, covered, strict=True) if not drop]
