"""The published first-fit placement (arXiv 2602.24044): GPUs filled in order, tested at some adapter counts only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from predictors import Predictor, adapter_contributions
from predictors.features import MAX_LORAS, N_FEATURES, N_SUMS, rank_classes
from solvers.base import Problem
from solvers.limits import Deadline
from solvers.oracles.predictor import workload_tail
from twin import GpuResult, Requests, Workload, simulate_requests

#: Adapter counts at which the published placement asks its predictors; also its values of `max_loras`
#: (arXiv 2602.24044).
TEST_POINTS = np.array([8, 16, 32, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512, 576])
TEST_POINTS.flags.writeable = False
#: From this probability of starvation on nobody needs to ask the twin. By hand: below, one in a hundred
#: such verdicts is wrong by the model's own word; a lower value asks the twin less and closes more GPUs too early.
SURE = 0.99
# Seeds of the requests of filled-in adapters, away from those of the workload; any number will do.
_FILLER_SEED_SHIFT = 7_919


@dataclass(frozen=True)
class GpuContent:
    """What a test is asked about.

    Attributes
    ----------
    adapters : array of shape (n,)
        Workload indices, in placement order: the largest rank first.
    counted : int
        How many adapters the predictors are told; others are filled in.
    n_filled, filled_rank, filled_rate : int, int, float
        Adapters that are only supposed.
    """

    adapters: NDArray[np.int64]
    counted: int
    n_filled: int = 0
    filled_rank: int = 0
    filled_rate: float = 0.0


class PublishedTest(ABC):
    """Of some `max_loras`, the one with the higher throughput must not starve; a tie takes the larger."""

    calls: int = 0

    @abstractmethod
    def choose(self, content: GpuContent, places: range) -> int:
        """Place in `TEST_POINTS` of the `max_loras` that passes, of one or two that are offered, or -1."""


class PredictorTest(PublishedTest):
    """The test as published, on learned models; optionally the twin decides where the starvation model is unsure.

    Parameters
    ----------
    problem : Problem
    predictor : Predictor
    distilled : bool
        The single trees.
    unsure : PublishedTest, optional
        Asked where the probability lies between the predictor's threshold and `SURE`.
    """

    def __init__(
        self, problem: Problem, predictor: Predictor, *, distilled: bool, unsure: PublishedTest | None = None
    ) -> None:
        workload = problem.workload
        self._rows = adapter_contributions(workload.ranks, workload.rates)
        self._tail = workload_tail(workload)
        self._ranks, self._profile = workload.ranks, problem.profile
        self._predictor = predictor
        self._distilled = distilled
        self._threshold = predictor.distilled_threshold if distilled else predictor.starvation_threshold
        self._unsure = unsure
        self.asked_twin = 0

    def choose(self, content: GpuContent, places: range) -> int:
        """As `PublishedTest.choose`."""
        self.calls += 1
        most = self._profile.largest_max_loras(int(self._ranks[content.adapters].max()))
        starting = [place for place in places if TEST_POINTS[place] <= most]
        if not starting:
            return -1
        contents = np.empty((len(starting), N_FEATURES))
        contents[:, :N_SUMS] = self._rows[content.adapters].sum(axis=0)
        if content.n_filled:
            row = adapter_contributions([content.filled_rank], [content.filled_rate])[0]
            contents[:, :N_SUMS] += content.n_filled * row
            extra = len(content.adapters) + content.n_filled - content.counted
            contents[:, rank_classes([content.filled_rank])] -= extra
        contents[:, N_SUMS:] = self._tail
        contents[:, MAX_LORAS] = TEST_POINTS[starting]
        predictor = self._predictor
        throughput = (predictor.distilled_throughput if self._distilled else predictor.predict_throughput)(contents)
        best = len(starting) - 1 - int(np.argmax(throughput[::-1]))
        starvation = predictor.distilled_starvation if self._distilled else predictor.predict_starvation
        probability = starvation(contents[best : best + 1])[0]
        if self._unsure is not None and self._threshold <= probability < SURE:
            self.asked_twin += 1
            return self._unsure.choose(content, places)
        return starting[best] if probability < self._threshold else -1


class TwinTest(PublishedTest):
    """The test on the twin: the workload's own requests, and made-up ones of filled-in adapters.

    Raises `OutOfTimeError` when the problem's time limit, from the making of the test on, is over.
    """

    def __init__(self, problem: Problem) -> None:
        self._workload, self._profile = problem.workload, problem.profile
        self._service = problem.service
        self._deadline = Deadline.after(problem.time_limit_s)

    def choose(self, content: GpuContent, places: range) -> int:
        """As `PublishedTest.choose`."""
        self.calls += 1
        mine = content.adapters
        requests, ranks = self._arriving(self._workload).requests_of(mine), self._workload.ranks[mine]
        if content.n_filled:
            requests = _merged(requests, self._filler(content), len(mine))
            ranks = np.append(ranks, np.full(content.n_filled, content.filled_rank))
        best, result = -1, None
        for place in places:
            max_loras, window_s = int(TEST_POINTS[place]), self._workload.duration_s
            self._deadline.check()
            tried = simulate_requests(
                requests, ranks, self._profile, max_loras, duration_s=window_s, service=self._service, latencies=False
            )
            if result is None or _served(tried) >= _served(result):
                best, result = place, tried
        assert result is not None  # noqa: S101  # the loop runs at least once
        return best if result.feasible else -1

    def _arriving(self, workload: Workload) -> Workload:
        """With what goes on arriving while the last judged requests are served."""
        return workload.lengthened(self._service.tail_s) if self._service.judges_requests else workload

    def _filler(self, content: GpuContent) -> Requests:
        workload, count = self._workload, content.n_filled
        filler = Workload(
            ranks=np.full(count, content.filled_rank),
            rates=np.full(count, content.filled_rate),
            lengths=workload.lengths,
            duration_s=workload.duration_s,
            seed=workload.seed + _FILLER_SEED_SHIFT,
        )
        return self._arriving(filler).requests


def _served(result: GpuResult) -> float:
    return -1.0 if result.memory_error else result.throughput


def _merged(requests: Requests, others: Requests, shift: int) -> Requests:
    """Two traces as one in the order of arrival; the adapters of the second are counted from `shift`."""
    shifted = replace(others, adapter=others.adapter + shift)
    if requests.shared_tokens is not None:
        shifted = replace(shifted, shared_tokens=shifted.shared())
    columns = {name: np.concatenate([column, getattr(shifted, name)]) for name, column in requests.columns().items()}
    order = np.argsort(columns["arrival_s"], kind="stable")
    return Requests(**{name: column[order] for name, column in columns.items()})


def fill_by_test_points(
    workload: Workload, order: NDArray[np.int64], test: PublishedTest, *, as_published: bool
) -> list[tuple[NDArray[np.int64], int]] | None:
    """Fill GPUs in order, committing adapters at test points only.

    At the end the pending adapters of the last GPU are tested at the next test point, others filled in with the mean rate
    and the smallest rank on that GPU.

    Parameters
    ----------
    workload : Workload
    order : array of shape (n_adapters,)
        By descending rank.
    test : PublishedTest
    as_published : bool
        At the end, fill in the test point less the pending adapters, so that what is committed counts twice; offer the first
        test of a GPU 8 slots only; and take pending adapters of an earlier rank back in reverse. Otherwise fill
        in what is missing, offer two values always, and keep the order.

    Returns
    -------
    list of (array of shape (n,), max_loras) or None
        The adapters of each GPU. None if a GPU fails its first test: the published greedy places nothing on it then.
    """
    order = order.copy()
    gpus: list[tuple[NDArray[np.int64], int]] = []
    first = 0
    while first < len(order):
        last, slots, failed = _fill_one(order[first:], test, -1 if as_published else 0)
        if not failed and last < len(order) - first:
            content = _filled_in(workload, order[first:], last, as_published=as_published)
            chosen = test.choose(content, _offered(slots))
            if chosen >= 0:
                last, slots = len(order) - first, chosen
            else:
                failed = len(order) - first
        if last == 0:
            return None
        gpus.append((order[first : first + last], int(TEST_POINTS[slots])))
        if failed and as_published:
            _take_back(workload.ranks, order[first + last : first + failed])
        first += last
    return gpus


def _offered(slots: int) -> range:
    """Places of the `max_loras` offered: the one so far (-1: none yet) and the next."""
    return range(max(slots, 0), min(slots + 2, len(TEST_POINTS)))


def _fill_one(order: NDArray[np.int64], test: PublishedTest, slots: int) -> tuple[int, int, int]:
    """Fill one GPU: how many are committed, the place of its `max_loras`, and how many the test was of that failed (0: none did)."""
    committed = 0
    for count in TEST_POINTS.tolist():
        if count > len(order):
            break
        chosen = test.choose(GpuContent(order[:count], count), _offered(slots))
        if chosen < 0:
            return committed, slots, count
        committed, slots = count, chosen
    return committed, slots, 0 if committed < TEST_POINTS[-1] else committed


def _filled_in(workload: Workload, mine: NDArray[np.int64], committed: int, *, as_published: bool) -> GpuContent:
    """The last GPU at the next test point."""
    point = int(TEST_POINTS[np.searchsorted(TEST_POINTS, len(mine))])
    missing = point - (len(mine) - committed if as_published else len(mine))
    return GpuContent(mine, point, missing, int(workload.ranks[mine].min()), float(workload.rates[mine].mean()))


def _take_back(ranks: NDArray[np.int64], pending: NDArray[np.int64]) -> None:
    """Reverse, in place, the pending adapters of each rank but the last."""
    for rank in np.unique(ranks[pending[:-1]]):
        mine = np.flatnonzero(ranks[pending] == rank)
        if rank != ranks[pending[-1]]:
            pending[mine] = pending[mine[::-1]]
