"""Filling one GPU after another: what the greedy packers and the exact solver's first answer share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.contents.orders import describe, sorted_plan
from solvers.limits import Deadline, NoneThereError, NoPlacementError, check_gpu_limit
from solvers.oracles.base import Oracle
from twin import GpuPlan, Placement


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
                raise not_alone(problem, oracle, int(left[0]))
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
            raise not_alone(problem, oracle, adapter)
    check_gpu_limit(len(plans), problem)
    return Placement(tuple(plans))


def not_alone(problem: Problem, oracle: Oracle, adapter: int) -> NoPlacementError:
    """An adapter could not be placed; where a GPU does not start with it, there is no placement."""
    kind = NoPlacementError if oracle.slots((adapter,)) else NoneThereError
    return kind(why_alone(problem, oracle, adapter))


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
