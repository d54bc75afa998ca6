"""Linked lists and winner trees over plain arrays, for the compiled event loop.

Every structure is a set of integer arrays made before the loop; an operation costs O(1), or
O(log n_adapters) for the trees, whatever the number of open requests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.compiled import njit

Ints = NDArray[np.int64]


@njit(cache=True, nogil=True)
def list_append(after: Ints, before: Ints, item: int) -> None:
    """Append `item` to a circular doubly linked list whose sentinel is the last slot."""
    sentinel = len(after) - 1
    last = before[sentinel]
    after[last] = item
    before[item] = last
    after[item] = sentinel
    before[sentinel] = item


@njit(cache=True, nogil=True)
def list_prepend(after: Ints, before: Ints, item: int) -> None:
    """Put `item` at the head of a circular doubly linked list whose sentinel is the last slot."""
    sentinel = len(after) - 1
    first = after[sentinel]
    before[first] = item
    after[item] = first
    before[item] = sentinel
    after[sentinel] = item


@njit(cache=True, nogil=True)
def list_remove(after: Ints, before: Ints, item: int) -> None:
    """Take `item` out of the list that it is in."""
    after[before[item]] = after[item]
    before[after[item]] = before[item]


@njit(cache=True, nogil=True)
def tree_update(tree: Ints, key: Ints, leaf: int, present: bool) -> None:
    """Set whether `leaf` takes part, and redo the winners on its path to the root.

    `tree` has shape (2 * n_leaves,), n_leaves a power of two; a node holds the leaf with the
    smallest key below it, or -1. The winner of all is at `tree[1]`.
    """
    node = (len(tree) >> 1) + leaf
    winner = leaf if present else -1
    tree[node] = winner
    while node > 1:
        other = tree[node ^ 1]
        if other >= 0 and (winner < 0 or key[other] < key[winner]):
            winner = other
        node >>= 1
        if winner != leaf and tree[node] == winner:
            # Neither who wins here nor its key has changed, nor has anything above.
            break
        tree[node] = winner
