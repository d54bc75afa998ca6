"""A lower bound on GPUs from the frontier of made-up contents: how much load a GPU takes at most.

For each largest rank and each number of equally busy adapters, the oracle is asked for the load at which a
made-up content (`solvers.contents.demands`) is rejected. The answers bound what any real content can hold: going through
the counts in ascending order, a content either asks for less activity than the made-up one at some time in
service, or for less load. So every accepted content lies in one of a few boxes

    load < limit before the step,  activity at one time in service < threshold of the step,

and the best price over a box is a linear programme with two rows. Covering all adapters with fractions
of such contents (Gilmore and Gomory, 1961) costs at least the bound; by Farley (1990) it holds for any prices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.contents.demands import Demands
from solvers.contents.patterns import cover_value
from solvers.limits import Deadline
from twin.compiled import njit

#: Columns that cost less than this by the cover's prices, where those in use cost 1, are forgotten, when there are so many for each
#: type; and columns that are added in a round. By hand, for the time of a round: any prices give a bound that holds.
NEARLY_WORTH, MANY_COLUMNS, FRESH = 0.97, 5, 20


@dataclass(frozen=True)
class Boxes:
    """Boxes that hold every content that the oracle can accept.

    Attributes
    ----------
    rank : array of shape (n_boxes,), int64
        Largest rank of the contents in it.
    load : array of shape (n_boxes,)
        Their load is below this (infinity: no limit).
    sum_row : array of shape (n_boxes,), int64
        Which sum of `Demands` is limited as well; -1 for none.
    limit : array of shape (n_boxes,)
        That sum is below this.
    """

    rank: NDArray[np.int64]
    load: NDArray[np.float64]
    sum_row: NDArray[np.int64]
    limit: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rank)


def boxes_of_frontier(
    ranks: NDArray[np.int64],
    limits: NDArray[np.float64],
    asked: NDArray[np.float64],
    activity_rows: NDArray[np.int64],
) -> Boxes:
    """Boxes from load limits of made-up contents.

    Parameters
    ----------
    ranks : array of shape (n_ranks,), ascending
    limits : array of shape (n_ranks, n_counts)
        Least load at which the made-up content is rejected; infinity if it never is. For ascending counts.
    asked : array of shape (n_ranks, n_counts, n_sums)
        Sums of the made-up content at its limit.
    activity_rows : array of shape (n_activities,)
        Sums other than load and ranks.
    """
    found: set[tuple[int, float, int, float]] = set()
    for r, rank in enumerate(ranks):
        # What is too much beside a smaller largest rank is too much beside a larger one.
        best = limits[: r + 1].min(axis=0)
        source = limits[: r + 1].argmin(axis=0)
        load = math.inf
        for step in range(limits.shape[1]):
            if best[step] >= load:
                continue
            for row in activity_rows:
                found.add((int(rank), load, int(row), float(asked[source[step], step, row])))
            load = float(best[step])
        found.add((int(rank), load, -1, math.inf))
    # A box for a larger largest rank has room for the smaller ranks as well.
    top = {box[1:]: box for box in sorted(found)}
    rows = sorted(top.values())
    rank_, load_, row_, limit_ = zip(*rows, strict=True)
    return Boxes(np.array(rank_), np.array(load_), np.array(row_), np.array(limit_))


@njit(cache=True, nogil=True)
def _knapsack(
    value: NDArray[np.float64],
    weight: NDArray[np.float64],
    count: NDArray[np.float64],
    capacity: float,
    content: NDArray[np.float64],
) -> float:
    """Best value of fractions of items within one capacity; fills in `content`, shape (n,)."""
    ratio = np.empty(len(value))
    for t in range(len(value)):
        content[t] = 0.0
        ratio[t] = -np.inf
        if value[t] > 0.0:
            ratio[t] = value[t] / weight[t] if weight[t] > 0.0 else np.inf
    total = 0.0
    for t in np.argsort(-ratio):
        if ratio[t] == -np.inf or capacity <= 0.0:
            break
        taken = count[t]
        if weight[t] * taken > capacity:
            taken = capacity / weight[t]
        content[t] = taken
        capacity -= weight[t] * taken
        total += value[t] * taken
    return total


@njit(cache=True, nogil=True)
def price_boxes(  # noqa: C901, PLR0912, PLR0913  # one compiled search, on the arrays of a table of boxes
    prices: NDArray[np.float64],
    types_rank: NDArray[np.int64],
    count: NDArray[np.float64],
    sums: NDArray[np.float64],
    load_row: int,
    rank: NDArray[np.int64],
    load: NDArray[np.float64],
    sum_row: NDArray[np.int64],
    limit: NDArray[np.float64],
    contents: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Upper bound on the price of any content in each box, fractions allowed.

    The second row goes into the objective with a multiplier; every multiplier gives a valid bound,
    and the best is found by bisection on its slope.

    Parameters
    ----------
    prices, count : arrays of shape (n_types,)
    types_rank : array of shape (n_types,)
    sums : array of shape (n_sums, n_types)
    load_row : int
    rank, load, sum_row, limit : arrays of shape (n_boxes,)
        As in `Boxes`.
    contents : array of shape (n_boxes, n_types), filled in
        A dearest content of each box, in fractions.

    Returns
    -------
    array of shape (n_boxes,)
    """
    n_types = len(prices)
    bounds = np.empty(len(rank))
    value = np.empty(n_types)
    available = np.empty(n_types)
    over = np.empty(n_types)
    under = np.empty(n_types)
    for box in range(len(rank)):
        for t in range(n_types):
            available[t] = count[t] if types_rank[t] <= rank[box] else 0.0
        weight = sums[load_row]
        bound = _knapsack(prices, weight, available, load[box], over)
        row = sum_row[box]
        if row >= 0:
            second = sums[row]
            used = 0.0
            for t in range(n_types):
                used += second[t] * over[t]
            if used > limit[box]:
                low, high = 0.0, 0.0
                for t in range(n_types):
                    if available[t] > 0 and second[t] > 0.0:
                        high = max(high, prices[t] / second[t])
                under[:] = 0.0
                for _ in range(40):
                    middle = (low + high) / 2
                    for t in range(n_types):
                        value[t] = prices[t] - middle * second[t]
                    inner = _knapsack(value, weight, available, load[box], contents[box])
                    bound = min(bound, inner + middle * limit[box])
                    used = 0.0
                    for t in range(n_types):
                        used += second[t] * contents[box, t]
                    if used > limit[box]:
                        low = middle
                        over[:] = contents[box]
                    else:
                        high = middle
                        under[:] = contents[box]
                used_over, used_under = 0.0, 0.0
                for t in range(n_types):
                    used_over += second[t] * over[t]
                    used_under += second[t] * under[t]
                share = (limit[box] - used_under) / (used_over - used_under) if used_over > used_under else 0.0
                for t in range(n_types):
                    over[t] = under[t] + min(1.0, max(0.0, share)) * (over[t] - under[t])
        contents[box] = over
        bounds[box] = bound
    return bounds


@dataclass(frozen=True)
class FrontierBound:
    """What the boxes prove.

    Attributes
    ----------
    value : float
        No cover with accepted contents, not even with fractions of them, costs less.
    prices : array of shape (n_types,)
        Prices that prove it: no accepted content costs more than 1.
    rounds : int
    """

    value: float
    prices: NDArray[np.float64]
    rounds: int

    @property
    def gpus(self) -> int:
        """The bound in whole GPUs."""
        return max(1, math.ceil(self.value - 1e-6))


def frontier_bound(  # noqa: PLR0913  # the four things that a bound is about; where to start and when to stop, by keyword
    demands: Demands,
    counts: NDArray[np.int64],
    types_rank: NDArray[np.int64],
    boxes: Boxes,
    *,
    start: NDArray[np.float64] | None = None,
    target: int | None = None,
    max_rounds: int = 200,
    deadline: Deadline | None = None,
) -> FrontierBound:
    """Lower bound on GPUs by column generation over the boxes.

    Parameters
    ----------
    demands : Demands
    counts, types_rank : arrays of shape (n_types,)
    boxes : Boxes
    start : array of shape (n_types,), optional
        Prices to begin with; by default in proportion to load.
    target : int, optional
        Stop when as many GPUs are proven.
    max_rounds : int
        Pricing rounds; the bound is valid after any number.
    deadline : Deadline, optional
        Stop there, with what is proven.
    """
    pricing = _Pricing(demands, counts, types_rank, boxes)
    best = FrontierBound(0.0, np.zeros(len(counts)), 0)
    # One column per type makes the first cover possible.
    columns = list(np.eye(len(counts)))
    prices = demands.load / demands.load.sum() if start is None else start
    value = math.inf
    for round_ in range(max_rounds):
        if round_:
            try:
                value, duals = cover_value(columns, counts)
            except ArithmeticError:
                break  # what is proven so far holds
            # Whole GPUs count: when no more can be gained, prices within a hundredth are good enough.
            settled = best.gpus >= math.ceil(value - 1e-6) and best.value >= 0.99 * value
            if settled or best.value >= value * (1 - 1e-4):
                break
            columns = _without_far(columns, duals)
            # Prices half-way to the best so far swing less from one round to the next (Wentges, 1997).
            prices = (best.prices + duals) / 2
            found = pricing.bound(prices)
            if not (pricing.contents @ duals > 1 + 1e-7).any():
                best = max(best, FrontierBound(found, prices / pricing.dearest, round_ + 1), key=_value)
                prices = duals
                found = pricing.bound(prices)
        else:
            found = pricing.bound(prices)
        best = max(best, FrontierBound(found, prices / pricing.dearest, round_ + 1), key=_value)
        columns.extend(pricing.dearest_contents(FRESH))
        if (target is not None and best.gpus >= target) or (deadline is not None and not deadline.left_s):
            break
    return best


def _without_far(columns: list[NDArray[np.float64]], prices: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Without columns far from the cover's prices, if they are many: they cost its programme time, and pricing finds them again."""
    if len(columns) <= MANY_COLUMNS * len(prices):
        return columns
    return [*np.eye(len(prices)), *(column for column in columns if column @ prices > NEARLY_WORTH)]


def _value(bound: FrontierBound) -> float:
    return bound.value


class _Pricing:
    """The boxes, priced once per call of `bound`."""

    def __init__(
        self, demands: Demands, counts: NDArray[np.int64], types_rank: NDArray[np.int64], boxes: Boxes
    ) -> None:
        self.number = counts.astype(np.float64)
        self.types_rank = types_rank
        self.arrays = (demands.values, demands.load_row, boxes.rank, boxes.load, boxes.sum_row, boxes.limit)
        self.contents = np.empty((len(boxes), len(counts)))
        self.prices_of_boxes = np.empty(len(boxes))

    @property
    def dearest(self) -> float:
        return float(self.prices_of_boxes.max())

    def bound(self, prices: NDArray[np.float64]) -> float:
        """Farley's bound of these prices."""
        self.prices_of_boxes = price_boxes(prices, self.types_rank, self.number, *self.arrays, self.contents)
        return float(prices @ self.number) / self.dearest

    def dearest_contents(self, most: int) -> list[NDArray[np.float64]]:
        """Contents of the dearest boxes, in fractions, each once."""
        # Rounded, because coefficients of 1e-17 upset the linear programme.
        first = np.round(self.contents[np.argsort(-self.prices_of_boxes, kind="stable")[:most]], 9)
        return list(np.unique(first, axis=0))
