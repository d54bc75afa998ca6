"""Baseline: the proactive mechanism of dLoRA (OSDI'24)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem, Solution, Tags
from solvers.contents.published_figures import adapter_kv_tokens
from solvers.contents.replicas import placement_of_shares
from solvers.fleet import FleetSolver
from solvers.limits import Deadline


class Dlora(FleetSolver):
    """Replicas where memory per expected request is scarcest.

    An engine's free memory is its KV cache in tokens less the adapters on it. The most under-served adapter (least
    free memory of its engines per expected request) gets a replica on the engine with the fewest adapters, again and
    again, while the least value over all adapters does not fall; every adapter has one, and there are at least GPUs +
    adapters - 1. Requests are spread evenly over the replicas, and `max_loras` is the adapter count.
    """

    name: ClassVar[str] = "dlora"
    spread_tags: ClassVar[Tags] = Tags(needs_fleet=True, uses_replicas=True)

    def spread(self, problem: Problem) -> Solution:
        """Replicate over the fleet."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        workload, profile = problem.workload, problem.profile
        if not workload.n_adapters:
            return Solution("unchecked", placement_of_shares(np.zeros((1, 0)), lambda count: count))
        ranks, kinds = np.unique(workload.ranks, return_inverse=True)
        sizes = np.array([adapter_kv_tokens(profile, int(rank)) for rank in ranks])[kinds]
        placed = replicate(
            workload.rates * workload.duration_s,
            sizes,
            float(profile.kv.without_lora_tokens),
            problem.max_gpus,
            Deadline.after(problem.time_limit_s),
        )
        replicas = placed.sum(axis=0)
        return Solution(
            "unchecked",
            placement_of_shares((row / replicas for row in placed), lambda count: count),
            details={"replicas": int(replicas.sum())},
        )


def replicate(
    expected: NDArray[np.float64],
    sizes: NDArray[np.float64],
    memory: float,
    n_gpus: int,
    deadline: Deadline | None = None,
) -> NDArray[np.bool_]:
    """Which engine holds which adapter.

    Parameters
    ----------
    expected : array of shape (n_adapters,)
        Expected requests.
    sizes : array of shape (n_adapters,)
        KV-cache tokens that an adapter takes.
    memory : float
        KV-cache tokens of an empty engine.
    n_gpus : int
    deadline : Deadline, optional

    Returns
    -------
    array of shape (n_gpus, n_adapters), bool

    Raises
    ------
    OutOfTimeError
    """
    engines = _Engines(expected, sizes, memory, n_gpus)
    engines.place_first()
    n_adapters = len(expected)
    needed, least = n_gpus + n_adapters - 1, -np.inf
    while engines.total < n_gpus * n_adapters:
        if deadline is not None:
            deadline.check()
        must = engines.unplaced > 0
        adapter = engines.next()
        engine = engines.place(adapter)
        if must and engines.unplaced:
            continue
        now = engines.least_value()
        if not must and engines.total > needed and now < least:
            engines.placed[engine, adapter] = False
            break
        least = now
    return engines.placed


class _Engines:
    """What the engines hold, and the free memory of each adapter's engines per expected request, kept up to date.

    Parameters
    ----------
    expected, sizes, memory, n_gpus
        As for `replicate`.

    Attributes
    ----------
    placed : array of shape (n_gpus, n_adapters), bool
    total, unplaced : int
        Replicas, and adapters without an engine.
    """

    def __init__(self, expected: NDArray[np.float64], sizes: NDArray[np.float64], memory: float, n_gpus: int) -> None:
        n_adapters = len(expected)
        self.placed = np.zeros((n_gpus, n_adapters), dtype=bool)
        self.total, self.unplaced = 0, n_adapters
        self._sizes = sizes
        self._per_request = 1.0 / np.maximum(expected, 1e-12)
        self._free = np.full(n_gpus, memory)
        self._held: list[list[int]] = [[] for _ in range(n_gpus)]
        self._counts = np.zeros(n_gpus, dtype=np.int64)
        self._copies = np.zeros(n_adapters, dtype=np.int64)
        self._served = np.zeros(n_adapters)
        self._value = np.zeros(n_adapters)
        # What decides who is next: adapters without an engine in the order of their requests, full ones never.
        self._urgency = -expected

    def place_first(self) -> None:
        """Place adapters without an engine by turns, as long as memory is left everywhere: no other comes before them then."""
        n_gpus = len(self._free)
        free = self._free.tolist()
        order = np.argsort(self._urgency, kind="stable")
        for place, (adapter, size) in enumerate(zip(order.tolist(), self._sizes[order].tolist(), strict=True)):
            engine = place % n_gpus
            if free[engine] - size <= 0:
                order = order[:place]
                break
            free[engine] -= size
            self._held[engine].append(adapter)
        engines = np.arange(len(order)) % n_gpus
        self._free[:] = free
        self.placed[engines, order] = True
        self._counts[:] = np.bincount(engines, minlength=n_gpus)
        self._copies[order] = 1
        # One after the other, the sizes of those that came later were taken off the same value.
        self._served[order] = self._free[engines]
        self.total = len(order)
        self.unplaced -= len(order)
        self._update(order)

    def next(self) -> int:
        """The most under-served adapter that is not on every engine."""
        return int(np.argmin(self._urgency))

    def least_value(self) -> float:
        """Least free memory per expected request of any adapter."""
        return float(self._value.min())

    def place(self, adapter: int) -> int:
        """Put an adapter on the engine with the fewest adapters that has it not yet, and say which."""
        engine = int(np.argmin(np.where(self.placed[:, adapter], len(self._value) + 1, self._counts)))
        others = np.array(self._held[engine], dtype=np.int64)
        self._free[engine] -= self._sizes[adapter]
        self._served[others] -= self._sizes[adapter]
        self._served[adapter] += self._free[engine]
        self.placed[engine, adapter] = True
        self.unplaced -= self._copies[adapter] == 0
        self._held[engine].append(adapter)
        self._counts[engine] += 1
        self._copies[adapter] += 1
        self.total += 1
        self._update(np.append(others, adapter))
        return engine

    def _update(self, adapters: NDArray[np.int64]) -> None:
        self._value[adapters] = self._served[adapters] * self._per_request[adapters]
        full = self._copies[adapters] == len(self._free)
        self._urgency[adapters] = np.where(full, np.inf, self._value[adapters])
