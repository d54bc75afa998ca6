"""Adapters that one GPU cannot hold, or that none can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.contents.divided import MOST_PARTS, DividedWorkload, divided
from solvers.contents.orders import describe
from solvers.contents.published_figures import backbone_tokens_per_s
from solvers.limits import Deadline, NoneThereError
from solvers.oracles.draws import twin_of
from solvers.oracles.twin import TwinOracle
from twin import Workload
from twin.subsets import subset

#: Share of what the backbone serves alone from which an adapter is asked about alone. By hand: no service level lets a GPU serve less.
HEAVY = 0.1


def tokens_per_s(workload: Workload) -> NDArray[np.float64]:
    """Offered load of each adapter by its rate, shape (n_adapters,)."""
    return workload.rates * workload.mean_request_tokens


def backbone_of(problem: Problem) -> float:
    """What a GPU serves without LoRA, in tokens per second."""
    return backbone_tokens_per_s(problem.profile, problem.workload.lengths)


def hot_parts(problem: Problem, deadline: Deadline) -> NDArray[np.int64]:
    """In how many parts each adapter must be divided for a GPU to hold one of them; 1 where it holds the adapter.

    Parameters
    ----------
    problem : Problem
    deadline : Deadline

    Raises
    ------
    OutOfTimeError
    """
    workload = problem.workload
    counts = np.ones(workload.n_adapters, dtype=np.int64)
    capacity = backbone_tokens_per_s(problem.profile, workload.lengths)
    heavy = np.flatnonzero(tokens_per_s(workload) > HEAVY * capacity)
    if not len(heavy):
        return counts
    oracle = twin_of(problem)
    oracle.deadline = deadline
    for adapter in heavy.tolist():
        alone = (adapter,)
        if oracle.slots(alone) and oracle.find_max_loras(alone) is None and not oracle.is_cut_off(alone, 1):
            counts[adapter] = _parts_of(problem, adapter, deadline)
    return counts


def check_each_starts(problem: Problem) -> None:
    """Raise `NoneThereError` for an adapter that no GPU starts with, however few slots it has.

    Raises
    ------
    NoneThereError
    """
    workload = problem.workload
    for rank in np.unique(workload.ranks).tolist():
        if not problem.profile.largest_max_loras(rank):
            adapter = int(np.flatnonzero(workload.ranks == rank)[0])
            raise NoneThereError(
                f"{describe(workload, adapter)}: a GPU of profile {problem.profile.name} starts with no max_loras (memory error)"
            )


def check_each_alone(problem: Problem, oracle: TwinOracle) -> None:
    """Raise `NoneThereError` for an adapter that starves a GPU alone beyond doubt: where it has to be on one, there is none.

    Raises
    ------
    NoneThereError
    OutOfTimeError
    """
    workload = problem.workload
    heavy = tokens_per_s(workload) > HEAVY * backbone_of(problem)
    for adapter in np.flatnonzero(heavy).tolist():
        if oracle.find_max_loras((adapter,)) is None and oracle.starves((adapter,)):
            raise NoneThereError(
                f"{describe(workload, adapter)} starves a GPU of profile {problem.profile.name} alone, and replicas=false"
            )


def _parts_of(problem: Problem, adapter: int, deadline: Deadline) -> int:
    """The fewest parts, by doubling and halving, the first of which a GPU holds alone."""

    def holds(count: int) -> bool:
        parts = divided(alone, np.array([count]))
        oracle = twin_of(problem, parts)
        oracle.deadline = deadline
        return oracle.find_max_loras((0,)) is not None

    workload = problem.workload
    alone = only(workload, adapter)
    # No GPU serves more than the backbone does without LoRA, and by the published rule nine tenths are enough.
    low = max(1, int(0.8 * float(tokens_per_s(alone)[0]) / backbone_of(problem)))
    high = max(2, low + 1)
    while not holds(high):
        low, high = high, 2 * high
        if high > MOST_PARTS:
            return 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def divided_if_hot(problem: Problem, deadline: Deadline) -> tuple[Problem, DividedWorkload | None]:
    """The problem with adapters divided that are too much for a GPU each, and without its GPU limit; as it is where none are.

    Raises
    ------
    OutOfTimeError
    """
    counts = hot_parts(problem, deadline)
    if (counts == 1).all():
        return problem, None
    # Twice as many as a GPU holds one of: what one draw of requests allows another may not.
    parts = divided(problem.workload, np.where(counts > 1, 2 * counts, counts))
    return replace(problem, workload=parts, max_gpus=None), parts


def only(workload: Workload, adapter: int) -> Workload:
    """One adapter of a workload, with its requests."""
    return subset(workload, np.array([adapter]))
