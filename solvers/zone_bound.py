"""A lower bound on GPUs from contents of the workload's own adapters that starve: for thousands of adapters, all different.

The search zones (`solvers.zones`) hold every content that can be accepted, as far as is known. Covering all adapters with
fractions of contents in them (Gilmore and Gomory, 1961) costs at least the bound. The contents that carry the cheapest
cover are asked of the oracle, scaled down until they hardly starve, and cut off; then the cover is solved again. So the oracle
is asked where the bound is weak, about contents as skewed as the adapters are. Ranks are lowered where that makes the answer
hold for more contents: a content is asked about with one adapter of its largest rank, the others of the smallest.

The cover is solved over clusters of adapters, for speed. What it proves is what its prices prove for the adapters one by one
(`ZoneBound.certified`), by Farley's bound (1990).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver import pywraplp

from solvers.clusters import cluster_adapters
from solvers.packing import Deadline, OutOfTimeError
from solvers.twin_oracle import TwinOracle
from solvers.zone_pricing import Column, ZonePricing, ZoneTable

#: Rounds of pricing between two rounds of questions, contents asked about and columns kept in each.
ROUNDS, QUESTIONS, FRESH = 12, 12, 15
#: A dearest content is good enough within this share of its price: between questions, and for what is reported.
COARSE_GAP, FINE_GAP = 3e-3, 1e-3
#: Columns that cost less than this by the cover's prices, where those in use cost 1, are forgotten.
NEARLY_WORTH = 0.97
#: Halvings of the interval in which a content begins to starve.
HALVINGS = 5


class ZoneBound:
    """Zones, prices and the bound so far; `run` goes on where it stopped.

    Parameters
    ----------
    oracle : TwinOracle

    Attributes
    ----------
    value : float
        No cover of the single adapters with accepted contents costs less.
    prices : array of shape (n_adapters,)
        Prices that prove it: no accepted content costs more than 1.
    exhausted : bool
        What the cover uses is accepted by the oracle: asking more will not raise the bound.
    cuts : list of (int, array)
        Largest rank and sums of the contents that were cut off.
    """

    def __init__(self, oracle: TwinOracle) -> None:
        workload = oracle.workload
        self.oracle = oracle
        self.sums = oracle.asks
        requests = np.bincount(workload.requests.adapter, minlength=workload.n_adapters)
        self.clusters = cluster_adapters(workload.ranks, requests, self.sums)
        self.table = ZoneTable(np.unique(workload.ranks), self.sums.shape[1])
        self.value = 0.0
        self.prices: NDArray[np.float64] = self.sums[:, 0] / max(float(self.sums[:, 0].sum()), 1e-12)
        self.exhausted = False
        self.cuts: list[tuple[int, NDArray[np.float64]]] = []
        self._columns: list[Column] = []
        self._standing: set[tuple[int, bytes]] = set()
        self._relaxed = 0.0
        self._cover_prices: NDArray[np.float64] | None = None
        self._pricing = ZonePricing(self.table, self.clusters.sums, self.clusters.counts, self.clusters.ranks)
        self._single_pricing = ZonePricing(self.table, self.sums, np.ones(len(self.sums)), workload.ranks)

    @property
    def gpus(self) -> int:
        """The bound in whole GPUs."""
        return max(1, math.ceil(self.value - 1e-6))

    def rule_out(self, rank: int, sums: NDArray[np.float64]) -> None:
        """Rule out what asks for as much as contents that are known to starve beside a largest rank."""
        self.cuts.append((rank, sums))
        self.table.rule_out(rank, sums)

    def run(self, deadline: Deadline, target: int | None = None, *, rounds: int | None = None) -> None:
        """Ask and solve until the target is proven, nothing is left to ask, or the time is up.

        Parameters
        ----------
        deadline : Deadline
        target : int, optional
            In whole GPUs.
        rounds : int, optional
            Most rounds of questions.
        """
        reported = self.value
        try:
            asked = 0
            while not self.exhausted and deadline.left_s and (rounds is None or asked < rounds):
                asked += 1
                relaxed = self._solve_cover(deadline)
                # Certifying takes as long as some rounds: where it may matter, and after every gain of a hundredth.
                if math.ceil(relaxed - 1e-6) > self.gpus or relaxed > 1.01 * max(reported, self.value):
                    self._certify()
                    reported = relaxed
                if target is not None and self.gpus >= target:
                    return
                self.exhausted = not self._ask(deadline)
        except OutOfTimeError:
            pass
        self._certify()

    # --- the cover of the clusters

    def _solve_cover(self, deadline: Deadline) -> float:
        """Column generation over the zones; the best bound for the clusters."""
        self.table.refresh()
        best, prices = 0.0, self._cover_prices
        load = self.clusters.sums[:, 0] / (self.clusters.sums[:, 0] @ self.clusters.counts)
        best, prices, _ = self._priced(load if prices is None else prices, keep_above=0.0)
        for _ in range(ROUNDS):
            deadline.check()
            value, duals, _ = self._cover()
            if best >= value * (1 - COARSE_GAP):
                break
            # Prices nearer to the best so far than to the cover's swing less from round to round (Wentges, 1997).
            for trial in (0.7 * prices + 0.3 * duals, duals):
                bound, scaled, dearer = self._priced(trial, keep_above=1 + 1e-5, duals=duals)
                if bound > best:
                    best, prices = bound, scaled
                if dearer:
                    break
            else:
                break
        self._cover_prices = prices
        self._relaxed = max(self._relaxed, best)
        return best

    def _priced(
        self, prices: NDArray[np.float64], *, keep_above: float, duals: NDArray[np.float64] | None = None
    ) -> tuple[float, NDArray[np.float64], bool]:
        """Farley's bound of some prices, these prices scaled so that nothing costs more than 1, and whether columns were kept."""
        dearest, columns = self._pricing.dearest(prices, COARSE_GAP)
        judge = prices if duals is None else duals
        kept = [column for column in columns if column.amounts @ judge > keep_above][:FRESH]
        self._columns.extend(kept)
        return float(prices @ self.clusters.counts) / dearest, prices / dearest, bool(kept)

    def _cover(self) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """The cheapest cover with the columns: its value, the prices of the clusters, and how often each column is used."""
        solver = pywraplp.Solver.CreateSolver("GLOP")
        rows = [solver.Constraint(count, solver.infinity()) for count in self.clusters.counts.tolist()]
        objective = solver.Objective()
        uses = []
        alone = np.eye(len(rows))
        for amounts in (*alone, *(column.amounts for column in self._columns)):
            use = solver.NumVar(0.0, solver.infinity(), "")
            objective.SetCoefficient(use, 1.0)
            for cluster in np.flatnonzero(amounts).tolist():
                rows[cluster].SetCoefficient(use, float(amounts[cluster]))
            uses.append(use)
        objective.SetMinimization()
        solver.Solve()
        prices = np.array([max(0.0, row.dual_value()) for row in rows])
        used = np.array([use.solution_value() for use in uses[len(rows) :]])
        return objective.Value(), prices, used

    # --- questions

    def _ask(self, deadline: Deadline) -> bool:
        """Cut off what the cover uses and the oracle rejects; whether anything was."""
        _, prices, uses = self._cover()
        gained = False
        asked = 0
        for place in np.argsort(-uses, kind="stable").tolist():
            column = self._columns[place]
            key = (column.rank, column.amounts.tobytes())
            if uses[place] <= 1e-6 or asked >= QUESTIONS:
                break
            if key in self._standing or not self._inside(column):
                continue
            asked += 1
            point = self._starving_point(column, deadline)
            if point is not None:
                self.rule_out(column.rank, point)
            if point is None or self._inside(column):
                self._standing.add(key)
            else:
                gained = True
        # The others cost the cover's programme time; pricing finds them again when they are worth it.
        self._columns = [
            column for column in self._columns if column.amounts @ prices > NEARLY_WORTH and self._inside(column)
        ]
        return gained

    def _inside(self, column: Column) -> bool:
        return self.table.holds(column.rank, column.amounts @ self.clusters.sums)

    def _starving_point(self, column: Column, deadline: Deadline) -> NDArray[np.float64] | None:
        """Sums of about the least share of a content that starves beyond doubt; None if all of it does not."""
        starving: tuple[int, ...] | None = None
        low, high = 0.0, 1.0
        share = 1.0
        for _ in range(HALVINGS):
            deadline.check()
            content = self.clusters.content(column.amounts, share)
            if content and self.oracle.congested(content, column.rank):
                starving, high = content, share
                # Most contents of a cover ask for a little too much, not for twice what is possible.
                share = 0.85 * high if low == 0.0 else (low + high) / 2
            elif starving is None:
                return None
            else:
                low = share
                share = (low + high) / 2
            if high - low < 0.01:
                break
        return None if starving is None else self.sums[list(starving)].sum(axis=0)

    # --- the bound for the adapters one by one

    def _certify(self) -> None:
        """Farley's bound of the cover's prices for the single adapters."""
        if self._cover_prices is None:
            return
        self.table.refresh()
        by_cluster = self._cover_prices[self.clusters.of]
        for base in self._finer():
            mean = np.bincount(self.clusters.of, base) / self.clusters.counts
            typical = mean[self.clusters.of]
            # An adapter that asks for more than its cluster does on average is worth more.
            prices = by_cluster * np.divide(base, typical, out=np.ones_like(base), where=typical > 0)
            dearest, _ = self._single_pricing.dearest(prices, FINE_GAP)
            if prices.sum() > self.value * dearest:
                self.value, self.prices = float(prices.sum()) / dearest, prices / dearest

    def _finer(self) -> Iterable[NDArray[np.float64]]:
        """By what the adapters of one cluster differ: all sums as the limits of dear zones weigh them, or load alone."""
        dearest, _ = self._pricing.dearest(self._cover_prices, FINE_GAP)  # type: ignore[arg-type]
        bounds = self._pricing.bounds(self._cover_prices)  # type: ignore[arg-type]
        tight = bounds > 0.99 * dearest
        yield self.sums @ self.table.multipliers[tight].mean(axis=0)
        yield self.sums[:, 0]
