"""How much a GPU takes, for controllers: weights of adapters, and whether contents at some rates keep the service level."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from predictors import adapter_contributions
from predictors.features import MAX_LORAS, N_FEATURES, N_SUMS
from solvers.base import Problem
from solvers.contents.orders import decreasing_order
from solvers.controllers.base import LEAST_RATE, Fleet, Task
from solvers.filling.kernel import homogeneous_capacity
from solvers.filling.model import MOST_ADAPTERS, FillModel
from solvers.oracles.predictor import workload_tail
from twin import GpuPlan
from twin.subsets import subset

Floats = NDArray[np.float64]

#: An adapter that takes more than this share of a GPU where it is alone is dealt to several, each with an equal share of its
#: requests. By hand: a GPU with one adapter at its limit has no room for a burst.
LARGEST_SHARE = 0.5
# Rates between which weights are interpolated, in requests per second.
_RATES = np.geomspace(LEAST_RATE, 200.0, 64)


class Capacity:
    """The predictor with a task's adapters.

    Parameters
    ----------
    task : Task
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        predictor = task.plan_for.predictor
        assert predictor is not None  # noqa: S101  # `planning_task` has seen to it
        self.predictor = predictor
        self.ranks = task.workload.ranks
        self._tail = workload_tail(task.workload)
        model = FillModel(task.plan_for, distilled=False)
        self.grid = model.grid
        self._shares: dict[int, Floats] = {}
        for rank in np.unique(self.ranks).tolist():
            rows = adapter_contributions(np.full(len(_RATES), rank), _RATES)
            most = homogeneous_capacity(rows, self._tail, self.grid, model.arrays, model.threshold, MOST_ADAPTERS)
            self._shares[rank] = np.maximum.accumulate(1.0 / np.maximum(most, 0.5))

    def weights(self, rates: Floats) -> Floats:
        """Share of a GPU that each adapter takes where all are like it, shape (n_adapters,); above 1 it does not fit on one."""
        found = np.empty(len(rates))
        for rank, shares in self._shares.items():
            mine = self.ranks == rank
            found[mine] = np.interp(rates[mine], _RATES, shares)
            # Beyond what one GPU takes, twice the rate takes twice as much.
            alone = float(_RATES[np.searchsorted(shares, 1.0, side="right") - 1])
            found[mine] = np.where(rates[mine] > alone, np.maximum(found[mine], 1.0) * rates[mine] / alone, found[mine])
        return found

    def copies(self, rates: Floats) -> NDArray[np.int64]:
        """GPUs that each adapter is to be dealt to, shape (n_adapters,)."""
        weights = self.weights(rates)
        return np.where(weights > LARGEST_SHARE, np.ceil(weights / LARGEST_SHARE), 1).astype(np.int64)

    def rows(self, adapters: NDArray[np.int64], rates: Floats) -> Floats:
        """What some adapters at some rates each add to a content, shape (n, N_SUMS)."""
        return adapter_contributions(self.ranks[adapters], np.maximum(rates, LEAST_RATE))

    def keeps(self, sums: Floats, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether GPUs with these sums keep the service level.

        Parameters
        ----------
        sums : array of shape (n_gpus, N_SUMS)
        slots : array of shape (n_gpus,)
            `max_loras` of each.
        """
        contents = np.empty((len(sums), N_FEATURES))
        contents[:, :N_SUMS] = sums
        contents[:, N_SUMS:] = self._tail
        contents[:, MAX_LORAS] = slots
        return np.asarray(self.predictor.predict_starvation(contents) < self.predictor.starvation_threshold)

    def sums(self, fleet: Fleet, rates: Floats) -> Floats:
        """What each GPU of a placement holds at some rates, shape (n_gpus, N_SUMS), in the placement's order."""
        found = np.empty((len(fleet), N_SUMS))
        for place, plan in enumerate(fleet.values()):
            adapters = np.array(plan.adapters)
            shares = 1.0 if plan.shares is None else np.array(plan.shares)
            found[place] = self.rows(adapters, rates[adapters] * shares).sum(axis=0)
        return found

    def all_keep(self, fleet: Fleet, rates: Floats) -> bool:
        """Whether every GPU of a placement keeps the service level at some rates."""
        slots = np.array([plan.max_loras for plan in fleet.values()])
        return bool(self.keeps(self.sums(fleet, rates), slots).all())


@dataclass(frozen=True)
class Copies:
    """Each copy of an adapter as an adapter of its own."""

    problem: Problem
    owner: NDArray[np.int64]


def divided(task: Task, rates: Floats, copies: NDArray[np.int64]) -> Copies:
    """The planning problem at some rates with every copy of an adapter as an adapter, each with an equal share of its rate."""
    problem = task.problem(rates)
    workload = problem.workload
    owner = np.repeat(np.arange(workload.n_adapters), copies)
    parts = subset(workload, owner, rates=(workload.rates / copies)[owner], ids=np.arange(len(owner)))
    return Copies(replace(problem, workload=parts), owner)


def planned(task: Task, capacity: Capacity, rates: Floats) -> Fleet:
    """A placement for some rates from nothing, as `ffd_plus` begins: filled in two orders, and the lightest GPU emptied.

    Parameters
    ----------
    task : Task
    capacity : Capacity
    rates : array of shape (n_adapters,)
        Requests per second, with what is kept in reserve.

    Returns
    -------
    mapping of int to GpuPlan
        GPUs counted from 0.
    """
    copies = capacity.copies(rates)
    parts = divided(task, rates, copies)
    model = FillModel(parts.problem, distilled=False)
    orders = (decreasing_order(parts.problem.workload), model.orders()[1])
    filling = min((model.filled(order) for order in orders), key=lambda filled: filled.n_gpus)
    return {
        gpu: plan_of(parts.owner[group], copies, int(slots))
        for gpu, (group, slots) in enumerate(zip(filling.groups(), filling.slots, strict=True))
    }


def plan_of(owners: NDArray[np.int64], copies: NDArray[np.int64], slots: int) -> GpuPlan:
    """A GPU with some copies of adapters; two of one adapter are one with twice the share."""
    adapters, counts = np.unique(owners, return_counts=True)
    shares = counts / copies[adapters]
    return GpuPlan(
        tuple(adapters.tolist()),
        max(1, min(slots, len(adapters))),
        None if (shares == 1).all() else tuple(shares.tolist()),
    )


def matched(old: Fleet, new: Fleet) -> Fleet:
    """The new placement on the numbers of old GPUs that hold most of the same adapters, so that few are moved.

    A GPU of the old placement goes on with its `max_loras` where that is at least what the new content asks for and no more than twice:
    another one would be a restart.

    Parameters
    ----------
    old, new : mapping of int to GpuPlan
    """
    pairs = sorted(
        (
            (len({*ours.adapters} & {*theirs.adapters}), -number, -key)
            for number, ours in old.items()
            for key, theirs in new.items()
        ),
        reverse=True,
    )
    number_of: dict[int, int] = {}
    for _, number, key in pairs:
        if -key not in number_of and -number not in number_of.values():
            number_of[-key] = -number
    fresh = iter(range(max(old, default=-1) + 1, max(old, default=-1) + 1 + len(new)))
    found: dict[int, GpuPlan] = {}
    for key, plan in new.items():
        number = number_of[key] if key in number_of else next(fresh)
        slots = old[number].max_loras if number in old else 0
        kept = slots if plan.max_loras <= slots <= 2 * plan.max_loras else plan.max_loras
        found[number] = GpuPlan(plan.adapters, kept, plan.shares)
    return found
