"""Orders in which adapters are taken."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from twin import GpuPlan, Workload


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
