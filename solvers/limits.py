"""Limits of a solve: time, GPUs, and how a solver says that it ran into one."""

from __future__ import annotations

import time
from dataclasses import dataclass

from solvers.base import Problem, Status
from solvers.cut_short import note_cut_short


class OutOfTimeError(Exception):
    """The time limit passed before there was an answer."""


class NoPlacementError(Exception):
    """No placement was found; the message says why."""


class NoneThereError(NoPlacementError):
    """There is no placement: that is proven, and the message says by what."""


def no_placement_status(why: NoPlacementError) -> Status:
    """The status of a solution without a placement: "infeasible" only where that is proven."""
    return "infeasible" if isinstance(why, NoneThereError) else "none_found"


@dataclass(frozen=True)
class Deadline:
    """When a solver must stop. Whoever finds it passed is cut short, and so noted (`solvers.cut_short`).

    Attributes
    ----------
    end_s : float
        On the clock of `time.perf_counter`.
    total_s : float
        Seconds that there were at first.
    """

    end_s: float
    total_s: float = 0.0

    @staticmethod
    def after(seconds: float) -> Deadline:
        """The deadline so many seconds from now."""
        return Deadline(time.perf_counter() + seconds, seconds)

    @property
    def left_s(self) -> float:
        """Seconds left, 0 when passed."""
        left_s = self.end_s - time.perf_counter()
        if left_s <= 0:
            note_cut_short()
        return max(0.0, left_s)

    def leaves(self, share: float) -> bool:
        """Whether so much is left of the seconds that there were at first.

        Parameters
        ----------
        share : float
        """
        enough = self.end_s - time.perf_counter() >= share * self.total_s
        if not enough:
            note_cut_short()
        return enough

    def check(self) -> None:
        """Raise `OutOfTimeError` when passed."""
        if not self.left_s:
            raise OutOfTimeError


def check_gpu_limit(n_gpus: int, problem: Problem) -> None:
    """Raise `NoPlacementError` when a placement needs more GPUs than there are."""
    if problem.max_gpus is not None and n_gpus > problem.max_gpus:
        raise NoPlacementError(f"needs {n_gpus} GPUs, more than the limit of {problem.max_gpus}")
