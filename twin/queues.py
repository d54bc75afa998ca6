"""Linked lists and winner trees over plain arrays, for the compiled event loop.

Every structure is a set of integer arrays made before the loop; an operation costs O(1), or
O(log n_adapters) for the trees, whatever the number of open requests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.compiled import njit

Ints = NDArray[np.int64]


@njit(cache=True, nogil=True, inline="always")
def list_append(after: Ints, before: Ints, item: int) -> None:
    """Append `item` to a circular doubly linked list whose sentinel is the last slot."""
    sentinel = len(after) - 1
    last = before[sentinel]
    after[last] = item
    before[item] = last
    after[item] = sentinel
    before[sentinel] = item


@njit(cache=True, nogil=True, inline="always")
def list_prepend(after: Ints, before: Ints, item: int) -> None:
    """Put `item` at the head of a circular doubly linked list whose sentinel is the last slot."""
    sentinel = len(after) - 1
    first = after[sentinel]
    before[first] = item
    after[item] = first
    before[item] = sentinel
    after[sentinel] = item


@njit(cache=True, nogil=True, inline="always")
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
    node = len(tree) // 2 + leaf
    tree[node] = leaf if present else -1
    node //= 2
    while node >= 1:
        left, right = tree[2 * node], tree[2 * node + 1]
        if left < 0 or (right >= 0 and key[right] < key[left]):
            tree[node] = right
        else:
            tree[node] = left
        node //= 2
