"""Spreading adapters evenly over a number of GPUs, and moving a few when the oracle refuses some GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.contents.orders import decreasing_order
from solvers.limits import Deadline
from solvers.oracles.base import Oracle
from solvers.spreading.dealing import least_loaded, rank_by_rank, slices
from twin import GpuPlan, Placement


def spread_feasibly(  # noqa: PLR0913  # one call of a search
    weights: NDArray[np.float64],
    n_gpus: int,
    oracle: Oracle,
    deadline: Deadline,
    *,
    hint: int | None = None,
    moves_per_gpu: int = 4,
    most_refused: float = 0.5,
) -> Placement | None:
    """A placement on at most `n_gpus` GPUs that the oracle accepts, from an even spread, or None if none was found.

    Parameters
    ----------
    weights : array of shape (n_adapters,)
        What an adapter takes of a GPU; only proportions matter.
    n_gpus : int
    oracle : Oracle
    deadline : Deadline
    hint : int, optional
        A `max_loras` to try first.
    moves_per_gpu : int
        Adapters moved away from refused GPUs before giving up, per GPU.
    most_refused : float
        Give a spread up at once when the oracle refuses more than this share of its GPUs.

    Raises
    ------
    OutOfTimeError
    """
    heaviest_first = np.lexsort((np.arange(len(weights)), -weights))
    for groups in (
        least_loaded(weights, heaviest_first, n_gpus),
        slices(weights, decreasing_order(oracle.workload), n_gpus),
        rank_by_rank(weights, oracle.workload.ranks, n_gpus),
    ):
        contents = Contents(groups, weights, oracle, deadline, hint=hint)
        if not contents.ask(most_refused=max(1, int(most_refused * n_gpus))):
            continue
        placement = contents.repaired(moves_per_gpu * n_gpus)
        if placement is not None:
            return placement
    return None


class Contents:
    """What every GPU holds, and which GPUs the oracle refuses.

    Parameters
    ----------
    groups : list of lists of int
        Adapters of each GPU.
    weights : array of shape (n_adapters,)
    oracle : Oracle
    deadline : Deadline
    hint : int, optional
        A `max_loras` to try first.

    Attributes
    ----------
    slots : list
        The `max_loras` of each GPU that the oracle accepts, None for the others and for those not asked about yet.
    """

    def __init__(
        self,
        groups: list[list[int]],
        weights: NDArray[np.float64],
        oracle: Oracle,
        deadline: Deadline,
        *,
        hint: int | None = None,
    ) -> None:
        self.weights = weights
        self.oracle = oracle
        self.deadline = deadline
        self.hint = hint
        self.contents = [tuple(sorted(group)) for group in groups]
        self.slots: list[int | None] = [None] * len(groups)
        self._full: set[int] = set()

    def ask(self, hints: Sequence[int] | None = None, *, most_refused: int | None = None) -> bool:
        """Ask the oracle about every GPU, the heaviest first; False as soon as more than `most_refused` are refused.

        Parameters
        ----------
        hints : sequence of int, optional
            A `max_loras` to try first, per GPU.
        most_refused : int, optional
        """
        refused = 0
        for gpu in sorted(range(len(self.contents)), key=self._weight, reverse=True):
            self.slots[gpu] = self._slots(self.contents[gpu], hints[gpu] if hints is not None else None)
            refused += self.slots[gpu] is None
            if most_refused is not None and refused > most_refused:
                return False
        return True

    def add_gpu(self) -> None:
        """One more GPU, with nothing on it yet."""
        self.contents.append(())
        self.slots.append(1)
        self._full.clear()

    def _slots(self, content: tuple[int, ...], hint: int | None = None) -> int | None:
        if not content:
            return 1
        self.deadline.check()
        found = self.oracle.find_max_loras(content, hint or self.hint)
        self.hint = found or self.hint
        return found

    @property
    def refused(self) -> list[int]:
        """GPUs that the oracle refuses."""
        return [gpu for gpu, slots in enumerate(self.slots) if slots is None]

    def repaired(self, moves: int) -> Placement | None:
        """Move adapters from refused GPUs to those with the least weight; None if that does not help."""
        for _ in range(moves):
            refused = self.refused
            if not refused:
                break
            self.deadline.check()
            giver = max(refused, key=self._weight)
            takers = [gpu for gpu, slots in enumerate(self.slots) if slots and gpu not in self._full]
            if not takers:
                return None
            self._move(giver, min(takers, key=self._weight))
        if self.refused:
            return None
        plans = zip(self.contents, self.slots, strict=True)
        return Placement(tuple(GpuPlan(content, slots) for content, slots in plans if content and slots))

    def _weight(self, gpu: int) -> float:
        return float(self.weights[list(self.contents[gpu])].sum())

    def _move(self, giver: int, taker: int) -> None:
        """Move one adapter, or note that the taker has no room."""
        adapters = np.array(self.contents[giver])
        half = max(0.0, (self._weight(giver) - self._weight(taker)) / 2)
        weight = self.weights[adapters]
        fitting = np.flatnonzero(weight <= half)
        pick = int(adapters[fitting[np.argmax(weight[fitting])] if len(fitting) else np.argmin(weight)])
        grown = tuple(sorted((*self.contents[taker], pick)))
        slots = self._slots(grown)
        if slots is None:
            self._full.add(taker)
            return
        self.contents[taker], self.slots[taker] = grown, slots
        self.contents[giver] = tuple(adapter for adapter in self.contents[giver] if adapter != pick)
        self.slots[giver] = self._slots(self.contents[giver])
