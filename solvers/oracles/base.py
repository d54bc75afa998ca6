"""What solvers ask whether a GPU content is feasible: a GPU with these adapters at this `max_loras`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.contents.adapter_types import AdapterTypes
from solvers.contents.demands import Demands
from solvers.limits import Deadline
from twin import ServingProfile, Workload

#: Adapter slots that a solver tries: those of the published test points (arXiv 2602.24044) and, by hand, more where a GPU has few,
#: as there a slot is a large share of what adapters can use. What lies between two of them is tried where they fall short by little; the
#: twin's bounds speak of it too (`solvers.oracles.spans`), those of a predictor do not.
MAX_LORAS_GRID = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576)


def slot_grid(profile: ServingProfile) -> NDArray[np.int64]:
    """The values of `MAX_LORAS_GRID` with which a server of the profile starts at some rank, and the most of each rank, ascending."""
    limits = {profile.largest_max_loras(rank) for rank in profile.ranks}
    grid = np.array(sorted({*MAX_LORAS_GRID, *limits} - {0}))
    return grid[grid <= max(limits)]


@dataclass(frozen=True)
class MadeUp:
    """A made-up content (`solvers.contents.demands`): equally busy adapters, one of them of the rank given.

    Attributes
    ----------
    n_adapters : int
    rank : int
        Of one adapter; the others have the smallest rank of the workload.
    load : float
        In the units of the load among `Oracle.demands`.
    """

    n_adapters: int
    rank: int
    load: float


@dataclass(frozen=True)
class Verdict:
    """What is known of a content at every `max_loras` together.

    Attributes
    ----------
    max_loras : int, optional
        One at which it is accepted.
    settled : bool
        There is one, or it is rejected at all of them.
    """

    max_loras: int | None
    settled: bool

    @property
    def rejected(self) -> bool:
        """Whether no `max_loras` serves the content."""
        return self.settled and self.max_loras is None


class Oracle(ABC):
    """Answers for GPU contents: a sorted tuple of workload indices, at a `max_loras`.

    Parameters
    ----------
    workload, profile : Workload, ServingProfile

    Attributes
    ----------
    name : str
    calls : int
        (content, `max_loras`) pairs asked about so far; what is remembered is not asked again.
    interchangeable : bool
        Adapters of the same rank and rate are the same to this oracle. The twin replays each
        adapter's own requests, so to it they are only alike.
    monotone : bool
        By construction, what asks for more (`solvers.contents.demands`) is accepted no sooner.
    deadline : Deadline, optional
        From then on nothing is simulated any more: a question of many simulations ends in `OutOfTimeError` between two of them.
    """

    name: str
    interchangeable: bool = True
    monotone: bool = True

    def __init__(self, workload: Workload, profile: ServingProfile) -> None:
        profile.check_ranks(workload.ranks)
        self.workload = workload
        self.profile = profile
        self.calls = 0
        self.deadline: Deadline | None = None

    # --- real contents

    @abstractmethod
    def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether a GPU with these adapters (ascending indices) is feasible at `max_loras`."""

    def find_max_loras(self, adapters: tuple[int, ...], hint: int | None = None) -> int | None:
        """A `max_loras` at which the content is accepted, or None if it is at none of `slots`.

        Parameters
        ----------
        adapters : tuple of int
        hint : int, optional
            What a similar content was accepted with; values near it are tried first.
        """
        for value in nearest_first(self.slots(adapters), hint or min(len(adapters), 64)):
            if self.accepts(adapters, value):
                return value
        return None

    def verdict(self, adapters: tuple[int, ...], hint: int | None = None, *, every_value: bool = False) -> Verdict:  # noqa: ARG002
        """What is known of the content at every `max_loras`: here, at all of `slots`.

        Parameters
        ----------
        adapters : tuple of int
        hint : int, optional
        every_value : bool
            Ask about each value by itself, so that nothing is concluded from one about another.
        """
        return Verdict(self.find_max_loras(adapters, hint), settled=True)

    def is_cut_off(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:  # noqa: ARG002
        """Whether a rejected content falls short only because the window ends, not for lack of capacity.

        Such a content can become feasible when an adapter joins it.
        """
        return False

    def starves(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:
        """Whether the content lacks capacity at every `max_loras`, beyond doubt: more adapters cannot help."""
        return self.find_max_loras(adapters, hint) is None

    def slots(self, adapters: Sequence[int]) -> tuple[int, ...]:
        """The `max_loras` worth trying for a content; empty if the engine starts with none.

        More slots than adapters only cost KV cache, so there are never more.
        """
        return self.slots_for(len(adapters), int(self.workload.ranks[list(adapters)].max()))

    def slots_for(self, count: int, rank: int) -> tuple[int, ...]:
        """`slots` of a content of `count` adapters whose largest rank is `rank`."""
        limit = self.profile.largest_max_loras(rank)
        most = min(count, limit)
        # The largest that starts, and a slot for each adapter, are worth trying even where the grid steps over them.
        grid = {value for value in MAX_LORAS_GRID if value < most} | {most}
        return tuple(sorted(grid)) if limit else ()

    # --- what bounds rest on

    @abstractmethod
    def demands(self, types: AdapterTypes) -> Demands:
        """Sums in which this oracle is monotone: what asks for more of each is accepted no sooner."""

    @abstractmethod
    def made_up_sums(self, content: MadeUp) -> NDArray[np.float64]:
        """Sums of a made-up content, shape (n_sums,), as `demands` has them for real ones."""

    @abstractmethod
    def made_up_starves(self, content: MadeUp) -> bool:
        """`starves` for a made-up content, at every `max_loras` that any content asking for more may have."""


def nearest_first(candidates: Sequence[int], aim: int) -> list[int]:
    """Values of `max_loras`, those that are the fewest doublings away from `aim` first."""
    return sorted(candidates, key=lambda value: abs(math.log2(value / aim)))
