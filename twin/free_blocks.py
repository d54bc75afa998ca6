"""The free queue of vLLM's KV blocks with prefix caching, in runs: what `twin.engine` keeps in place of single blocks.

Who finds a block again is either a request of the same adapter, in the shared prompt at its beginning, or the request itself
after a preemption. Whoever holds a block holds all blocks before it, and blocks are freed last first; so what is free of a
shared prompt, or of a request, is always one run from its first block on, and stands in the queue as one: taken from at its
far end. Blocks that nobody can find stand at the head of the queue, and are only counted.

`twin.block_pool` keeps the same queue block by block.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from twin.compiled import njit
from twin.queues import Ints, list_append, list_remove

#: Shared blocks of each request; requests of each adapter that hold its shared blocks; blocks in each run (requests first, then
#: adapters); the queue of runs; in an array of one, the blocks that nobody can find.
Queue: TypeAlias = tuple[Ints, Ints, Ints, Ints, Ints, Ints]


@njit(cache=True, nogil=True)
def new_queue(n_shared: Ints, n_adapters: int, n_blocks: int) -> Queue:
    """The queue in which every block is empty."""
    n_runs = len(n_shared) + n_adapters
    after = np.full(n_runs + 1, n_runs, np.int64)
    return (
        n_shared,
        np.zeros(n_adapters, np.int64),
        np.zeros(n_runs, np.int64),
        after,
        after.copy(),
        np.full(1, n_blocks, np.int64),
    )


@njit(cache=True, nogil=True)
def take(queue: Queue, n: int) -> None:
    """Take `n` blocks from the head; what was in them is gone."""
    _, _, size, after, before, plain = queue
    if n <= plain[0]:
        plain[0] -= n
        return
    left = n - plain[0]
    plain[0] = 0
    while left > 0:
        run = after[len(size)]
        if left < size[run]:
            size[run] -= left
            return
        left -= size[run]
        size[run] = 0
        list_remove(after, before, run)


@njit(cache=True, nogil=True)
def cached(queue: Queue, i: int, a: int) -> tuple[int, int]:
    """Blocks that a request finds, and how many of them are in the queue: nobody holds them."""
    n_shared, holders, size, _, _, _ = queue
    if n_shared[i] == 0:
        return size[i], size[i]
    if holders[a] > 0:
        return n_shared[i] + size[i], size[i]
    free = size[len(n_shared) + a] + size[i]
    return free, free


@njit(cache=True, nogil=True)
def take_cached(queue: Queue, i: int, a: int) -> None:
    """Give a request what it finds."""
    n_shared, holders, size, after, before, _ = queue
    if size[i] > 0:
        list_remove(after, before, i)
        size[i] = 0
    if n_shared[i] > 0:
        run = len(n_shared) + a
        if size[run] > 0:
            list_remove(after, before, run)
            size[run] = 0
        holders[a] += 1


@njit(cache=True, nogil=True)
def give_back(  # noqa: PLR0913  # the queue, and what one request has of it
    queue: Queue, i: int, a: int, held_tokens: int, known_tokens: int, block_size: int
) -> int:
    """Take all blocks from a request, of whose tokens the first `known_tokens` are hashed; returns how many are free then."""
    n_shared, holders, size, after, before, plain = queue
    held, full = (held_tokens + block_size - 1) // block_size, known_tokens // block_size
    in_common = min(full, n_shared[i])
    plain[0] += held - full
    if full > in_common:
        size[i] = full - in_common
        list_append(after, before, i)
    if n_shared[i] == 0:
        return held
    holders[a] -= 1
    if holders[a] > 0:
        freed: int = held - in_common
        return freed
    if in_common > 0:
        run = len(n_shared) + a
        size[run] = in_common
        list_append(after, before, run)
    return held
