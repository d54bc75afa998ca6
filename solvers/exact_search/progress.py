"""Bounds over time of an exact search."""

from __future__ import annotations

import time
from typing import Any

from solvers.limits import NoneThereError
from twin import Placement


class Progress:
    """The best placement, the lower bound, and when they changed.

    Parameters
    ----------
    max_gpus : int, optional
        GPU limit.
    oracle : str
        Whose bound it is, for messages.
    replicas : bool
        Placements may divide adapters among GPUs: what is proven of whole adapters alone is no bound then.

    Attributes
    ----------
    whole_bound : int
        Of placements that give each adapter one GPU; `lower_bound`, or more with `replicas`.
    """

    def __init__(self, max_gpus: int | None, oracle: str, *, replicas: bool = False) -> None:
        self.max_gpus = max_gpus
        self.oracle = oracle
        self.replicas = replicas
        self.whole_bound = 1
        self.best: Placement | None = None
        self.lower_bound = 1
        self.fractional_bound = 0.0
        self.refuted = False
        #: Whether one GPU for all is known to fail at every `max_loras`, one by one or by spans of them.
        self.one_gpu_fails = False
        #: What the bound is from.
        self.by = ""
        self._certain = 1
        self.history: list[tuple[float, int, int | None]] = []
        self._started_s = time.perf_counter()

    @property
    def gpus(self) -> int:
        """GPUs of the best placement; an error before there is one."""
        if self.best is None:
            raise ValueError("there is no placement yet")
        return self.best.n_gpus

    @property
    def proven(self) -> bool:
        """Whether the bounds have met."""
        return self.best is not None and self.lower_bound >= self.best.n_gpus

    @property
    def certain(self) -> int:
        """The lower bound that rests on nothing but what was asked."""
        return self._certain

    @property
    def proven_whole(self) -> bool:
        """Whether no placement without replicas is on fewer GPUs than the best one."""
        return self.best is not None and max(self.lower_bound, self.whole_bound) >= self.best.n_gpus

    def raise_whole_bound(self, bound: int, *, by: str = "") -> None:
        """Take note of a lower bound that holds where each adapter has one GPU; without replicas it is one like any other."""
        if not self.replicas:
            self.raise_bound(bound, by=by)
        elif not self.refuted:
            self.whole_bound = max(self.whole_bound, bound)
            if self.best is not None and not self.best.has_replicas and self.whole_bound > self.best.n_gpus:
                self._refute()

    def raise_bound(self, bound: int, *, certain: bool = False, by: str = "") -> None:
        """Take note of a lower bound.

        A bound above the GPUs of a placement that the oracle accepts refutes what the bound rests on: bounds that rest on
        it are dropped (`refuted`), and no more are taken.

        Parameters
        ----------
        bound : int
        certain : bool
            It rests on nothing.
        by : str
            What it is from, for people.

        Raises
        ------
        NoneThereError
            When it is above the GPU limit.
        """
        if self.refuted or bound <= self.lower_bound:
            return
        if self.best is not None and bound > self.best.n_gpus:
            self._refute()
            return
        if certain:
            self._certain = bound
        self.lower_bound, self.by = bound, by
        self._note()
        if self.max_gpus is not None and bound > self.max_gpus:
            raise NoneThereError(
                f"at least {bound} GPUs are needed, more than the limit of {self.max_gpus} (proven for the {self.oracle})"
            )

    def keep(self, placement: Placement) -> None:
        """Take note of a placement that the oracle accepts."""
        if self.best is None or placement.n_gpus < self.best.n_gpus:
            self.best = placement
            if placement.n_gpus < self.lower_bound or (
                not placement.has_replicas and placement.n_gpus < self.whole_bound
            ):
                self._refute()
            self._note()

    def _refute(self) -> None:
        self.refuted = True
        self.lower_bound, self.whole_bound = self._certain, 1
        self.fractional_bound = 0.0

    def details(self) -> dict[str, Any]:
        """For a solution: bounds over time, gap."""
        gap = None if self.best is None else round((self.best.n_gpus - self.lower_bound) / self.best.n_gpus, 4)
        whole = {"lower_bound_without_replicas": self.whole_bound} if self.whole_bound > self.lower_bound else {}
        return whole | {
            "bounds_over_time_s": self.history,
            "gap": gap,
            "fractional_bound": round(self.fractional_bound, 4),
            "bound_by": "" if self.refuted else self.by,
        }

    def _note(self) -> None:
        gpus = None if self.best is None else self.best.n_gpus
        self.history.append((round(time.perf_counter() - self._started_s, 3), self.lower_bound, gpus))
