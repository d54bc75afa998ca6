"""A first tick of NVIDIA Dynamo's LoRA controller (`lib/llm/src/lora` of ai-dynamo/dynamo): what its two algorithms share.

The controller knows the workers with their slots and the load of each adapter. It decides how many replicas an adapter
gets, and one of its algorithms where they go. Nothing stands anywhere yet on a first tick, so that nothing is kept and
no shrinking has to wait; the loads are the true rates in place of counted arrivals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.contents.replicas import placement_of_copies
from solvers.limits import Deadline
from twin import Placement

#: Slots of all workers for each adapter, where nobody says how many a worker has: of 1, 1.25, 1.5, 2 and 3 the one with which both
#: algorithms need fewest GPUs on the 25 instances of the benchmark tier with up to 260 adapters (121 and 118; with 1.25 123 and 120, with
#: 3 125 and 122). More slots are more replicas, each of which costs memory and time.
SLOTS_PER_ADAPTER = 1.5
#: Adapters whose hashes are computed together.
CHUNK = 256


def worker_slots(problem: Problem, asked: int | None) -> int:
    """Slots (`max_loras`) that each worker has: as asked, or enough for all adapters and no more than the engine starts with.

    Parameters
    ----------
    problem : Problem
        With a fleet, and at least one adapter.
    asked : int, optional
    """
    assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
    if asked is not None:
        return asked
    workload = problem.workload
    enough = int(np.ceil(SLOTS_PER_ADAPTER * workload.n_adapters / problem.max_gpus))
    return max(1, min(enough, problem.profile.largest_max_loras(int(workload.ranks.max()))))


def replica_counts(loads: NDArray[np.float64], n_workers: int, slots: int) -> NDArray[np.int64]:
    """Replicas of each adapter, by its share of the load.

    Parameters
    ----------
    loads : array of shape (n_adapters,)
        Adapters by name.
    n_workers : int
    slots : int
        Of all workers together.

    Returns
    -------
    array of shape (n_adapters,)
        0 for an adapter without load, and for the least busy ones where more have load than there are slots.
    """
    counts = np.zeros(len(loads), dtype=np.int64)
    busiest = np.argsort(-loads, kind="stable")[: min(int((loads > 0).sum()), slots)]
    if not len(busiest):
        return counts
    # Rounded to so many digits that a share of a third of three slots is one.
    wanted = np.ceil(np.round(loads[busiest] / loads[busiest].sum() * slots, 9))
    wanted = np.clip(wanted, 1, n_workers)
    if wanted.sum() > slots:
        scaled = np.maximum(wanted * (slots / wanted.sum()), 1.0)
        wanted = np.floor(scaled + 1e-9)
        # The largest remainder first; of equal ones by name.
        order = np.lexsort((busiest, -np.round(scaled - wanted, 9)))
        growing = order[wanted[order] < n_workers][: max(0, slots - int(wanted.sum()))]
        wanted[growing] += 1
    counts[busiest] = wanted.astype(np.int64)
    return counts


class Workers:
    """The workers of a fleet while adapters are given to them.

    Parameters
    ----------
    problem : Problem
        With a fleet, a seed for the hash, and at least one adapter.
    slots : int
        Of each worker.

    Attributes
    ----------
    by_name : array of shape (n_adapters,)
        Workload indices in the order of the adapters' identities, which stand for names.
    replicas : array of shape (n_adapters,)
        What `replica_counts` wants, by workload index.
    held : array of shape (n_workers,)
        Adapters on each worker.
    """

    def __init__(self, problem: Problem, slots: int) -> None:
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        workload = problem.workload
        self.n_workers, self.slots = problem.max_gpus, slots
        self.deadline = Deadline.after(problem.time_limit_s)
        self._seed, self._ids = problem.seed, np.asarray(workload.ids)
        self.by_name = np.argsort(self._ids, kind="stable")
        self.rates = workload.rates
        self.replicas = np.zeros(workload.n_adapters, dtype=np.int64)
        self.replicas[self.by_name] = replica_counts(
            workload.rates[self.by_name], self.n_workers, slots * self.n_workers
        )
        self.held = np.zeros(self.n_workers, dtype=np.int64)
        self._adapters: list[int] = []
        self._gpus: list[int] = []

    def scores(self, adapters: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Each of some adapters with its hash with each worker, shape (n_workers,).

        Raises
        ------
        OutOfTimeError
        """
        for start in range(0, len(adapters), CHUNK):
            chunk = list(adapters[start : start + CHUNK])
            rows = hashes(self._seed, self._ids[chunk], self.n_workers)
            for adapter, row in zip(chunk, rows, strict=True):
                self.deadline.check()
                yield adapter, row

    def take(self, adapter: int, workers: Iterable[int]) -> None:
        """Put an adapter on some workers."""
        for worker in workers:
            self.held[worker] += 1
            self._adapters.append(adapter)
            self._gpus.append(int(worker))

    def with_free_slots(self, scores: NDArray[np.float64], replicas: int) -> NDArray[np.int64]:
        """The first workers of an adapter's order that have a free slot; where every worker is full, the first all the same.

        Parameters
        ----------
        scores : array of shape (n_workers,)
        replicas : int
        """
        free = np.flatnonzero(self.held < self.slots)
        return free[preferred(scores[free], replicas)] if len(free) else preferred(scores, replicas)

    def pin(self, adapters: Sequence[int]) -> None:
        """One worker with a free slot for each adapter that got none."""
        for adapter, scores in self.scores(adapters):
            self.take(adapter, self.with_free_slots(scores, 1))

    def out_of_budget(self) -> list[int]:
        """Adapters with load that got no replica because others take all slots, by name."""
        return [int(a) for a in self.by_name if self.rates[a] > 0 and not self.replicas[a]]

    def placement(self) -> Placement:
        """Who stands where, with requests dealt evenly; a worker with fewer adapters than slots starts with fewer slots."""
        adapters, gpus = np.array(self._adapters, dtype=np.int64), np.array(self._gpus, dtype=np.int64)
        return placement_of_copies(adapters, gpus, lambda held: min(held, self.slots))


def preferred(scores: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Places of the highest scores, the highest first; of equal ones the first. Up to so many."""
    if most == 1:
        return np.array([np.argmax(scores)])
    if most < len(scores) // 4:
        places = np.sort(np.argpartition(-scores, most - 1)[:most])
        return places[np.argsort(-scores[places], kind="stable")]
    return np.argsort(-scores, kind="stable")[:most]


def hashes(seed: int, identities: NDArray[np.int64], n_gpus: int) -> NDArray[np.float64]:
    """Hash of each adapter with each GPU, shape (n, n_gpus), uniform in [0, 1): independent of which other GPUs and adapters there are."""
    with np.errstate(over="ignore"):
        state = np.arange(1, n_gpus + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        keys = identities.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
        state = state ^ (keys + np.uint64(seed) * np.uint64(0x8CB92BA72F3D8DD7))[:, None]
        # The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state / 2.0**64
