"""Baseline: the proactive mechanism of dLoRA (OSDI'24)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem, Solution, Tags
from solvers.contents.published_figures import adapter_kv_tokens
from solvers.contents.replicas import placement_of_shares
from solvers.fleet import FleetSolver


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
            workload.rates * workload.duration_s, sizes, float(profile.kv.without_lora_tokens), problem.max_gpus
        )
        replicas = placed.sum(axis=0)
        return Solution(
            "unchecked",
            placement_of_shares(placed / replicas, lambda count: count),
            details={"replicas": int(replicas.sum())},
        )


def replicate(
    expected: NDArray[np.float64], sizes: NDArray[np.float64], memory: float, n_gpus: int
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

    Returns
    -------
    array of shape (n_gpus, n_adapters), bool
    """
    n_adapters = len(expected)
    placed = np.zeros((n_gpus, n_adapters), dtype=bool)
    free = np.full(n_gpus, memory)
    served = np.zeros(n_adapters)  # free memory of an adapter's engines
    per_request = 1.0 / np.maximum(expected, 1e-12)
    copies = np.zeros(n_adapters, dtype=np.int64)
    least, total = -np.inf, 0
    needed = n_gpus + n_adapters - 1
    while total < n_gpus * n_adapters:
        must = copies.min() == 0
        # Adapters without an engine come first, in the order of their requests; full ones are done.
        value = np.where(copies == n_gpus, np.inf, served * per_request)
        value = np.where(copies == 0, -expected, value) if must else value
        adapter = int(np.argmin(value))
        counts = np.where(placed[:, adapter], n_adapters + 1, placed.sum(axis=1))
        engine = int(np.argmin(counts))
        was_free = free[engine]
        free[engine] = was_free - sizes[adapter]
        placed[engine, adapter] = True
        change = np.where(placed[engine], -sizes[adapter], 0.0)
        change[adapter] = free[engine]
        now = float(((served + change) * per_request).min())
        if not must and total >= needed and now < least:
            placed[engine, adapter] = False
            break
        served += change
        copies[adapter] += 1
        total += 1
        least = now
    return placed
