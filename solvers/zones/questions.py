"""What a zone bound asks an oracle: how much of a content, given in fractions, starves a GPU."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from predictors import adapter_contributions
from predictors.features import ACTIVE, N_SUMS, RATE, SERVICE_TIMES_S, rank_classes
from solvers.contents.adapter_types import adapter_types
from solvers.limits import Deadline
from solvers.oracles.base import Oracle
from solvers.oracles.predictor import PredictorOracle
from solvers.oracles.twin import TwinOracle
from solvers.zones.clusters import MOST_CLUSTERS, Clusters, cluster_adapters, cluster_types
from solvers.zones.nearby import fill_below
from solvers.zones.pricing import FractionalContent

# By hand where no other reason is given, no measurement is on record: they decide how soon a bound is reached, not whether it holds.

#: Halvings of the interval in which a content begins to starve: simulated (each costs a
#: simulation; five leave 3 %), and asked of a learned model (a microsecond each).
HALVINGS, LEARNED_HALVINGS = 5, 12
#: A content that a learned model accepts but for so little is good enough: cutting off less than that would not raise a bound.
NEARLY_ALL = 0.9997
#: The first share of a content that is asked about after the whole, for most contents of a cover ask for a little too much, not for twice
#: what is possible; and an interval that is short enough.
LITTLE_LESS, SHORT = 0.85, 0.01
#: Halvings of the interval in which a sum can be lowered, the first of which tries nothing of it; eight leave less than 1 %.
LOWERINGS = 8
#: Times in service at which a learned model's contents are compared, in terms of that of so many adapters that nearly starve
#: a GPU: the model asks for the adapters that are active within a quarter of it, and within all of it. The 0.9 is for contents
#: that nearly starve a GPU, whose time in service is taken to lie a little below that of those that do.
LEARNED_TIMES, TYPICAL_ADAPTERS = 0.9 * np.array([0.25, 0.5, 1.0]), 32
#: The same where those are exhausted: more zones, which take more time, and a little more to gain.
FINE_LEARNED_TIMES = 0.9 * np.array([1 / 6, 1 / 2, 4 / 3, 4.0])
#: What is ruled out asks for a little more than what starves, so that rounding does not matter.
ROUNDING = 1e-9


class ZoneQuestions(ABC):
    """One oracle's side of a zone bound.

    Attributes
    ----------
    oracle : Oracle
    sums : array of shape (n_adapters, n_sums)
        What each adapter asks for; the load comes first. A content that asks for at least as much of everything beside a largest
        rank that is at least as large is accepted no sooner.
    clusters : Clusters
    """

    oracle: Oracle
    sums: NDArray[np.float64]
    clusters: Clusters

    @abstractmethod
    def starving_point(
        self, column: FractionalContent, clusters: Clusters, deadline: Deadline
    ) -> tuple[int, NDArray[np.float64]] | None:
        """Largest rank and sums, within those of a column, beyond which all contents starve; None if the column does not.

        Raises
        ------
        OutOfTimeError
        """


class TwinQuestions(ZoneQuestions):
    """Real adapters that ask for about as much as a share of the content are simulated.

    Parameters
    ----------
    oracle : TwinOracle
    """

    oracle: TwinOracle

    def __init__(self, oracle: TwinOracle) -> None:
        workload = oracle.workload
        self.oracle = oracle
        self.sums = oracle.asks
        requests = np.bincount(workload.requests.adapter, minlength=workload.n_adapters)
        self.clusters = cluster_adapters(workload.ranks, requests, self.sums)

    def starving_point(
        self, column: FractionalContent, clusters: Clusters, deadline: Deadline
    ) -> tuple[int, NDArray[np.float64]] | None:
        """Sums of about the least share of a content that starves beyond doubt."""
        for content in self._likely(column, clusters, deadline):
            deadline.check()
            if self.oracle.congested(content, column.rank):
                return column.rank, self.sums[list(content)].sum(axis=0)
        return None

    def _likely(self, column: FractionalContent, clusters: Clusters, deadline: Deadline) -> list[tuple[int, ...]]:
        """Shares of a content that seem to starve, the least first; none where the whole does not.

        One simulation each: a verdict beyond doubt takes ten to twenty.
        """
        likely: list[tuple[int, ...]] = []
        low, high, share = 0.0, 1.0, 1.0
        for _ in range(HALVINGS + 1):
            deadline.check()
            content = self._content(column, clusters, share)
            if content and self.oracle.seems_congested(content, column.rank):
                high = share
                if content not in likely:
                    likely.insert(0, content)
            elif share == 1.0:
                break
            else:
                low = share
            share = LITTLE_LESS * high if low == 0.0 else (low + high) / 2
            if high - low < SHORT:
                break
        return likely

    def _content(self, column: FractionalContent, clusters: Clusters, share: float) -> tuple[int, ...]:
        """Adapters that ask for nearly as much as a share of a content, and for no more of anything."""
        chosen = np.zeros(len(self.sums), dtype=np.bool_)
        chosen[list(clusters.content(column.amounts, share))] = True
        target = share * (column.amounts @ clusters.sums)
        return tuple(np.flatnonzero(fill_below(chosen, self.sums, target)).tolist())


class LearnedQuestions(ZoneQuestions):
    """A learned model knows nothing but sums, so fractions are asked about as they are, and a verdict holds without a margin.

    Contents are compared by rate, number of adapters, and activity at a few times in service. What the activity is at least in
    between follows: it is concave in the time in service.

    Parameters
    ----------
    oracle : PredictorOracle
    fine : bool
        Compare contents at more times.
    """

    oracle: PredictorOracle

    def __init__(self, oracle: PredictorOracle, *, fine: bool = False) -> None:
        workload = oracle.workload
        self.oracle = oracle
        times_s = (FINE_LEARNED_TIMES if fine else LEARNED_TIMES) * self._service_s()
        self._places = np.unique([int(np.abs(SERVICE_TIMES_S - time_s).argmin()) for time_s in times_s])
        rows = oracle.contributions
        self.sums = np.column_stack([rows[:, RATE], np.ones(len(rows)), rows[:, ACTIVE + self._places]])
        types = adapter_types(workload)
        if len(types) <= MOST_CLUSTERS:
            self.clusters = cluster_types(types, self.sums)
        else:
            least = workload.rates.min(initial=np.inf, where=workload.rates > 0)
            self.clusters = cluster_adapters(workload.ranks, workload.rates / least, self.sums)
        self._ranks = np.unique(workload.ranks).tolist()
        self._generator = np.random.default_rng(0)

    def starving_point(
        self, column: FractionalContent, clusters: Clusters, deadline: Deadline
    ) -> tuple[int, NDArray[np.float64]] | None:
        """Least sums of a share of a content that starve: none of them can be much lower."""
        deadline.check()
        whole = column.amounts @ clusters.sums
        if not self.starves(column.rank, NEARLY_ALL * whole):
            return None
        low, high = 0.0, NEARLY_ALL
        for _ in range(LEARNED_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.starves(column.rank, middle * whole) else (middle, high)
        point = high * whole
        # In any order; by turns all of them are found out that matter.
        for row in self._generator.permutation(len(point)).tolist():
            self._lower(column.rank, point, row)
        rank = next(rank for rank in self._ranks if rank == column.rank or self.starves(rank, point))
        return rank, point * (1 + ROUNDING)

    def _service_s(self) -> float:
        """Time in service of equally busy adapters that hardly starve a GPU, or that send all there is."""
        rank = int(self.oracle.workload.ranks.min())
        low, high = 0.0, self.oracle.workload.total_rate
        sums = np.zeros(N_SUMS)
        for _ in range(LEARNED_HALVINGS):
            rate = (low + high) / 2 / TYPICAL_ADAPTERS
            sums = TYPICAL_ADAPTERS * adapter_contributions([rank], [rate])[0]
            low, high = (
                (low, rate * TYPICAL_ADAPTERS)
                if self.oracle.starves_from(rank, sums)
                else (rate * TYPICAL_ADAPTERS, high)
            )
        slots = min(TYPICAL_ADAPTERS, self.oracle.profile.largest_max_loras(rank))
        return self.oracle.service_s(sums, slots) if slots else 1.0

    def _lower(self, rank: int, point: NDArray[np.float64], row: int) -> None:
        """Lower one sum of a point as long as the point starves."""
        trial = point.copy()
        low, high, middle = 0.0, point[row], 0.0
        for _ in range(LOWERINGS):
            trial[row] = middle
            if self.starves(rank, trial):
                high = middle
                if not middle:
                    break
            else:
                low = middle
            middle = (low + high) / 2
        point[row] = high

    def starves(self, rank: int, point: NDArray[np.float64]) -> bool:
        """Whether the oracle rejects all contents with at least these sums and a largest rank that is at least the given one."""
        return self.oracle.starves_from(rank, self.least(rank, point))

    def least(self, rank: int, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """All the sums that the model knows, at the least that contents can have that reach some of them.

        Parameters
        ----------
        rank : int
        point : array of shape (n_sums,)

        Returns
        -------
        array of shape (N_SUMS,)
        """
        times_s = np.concatenate([[0.0], SERVICE_TIMES_S[self._places]])
        active = np.concatenate([[0.0], np.maximum.accumulate(point[2:])])
        # An adapter's activity starts at 0, rises ever more slowly, and stays below its rate times the time, and below 1.
        for first in range(len(times_s)):
            for last in range(first + 2, len(times_s)):
                share = (times_s[first + 1 : last] - times_s[first]) / (times_s[last] - times_s[first])
                chord = active[first] + share * (active[last] - active[first])
                active[first + 1 : last] = np.maximum(active[first + 1 : last], chord)
        sums = np.zeros(N_SUMS)
        sums[rank_classes([rank])[0]] = max(1.0, point[1], active[-1])
        sums[RATE] = max(point[0], (active[1:] / times_s[1:]).max())
        sums[ACTIVE:] = np.interp(SERVICE_TIMES_S, times_s, active)
        return sums


def zone_questions(oracle: Oracle, *, fine: bool = False) -> ZoneQuestions:
    """The questions that fit an oracle; finer ones where it is a learned model.

    Raises
    ------
    TypeError
    """
    if isinstance(oracle, TwinOracle):
        return TwinQuestions(oracle)
    if isinstance(oracle, PredictorOracle):
        return LearnedQuestions(oracle, fine=fine)
    raise TypeError(f"no zones are known for the oracle {oracle.name}")
