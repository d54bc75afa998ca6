"""The largest contents that a learned starvation model accepts, counted by type of adapter.

The model is monotone: of a content that it accepts it accepts every part. So the accepted contents are all that lie below a
frontier of largest ones, which is found by asking. Its size grows fast with the types: classes of types stand in for too many.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictors import adapter_contributions
from predictors.features import N_FEATURES, N_SUMS
from predictors.meanfield import N_INPUTS
from solvers.base import Problem
from solvers.contents.adapter_types import AdapterTypes
from solvers.contents.rounding import rounded
from solvers.filling.kernel import accepted_slots, best_slots
from solvers.limits import Deadline
from solvers.oracles.base import slot_grid
from solvers.oracles.predictor import LOAD_COLUMNS, workload_tail
from twin.compiled import njit

#: Most contents of a frontier: a table of a few megabytes that CP-SAT presolves in seconds. Beyond, types are rounded.
MOST_CONTENTS = 10_000
#: Classes that types are rounded to where there are too many of them for a table. Up to the first, a table of the types themselves
#: is tried.
CLASSES = (12, 9, 7, 6, 5, 4, 3, 2, 1)


class TooLargeError(Exception):
    """A frontier has more contents, or takes more time, than there is room for."""


@dataclass(frozen=True)
class Frontier:
    """What one GPU can hold at most.

    Attributes
    ----------
    types : AdapterTypes
        Types, or classes of them.
    contents : array of shape (n_contents, n_types)
        How many adapters of each type; none is part of another.
    """

    types: AdapterTypes
    contents: NDArray[np.int64]


class StarvationModel:
    """The learned starvation model of a GPU with its threshold: what fits on one.

    Parameters
    ----------
    problem : Problem
        With a predictor.
    distilled : bool
        The single tree instead of the forest.

    Attributes
    ----------
    calls : int
        Contents asked about so far, each at all values of `max_loras`.
    """

    def __init__(self, problem: Problem, *, distilled: bool) -> None:
        predictor = problem.predictor
        assert predictor is not None  # noqa: S101  # Solver.run has checked it
        self._arrays = predictor.distilled_starvation_arrays if distilled else predictor.starvation_arrays
        self._threshold = predictor.distilled_threshold if distilled else predictor.starvation_threshold
        # Loads of adapters are the one thing that may get less when rates grow: what asks for at least as much as
        # a class rounded down may pass where that does not, unless they are free.
        free = self._arrays[0].copy()
        free[:, :, LOAD_COLUMNS] = 0.0
        self._without_loads = (free, *self._arrays[1:])
        self._grid = slot_grid(problem.profile)
        self._content = np.empty(N_FEATURES)
        self._content[N_SUMS:] = workload_tail(problem.workload)
        self._inputs = np.empty(N_INPUTS, np.float32)
        self._place = 0
        self.calls = 0

    def accepts(self, sums: NDArray[np.float64], *, loads: bool = True) -> bool:
        """Whether a content with these sums passes at some `max_loras`.

        Parameters
        ----------
        sums : array of shape (N_SUMS,)
        loads : bool
            Otherwise adapters are loaded in no time.
        """
        self.calls += 1
        self._content[:N_SUMS] = sums
        arrays = self._arrays if loads else self._without_loads
        everywhere = int(self._grid[-1])
        found = accepted_slots(
            self._content, everywhere, self._place, self._grid, arrays, self._threshold, self._inputs
        )
        if found >= 0:
            self._place = found
        return bool(found >= 0)

    def slots(self, sums: NDArray[np.float64], n_adapters: int) -> int:
        """The `max_loras` with the least probability of starvation, up to the first with room for all; no more than adapters."""
        self._content[:N_SUMS] = sums
        place, _ = best_slots(self._content, n_adapters, self._grid, self._arrays, self._inputs)
        return int(min(self._grid[place], n_adapters))


def tabulated(model: StarvationModel, types: AdapterTypes, seconds: float, *, up: bool) -> Frontier:
    """The frontier of some types; or else of classes of them, as many as a table and the time allow.

    Parameters
    ----------
    model : StarvationModel
    types : AdapterTypes
    seconds : float
    up : bool
        A class is as busy as its busiest adapter: what the frontier holds, the model accepts. Otherwise as its idlest: what
        the model accepts, the frontier holds.

    Raises
    ------
    TooLargeError
        When not even the fewest classes, one for each rank, have a table.
    """
    deadline = Deadline.after(seconds)
    ladder = [types]
    for most in CLASSES:
        classes = rounded(ladder[-1], most, up=up)
        if len(classes) < len(ladder[-1]):
            ladder.append(classes)
    if len(types) <= CLASSES[0] or len(ladder) == 1:
        # Too many of them are looked at in classes.
        with contextlib.suppress(TooLargeError):
            return Frontier(types, largest_contents(model, types, Deadline.after(seconds / 4), loads=True))
    best = None
    for classes in ladder[:0:-1]:
        try:
            best = Frontier(classes, largest_contents(model, classes, deadline, loads=up))
        except TooLargeError:
            break
        # A class more has several times as many.
        if len(best.contents) > MOST_CONTENTS // 5:
            break
    if best is None:
        raise TooLargeError
    return best


def largest_contents(
    model: StarvationModel, types: AdapterTypes, deadline: Deadline, *, loads: bool
) -> NDArray[np.int64]:
    """The contents of a frontier, shape (n_contents, n_types).

    Parameters
    ----------
    model : StarvationModel
    types : AdapterTypes
    deadline : Deadline
    loads : bool
        As in `StarvationModel.accepts`.

    Raises
    ------
    TooLargeError
    """
    walk = _Walk(model, types, deadline, loads=loads)
    walk.below((), np.zeros(N_SUMS))
    table = np.array(walk.found, dtype=np.int64)
    table = table[np.argsort(-table.sum(axis=1), kind="stable")]
    table = table[_maximal(table)]
    if len(table) > MOST_CONTENTS:
        raise TooLargeError
    contents = np.empty_like(table)
    contents[:, walk.order] = table
    return contents


class _Walk:
    """Depth first, the types of which fewest fit on a GPU first; along the last two it is a staircase.

    Attributes
    ----------
    found : list of tuples of int
        Accepted contents, types in `order`; some are part of others.
    order : array of shape (n_types,)
    """

    def __init__(self, model: StarvationModel, types: AdapterTypes, deadline: Deadline, *, loads: bool) -> None:
        self._model, self._deadline, self._loads = model, deadline, loads
        rows = adapter_contributions(types.ranks, types.rates)
        alone = np.array([self._most(np.zeros(N_SUMS), row, n) for row, n in zip(rows, types.counts, strict=True)])
        self.order = np.argsort(alone, kind="stable")
        self.found: list[tuple[int, ...]] = []
        self._rows, self._alone = rows[self.order], alone[self.order].tolist()
        self._counts = types.counts[self.order].tolist()
        # All adapters of a type and of those after it.
        self._rest = np.cumsum((self._rows * types.counts[self.order][:, None])[::-1], axis=0)[::-1]

    def below(self, prefix: tuple[int, ...], sums: NDArray[np.float64]) -> bool:
        """Find the contents that begin with a prefix; whether the prefix itself is accepted."""
        level = len(prefix)
        if self._accepts(sums + self._rest[level]):
            self._keep((*prefix, *self._counts[level:]))
            return True
        if level == len(self._rows) - 1:
            most = self._most(sums, self._rows[level], self._alone[level])
            if most >= 0:
                self._keep((*prefix, most))
            return most >= 0
        if level == len(self._rows) - 2:
            return self._stairs(prefix, sums)
        for count in range(self._alone[level] + 1):
            if not self.below((*prefix, count), sums + count * self._rows[level]):
                return count > 0
        return True

    def _stairs(self, prefix: tuple[int, ...], sums: NDArray[np.float64]) -> bool:
        """The more of the last type but one, the fewer of the last."""
        level, high = len(prefix), self._alone[-1]
        for count in range(self._alone[level] + 1):
            most = self._most(sums + count * self._rows[level], self._rows[-1], high)
            if count and most < high:
                self._keep((*prefix, count - 1, high))
            if most < 0:
                return count > 0
            high = most
        self._keep((*prefix, self._alone[level], high))
        return True

    def _most(self, sums: NDArray[np.float64], row: NDArray[np.float64], high: int) -> int:
        """Most adapters of one type, up to `high`, that are accepted beside a content; -1 if the content itself is not.

        The next step of a staircase is near, so that the steps down from `high` double.
        """
        high = int(high)
        if self._accepts(sums + high * row):
            return high
        low, step = high, 1
        while low >= 0:
            high, low, step = low, low - step, 2 * step
            if low >= 0 and self._accepts(sums + low * row):
                break
        low = max(low, -1)
        while high - low > 1:
            middle = (low + high) // 2
            if self._accepts(sums + middle * row):
                low = middle
            else:
                high = middle
        return low

    def _accepts(self, sums: NDArray[np.float64]) -> bool:
        if not self._deadline.left_s:
            raise TooLargeError
        return self._model.accepts(sums, loads=self._loads)

    def _keep(self, content: tuple[int, ...]) -> None:
        self.found.append(content)
        if len(self.found) > 4 * MOST_CONTENTS:
            raise TooLargeError


@njit(cache=True, nogil=True)
def _maximal(table: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which contents are part of no other; sums descend, so that a part comes after its whole."""
    kept = np.ones(len(table), np.bool_)
    for later in range(len(table)):
        for earlier in range(later):
            if kept[earlier]:
                part = True
                for kind in range(table.shape[1]):
                    if table[later, kind] > table[earlier, kind]:
                        part = False
                        break
                if part:
                    kept[later] = False
                    break
    return kept
