"""vLLM's pool of KV blocks with prefix caching, block by block: what `twin.stepwise` keeps, and `twin.engine` takes short cuts to.

A full block is known by its *key*: the adapter and the place of the block in its shared prompt, or the request and the place
of the block in its tokens, which nobody else has. vLLM hashes all tokens up to the end of a block, and the adapter's name,
to the same end. Free blocks stand in a queue and keep their content until they are taken from its head.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from twin.compiled import njit
from twin.queues import Ints, list_append, list_prepend, list_remove

#: First key of each request's shared blocks and the number of these; first key of each request's own blocks; where its
#: blocks stand in the table of all, and how many of them are known by their key; of each block its key or -1, and the requests
#: that hold it; of each key the first block and the last one, with others of the key after it; the free queue.
Pool: TypeAlias = tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints]

NOTHING = -1


@njit(cache=True, nogil=True)
def new_pool(adapter: Ints, tokens: Ints, shared: Ints, n_blocks: int, block_size: int) -> Pool:
    """A pool in which every block is free and empty.

    Parameters
    ----------
    adapter, tokens, shared : arrays of shape (n_requests,)
        Adapter of each request, tokens that it may come to hold, and those of them that it has in common with its adapter's others.
    n_blocks, block_size : int
    """
    n_requests = len(adapter)
    n_shared = shared // block_size
    room = (tokens + block_size - 1) // block_size
    table_start = np.zeros(n_requests, np.int64)
    own_key = np.zeros(n_requests, np.int64)
    for i in range(1, n_requests):
        table_start[i] = table_start[i - 1] + room[i - 1]
    widest = np.zeros(np.max(adapter) + 2 if n_requests else 1, np.int64)
    for i in range(n_requests):
        widest[adapter[i] + 1] = max(widest[adapter[i] + 1], n_shared[i])
    first_of_adapter = np.cumsum(widest)
    own_key[:] = table_start + first_of_adapter[-1]
    shared_key = np.zeros(n_requests, np.int64)
    for i in range(n_requests):
        shared_key[i] = first_of_adapter[adapter[i]]
    n_held = np.sum(room)
    key_of = np.full(n_blocks, NOTHING, np.int64)
    holders = np.zeros(n_blocks, np.int64)
    oldest = np.full(first_of_adapter[-1] + n_held, NOTHING, np.int64)
    newest = oldest.copy()
    younger = np.full(n_blocks, NOTHING, np.int64)
    queue_after = np.full(n_blocks + 1, n_blocks, np.int64)
    queue_before = np.full(n_blocks + 1, n_blocks, np.int64)
    for block in range(n_blocks):
        list_append(queue_after, queue_before, block)
    return (
        shared_key, n_shared, own_key, table_start, np.full(n_held, NOTHING, np.int64), np.zeros(n_requests, np.int64),
        key_of, holders, oldest, newest, younger, queue_after, queue_before,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _key(pool: Pool, i: int, place: int) -> int:
    shared_key, n_shared, own_key = pool[:3]
    key: int = shared_key[i] + place if place < n_shared[i] else own_key[i] + place
    return key


@njit(cache=True, nogil=True)
def cached_blocks(pool: Pool, i: int, tokens: int, block_size: int) -> int:
    """Blocks at the beginning of a request's `tokens` that are there already; its last token is always computed."""
    oldest = pool[8]
    found = 0
    while (found + 1) * block_size < tokens and oldest[_key(pool, i, found)] != NOTHING:
        found += 1
    return found


@njit(cache=True, nogil=True)
def free_among(pool: Pool, i: int, found: int) -> int:
    """How many of the cached blocks at the beginning of a request stand in the free queue."""
    holders, oldest = pool[7], pool[8]
    count = 0
    for place in range(found):
        count += holders[oldest[_key(pool, i, place)]] == 0
    return count


@njit(cache=True, nogil=True)
def touch(pool: Pool, i: int, found: int) -> int:
    """Give a request the cached blocks at its beginning, and say how many of them were free."""
    _, _, _, table_start, table, known, _, holders, oldest, _, _, queue_after, queue_before = pool
    count = 0
    for place in range(found):
        block = oldest[_key(pool, i, place)]
        if holders[block] == 0:
            list_remove(queue_after, queue_before, block)
            count += 1
        holders[block] += 1
        table[table_start[i] + place] = block
    known[i] = found
    return count


@njit(cache=True, nogil=True)
def take(pool: Pool, i: int, held: int, n: int) -> None:
    """Give a request that holds some blocks `n` more, from the head of the free queue; what was in them is gone."""
    _, _, _, table_start, table, _, key_of, holders, _, _, _, queue_after, queue_before = pool
    for place in range(held, held + n):
        block = queue_after[len(key_of)]
        list_remove(queue_after, queue_before, block)
        if key_of[block] != NOTHING:
            _forget(pool, block)
        holders[block] = 1
        table[table_start[i] + place] = block


@njit(cache=True, nogil=True)
def _forget(pool: Pool, block: int) -> None:
    key_of, oldest, newest, younger = pool[6], pool[8], pool[9], pool[10]
    key = key_of[block]
    key_of[block] = NOTHING
    before = NOTHING
    other = oldest[key]
    while other != block:
        before, other = other, younger[other]
    if before == NOTHING:
        oldest[key] = younger[block]
    else:
        younger[before] = younger[block]
    if newest[key] == block:
        newest[key] = before
    younger[block] = NOTHING


@njit(cache=True, nogil=True)
def remember(pool: Pool, i: int, tokens: int, block_size: int) -> None:
    """Make the full blocks of a request's first `tokens` known by their keys."""
    _, _, _, table_start, table, known, key_of, _, oldest, newest, younger, _, _ = pool
    for place in range(known[i], tokens // block_size):
        block, key = table[table_start[i] + place], _key(pool, i, place)
        key_of[block] = key
        if oldest[key] == NOTHING:
            oldest[key] = block
        else:
            younger[newest[key]] = block
        newest[key] = block
        known[i] = place + 1


@njit(cache=True, nogil=True)
def release(pool: Pool, i: int, held: int) -> int:
    """Take a request's blocks from it: the last first to the tail of the queue, those that nobody can find to its head.

    Returns how many of them are free then: nobody else holds them.
    """
    _, _, _, table_start, table, known, key_of, holders, _, _, _, queue_after, queue_before = pool
    count = 0
    for place in range(held - 1, -1, -1):
        block = table[table_start[i] + place]
        holders[block] -= 1
        count += holders[block] == 0
        if holders[block] == 0 and key_of[block] != NOTHING:
            list_append(queue_after, queue_before, block)
    for place in range(held):
        block = table[table_start[i] + place]
        if holders[block] == 0 and key_of[block] == NOTHING:
            list_prepend(queue_after, queue_before, block)
    known[i] = 0
    return count
