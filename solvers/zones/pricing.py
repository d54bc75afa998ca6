"""Prices of what is left: the dearest content in a union of search zones, by small linear programmes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver import pywraplp

from solvers.limits import Deadline
from solvers.zones.boxes import priced_by_multipliers, split_zones


class ZoneTable:
    """Zones for each largest rank of a content, with multipliers that bound what is in them.

    Parameters
    ----------
    ranks : array of shape (n_ranks,), ascending
    n_sums : int
    """

    def __init__(self, ranks: NDArray[np.int64], n_sums: int) -> None:
        self.by_rank = {int(rank): np.full((1, n_sums), math.inf) for rank in ranks}
        self._known: dict[bytes, NDArray[np.float64]] = {}
        self._last: NDArray[np.float64] = np.zeros(n_sums)
        self.refresh()

    def __len__(self) -> int:
        return len(self.limits)

    def rule_out(self, rank: int, point: NDArray[np.float64]) -> None:
        """Rule out what asks for at least as much as a point, beside a largest rank that is at least the given one."""
        for largest, limits in self.by_rank.items():
            if largest >= rank:
                self.by_rank[largest] = split_zones(limits, point)

    def holds(self, rank: int, point: NDArray[np.float64]) -> bool:
        """Whether a point lies in some zone of a largest rank, or on its edge."""
        return bool((point <= self.by_rank[rank] * (1 + 1e-7) + 1e-9).all(axis=1).any())

    def refresh(self) -> None:
        """Set the arrays of all zones after some were ruled out; multipliers stay with zones that stay."""
        self.limits = np.vstack(list(self.by_rank.values()))
        self.ranks = np.repeat(list(self.by_rank), [len(limits) for limits in self.by_rank.values()])
        guess = np.where(np.isfinite(self.limits), self._last, 0.0)
        self.multipliers = np.array(
            [
                self._known.get(self._key(zone), first)
                for zone, first in zip(range(len(self.limits)), guess, strict=True)
            ]
        )

    def learn(self, zone: int, multipliers: NDArray[np.float64]) -> None:
        """Keep the multipliers of a zone."""
        self._last = np.where(np.isfinite(self.limits[zone]), multipliers, 0.0)
        self.multipliers[zone] = self._known[self._key(zone)] = self._last

    def _key(self, zone: int) -> bytes:
        key: bytes = self.ranks[zone].tobytes() + self.limits[zone].tobytes()
        return key


@dataclass(frozen=True)
class FractionalContent:
    """A content in fractions.

    Attributes
    ----------
    rank : int
        Largest rank that it may have.
    amounts : array of shape (n_types,)
    price : float
    """

    rank: int
    amounts: NDArray[np.float64]
    price: float


class ZonePricing:
    """The dearest contents in the zones, for any prices.

    Parameters
    ----------
    table : ZoneTable
    sums : array of shape (n_types, n_sums)
    counts : array of shape (n_types,)
    types_rank : array of shape (n_types,)
    end : Deadline, optional
        From then on no programme is solved any more, which takes long for single adapters: bounds are less tight.
    """

    def __init__(
        self,
        table: ZoneTable,
        sums: NDArray[np.float64],
        counts: NDArray[np.float64],
        types_rank: NDArray[np.int64],
        *,
        end: Deadline | None = None,
    ) -> None:
        self._end = end
        self.table = table
        self.sums = sums
        self.counts = counts
        self.types_rank = types_rank
        # Rows of comparable size.
        self._scale = np.maximum(sums.T @ counts, 1e-9)
        self._models: dict[int, tuple[pywraplp.Solver, list[pywraplp.Constraint], list[pywraplp.Variable]]] = {}

    def dearest(self, prices: NDArray[np.float64], gap: float) -> tuple[float, list[FractionalContent]]:
        """An upper bound on the price of any content left, at most `gap` too high, and dear contents, the dearest first."""
        for model in self._models.values():
            self._set_prices(model, prices)
        bounds = self.bounds(prices)
        best = 0.0
        columns = []
        for zone in np.argsort(-bounds, kind="stable").tolist():
            if bounds[zone] <= max(best, 1e-12) * (1 + gap) or (self._end is not None and not self._end.left_s):
                break
            columns.append(self._solve(prices, zone))
            bounds[zone] = min(bounds[zone], self.bounds(prices, slice(zone, zone + 1))[0])
            best = max(best, columns[-1].price)
        return float(bounds.max()), sorted(columns, key=lambda column: -column.price)

    def bounds(self, prices: NDArray[np.float64], zones: slice = slice(None)) -> NDArray[np.float64]:
        """Upper bounds on the price of any content in each zone, from the multipliers that are known."""
        table = self.table
        return priced_by_multipliers(
            prices, self.counts, self.sums, self.types_rank,
            table.limits[zones], table.ranks[zones], table.multipliers[zones],
        )  # fmt: skip

    def _solve(self, prices: NDArray[np.float64], zone: int) -> FractionalContent:
        """The dearest content of one zone, fractions allowed; its multipliers go into the table."""
        rank = int(self.table.ranks[zone])
        solver, rows, amounts = self._model(rank, prices)
        for row, limit, scale in zip(rows, self.table.limits[zone].tolist(), self._scale.tolist(), strict=True):
            row.SetUb(limit / scale if math.isfinite(limit) else solver.infinity())
        solver.Solve()
        found = np.array([amount.solution_value() for amount in amounts])
        self.table.learn(zone, np.array([max(0.0, row.dual_value()) for row in rows]) / self._scale)
        # Rounded, because coefficients of 1e-17 upset the cover's linear programme.
        content = np.round(np.clip(found, 0.0, self.counts), 9)
        return FractionalContent(rank, content, float(prices @ content))

    def _model(
        self, rank: int, prices: NDArray[np.float64]
    ) -> tuple[pywraplp.Solver, list[pywraplp.Constraint], list[pywraplp.Variable]]:
        """The programme for contents of a largest rank, without limits."""
        if rank not in self._models:
            solver = pywraplp.Solver.CreateSolver("GLOP")
            rows = [solver.Constraint(-solver.infinity(), solver.infinity()) for _ in self._scale]
            amounts = []
            for kind, count in enumerate(self.counts.tolist()):
                amount = solver.NumVar(0.0, count if self.types_rank[kind] <= rank else 0.0, "")
                for row, value in zip(rows, (self.sums[kind] / self._scale).tolist(), strict=True):
                    row.SetCoefficient(amount, value)
                amounts.append(amount)
            solver.Objective().SetMaximization()
            self._models[rank] = (solver, rows, amounts)
            self._set_prices(self._models[rank], prices)
        return self._models[rank]

    @staticmethod
    def _set_prices(
        model: tuple[pywraplp.Solver, list[pywraplp.Constraint], list[pywraplp.Variable]],
        prices: NDArray[np.float64],
    ) -> None:
        objective = model[0].Objective()
        for amount, price in zip(model[2], prices.tolist(), strict=True):
            objective.SetCoefficient(amount, price)
