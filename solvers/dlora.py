"""Baseline: the proactive mechanism of dLoRA (OSDI'24), as the authors of arXiv 2602.24044 ported it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem, Solution, Tags
from solvers.contents.published_figures import adapter_kv_tokens, kv_cache_tokens
from solvers.contents.replicas import placement_of_copies
from solvers.fleet import FleetSolver
from solvers.limits import Deadline
from twin import Placement
from twin.compiled import njit

#: What dLoRA counts arrivals over, in seconds.
HOUR_S = 3600.0
#: In place of no expected requests, and added to counts that are divided by (the latter as in the port).
NOTHING, TINY = 1e-12, 1e-7
#: Adapters that get their first engine between looks at the clock: some hundredths of a second.
CHUNK = 10_000


class Dlora(FleetSolver):
    """Replicas where memory per expected request is scarcest.

    An engine's free memory is its KV cache in tokens less one size for every adapter on it: that of the largest rank in
    the workload. Replicas are added one by one while the least memory per expected request (the free
    memory of an adapter's engines, over its requests in an hour) falls for no adapter; then round and round until there are
    engines + adapters - 1. Requests are spread evenly over the replicas, and `max_loras` is the adapter count.
    `replicate` says it step by step.
    """

    name: ClassVar[str] = "dlora"
    spread_tags: ClassVar[Tags] = Tags(needs_fleet=True, uses_replicas=True)

    def spread(self, problem: Problem) -> Solution:
        """Replicate over the fleet."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        workload, profile = problem.workload, problem.profile
        if not workload.n_adapters:
            return Solution("unchecked", Placement(()))
        size = adapter_kv_tokens(profile, int(workload.ranks.max()))
        memory = kv_cache_tokens(profile)
        room = problem.max_gpus * int(memory // size) if size > 0 else workload.n_adapters
        if workload.n_adapters > room:
            # The port never ends here: it asks for the same adapter again and again.
            message = f"{problem.max_gpus} engines have memory for {room} of {workload.n_adapters} adapters, as dLoRA counts it"
            return Solution("none_found", message=message)
        deadline = Deadline.after(problem.time_limit_s)
        holds = replicate(workload.rates * HOUR_S, size, memory, problem.max_gpus, deadline)
        gpus, adapters = np.nonzero(holds)
        placement = placement_of_copies(adapters, gpus, lambda held: held)
        return Solution("unchecked", placement, details={"replicas": len(adapters)})


def replicate(
    expected: NDArray[np.float64], size: float, memory: float, n_gpus: int, deadline: Deadline | None = None
) -> NDArray[np.bool_]:
    """Which engine holds which adapter.

    1. Each adapter gets an engine: `first_order` says who is next, the engines go to and fro (0, 1, 2, 2, 1, 0, 0, ...).
    2. The adapter with the least (its replicas / all replicas - expected requests) is next, the first of equal ones. It
       goes to the engine with the fewest adapters that does not hold it, or to the next one after, provided that the
       least memory per expected request does not fall. If it can go nowhere this step is over, whatever others could.
    3. Until there are engines + adapters - 1 replicas, an engine counter and an adapter counter go on by one after each
       replica. An adapter that the engine holds is passed over, and so is an engine that holds all.

    Parameters
    ----------
    expected : array of shape (n_adapters,)
        Expected requests in an hour.
    size : float
        KV-cache tokens that an adapter takes.
    memory : float
        KV-cache tokens of an empty engine; there must be room for all adapters.
    n_gpus : int
    deadline : Deadline, optional

    Returns
    -------
    array of shape (n_gpus, n_adapters), bool

    Raises
    ------
    OutOfTimeError
    """
    expected = np.maximum(expected, NOTHING)
    engines = _Engines.with_one_each(first_order(expected, deadline), n_gpus, size, memory)
    _add_replicas(engines, expected, size, deadline)
    _deal_round(engines)
    return engines.holds


def first_order(expected: NDArray[np.float64], deadline: Deadline | None = None) -> NDArray[np.int64]:
    """In which order adapters get their first engine; shape (n_adapters,).

    dLoRA looks for the adapter with the least (replicas / all replicas - expected requests) from the first to the last,
    and whenever the one in hand has an engine it takes the first without one instead. So a busy adapter that has an engine
    makes it forget who was found before. Who is in hand in the end is next.

    That is: of the adapters without an engine that no later one with an engine beats, the first of the busiest, if it is
    busier than the first adapter without an engine; otherwise that. Found in a tree of largest values, in about the
    logarithm of the adapters each.

    Parameters
    ----------
    expected : array of shape (n_adapters,)
    deadline : Deadline, optional

    Raises
    ------
    OutOfTimeError
    """
    n_adapters = len(expected)
    order = np.empty(n_adapters, dtype=np.int64)
    leaves = 1 << max(0, (n_adapters - 1).bit_length())
    waiting, first = np.full(2 * leaves, -np.inf), np.zeros(2 * leaves, dtype=np.int64)
    placed = np.full(2 * leaves, -np.inf)
    waiting[leaves : leaves + n_adapters] = expected
    first[leaves:] = np.arange(leaves)
    for node in range(leaves - 1, 0, -1):
        left = waiting[2 * node] >= waiting[2 * node + 1]
        waiting[node] = max(waiting[2 * node], waiting[2 * node + 1])
        first[node] = first[2 * node] if left else first[2 * node + 1]
    for done in range(0, n_adapters, CHUNK):
        if deadline is not None:
            deadline.check()
        _find_next(expected, waiting, first, placed, order, done, min(done + CHUNK, n_adapters))
    return order


@njit(cache=True, nogil=True)
def _find_next(  # noqa: PLR0913  # a tree as arrays
    expected: NDArray[np.float64],
    waiting: NDArray[np.float64],
    first: NDArray[np.int64],
    placed: NDArray[np.float64],
    order: NDArray[np.int64],
    done: int,
    end: int,
) -> None:
    """Fill in places `done` to `end` of the order.

    Parameters
    ----------
    waiting, placed : arrays of shape (2 * leaves,)
        For each node of a binary tree (the children of `i` are `2 * i` and `2 * i + 1`) the most requests expected of an
        adapter under it, of those without an engine and of those with one.
    first : array of shape (2 * leaves,)
        The first adapter that has as many as `waiting` says.
    """
    leaves = len(waiting) // 2
    stack = np.empty(128, dtype=np.int64)
    head = 0
    for place in range(done, end):
        share = 1.0 / (place + TINY)
        while placed[leaves + head] > -np.inf:
            head += 1
        found = head
        # From the last adapters to the first; `beat` is what those with an engine after a node have at most.
        depth, beat = 1, -np.inf
        stack[0], best = 1, -np.inf
        while depth:
            depth -= 1
            node = stack[depth]
            if waiting[node] < best or waiting[node] == -np.inf or share - beat < -waiting[node]:
                beat = max(beat, placed[node])
            elif not share - max(beat, placed[node]) < -waiting[node]:
                best = waiting[node]
                if best > expected[head]:
                    found = first[node]
                beat = max(beat, placed[node])
            else:
                stack[depth], stack[depth + 1] = 2 * node, 2 * node + 1
                depth += 2
        order[place] = found
        node = leaves + found
        placed[node], waiting[node] = expected[found], -np.inf
        while node > 1:
            node //= 2
            placed[node] = max(placed[2 * node], placed[2 * node + 1])
            left = waiting[2 * node] >= waiting[2 * node + 1]
            waiting[node] = waiting[2 * node] if left else waiting[2 * node + 1]
            first[node] = first[2 * node] if left else first[2 * node + 1]


@dataclass
class _Engines:
    """What the engines hold.

    Attributes
    ----------
    holds : array of shape (n_gpus, n_adapters), bool
    free : array of shape (n_gpus,)
        KV-cache tokens.
    counts, copies : arrays of shape (n_gpus,) and (n_adapters,)
        Adapters of an engine, and replicas of an adapter.
    turn : list of int
        Engines, as sorted last: of those with as few adapters, the one that comes first here is tried first.
    """

    holds: NDArray[np.bool_]
    free: NDArray[np.float64]
    counts: NDArray[np.int64]
    copies: NDArray[np.int64]
    turn: list[int]

    @staticmethod
    def with_one_each(order: NDArray[np.int64], n_gpus: int, size: float, memory: float) -> _Engines:
        """Adapters dealt out to and fro: engines are sorted before each, and those with as few keep their order."""
        there, back = np.arange(n_gpus), np.arange(n_gpus)[::-1]
        engines = np.tile(np.concatenate([there, back]), len(order) // (2 * n_gpus) + 1)[: len(order)]
        holds = np.zeros((n_gpus, len(order)), dtype=np.bool_)
        holds[engines, order] = True
        counts = np.bincount(engines, minlength=n_gpus)
        free = np.asarray(memory - counts * size, dtype=np.float64)
        rounds, last = divmod(len(order) - 1, n_gpus)
        direction = (back if rounds % 2 else there).tolist()
        turn = [*direction[last:], *direction[:last][::-1]]
        return _Engines(holds, free, counts, np.ones(len(order), dtype=np.int64), turn)

    def sort(self) -> list[int]:
        """Engines with few adapters first; of equal ones in the order of before."""
        self.turn = sorted(self.turn, key=lambda engine: int(self.counts[engine]))
        return self.turn

    def add(self, engine: int, adapter: int) -> None:
        """One replica more; `free` is the caller's."""
        self.holds[engine, adapter] = True
        self.counts[engine] += 1
        self.copies[adapter] += 1


def _add_replicas(engines: _Engines, expected: NDArray[np.float64], size: float, deadline: Deadline | None) -> None:
    """Step 2 of `replicate`."""
    served = engines.free[np.argmax(engines.holds, axis=0)]
    least = float((served / expected).min())
    while True:
        adapter = int(np.argmin(engines.copies / (engines.copies.sum() + TINY) - expected))
        for engine in engines.sort():
            if engines.holds[engine, adapter]:
                continue
            if deadline is not None:
                deadline.check()
            then = served - size * engines.holds[engine]
            then[adapter] += engines.free[engine] - size
            if float((then / expected).min()) >= least:
                break
        else:
            return
        served, least = then, float((then / expected).min())
        engines.free[engine] -= size
        engines.add(engine, adapter)


def _deal_round(engines: _Engines) -> None:
    """Step 3 of `replicate`."""
    n_gpus, n_adapters = engines.holds.shape
    engine, adapter = 0, 0
    for _ in range(n_gpus + n_adapters - 1 - int(engines.copies.sum())):
        while engines.counts[engine] >= n_adapters:
            engine = (engine + 1) % n_gpus
        while engines.holds[engine, adapter]:
            adapter = (adapter + 1) % n_adapters
        engines.add(engine, adapter)
        engine, adapter = (engine + 1) % n_gpus, (adapter + 1) % n_adapters
