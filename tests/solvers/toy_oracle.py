"""An oracle whose answers are a formula, so that what rests on it can be worked out by enumeration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from solvers.contents.adapter_types import AdapterTypes, adapter_types
from solvers.contents.demands import Demands, presence
from solvers.oracles.base import MadeUp, Oracle
from twin import Workload, load_profile


class ToyOracle(Oracle):
    """A GPU takes `capacity` requests/s, less what its adapters and its largest rank cost.

    Parameters
    ----------
    workload : Workload
    capacity : float
    per_adapter, per_rank : float
        Requests/s that an adapter costs, and a unit of the largest rank.
    """

    name = "toy"

    def __init__(
        self, workload: Workload, capacity: float = 10.0, per_adapter: float = 0.5, per_rank: float = 0.1
    ) -> None:
        super().__init__(workload, load_profile("llama-3.1-8b"))
        self.capacity, self.per_adapter, self.per_rank = capacity, per_adapter, per_rank

    def takes(self, n_adapters: int, rank: int) -> float:
        """Largest load of so many adapters beside a largest rank."""
        return self.capacity - self.per_adapter * n_adapters - self.per_rank * rank

    def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether the load is not too much."""
        self.calls += 1
        index = list(adapters)
        load = float(self.workload.rates[index].sum())
        return load <= self.takes(len(index), int(self.workload.ranks[index].max())) + 1e-9

    def demands(self, types: AdapterTypes) -> Demands:
        """Ranks present, load, adapters."""
        above = presence(types.ranks)
        return Demands(np.vstack([above, types.rates, np.ones(len(types))]), len(above))

    def made_up_sums(self, content: MadeUp) -> NDArray[np.float64]:
        """As `Oracle.made_up_sums`."""
        above = (np.unique(self.workload.ranks)[1:] <= content.rank).astype(np.float64)
        return np.concatenate([above, [content.load, float(content.n_adapters)]])

    def made_up_starves(self, content: MadeUp) -> bool:
        """Whether the load is too much."""
        self.calls += 1
        return content.load > self.takes(content.n_adapters, content.rank)


def contents(counts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Every content given as counts per type, the empty one first."""
    for taken in np.ndindex(*(int(count) + 1 for count in counts)):
        yield np.array(taken, dtype=np.int64)


def fewest(counts: NDArray[np.int64], accepted: Callable[[NDArray[np.int64]], bool]) -> int:
    """Fewest accepted contents that hold all adapters, by enumeration."""
    good = [tuple(taken.tolist()) for taken in contents(counts) if taken.any() and accepted(taken)]

    @cache
    def least(left: tuple[int, ...]) -> int:
        if not any(left):
            return 0
        first = next(place for place, count in enumerate(left) if count)
        best = 10**6
        for taken in good:
            if taken[first] and all(t <= have for t, have in zip(taken, left, strict=True)):
                best = min(best, 1 + least(tuple(have - t for have, t in zip(left, taken, strict=True))))
        return best

    return least(tuple(counts.tolist()))


def fewest_gpus(oracle: Oracle) -> int:
    """Fewest GPUs that an oracle accepts to whom adapters of one type are the same."""
    types = adapter_types(oracle.workload)
    return fewest(types.counts, lambda taken: oracle.find_max_loras(types.contents(taken)) is not None)
