"""The paired table: one cost for each instance and solver, infinite where the placement is not feasible."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.comparison.rows import Row
from bench.statistics.instances import Case, mean_ranks


@dataclass(frozen=True)
class Measure:
    """A figure that solvers are compared by; smaller is better.

    Attributes
    ----------
    name, label : str
        For files; for people, with its unit.
    of : callable
        The figure of a feasible candidate, None if it has none.
    whole : bool
        Counts something.
    """

    name: str
    label: str
    of: Callable[[Row], float | None]
    whole: bool = False


GPUS = Measure("gpus", "GPUs", lambda row: row.gpus, whole=True)


def measure_of(cases: Sequence[Case]) -> Measure:
    """What the objective of these instances is about: the GPUs of `min_gpus`, the latency of `min_latency`.

    Of any other, the first place of its key that tells feasible candidates of an instance apart; where it is not above 0
    everywhere, all of its values are moved up to 1 and more, so that they have ratios.

    Parameters
    ----------
    cases : sequence of Case, at least one
        With the same objective.
    """
    objective = cases[0].key[2]
    if objective == "min_gpus":
        return GPUS
    if objective == "min_cost":
        return Measure("cost", "cost", lambda row: row.gpus if row.cost is None else row.cost)
    if objective == "min_latency":
        return Measure("latency_ms", "mean latency (ms)", lambda row: _at(row, 1))
    keys = [[row.objective_key for row in case.rows if row.feasible and row.objective_key] for case in cases]
    length = min((len(key) for group in keys for key in group), default=1)
    place = next((k for k in range(length) if any(len({key[k] for key in group}) > 1 for group in keys)), 0)
    least = min((key[place] for group in keys for key in group if len(key) > place), default=1.0)
    shift = 0.0 if least > 0 else 1.0 - least

    def moved(row: Row) -> float | None:
        value = _at(row, place)
        return None if value is None else value + shift

    return Measure("objective", f"objective {objective}", moved)


def _at(row: Row, place: int) -> float | None:
    return row.objective_key[place] if row.objective_key and len(row.objective_key) > place else None


@dataclass(frozen=True)
class Paired:
    """Costs of the solvers on the same instances.

    Attributes
    ----------
    measure : Measure
    cases : tuple of Case, length n_cases
    solvers : tuple of str, length n_solvers
        The best mean rank first.
    cost : array of shape (n_cases, n_solvers)
        Infinite where there is no feasible placement, NaN where the solver has no row.
    rank : array of shape (n_cases, n_solvers)
        By the objective, 1 is best; NaN where the solver has no row.
    """

    measure: Measure
    cases: tuple[Case, ...]
    solvers: tuple[str, ...]
    cost: NDArray[np.float64]
    rank: NDArray[np.float64]

    @property
    def best(self) -> NDArray[np.float64]:
        """The least cost of each instance, shape (n_cases,); infinite where nobody is feasible."""
        best: NDArray[np.float64] = np.nanmin(self.cost, axis=1)
        return best

    @property
    def ratio(self) -> NDArray[np.float64]:
        """Cost over the least cost of the instance, shape (n_cases, n_solvers); infinite where nothing is feasible."""
        best = self.best[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(self.cost == best, 1.0, self.cost / best)
        return np.where(np.isinf(self.cost), np.inf, ratio)

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Whether the candidate is feasible, shape (n_cases, n_solvers)."""
        return np.isfinite(self.cost)


def paired(cases: Sequence[Case], measure: Measure) -> Paired:
    """Costs of all solvers on these instances.

    Parameters
    ----------
    cases : sequence of Case, at least one
    measure : Measure
    """
    names = list(dict.fromkeys(row.solver_label for case in cases for row in case.rows))
    cost = np.full((len(cases), len(names)), np.nan)
    rank = np.full((len(cases), len(names)), np.nan)
    for number, case in enumerate(cases):
        ranks = mean_ranks(case.rows)
        for row in case.rows:
            place = names.index(row.solver_label)
            value = measure.of(row) if row.feasible else None
            cost[number, place] = math.inf if value is None else value
            rank[number, place] = ranks[row.solver_label]
    order = np.argsort(np.nanmean(rank, axis=0), kind="stable")
    return Paired(measure, tuple(cases), tuple(names[place] for place in order), cost[:, order], rank[:, order])
