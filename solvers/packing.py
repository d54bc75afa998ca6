"""Filling one GPU after another: what the greedy packers and the exact solver's first answer share."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.oracle import Oracle
from twin import GpuPlan, Placement, Workload


class OutOfTimeError(Exception):
    """The time limit passed before there was an answer."""


class NoPlacementError(Exception):
    """There is no placement, or none was found; the message says why."""


@dataclass(frozen=True)
class Deadline:
    """When a solver must stop.

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
        return max(0.0, self.end_s - time.perf_counter())

    def check(self) -> None:
        """Raise `OutOfTimeError` when passed."""
        if time.perf_counter() >= self.end_s:
            raise OutOfTimeError


def describe(workload: Workload, adapter: int) -> str:
    """An adapter in words, for messages."""
    return f"adapter {adapter} (rank {workload.ranks[adapter]}, rate {workload.rates[adapter]:g} req/s)"


def decreasing_order(workload: Workload) -> NDArray[np.int64]:
    """Adapters by descending rank, then descending rate, then index."""
    return np.lexsort((np.arange(workload.n_adapters), -workload.rates, -workload.ranks))


def zigzag_order(workload: Workload) -> NDArray[np.int64]:
    """Adapters by descending rank; inside a rank the rates zigzag: largest, smallest, second largest, ...

    The order of the published placement (arXiv 2602.24044).
    """
    descending = decreasing_order(workload)
    parts = []
    for rank in np.unique(workload.ranks)[::-1]:
        group = descending[workload.ranks[descending] == rank]
        zigzag = np.empty_like(group)
        half = (len(group) + 1) // 2
        zigzag[0::2], zigzag[1::2] = group[:half], group[half:][::-1]
        parts.append(zigzag)
    return np.concatenate(parts) if parts else descending


def sorted_plan(adapters: Iterable[int], max_loras: int) -> GpuPlan:
    """A GPU plan with its adapters ascending, the order in which oracles are asked."""
    return GpuPlan(tuple(sorted(int(a) for a in adapters)), max_loras)


def longest_prefix(
    order: NDArray[np.int64], oracle: Oracle, *, hint: int | None = None, deadline: Deadline | None = None
) -> tuple[int, int]:
    """How many adapters from the front of `order` fit on one GPU, and with which `max_loras`.

    Doubles the count until the oracle says no, then bisects. A rejection that is only the end of the
    window (`Oracle.is_cut_off`) does not end the search upwards.

    Parameters
    ----------
    order : array of shape (n,)
        Workload indices.
    oracle : Oracle
    hint : int, optional
        A `max_loras` to try first.
    deadline : Deadline, optional

    Returns
    -------
    count, max_loras : int
        0, 0 if no prefix was accepted.
    """
    best, slots = _longest(order, oracle, hint, deadline, past_cut_off=True)
    if not best:
        # Larger contents were cut off and none that is accepted lies above them: look below.
        best, slots = _longest(order, oracle, hint, deadline, past_cut_off=False)
    return best, slots


def _longest(
    order: NDArray[np.int64], oracle: Oracle, hint: int | None, deadline: Deadline | None, *, past_cut_off: bool
) -> tuple[int, int]:
    best, slots = 0, hint
    low, high, count = 0, len(order) + 1, min(8, len(order))
    while low + 1 < high:
        if deadline:
            deadline.check()
        content = tuple(np.sort(order[:count]).tolist())
        found = oracle.find_max_loras(content, slots)
        if found is not None:
            best, slots, low = count, found, count
        elif past_cut_off and oracle.is_cut_off(content, slots):
            low = count
        else:
            high = count
        count = min(2 * low, len(order)) if high > len(order) else (low + high) // 2
        count = max(count, low + 1)
    return (best, slots or 0) if best else (0, 0)


def fill_gpus(
    order: NDArray[np.int64], problem: Problem, oracle: Oracle, deadline: Deadline | None = None
) -> Placement:
    """Fill one GPU after another with the longest accepted prefix of what is left.

    Raises
    ------
    NoPlacementError
        When an adapter does not fit on a GPU of its own, or the GPUs run out.
    OutOfTimeError
    """
    left = np.asarray(order, dtype=np.int64)
    plans: list[GpuPlan] = []
    hint: int | None = None
    while len(left):
        count, slots = longest_prefix(left, oracle, hint=hint, deadline=deadline)
        if not count:
            if not oracle.is_cut_off((int(left[0]),), 1):
                raise NoPlacementError(why_alone(problem, oracle, int(left[0])))
            return _squeeze_in(left, plans, problem, oracle, deadline)
        plans.append(sorted_plan(left[:count], slots))
        left, hint = left[count:], slots
    check_gpu_limit(len(plans), problem)
    return Placement(tuple(plans))


def _squeeze_in(
    left: NDArray[np.int64],
    plans: list[GpuPlan],
    problem: Problem,
    oracle: Oracle,
    deadline: Deadline | None,
) -> Placement:
    """Place the adapters that are rejected on a GPU of their own, one by one, on the GPUs there are."""
    plans = list(plans)
    for adapter in left.tolist():
        for number in sorted(range(len(plans)), key=lambda n: len(plans[n].adapters)):
            if deadline:
                deadline.check()
            content = tuple(sorted((*plans[number].adapters, adapter)))
            slots = oracle.find_max_loras(content, plans[number].max_loras)
            if slots is not None:
                plans[number] = GpuPlan(content, slots)
                break
        else:
            raise NoPlacementError(why_alone(problem, oracle, adapter))
    check_gpu_limit(len(plans), problem)
    return Placement(tuple(plans))


def why_alone(problem: Problem, oracle: Oracle, adapter: int) -> str:
    """Why an adapter could not be placed: one line."""
    who = describe(problem.workload, adapter)
    if not oracle.slots((adapter,)):
        return f"{who}: a GPU of profile {problem.profile.name} does not start with it (memory error)"
    if oracle.is_cut_off((adapter,), 1):
        return (
            f"{who} finishes less than 90 % of its tokens inside the window of "
            f"{problem.workload.duration_s:g} s, and fits on no GPU beside others"
        )
    return f"{who} starves a GPU of profile {problem.profile.name} alone"


def check_gpu_limit(n_gpus: int, problem: Problem) -> None:
    """Raise `NoPlacementError` when a placement needs more GPUs than there are."""
    if problem.max_gpus is not None and n_gpus > problem.max_gpus:
        raise NoPlacementError(f"needs {n_gpus} GPUs, more than the limit of {problem.max_gpus}")
