"""Latency predictors with a workload's contributions: what `max_loras` a GPU gets, and fleets of little predicted latency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from predictors import adapter_contributions
from predictors.features import N_FEATURES, N_SUMS
from predictors.meanfield import N_INPUTS
from solvers.base import Problem
from solvers.limits import Deadline
from solvers.objectives.min_latency import MinLatency
from solvers.oracles.base import MAX_LORAS_GRID
from solvers.oracles.predictor import workload_tail
from solvers.spreading.latency_kernel import E2E, ITL, TTFT, deal, gpu_cost, improve

METRICS = {"itl_ms": ITL, "ttft_ms": TTFT, "e2e_ms": E2E}
#: GPUs that the greedy spread tries for an adapter, by hand: more may find one
#: where it adds less, and takes as many more questions.
MOST_TRIED = 16
#: Proposals of the local search, for each adapter and at most, and those of one compiled call, between looks at the clock.
#: By hand: some swaps for every adapter, and a few seconds for a fleet of a thousand.
PROPOSALS_EACH, MOST_PROPOSALS, CHUNK = 50, 10_000, 500
#: Adapters that are dealt in one compiled call, between looks at the clock. By hand: some hundredths of a second.
DEALT = 32
#: Temperature at first, in shares of the sum of costs: about a change in one GPU of few. It falls to nothing. By hand.
HOT = 1e-3


def metric_of(problem: Problem) -> str:
    """Which mean latency counts: that of the objective if it is `MinLatency`, otherwise the end-to-end latency."""
    return problem.objective.metric if isinstance(problem.objective, MinLatency) else "e2e_ms"


class LatencyModel:
    """Predicted latency of GPU contents, each at its best `max_loras`.

    Parameters
    ----------
    problem : Problem
        With a predictor.

    Attributes
    ----------
    calls : int
        GPU contents asked about so far.
    """

    def __init__(self, problem: Problem) -> None:
        predictor = problem.predictor
        assert predictor is not None  # noqa: S101  # Solver.run has checked it
        self.workload = problem.workload
        self.seed = problem.seed
        self.calls = 0
        self.rows = adapter_contributions(self.workload.ranks, self.workload.rates)
        limits = {problem.profile.largest_max_loras(rank) for rank in problem.profile.ranks}
        grid = np.array(sorted({*MAX_LORAS_GRID, *limits} - {0}))
        self.grid = grid[grid <= max(limits)]
        self._tail = workload_tail(self.workload)
        self._asked = (
            METRICS[metric_of(problem)],
            self.grid,
            (predictor.table, predictor.flags, *predictor.itl.arrays),
            (predictor.table, predictor.flags, *predictor.ttft.arrays),
            predictor.starvation_arrays,
            predictor.starvation_threshold,
        )

    def slots(self, adapters: Sequence[int]) -> int:
        """The `max_loras` with the least predicted latency, of those without predicted starvation if there are any."""
        place, _ = self._best(self.rows[list(adapters)].sum(axis=0), len(adapters))
        return int(min(self.grid[place], max(len(adapters), 1)))

    def spread(self, order: NDArray[np.int64], n_gpus: int, deadline: Deadline | None = None) -> list[list[int]]:
        """Adapters of each GPU when each goes, in order, where it adds least to the mean latency; shape (n_gpus,).

        Raises
        ------
        OutOfTimeError
            If the deadline passes before all have a GPU.
        """
        gpu_of = np.zeros(len(self.rows), dtype=np.int64)
        counts, places = np.zeros((2, n_gpus), dtype=np.int64)
        state = (gpu_of, np.zeros((n_gpus, N_SUMS)), counts, places, np.zeros(n_gpus))
        for first in range(0, len(order), DEALT):
            if deadline is not None:
                deadline.check()
            some = order[first : first + DEALT]
            self.calls += deal(self.rows, some, self._tail, *self._asked, MOST_TRIED, *state)
        return _groups(gpu_of, n_gpus)

    def improved(
        self, groups: list[list[int]], deadline: Deadline, *, proposals: int | None = None
    ) -> tuple[list[list[int]], float]:
        """Anneal moves and swaps: adapters of each GPU, shape (n_gpus,), and the sum of their costs (`gpu_cost`)."""
        if proposals is None:
            proposals = min(PROPOSALS_EACH * self.workload.n_adapters, MOST_PROPOSALS)
        gpu_of = np.empty(self.workload.n_adapters, dtype=np.int64)
        for gpu, group in enumerate(groups):
            gpu_of[group] = gpu
        counts = np.array([len(group) for group in groups])
        sums, places, costs = self._state(gpu_of, counts)
        generator = np.random.default_rng(self.seed)
        best, least = gpu_of.copy(), float(costs.sum())
        done = 0
        while done < proposals and deadline.left_s:
            temperature = HOT * least * (1 - done / proposals) ** 2
            self.calls += improve(
                self.rows, self._tail, *self._asked, CHUNK, generator, temperature, gpu_of, sums, counts, places, costs
            )
            done += CHUNK
            # Sums drift by rounding.
            sums[:] = 0.0
            np.add.at(sums, gpu_of, self.rows)
            if float(costs.sum()) < least:
                best, least = gpu_of.copy(), float(costs.sum())
        return _groups(best, len(groups)), least

    def _state(
        self, gpu_of: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        sums = np.zeros((len(counts), N_SUMS))
        np.add.at(sums, gpu_of, self.rows)
        found = [self._best(mine, int(count)) for mine, count in zip(sums, counts, strict=True)]
        return sums, np.array([place for place, _ in found]), np.array([cost for _, cost in found])

    def _best(self, sums: NDArray[np.float64], count: int) -> tuple[int, float]:
        """Place in the grid and cost at the best `max_loras` of all."""
        self.calls += 1
        content = np.empty(N_FEATURES)
        content[:N_SUMS], content[N_SUMS:] = sums, self._tail
        everywhere = len(self.grid)
        cost, place = gpu_cost(content, count, everywhere, everywhere, *self._asked, np.empty(N_INPUTS, np.float32))
        return place, cost


def _groups(gpu_of: NDArray[np.int64], n_gpus: int) -> list[list[int]]:
    """Adapters of each GPU, ascending."""
    ends = np.cumsum(np.bincount(gpu_of, minlength=n_gpus))
    return [part.tolist() for part in np.split(np.argsort(gpu_of, kind="stable"), ends[:-1])]
