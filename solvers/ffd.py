"""The published placement: first-fit decreasing guided by learned predictors, as it is."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from predictors import Predictor, adapter_contributions
from predictors.features import N_FEATURES, N_SUMS
from predictors.meanfield import N_INPUTS
from solvers.base import Problem, Solution, Solver, Tags
from solvers.first_fit import TEST_POINTS, choose_slots, fill_by_test_points
from solvers.packing import sorted_plan, zigzag_order
from solvers.predictor_oracle import workload_tail
from twin import GpuPlan, Placement


class Ffd(Solver):
    """Machine-learning-guided greedy of arXiv 2602.24044, with its weaknesses.

    Ranks descend, rates zigzag inside a rank. Adapters join a GPU as pending and are committed
    when the GPU's content passes at a test point: of the current `max_loras` and the next, the one with the higher
    predicted throughput must not starve by the starvation predictor. A failed test returns the pending adapters
    and closes the GPU. At the end the pending adapters of the last GPU are tested at the next test point, the missing
    ones filled in with the mean rate and the smallest rank on that GPU.

    Kept as published: the filling-in counts load that is not there; the other `max_loras` is not tried when the
    one with the higher throughput starves; a GPU takes 576 adapters at most.
    """

    name: ClassVar[str] = "ffd"
    tags = Tags(needs_predictor=True)

    def solve(self, problem: Problem) -> Solution:
        """Run the greedy once; it never reconsiders."""
        predictor, workload = problem.predictor, problem.workload
        assert predictor is not None  # noqa: S101  # Solver.run has checked it
        throughput, starvation, threshold = self.model(predictor)
        order = zigzag_order(workload)
        rows = adapter_contributions(workload.ranks[order], workload.rates[order])
        tail = workload_tail(workload)
        plans: list[GpuPlan] = []
        start, calls = 0, 0
        while start < len(order):
            first = np.zeros(len(order) + 1, dtype=np.int64)
            slots = np.zeros(len(order) + 1, dtype=np.int64)
            n_gpus, committed, asked = fill_by_test_points(
                rows, start, tail, TEST_POINTS, throughput, starvation, threshold, first, slots
            )
            calls += asked
            first[n_gpus] = committed
            for gpu in range(n_gpus):
                if first[gpu + 1] > first[gpu]:
                    content = order[first[gpu] : first[gpu + 1]]
                    plans.append(sorted_plan(content, int(TEST_POINTS[slots[gpu]])))
            if committed == len(order):
                break
            if slots[n_gpus - 1] < 0:
                return self._gave_up(calls, int(TEST_POINTS[0]))
            # The rest is pending on the last GPU, beside what that GPU has committed.
            begin = int(first[n_gpus - 1])
            calls += 1
            filled = _filled_up(rows[begin:], workload.ranks[order[begin:]], workload.rates[order[begin:]], tail)
            chosen = choose_slots(
                filled, int(slots[n_gpus - 1]), TEST_POINTS, throughput, starvation, threshold,
                np.empty(N_INPUTS, np.float32),
            )  # fmt: skip
            if committed > begin and chosen >= 0:
                plans.pop()
            if chosen >= 0:
                plans.append(sorted_plan(order[begin:], int(TEST_POINTS[chosen])))
                break
            if committed == begin:
                return self._gave_up(calls, int(TEST_POINTS[0]))
            start = committed
        if problem.max_gpus is not None and len(plans) > problem.max_gpus:
            return Solution(
                "infeasible",
                oracle_calls=calls,
                message=f"needs {len(plans)} GPUs, more than the limit of {problem.max_gpus}",
            )
        return Solution("feasible", Placement(tuple(plans)), oracle_calls=calls)

    def model(self, predictor: Predictor) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...], float]:
        """Arrays for throughput, arrays for starvation, and the probability that counts as starvation."""
        return predictor.throughput_arrays, predictor.starvation_arrays, predictor.starvation_threshold

    def _gave_up(self, calls: int, count: int) -> Solution:
        return Solution(
            "infeasible",
            oracle_calls=calls,
            message=f"a GPU fails its first test, at {count} adapters: the published greedy places nothing on it",
        )


def _filled_up(
    rows: NDArray[np.float64], ranks: NDArray[np.int64], rates: NDArray[np.float64], tail: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Content of a GPU whose adapters are made up to the next test point with ones of mean rate and smallest rank."""
    content = np.empty(N_FEATURES)
    content[N_SUMS:] = tail
    missing = int(TEST_POINTS[np.searchsorted(TEST_POINTS, len(rows))]) - len(rows)
    filler = adapter_contributions([int(ranks.min())], [float(rates.mean())])[0]
    content[:N_SUMS] = rows.sum(axis=0) + missing * filler
    return content
