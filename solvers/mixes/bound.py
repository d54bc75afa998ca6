"""A lower bound on the cost of a mixed fleet: search zones of each type, and prices that rule out one mix after the other.

Zones (`solvers.zones.bound`) hold every content that a type can be given. The cheapest mix that no prices rule out yet is asked: which
share of every adapter can fractions of contents from these zones serve, one GPU of the mix each? Less than all of it: the prices of that
programme rule the mix out, and others with it (`solvers.mixes.hulls`). All of it: the contents in use are asked of the twins of their
types, and what starves is cut off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from solvers.base import Problem
from solvers.limits import Deadline, OutOfTimeError
from solvers.mixes.hulls import CheapestMix, Needed, cheapest_mix
from solvers.oracles.twin import TwinOracle
from solvers.zones.bound import ZoneBound
from solvers.zones.certify import single_prices
from solvers.zones.pricing import FractionalContent, ZonePricing

#: GPUs of a type without a count: more are never of use, even with replicas.
MOST_GPUS = 1_000_000
#: Rounds of pricing for one mix, contents asked about after it for each type, and how near to its best a dearest content is found.
#: By hand: they decide how soon a bound is reached, not whether it holds.
ROUNDS, QUESTIONS, GAP, FINE_GAP = 30, 8, 3e-3, 1e-3
#: A column that is worth less than this above its type's price is not news.
NEWS = 1e-6
#: Shares of the time left for the bound of each type alone.
ALONE = 0.15
#: Columns kept from round to round.
MOST_COLUMNS = 600


@dataclass(frozen=True)
class _Column:
    kind: int
    content: FractionalContent


class MixBound:
    """Bounds on cost and on GPUs, better the longer it runs.

    Parameters
    ----------
    problem : Problem
        With a fleet of several types.
    deadline : Deadline
        From then on nothing is simulated.

    Attributes
    ----------
    needed : list of Needed
        Inequalities that every mix keeps.
    exhausted : bool
        The cheapest mix left is accepted by all that the twins were asked.
    impossible : bool
        Proven: no mix of the fleet is enough.
    calls : int
    """

    def __init__(self, problem: Problem, deadline: Deadline) -> None:
        fleet = problem.mixed_fleet
        assert fleet is not None  # noqa: S101  # whoever asks has looked
        self.fleet = fleet
        self.problem = problem
        self.deadline = deadline
        self.needed: list[Needed] = []
        self.exhausted = self.impossible = False
        self._oracles = [TwinOracle(problem.workload, kind.profile, service=problem.service) for kind in fleet.types]
        for oracle in self._oracles:
            oracle.deadline = deadline
        self.zones: list[ZoneBound] = []
        self._columns: list[_Column] = []
        self._standing: set[tuple[int, int, bytes]] = set()
        self._cheapest: CheapestMix | None = None
        self._fewest: CheapestMix | None = None
        self._learn_mixes()

    @property
    def calls(self) -> int:
        """Contents asked about so far."""
        return sum(oracle.calls for oracle in self._oracles)

    @property
    def cost(self) -> float:
        """No placement costs less; infinity where there is none."""
        return math.inf if self._cheapest is None else self._cheapest.cost

    @property
    def gpus(self) -> int:
        """No placement is on fewer GPUs."""
        return 1 if self._fewest is None else round(self._fewest.cost)

    def possible(self, mix: tuple[int, ...]) -> bool:
        """Whether nothing rules a mix out."""
        return all(each.keeps(mix) for each in self.needed)

    def start(self, deadline: Deadline, *, rounds: int | None = None) -> None:
        """What the bounds of the types by themselves say."""
        try:
            if not self.zones:
                self.zones = [ZoneBound(oracle) for oracle in self._oracles]
            for zones in self.zones:
                zones.run(Deadline.after(ALONE * deadline.left_s), rounds=rounds)
                self._rule_out(zones.prices)
        except OutOfTimeError:
            return

    def run(self, deadline: Deadline, target: float) -> None:
        """Rule out the cheapest mixes until the target is reached, nothing is left to ask, or the time is up.

        Parameters
        ----------
        deadline : Deadline
        target : float
            A cost that need not be exceeded.
        """
        try:
            while self.zones and not self.exhausted and self.cost < target * (1 - 1e-9) and deadline.left_s:
                assert self._cheapest is not None  # noqa: S101  # its cost is below the target
                self.exhausted = not self._against(self._cheapest.mix, deadline)
        except (OutOfTimeError, ArithmeticError):
            return

    # --- one mix

    def _against(self, mix: tuple[int, ...], deadline: Deadline) -> bool:
        """Rule a mix out, or cut off contents that it would need; whether either was done."""
        prices, used = self._most_served(mix, deadline)
        if prices is not None:
            for trial in self._single_prices(prices):
                deadline.check()
                self._rule_out(trial)
                if not self.possible(mix):
                    return True
        return self._cut_off(used, deadline)

    def _most_served(
        self, mix: tuple[int, ...], deadline: Deadline
    ) -> tuple[NDArray[np.float64] | None, list[_Column]]:
        """Prices of clusters that rule a mix out, None where it serves all in fractions; and the contents in use, most used first."""
        counts = self.zones[0].clusters.counts
        pricings = [ZonePricing(zones.table, zones.clusters.sums, counts, zones.clusters.ranks) for zones in self.zones]
        for zones in self.zones:
            zones.table.refresh()
        columns = [c for c in self._columns if mix[c.kind] and self._inside(c)][-MOST_COLUMNS:]
        load = self.zones[0].clusters.sums[:, 0] + 1e-9
        prices: NDArray[np.float64] = load / float(load @ counts)
        used: list[_Column] = []
        served = 0.0
        for _ in range(ROUNDS):
            deadline.check()
            dearest, fresh = np.zeros(len(mix)), []
            for kind, pricing in enumerate(pricings):
                if mix[kind]:
                    dearest[kind], found = pricing.dearest(prices, GAP)
                    fresh += [_Column(kind, content) for content in found[:4]]
            if float(dearest @ mix) < 1 - NEWS:
                self._columns = columns
                return prices, used
            columns += fresh
            served, prices, used = _served(columns, counts, mix)
            if served >= 1 - NEWS:
                break
        self._columns = columns
        return (None if served >= 1 - NEWS else prices), used

    def _single_prices(self, prices: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Prices of single adapters that fit those of their clusters, by the multipliers of each type."""
        found: list[NDArray[np.float64]] = []
        for zones in self.zones:
            clusters = zones.clusters
            pricing = ZonePricing(zones.table, clusters.sums, clusters.counts, clusters.ranks)
            found += list(single_prices(prices, clusters, zones.sums, pricing))
        return found

    def _inside(self, column: _Column) -> bool:
        zones = self.zones[column.kind]
        return zones.table.holds(column.content.rank, column.content.amounts @ zones.clusters.sums)

    def _cut_off(self, used: list[_Column], deadline: Deadline) -> bool:
        """Cut off what the twins refuse of the contents in use; whether anything was."""
        gained = False
        asked = np.zeros(len(self.zones))
        for column in used:
            zones, content = self.zones[column.kind], column.content
            key = (column.kind, content.rank, content.amounts.tobytes())
            if asked[column.kind] >= QUESTIONS or key in self._standing or not self._inside(column):
                continue
            asked[column.kind] += 1
            starving = zones.questions.starving_point(content, zones.clusters, deadline)
            if starving is not None:
                zones.rule_out(*starving)
            if starving is None or self._inside(column):
                self._standing.add(key)
            else:
                gained = True
        return gained

    # --- what prices prove

    def _rule_out(self, prices: NDArray[np.float64]) -> None:
        """The inequality of some prices of single adapters, if it says anything new."""
        total = float(prices.sum())
        if not total > 0:
            return
        shares = []
        for zones in self.zones:
            zones.table.refresh()
            workload = self.problem.workload
            ones = np.ones(workload.n_adapters)
            pricing = ZonePricing(zones.table, zones.sums, ones, workload.ranks, end=self.deadline)
            shares.append(pricing.dearest(prices, FINE_GAP)[0] / total)
        each = Needed(tuple(shares))
        if any(old.shares == each.shares for old in self.needed):
            return
        self.needed.append(each)
        self._learn_mixes()

    def _learn_mixes(self) -> None:
        self._cheapest = self._mix(each_gpu=False)
        self.impossible = self._cheapest is None
        if not self.impossible:
            self._fewest = self._mix(each_gpu=True)

    def _mix(self, *, each_gpu: bool) -> CheapestMix | None:
        most_gpus = self.problem.max_gpus
        return cheapest_mix(self.fleet, self.needed, max_gpus=most_gpus, most=MOST_GPUS, each_gpu=each_gpu)


def _served(
    columns: list[_Column], counts: NDArray[np.float64], mix: tuple[int, ...]
) -> tuple[float, NDArray[np.float64], list[_Column]]:
    """The largest share of every cluster that fractions of contents serve, one GPU of the mix each; prices, and the contents in use.

    The prices are worth 1 for all adapters together.
    """
    kinds = np.array([column.kind for column in columns])
    amounts = np.array([column.content.amounts for column in columns])
    # Variables: how often each column is used, then the share.
    cover = np.column_stack([-amounts.T, counts])
    limit = np.array([np.append(kinds == kind, 0.0) for kind in range(len(mix))], dtype=np.float64)
    answer = linprog(
        np.append(np.zeros(len(columns)), -1.0),
        A_ub=np.vstack([cover, limit]),
        b_ub=np.concatenate([np.zeros(len(counts)), np.array(mix, dtype=np.float64)]),
        method="highs",
    )
    if not answer.success:
        raise ArithmeticError(f"the share that a mix serves could not be computed: {answer.message}")
    prices = np.maximum(0.0, -answer.ineqlin.marginals[: len(counts)])
    worth = max(float(prices @ counts), 1e-300)
    order = np.argsort(-answer.x[:-1], kind="stable")
    used = [columns[place] for place in order.tolist() if answer.x[place] > 1e-6]
    return float(-answer.fun), prices / worth, used
