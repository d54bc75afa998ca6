"""The fewest GPUs at which a solver that spreads over a whole fleet gets a feasible placement.

Such a solver uses all the GPUs it is given, so that comparing its GPU count with that of a packer needs this search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Attempt = TypeVar("Attempt")


def fewest_gpus(
    attempt: Callable[[int], Attempt], succeeded: Callable[[Attempt], bool], most: int
) -> tuple[int, Attempt]:
    """Search for the smallest fleet: double it until an attempt succeeds, then halve the interval.

    Parameters
    ----------
    attempt : callable
        Solves and scores for a number of GPUs.
    succeeded : callable
        Whether the outcome of an attempt is feasible.
    most : int
        The largest fleet to try, 1 or more.

    Returns
    -------
    gpus : int
    outcome : Attempt
        Of the smallest fleet found that succeeds (the smallest of all, if more GPUs never do harm); of `most` GPUs if none does.
    """
    failed, gpus = 0, 1
    while not succeeded(outcome := attempt(gpus)):
        if gpus == most:
            return gpus, outcome
        failed, gpus = gpus, min(2 * gpus, most)
    while gpus - failed > 1:
        middle = (failed + gpus) // 2
        trial = attempt(middle)
        if succeeded(trial):
            gpus, outcome = middle, trial
        else:
            failed = middle
    return gpus, outcome
