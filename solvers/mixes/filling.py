"""Filling a mixed fleet GPU by GPU, each of the type that serves most for its price."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.contents.orders import describe
from solvers.filling.one_by_one import longest_prefix
from solvers.limits import Deadline, NoneThereError, NoPlacementError
from solvers.mending.exchanges import Loaded
from solvers.mixes.twins import TypeTwins


def filled(order: NDArray[np.int64], twins: TypeTwins, deadline: Deadline, *, by_gpu: bool = False) -> list[Loaded]:
    """Fill one GPU after another with the longest accepted prefix of what is left, on the type where most weight goes for its price.

    Parameters
    ----------
    order : array of shape (n_adapters,)
    twins : TypeTwins
    deadline : Deadline
    by_gpu : bool
        Take the type where most weight goes, whatever its price: for few GPUs.

    Raises
    ------
    NoPlacementError
        When an adapter fits on no type of which there are some left, or the GPUs run out.
    OutOfTimeError
    """
    left = np.asarray(order, dtype=np.int64)
    gpus: list[Loaded] = []
    hints: dict[int, int] = {}
    while len(left):
        best: tuple[float, int, int, int] | None = None
        for kind, count in enumerate(twins.left(gpus)):
            if count < 1:
                continue
            taken, slots = longest_prefix(left, twins.oracles[kind], hint=hints.get(kind), deadline=deadline)
            if not taken:
                continue
            hints[kind] = slots
            twins.taken(kind, left[:taken].tolist(), slots)
            price = 1.0 if by_gpu else twins.fleet.types[kind].price
            # Idle adapters weigh nothing, and have to be somewhere.
            weight = float(twins.weights[left[:taken]].sum()) + 1e-12 * taken
            best = max(best or (-1.0, 0, 0, 0), (weight / price, -kind, taken, slots))
        if best is None:
            raise _stuck(left, gpus, twins)
        _, kind, taken, slots = best
        gpus.append(twins.taken(-kind, left[:taken].tolist(), slots))
        left = left[taken:]
    return gpus


def _stuck(left: NDArray[np.int64], gpus: Sequence[Loaded], twins: TypeTwins) -> NoPlacementError:
    """Why the next adapter found no GPU."""
    who = describe(twins.workload, int(left[0]))
    if not any(oracle.slots((int(left[0]),)) for oracle in twins.oracles):
        return NoneThereError(f"{who}: no GPU type of the fleet starts with it (memory error)")
    open_ones = [kind.name for kind, count in zip(twins.fleet.types, twins.left(gpus), strict=True) if count > 0]
    if not open_ones:
        return NoPlacementError(f"the fleet's {len(gpus)} GPUs are used, and {len(left)} adapters are left")
    return NoPlacementError(f"{who} fits alone on no GPU of {' or '.join(open_ones)}, the types of which some are left")


def on_cheaper_types(gpus: Sequence[Loaded], twins: TypeTwins, deadline: Deadline) -> list[Loaded]:
    """The same contents, each on the cheapest type that takes it and of which there are some left; the dearest GPUs first.

    Parameters
    ----------
    gpus : sequence of Loaded
    twins : TypeTwins
    deadline : Deadline
    """
    done = [gpu for gpu in gpus if gpu.content]
    types = twins.fleet.types
    for place in sorted(range(len(done)), key=lambda place: -types[done[place].kind].price):
        gpu = done[place]
        cheaper = [kind for kind, one in enumerate(types) if one.price < types[gpu.kind].price]
        for kind in sorted(cheaper, key=lambda kind: types[kind].price):
            used = twins.mix(done)[kind]
            count = types[kind].count
            # What is far above all that the type has taken so far is not worth a question.
            weight = float(twins.weights[list(gpu.content)].sum())
            if (count is not None and used >= count) or weight > HOPELESS * twins.capacity[kind] > 0:
                continue
            if not deadline.left_s:
                return done
            if (found := twins.asked(kind, gpu.content, gpu.slots)) is not None:
                done[place] = found
                break
    return done


#: A content of so many times the most weight that a type was seen to take is not asked about. By hand: weights are a rule of thumb.
HOPELESS = 1.5
