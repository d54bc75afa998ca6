"""A starvation predictor with a workload's contributions: fills GPUs, empties them, and fits adapters onto fewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors import Predictor, adapter_contributions
from solvers.base import Problem
from solvers.contents.orders import decreasing_order, describe
from solvers.filling.kernel import drain, fill_every_adapter, homogeneous_capacity
from solvers.filling.repack import ModelArrays, repack
from solvers.limits import Deadline, NoPlacementError
from solvers.oracles.base import slot_grid
from solvers.oracles.predictor import workload_tail
from solvers.spreading.dealing import least_loaded, rank_by_rank
from twin import GpuPlan, Placement, Workload

#: Adapters in a row that may not fit before a GPU is closed: on the 40 instances of the
#: benchmark tier the model fills 280 GPUs with 1, and 273 with 6 or any more, with a tenth more questions.
MOST_MISSES = 24
#: Contents asked about in the attempt to empty one GPU: no filling of the benchmark tier can be
#: emptied by a GPU with 500 or with 500,000. It ends attempts on larger fleets.
MOST_DRAIN_CALLS = 50_000
#: Most adapters that one GPU is thought to take: 12 halvings. With more, more idle adapters would weigh less than that.
MOST_ADAPTERS = 4096
#: Proposals of the annealing for one number of GPUs: on the benchmark tier, with 273 GPUs filled,
#: 2,000 and 5,000 lead to 270. More by hand: for larger
#: fleets, where more has to move.
PROPOSALS = 20_000
#: The weight for each GPU in use, in terms of the heaviest, and for each GPU of one less, beyond which emptying or annealing is not tried.
#: By hand: weights err on the safe side (on nine of ten instances of the benchmark tier they sum to at most 1.29 for each GPU of the best
#: placement known); more tries what rarely succeeds.
FULLEST, HEAVIEST = 1.02, 1.3


@dataclass(frozen=True)
class Filling:
    """A placement as arrays.

    Attributes
    ----------
    gpu_of : array of shape (n_adapters,)
        Of all adapters of the workload, or of those that were to be placed.
    slots : array of shape (n_gpus,)
        `max_loras`.
    doubtful : array of shape (n_gpus,), bool
        A lone adapter that the predictor refuses.
    """

    gpu_of: NDArray[np.int64]
    slots: NDArray[np.int64]
    doubtful: NDArray[np.bool_]

    @property
    def n_gpus(self) -> int:
        """GPUs used."""
        return len(self.slots)

    def groups(self) -> list[list[int]]:
        """Adapters of each GPU."""
        order = np.argsort(self.gpu_of, kind="stable")
        bounds = np.searchsorted(self.gpu_of[order], np.arange(1, self.n_gpus))
        return [part.tolist() for part in np.split(order, bounds)]

    def placement(self, workload: Workload) -> Placement:
        """The placement as the predictor has it.

        Raises
        ------
        NoPlacementError
            For a lone adapter that the predictor refuses.
        """
        groups = self.groups()
        for gpu in np.flatnonzero(self.doubtful):
            raise NoPlacementError(f"{describe(workload, groups[gpu][0])} is predicted to starve a GPU alone")
        return Placement(tuple(GpuPlan(tuple(g), int(s)) for g, s in zip(groups, self.slots, strict=True) if g))


class FillModel:
    """The starvation predictor with the workload's contributions, as the kernels want them.

    Parameters
    ----------
    problem : Problem
        With a predictor.
    distilled : bool
        The single tree instead of the forest.

    Attributes
    ----------
    calls : int
        Contents asked about so far.
    weights : array of shape (n_adapters,)
        Share of a GPU that an adapter takes where all are like it.
    """

    def __init__(self, problem: Problem, *, distilled: bool) -> None:
        predictor: Predictor | None = problem.predictor
        assert predictor is not None  # noqa: S101  # Solver.run has checked it
        self.workload = problem.workload
        self.seed = problem.seed
        self.arrays: tuple[NDArray[Any], ...] = (
            predictor.distilled_starvation_arrays if distilled else predictor.starvation_arrays
        )
        self.threshold = predictor.distilled_threshold if distilled else predictor.starvation_threshold
        self.rows = adapter_contributions(self.workload.ranks, self.workload.rates)
        self.tail = workload_tail(self.workload)
        self.grid = slot_grid(problem.profile)
        self.calls = 0
        self.weights = self._weights()

    def compile_all(self) -> None:
        """Use every kernel once."""
        self.filled(self.orders()[0])
        gpu_of = np.zeros(self.workload.n_adapters, dtype=np.int64)
        slots = np.repeat(self.grid[:1], 2)
        drain(
            self.rows, self.weights, 0, 2, self.tail, self.grid, self.arrays, self.threshold, 1, gpu_of, slots
        )  # fmt: skip
        self.annealed(2, Deadline.after(60.0), proposals=1)

    def _weights(self) -> NDArray[np.float64]:
        """Interpolated over a grid of rates, rank by rank."""
        weights = np.empty(self.workload.n_adapters)
        for rank in np.unique(self.workload.ranks):
            mine = self.workload.ranks == rank
            rates = np.maximum(self.workload.rates[mine], 1e-6)
            grid = np.unique(np.geomspace(rates.min(), rates.max(), 64))
            rows = adapter_contributions(np.full(len(grid), rank), grid)
            capacity = homogeneous_capacity(rows, self.tail, self.grid, self.arrays, self.threshold, MOST_ADAPTERS)
            self.calls += 12 * len(grid)
            share = np.maximum.accumulate(1.0 / np.maximum(capacity, 0.5))
            weights[mine] = np.exp(np.interp(np.log(rates), np.log(grid), np.log(share)))
        return weights

    def orders(self) -> list[NDArray[np.int64]]:
        """Orders to fill in: by rank first, by rate first."""
        count = self.workload.n_adapters
        return [
            decreasing_order(self.workload),
            np.lexsort((np.arange(count), -self.workload.ranks, -self.workload.rates)),
        ]

    def filled(self, order: NDArray[np.int64], stretch: float = 1.0) -> Filling:
        """Fill GPU after GPU in an order.

        Parameters
        ----------
        order : array of shape (n,)
            Workload indices of all adapters, or of some.
        stretch : float
            What the adapters contribute is multiplied by this before the predictor is asked: below 1 GPUs are filled
            beyond what the predictor accepts, above 1 they get a margin.

        Returns
        -------
        Filling
            With `gpu_of` by place in the ascending workload indices of `order`.
        """
        ranks = self.workload.ranks[order]
        changes = np.append(np.flatnonzero(np.diff(ranks)) + 1, len(order))
        # Where ranks mix, the whole order is one segment.
        by_rank = len(changes) == len(np.unique(ranks))
        ends = np.repeat(changes, np.diff(changes, prepend=0)) if by_rank else np.full(len(order), len(order))
        gpu_of = np.empty(len(order), dtype=np.int64)
        slots = np.empty(len(order), dtype=np.int64)
        n_gpus, calls = fill_every_adapter(
            stretch * self.rows[order], ends, self.tail, self.grid, self.arrays, self.threshold, MOST_MISSES,
            gpu_of, slots,
        )  # fmt: skip
        self.calls += calls
        slots = slots[:n_gpus]
        ascending = gpu_of[np.argsort(order, kind="stable")]
        return Filling(ascending, np.where(slots < 0, slots + 1000, slots), slots < 0)

    def drained(self, filling: Filling, deadline: Deadline) -> Filling:
        """Empty the lightest GPU as long as the others take its adapters."""
        while filling.n_gpus > 1 and deadline.left_s and not filling.doubtful.any():
            load = np.bincount(filling.gpu_of, self.weights, filling.n_gpus)
            victim = int(np.argmin(load))
            # Without enough room in sum there is no point in trying.
            if load.sum() > FULLEST * (filling.n_gpus - 1) * load.max():
                break
            gpu_of, slots = filling.gpu_of.copy(), filling.slots.copy()
            success, calls = drain(
                self.rows, self.weights, victim, filling.n_gpus, self.tail, self.grid, self.arrays,
                self.threshold, MOST_DRAIN_CALLS, gpu_of, slots,
            )  # fmt: skip
            self.calls += calls
            if not success:
                break
            gpu_of[gpu_of > victim] -= 1
            filling = Filling(gpu_of, np.delete(slots, victim), np.delete(filling.doubtful, victim))
        return filling

    def annealed(self, n_gpus: int, deadline: Deadline, *, proposals: int = PROPOSALS) -> tuple[Filling, bool]:
        """All adapters on so many GPUs, with as little too much as annealing finds; and whether the model accepts it."""
        starts = (
            least_loaded(self.weights, np.argsort(-self.weights, kind="stable"), n_gpus),
            rank_by_rank(self.weights, self.workload.ranks, n_gpus),
        )
        model = ModelArrays(self.rows, self.tail, self.grid, self.arrays, self.threshold)
        packed = []
        for groups in starts:
            gpu_of = np.empty(self.workload.n_adapters, dtype=np.int64)
            for gpu, group in enumerate(groups):
                gpu_of[group] = gpu
            answer = repack(gpu_of, n_gpus, model, proposals=proposals, seed=self.seed, deadline=deadline)
            self.calls += answer.calls
            packed.append(answer)
            if answer.accepted:
                break
        best = min(packed, key=lambda answer: answer.excess.sum())
        slots = self.grid[np.minimum(best.places, len(self.grid) - 1)]
        return Filling(best.gpu_of, slots, np.zeros(n_gpus, dtype=bool)), best.accepted

    def refilled(self, filling: Filling, deadline: Deadline) -> Filling:
        """Anneal onto one GPU less as long as the model accepts the outcome."""
        while filling.n_gpus > 1 and deadline.left_s and not filling.doubtful.any():
            if self.weights.sum() > HEAVIEST * (filling.n_gpus - 1):
                break
            fewer, accepted = self.annealed(filling.n_gpus - 1, deadline)
            if not accepted:
                break
            filling = fewer
        return filling
