"""A lower bound on GPUs from contents of the workload's own adapters that starve: for thousands of adapters, all different.

The search zones (`solvers.zones.boxes`) hold every content that can be accepted, as far as is known. Covering all adapters with
fractions of contents in them (Gilmore and Gomory, 1961) costs at least the bound. The contents that carry the cheapest
cover are asked of the oracle, scaled down until they hardly starve, and cut off; then the cover is solved again. So the oracle
is asked where the bound is weak, about contents as skewed as the adapters are. Ranks are lowered where that makes the answer
hold for more contents: a content is asked about with one adapter of its largest rank, the others of the smallest.

The cover is solved over clusters of adapters, for speed. What it proves is what prices of the single adapters prove
(`solvers.zones.certify`); by turns, the contents that are dearest by those are asked about as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.contents.adapter_types import single_types
from solvers.limits import Deadline, OutOfTimeError
from solvers.oracles.base import Oracle
from solvers.zones.certify import evened, farley, single_prices
from solvers.zones.clusters import Clusters, cluster_types
from solvers.zones.cover import CoverProgramme
from solvers.zones.pricing import FractionalContent, ZonePricing, ZoneTable
from solvers.zones.questions import zone_questions

# By hand, no measurement is on record: they decide how soon a bound is reached, not whether it holds.

#: Rounds of pricing between two rounds of questions, contents asked about and columns kept in each.
ROUNDS, QUESTIONS, FRESH = 12, 12, 15
#: A dearest content is good enough within this share of its price: between questions, and for what is reported.
COARSE_GAP = 3e-3
#: And for a proof that is written down.
TIGHT_GAP = 1e-7
#: Share of the time that is left for either of two kinds of questions before it is the other's turn: at least two turns of each.
TURN_SHARE = 0.3
#: Share of the cover's prices in the first trial of a round; the rest are the best so far (Wentges, 1997, smooths so).
NEW_PRICES = 0.3
#: Growth of the clusters' bound after which it is proven for single adapters anew, which takes as long as some rounds.
GROWN = 1.01
#: Columns that cost less than this by the cover's prices, where those in use cost 1, are forgotten: the programme stays
#: small, and what is forgotten is found again when it is worth it. As in `solvers.exact_search.frontier`.
NEARLY_WORTH = 0.97


class ZoneBound:
    """Zones, prices and the bound so far; `run` goes on where it stopped.

    Parameters
    ----------
    oracle : Oracle
    fine : bool
        Compare the contents of a learned oracle by more sums.

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

    def __init__(self, oracle: Oracle, *, fine: bool = False) -> None:
        workload = oracle.workload
        self.questions = zone_questions(oracle, fine=fine)
        self.sums = self.questions.sums
        self.clusters = self.questions.clusters
        self.table = ZoneTable(np.unique(workload.ranks), self.sums.shape[1])
        self.value = 0.0
        self.prices: NDArray[np.float64] = self.sums[:, 0] / max(float(self.sums[:, 0].sum()), 1e-12)
        self.exhausted = False
        self.cuts: list[tuple[int, NDArray[np.float64]]] = []
        self._cover = CoverProgramme(self.clusters.counts)
        self._standing: set[tuple[int, bytes]] = set()
        self._relaxed = 0.0
        self._cover_prices: NDArray[np.float64] | None = None
        self._pricing = ZonePricing(self.table, self.clusters.sums, self.clusters.counts, self.clusters.ranks)
        self._singles = cluster_types(single_types(workload), self.sums)
        self._single_pricing = ZonePricing(
            self.table, self.sums, np.ones(len(self.sums)), workload.ranks, end=oracle.deadline
        )

    @property
    def gpus(self) -> int:
        """The bound in whole GPUs."""
        return max(1, math.ceil(self.value - 1e-6))

    def proof(self, deadline: Deadline) -> tuple[float, ZoneTable]:
        """The bound that its prices prove with the multipliers of the table, which are made to fit them.

        Parameters
        ----------
        deadline : Deadline
            Multipliers that are not found until then fit less well.
        """
        self.table.refresh()
        pricing = ZonePricing(
            self.table, self.sums, np.ones(len(self.sums)), self.questions.oracle.workload.ranks, end=deadline
        )
        pricing.dearest(self.prices, TIGHT_GAP)
        return float(self.prices.sum()) / float(pricing.bounds(self.prices).max()), self.table

    def rule_out(self, rank: int, sums: NDArray[np.float64]) -> None:
        """Rule out what asks for as much as contents that are known to starve beside a largest rank."""
        self.cuts.append((rank, sums))
        self.table.rule_out(rank, sums)

    def learn_prices(self, prices: NDArray[np.float64]) -> None:
        """Take prices of the single adapters from somebody else, if they prove more.

        Parameters
        ----------
        prices : array of shape (n_adapters,)
        """
        self.table.refresh()
        self._learn(*farley(prices, self._single_pricing))

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
        try:
            if rounds is not None:
                self._ask_in_clusters(deadline, target, rounds)
                self._certify()
                return
            # Clusters are fast, single adapters tell more: by turns, as long as one of the two gets anywhere.
            while deadline.left_s and not self._reached(target):
                self._ask_in_clusters(Deadline.after(TURN_SHARE * deadline.left_s), target)
                self._certify()
                gained = self._ask_singly(Deadline.after(TURN_SHARE * deadline.left_s), target)
                if self.exhausted and not gained:
                    return
        except (OutOfTimeError, ArithmeticError):
            self._certify()  # what is proven so far holds

    def _reached(self, target: int | None) -> bool:
        return target is not None and self.gpus >= target

    def _ask_in_clusters(self, deadline: Deadline, target: int | None, rounds: int | None = None) -> None:
        """Questions about the contents that carry the cover of the clusters."""
        reported = self.value
        asked = 0
        while not self.exhausted and deadline.left_s and (rounds is None or asked < rounds):
            asked += 1
            try:
                relaxed = self._solve_cover(deadline)
                # Where it may matter, and after every gain of a hundredth.
                if math.ceil(relaxed - 1e-6) > self.gpus or relaxed > GROWN * max(reported, self.value):
                    self._certify()
                    reported = relaxed
                if self._reached(target):
                    return
                self.exhausted = not self._ask(deadline)
            except OutOfTimeError:
                return

    # --- the cover of the clusters

    def _solve_cover(self, deadline: Deadline) -> float:
        """Column generation over the zones; the best bound for the clusters."""
        self.table.refresh()
        best, prices = 0.0, self._cover_prices
        load = self.clusters.sums[:, 0] / (self.clusters.sums[:, 0] @ self.clusters.counts)
        best, prices, _ = self._priced(load if prices is None else prices, keep_above=0.0)
        for _ in range(ROUNDS):
            deadline.check()
            value, duals, _ = self._cover.solve()
            if best >= value * (1 - COARSE_GAP):
                break
            # Prices nearer to the best so far than to the cover's swing less from round to round (Wentges, 1997).
            for trial in ((1 - NEW_PRICES) * prices + NEW_PRICES * duals, duals):
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
        self._cover.extend(kept)
        return float(prices @ self.clusters.counts) / dearest, prices / dearest, bool(kept)

    # --- questions

    def _ask(self, deadline: Deadline) -> bool:
        """Cut off what the cover uses and the oracle rejects; whether anything was."""
        _, prices, uses = self._cover.solve()
        used = [self._cover.columns[k] for k in np.argsort(-uses, kind="stable").tolist() if uses[k] > 1e-6]
        gained = self._cut_off(used, self.clusters, deadline)
        # The others cost the cover's programme time; pricing finds them again when they are worth it.
        worth = [column for column in self._cover.columns if column.amounts @ prices > NEARLY_WORTH]
        self._cover.keep([column for column in worth if self._inside(column, self.clusters)])
        return gained

    def _cut_off(self, columns: Sequence[FractionalContent], clusters: Clusters, deadline: Deadline) -> bool:
        """Cut off what the oracle rejects of the first columns that it has not accepted yet; whether anything was."""
        gained = False
        asked = 0
        for column in columns:
            key = (column.rank, column.amounts.tobytes())
            if asked >= QUESTIONS:
                break
            if key in self._standing or not self._inside(column, clusters):
                continue
            asked += 1
            starving = self.questions.starving_point(column, clusters, deadline)
            if starving is not None:
                self.rule_out(*starving)
            if starving is None or self._inside(column, clusters):
                self._standing.add(key)
            else:
                gained = True
        return gained

    def _inside(self, column: FractionalContent, clusters: Clusters) -> bool:
        return self.table.holds(column.rank, column.amounts @ clusters.sums)

    # --- the bound for the adapters one by one

    def _certify(self) -> None:
        """What the cover's prices prove for the single adapters."""
        if self._cover_prices is None:
            return
        self.table.refresh()
        end = self.questions.oracle.deadline
        for prices in single_prices(self._cover_prices, self.clusters, self.sums, self._pricing):
            if end is not None and not end.left_s:
                break
            self._learn(*farley(prices, self._single_pricing))

    def _learn(self, value: float, prices: NDArray[np.float64]) -> None:
        if value > self.value:
            self.value, self.prices = value, prices

    def _ask_singly(self, deadline: Deadline, target: int | None) -> bool:
        """Questions about the contents of single adapters that are dearest when all adapters are covered evenly; whether any helped."""
        helped = False
        while not self._reached(target) and deadline.left_s:
            self.table.refresh()
            enough = math.inf if target is None else target - 1 + 1e-3
            found = evened(self.prices, self._single_pricing, enough, deadline)
            self._learn(found.value, found.prices)
            if self.value > enough:
                break
            try:
                if not self._cut_off(found.dearest, self._singles, deadline):
                    break
            except OutOfTimeError:
                return True
            helped = True
        return helped
