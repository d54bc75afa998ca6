"""The free queue of vLLM's KV blocks with prefix caching, in runs: what `twin.engine` keeps in place of single blocks.

Who finds a block again is either a request of the same adapter, in the shared prompt at its beginning, or the request itself
after a preemption. Whoever holds a block holds all blocks before it, and blocks are freed last first; so what is free of a
shared prompt, or of a request, is always one run from its first block on, and stands in the queue as one: taken from at its
far end. Blocks that nobody can find stand at the head of the queue, and are only counted (`plain`).

The queue is arrays of its own for each thing said of it, since the engine asks in every step and Numba counts references to
what it takes out of a tuple: `n_shared` blocks of each request's shared prompt; `holders`, requests of each adapter that hold
its shared blocks; `size` of each run, requests first, then adapters; `after` and `before`, the runs in their order.

`twin.block_pool` keeps the same queue block by block.
"""

from __future__ import annotations

import numpy as np

from twin.compiled import njit
from twin.queues import Ints, list_append, list_remove


@njit(cache=True, nogil=True)
def new_queue(n_requests: int, n_adapters: int) -> tuple[Ints, Ints, Ints, Ints]:
    """`holders`, `size`, `after` and `before` of a queue in which every block is empty."""
    n_runs = n_requests + n_adapters
    after = np.full(n_runs + 1, n_runs, np.int64)
    return np.zeros(n_adapters, np.int64), np.zeros(n_runs, np.int64), after, after.copy()


@njit(cache=True, nogil=True, inline="always")
def take(n: int, plain: int, size: Ints, after: Ints, before: Ints) -> int:
    """Take `n` blocks from the head, what was in them being gone; returns how many of the `plain` ones are left."""
    if n <= plain:
        left_plain: int = plain - n
        return left_plain
    left = n - plain
    while left > 0:
        run = after[len(size)]
        if left < size[run]:
            size[run] -= left
            break
        left -= size[run]
        size[run] = 0
        list_remove(after, before, run)
    return 0


@njit(cache=True, nogil=True, inline="always")
def cached(i: int, a: int, n_shared: Ints, holders: Ints, size: Ints) -> tuple[int, int]:
    """Blocks that a request finds, and how many of them are in the queue: nobody holds them."""
    if n_shared[i] == 0:
        return size[i], size[i]
    if holders[a] > 0:
        return n_shared[i] + size[i], size[i]
    free = size[len(n_shared) + a] + size[i]
    return free, free


@njit(cache=True, nogil=True, inline="always")
def take_cached(  # noqa: PLR0913  # the queue, and who asks
    i: int, a: int, n_shared: Ints, holders: Ints, size: Ints, after: Ints, before: Ints
) -> None:
    """Give a request what it finds."""
    if size[i] > 0:
        list_remove(after, before, i)
        size[i] = 0
    if n_shared[i] > 0:
        run = len(n_shared) + a
        if size[run] > 0:
            list_remove(after, before, run)
            size[run] = 0
        holders[a] += 1


@njit(cache=True, nogil=True, inline="always")
def give_back(  # noqa: PLR0913  # the queue, and what one request has of it
    i: int, a: int, held: int, full: int, n_shared: Ints, holders: Ints, size: Ints, after: Ints, before: Ints
) -> int:
    """Take all `held` blocks from a request, the first `full` of which are hashed; returns how many are free then.

    Those that are not hashed are free as well: `held - full` more that nobody can find.
    """
    in_common = min(full, n_shared[i])
    if full > in_common:
        size[i] = full - in_common
        list_append(after, before, i)
    freed = held
    if n_shared[i] > 0:
        holders[a] -= 1
        if holders[a] > 0:
            freed = held - in_common
        elif in_common > 0:
            run = len(n_shared) + a
            size[run] = in_common
            list_append(after, before, run)
    return freed
