"""The published first-fit placement (arXiv 2602.24044): GPUs filled in order, tested at some adapter counts only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors import Predictor, adapter_contributions
from predictors.features import MAX_LORAS, N_FEATURES, N_SUMS
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
class OrderedContent:
    """What a test is asked about: adapters in placement order, and the filled-in ones.

    Attributes
    ----------
    first, last : int
        Places of the adapters in the order, `last` excluded.
    n_filled, filled_rank, filled_rate : int, int, float
        Adapters that are only supposed.
    """

    first: int
    last: int
    n_filled: int = 0
    filled_rank: int = 0
    filled_rate: float = 0.0


class PublishedTest(ABC):
    """Of the current `max_loras` and the next, the one with the higher throughput must not starve; a tie takes the larger."""

    calls: int = 0

    @abstractmethod
    def choose(self, content: OrderedContent, current: int) -> int:
        """Place in `TEST_POINTS` of the `max_loras` that passes, or -1; `current` is the place of the one so far."""


class PredictorTest(PublishedTest):
    """The test as published, on learned models; optionally the twin decides where the starvation model is unsure.

    Parameters
    ----------
    workload : Workload
    predictor : Predictor
    order : array of shape (n_adapters,)
    distilled : bool
        The single trees.
    unsure : PublishedTest, optional
        Asked where the probability lies between the predictor's threshold and `SURE`.
    """

    def __init__(
        self,
        workload: Workload,
        predictor: Predictor,
        order: NDArray[np.int64],
        *,
        distilled: bool,
        unsure: PublishedTest | None = None,
    ) -> None:
        rows = adapter_contributions(workload.ranks[order], workload.rates[order])
        self._sums = np.concatenate([np.zeros((1, N_SUMS)), np.cumsum(rows, axis=0)])
        self._tail = workload_tail(workload)
        self._predictor = predictor
        self._distilled = distilled
        self._threshold = predictor.distilled_threshold if distilled else predictor.starvation_threshold
        self._unsure = unsure
        self.asked_twin = 0

    def choose(self, content: OrderedContent, current: int) -> int:
        """As `PublishedTest.choose`."""
        self.calls += 1
        places = np.arange(current, min(current + 2, len(TEST_POINTS)))
        contents = np.empty((len(places), N_FEATURES))
        contents[:, :N_SUMS] = self._sums[content.last] - self._sums[content.first]
        if content.n_filled:
            row = adapter_contributions([content.filled_rank], [content.filled_rate])[0]
            contents[:, :N_SUMS] += content.n_filled * row
        contents[:, N_SUMS:] = self._tail
        contents[:, MAX_LORAS] = TEST_POINTS[places]
        predictor = self._predictor
        throughput = (predictor.distilled_throughput if self._distilled else predictor.predict_throughput)(contents)
        best = len(places) - 1 - int(np.argmax(throughput[::-1]))
        starvation = predictor.distilled_starvation if self._distilled else predictor.predict_starvation
        probability = starvation(contents[best : best + 1])[0]
        if self._unsure is not None and self._threshold <= probability < SURE:
            self.asked_twin += 1
            return self._unsure.choose(content, current)
        return int(places[best]) if probability < self._threshold else -1


class TwinTest(PublishedTest):
    """The test on the twin: the workload's own requests, and made-up ones of filled-in adapters.

    Raises `OutOfTimeError` when the problem's time limit, from the making of the test on, is over.
    """

    def __init__(self, problem: Problem, order: NDArray[np.int64]) -> None:
        self._workload, self._profile, self._order = problem.workload, problem.profile, order
        self._deadline = Deadline.after(problem.time_limit_s)

    def choose(self, content: OrderedContent, current: int) -> int:
        """As `PublishedTest.choose`."""
        self.calls += 1
        mine = self._order[content.first : content.last]
        requests, ranks = self._workload.requests_of(mine), self._workload.ranks[mine]
        if content.n_filled:
            requests = _merged(requests, self._filler(content), len(mine))
            ranks = np.append(ranks, np.full(content.n_filled, content.filled_rank))
        best, result = -1, None
        for place in range(current, min(current + 2, len(TEST_POINTS))):
            max_loras, window_s = int(TEST_POINTS[place]), self._workload.duration_s
            self._deadline.check()
            tried = simulate_requests(requests, ranks, self._profile, max_loras, duration_s=window_s)
            if result is None or _served(tried) >= _served(result):
                best, result = place, tried
        assert result is not None  # noqa: S101  # the loop runs at least once
        return best if result.feasible else -1

    def _filler(self, content: OrderedContent) -> Requests:
        workload, count = self._workload, content.n_filled
        return Workload(
            ranks=np.full(count, content.filled_rank),
            rates=np.full(count, content.filled_rate),
            lengths=workload.lengths,
            duration_s=workload.duration_s,
            seed=workload.seed + _FILLER_SEED_SHIFT,
        ).requests


def _served(result: GpuResult) -> float:
    return -1.0 if result.memory_error else result.throughput


def _merged(requests: Requests, others: Requests, shift: int) -> Requests:
    """Two traces as one in the order of arrival; the adapters of the second are counted from `shift`."""
    columns = {
        name: np.concatenate([getattr(requests, name), getattr(others, name) + (shift if name == "adapter" else 0)])
        for name in ("arrival_s", "adapter", "prompt_tokens", "output_tokens", "requested_tokens")
    }
    order = np.argsort(columns["arrival_s"], kind="stable")
    return Requests(**{name: column[order] for name, column in columns.items()})


def fill_by_test_points(
    workload: Workload, order: NDArray[np.int64], test: PublishedTest
) -> list[tuple[int, int, int]] | None:
    """Fill GPUs in order, committing adapters at test points only.

    At the end the pending adapters of the last GPU are tested at the next test point, the missing ones filled in with the
    mean rate and the smallest rank on that GPU.

    Parameters
    ----------
    workload : Workload
    order : array of shape (n_adapters,)
    test : PublishedTest

    Returns
    -------
    list of (first, last, max_loras) or None
        Places in the order of each GPU's adapters, `last` excluded. None if a GPU fails its first test: the published
        greedy places nothing on it then.
    """
    gpus: list[tuple[int, int, int]] = []
    first = 0
    while first < len(order):
        last, slots, closed = _fill_one(first, len(order), test)
        if not closed:
            if last == len(order):
                return [*gpus, (first, last, int(TEST_POINTS[slots]))]
            mine = order[first:]
            missing = int(TEST_POINTS[np.searchsorted(TEST_POINTS, len(mine))]) - len(mine)
            filled = OrderedContent(
                first, len(order), missing, int(workload.ranks[mine].min()), float(workload.rates[mine].mean())
            )
            chosen = test.choose(filled, slots)
            if chosen >= 0:
                return [*gpus, (first, len(order), int(TEST_POINTS[chosen]))]
        if last == first:
            return None
        gpus.append((first, last, int(TEST_POINTS[slots])))
        first = last
    return gpus


def _fill_one(first: int, n_adapters: int, test: PublishedTest) -> tuple[int, int, bool]:
    """Fill one GPU: the end of what is committed, the place of its `max_loras`, and whether it is closed."""
    committed, slots = first, 0
    for count in TEST_POINTS:
        if first + count > n_adapters:
            return committed, slots, False
        chosen = test.choose(OrderedContent(first, first + int(count)), slots)
        if chosen < 0:
            return committed, slots, True
        committed, slots = first + int(count), chosen
    return committed, slots, True
