"""Whole adapters that ask for nearly as much as a content given in fractions, and for no more of anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twin.compiled import njit

#: Rounds of additions and exchanges, by hand: it ends sooner when a round changes nothing.
MOST_ROUNDS = 12
#: Too much by so little, in terms of the target, is not too much: far above rounding, far below any adapter.
ROUNDING = 1e-9


@njit(cache=True, nogil=True)
def _fits(room: NDArray[np.float64], row: NDArray[np.float64]) -> bool:
    for j in range(len(room)):  # noqa: SIM110  # no generators in compiled code
        if row[j] > room[j]:
            return False
    return True


@njit(cache=True, nogil=True)
def _trim(
    chosen: NDArray[np.bool_], sums: NDArray[np.float64], order: NDArray[np.int64], room: NDArray[np.float64]
) -> None:
    """Take adapters out until nothing is too much: each time the least that is enough, or the largest."""
    while room.min() < 0.0:
        leaving = -1
        for a in order:
            if chosen[a] and (leaving < 0 or (room + sums[a]).min() >= 0.0):
                leaving = a
        if leaving < 0:
            break
        chosen[leaving] = False
        room += sums[leaving]


@njit(cache=True, nogil=True)
def _add(
    chosen: NDArray[np.bool_],
    sums: NDArray[np.float64],
    worth: NDArray[np.float64],
    order: NDArray[np.int64],
    room: NDArray[np.float64],
) -> bool:
    """Add what there is room for."""
    changed = False
    for a in order:
        if not chosen[a] and worth[a] > 0.0 and _fits(room, sums[a]):
            chosen[a] = True
            changed = True
            room -= sums[a]
    return changed


@njit(cache=True, nogil=True)
def _exchange(
    chosen: NDArray[np.bool_],
    sums: NDArray[np.float64],
    worth: NDArray[np.float64],
    order: NDArray[np.int64],
    room: NDArray[np.float64],
) -> bool:
    """Exchange one for one where that leaves less room, the exchange that leaves the least."""
    changed = False
    for a in order:
        if not chosen[a]:
            continue
        for b in order:
            if worth[b] <= worth[a]:
                break
            if not chosen[b] and _fits(room, sums[b] - sums[a]):
                chosen[a], chosen[b] = False, True
                changed = True
                room += sums[a] - sums[b]
                break
    return changed


@njit(cache=True, nogil=True)
def fill_below(chosen: NDArray[np.bool_], sums: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Change a choice of adapters until it asks for at most the target in every sum, and for nearly as much.

    Parameters
    ----------
    chosen : array of shape (n_adapters,), bool
        Where to start.
    sums : array of shape (n_adapters, n_sums)
        What each adapter asks for; the first sum counts as much as all the others together.
    target : array of shape (n_sums,)

    Returns
    -------
    array of shape (n_adapters,), bool
        A new choice, which nothing can be added to and no single exchange brings nearer to the target (in the given rounds).
    """
    n_adapters, n_sums = sums.shape
    chosen = chosen.copy()
    worth = np.zeros(n_adapters)
    for j in range(n_sums):
        if target[j] > 0.0:
            worth += sums[:, j] / target[j] * (max(1, n_sums - 1) if j == 0 else 1)
    order = np.argsort(-worth)
    room = target * (1 + ROUNDING)
    for a in range(n_adapters):
        if chosen[a]:
            room -= sums[a]
    _trim(chosen, sums, order, room)
    for _ in range(MOST_ROUNDS):
        added = _add(chosen, sums, worth, order, room)
        if not _exchange(chosen, sums, worth, order, room) and not added:
            break
    return chosen
