"""Cheaper mixes of a fleet: which to try, and adapters exchanged between their GPUs until the twin of each type accepts them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.limits import Deadline, OutOfTimeError
from solvers.mending.exchanges import MOST_AT_START, Loaded, TwinSearch
from solvers.mixes.filling import on_cheaper_types
from solvers.mixes.twins import TypeTwins
from solvers.oracles.twin import TwinOracle
from twin import Fleet

Mix = tuple[int, ...]

#: A mix is tried where it takes this share of all weight, by the most that each type was seen to take: contents filled in order leave room.
#: By hand; less tries what is hopeless, more misses what exchanges find.
LEAST_CAPACITY = 0.8
#: How often each mix is tried, and by how much more adapters' sizes are changed each time (of their logarithm). By hand.
TURNS, NOISE = 5, 0.1
#: Mixes that are looked at below one cost. By hand: two types and a hundred GPUs have a hundred.
MOST_MIXES = 20_000
#: Prices this near are equal: sums of them are rounded.
CHEAPER = 1e-9


def mixes_below(fleet: Fleet, cost: float, max_gpus: int | None, most_gpus: int) -> Iterator[Mix]:
    """Mixes that cost less, to none of which a GPU of the first type can be added; others take no more than one of them does.

    Parameters
    ----------
    fleet : Fleet
    cost : float
    max_gpus : int, optional
        GPUs of all types together.
    most_gpus : int
        GPUs of one type beyond which more are of no use.
    """
    budget = cost * (1 - CHEAPER)
    prices = [kind.price for kind in fleet.types]
    counts = [most_gpus if kind.count is None else min(kind.count, most_gpus) for kind in fleet.types]
    allowed = math.inf if max_gpus is None else max_gpus

    def affordable(kind: int, left: float, room: float) -> int:
        return int(min(counts[kind], math.floor(left / prices[kind]), room))

    def mixes(kind: int, left: float, room: float) -> Iterator[Mix]:
        if kind == 0:
            yield (affordable(0, left, room),)
            return
        for number in range(affordable(kind, left, room), -1, -1):
            for rest in mixes(kind - 1, left - number * prices[kind], room - number):
                yield (*rest, number)

    for place, mix in enumerate(mixes(len(prices) - 1, budget, allowed)):
        if place >= MOST_MIXES:
            return
        if any(mix):
            yield mix


class MixSearch(TwinSearch):
    """Annealing over the contents of the GPUs of a mix.

    Parameters
    ----------
    twins : TypeTwins
    generator : numpy.random.Generator
    """

    def __init__(self, twins: TypeTwins, generator: np.random.Generator) -> None:
        super().__init__(twins.oracles[0], twins.weights, generator)
        self.twins = twins

    @property
    def calls(self) -> int:
        """Contents asked about so far, of all types."""
        return self.twins.calls

    def oracle_of(self, kind: int) -> TwinOracle:
        """The twin of a type."""
        return self.twins.oracles[kind]

    def on_mix(self, mix: Mix, deadline: Deadline, turn: int = 0) -> list[Loaded] | None:
        """Contents for the GPUs of a mix that the twins accept, or None if none were found.

        Parameters
        ----------
        mix : tuple of int
            GPUs of each type.
        deadline : Deadline
        turn : int
            How often the mix was tried before: other starts are drawn, and worse ones are gone on from.
        """
        try:
            if sum(mix) == 1:
                alone = self.twins.asked(mix.index(1), range(self.twins.workload.n_adapters))
                return None if alone is None else [alone]
            starts = [self._loaded(mix, weights) for weights in self._sizes(turn)]
            gpus = min(starts, key=_missing)
            if _missing(gpus) > (1 + turn) * MOST_AT_START * self.total:
                return None
            found = self.annealed(gpus, deadline)
        except OutOfTimeError:
            return None
        return None if found is None else [self.twins.taken(g.kind, g.content, g.slots) for g in found if g.content]

    def _sizes(self, turn: int) -> list[NDArray[np.float64]]:
        """What adapters are taken to take of a GPU, for each start."""
        load = self.load / max(self.total, 1e-300)
        sizes = [self.twins.weights, load]
        if not turn:
            return sizes
        return [size * np.exp(NOISE * turn * self.generator.standard_normal(len(size))) for size in sizes]

    def _loaded(self, mix: Mix, weights: NDArray[np.float64]) -> list[Loaded]:
        return [
            self._asked(tuple(sorted(group)), min(64, max(1, len(group))), -math.inf, kind)
            for kind, group in self._dealt(mix, weights)
        ]

    def _dealt(self, mix: Mix, weights: NDArray[np.float64]) -> list[tuple[int, list[int]]]:
        """Adapters dealt to the GPUs of a mix, the heaviest first, each to the GPU that it leaves least full for what its type takes."""
        kinds = [kind for kind, number in enumerate(mix) for _ in range(number)]
        room = np.maximum(self.twins.capacity, 1e-12)
        groups: list[list[int]] = [[] for _ in kinds]
        held = np.zeros(len(kinds))
        size = room[kinds]
        for adapter in np.argsort(-weights, kind="stable").tolist():
            gpu = int(np.argmin((held + weights[adapter]) / size))
            held[gpu] += weights[adapter]
            groups[gpu].append(adapter)
        return list(zip(kinds, groups, strict=True))


def _missing(gpus: Sequence[Loaded]) -> float:
    return sum(gpu.missing for gpu in gpus)


def cheaper(
    gpus: list[Loaded],
    twins: TypeTwins,
    deadline: Deadline,
    seed: int,
    *,
    possible: Callable[[Mix], bool] = lambda _: True,
) -> list[Loaded]:
    """A placement of a cheaper mix as long as one is found, or what was given.

    Of the mixes that should take all adapters the cheapest are tried first; then those that take most of them.

    Parameters
    ----------
    gpus : list of Loaded
        That the twins accept.
    twins : TypeTwins
    deadline : Deadline
    seed : int
    possible : callable
        False for a mix that is proven to be too little.
    """
    search = MixSearch(twins, np.random.default_rng(seed))
    tried: set[Mix] = set()
    best = on_cheaper_types(gpus, twins, deadline)
    turn = 0
    while deadline.left_s and turn < TURNS:
        mix = _next(best, twins, tried, possible)
        if mix is None:
            if not tried:
                break
            turn, tried = turn + 1, set()
            continue
        tried.add(mix)
        found = search.on_mix(mix, deadline, turn)
        if found is not None:
            best = on_cheaper_types(found, twins, deadline)
    return best


def _next(best: Sequence[Loaded], twins: TypeTwins, tried: set[Mix], possible: Callable[[Mix], bool]) -> Mix | None:
    """The mix to try next, cheaper than the best so far; None where none is promising."""
    fleet, capacity = twins.fleet, twins.capacity

    def worth(mix: Mix) -> tuple[bool, float]:
        takes = float(capacity @ mix)
        enough = takes >= 1.0
        cost = sum(kind.price * number for kind, number in zip(fleet.types, mix, strict=True))
        return enough, -cost if enough else takes

    most = twins.workload.n_adapters
    candidates = (
        mix
        for largest in mixes_below(fleet, twins.cost(best), twins.max_gpus, most)
        if (mix := _least(largest, twins, tried)) is not None and float(capacity @ mix) >= LEAST_CAPACITY
    )
    return max((mix for mix in candidates if possible(mix)), key=worth, default=None)


def _least(largest: Mix, twins: TypeTwins, tried: set[Mix]) -> Mix | None:
    """The mix with as few GPUs of the first type as should be enough and were not tried, or as many as there may be."""
    lacking = 1.0 - float(twins.capacity[1:] @ largest[1:])
    enough = math.ceil(lacking / max(float(twins.capacity[0]), 1e-12))
    for number in range(max(0, min(enough, largest[0])), largest[0] + 1):
        mix = (number, *largest[1:])
        if mix not in tried and any(mix):
            return mix
    return None
