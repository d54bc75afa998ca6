"""One regression tree that is monotone in some of its inputs.

scikit-learn keeps a tree monotone by bounding the leaves under a split by the mean of the split's two sides. That is
safe but costs most of the accuracy of a deep tree. Here a leaf is bounded by the leaves that it can be compared with:
leaf `A` must not exceed leaf `B` only if some point of `A` lies below some point of `B` in every monotone input, while
the inputs without a direction overlap. (LightGBM calls this the advanced method.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from predictors.trees import Forest, forest_from_nodes
from twin.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Thresholds that a split of one input is chosen among. Chosen by hand.
N_BINS = 128


@njit(cache=True, nogil=True)
def _below(
    low: NDArray[np.int64], high: NDArray[np.int64], other_low: NDArray[np.int64], other_high: NDArray[np.int64],
    signs: NDArray[np.int64],
) -> bool:  # fmt: skip
    """Whether some point of a box of bins [low, high) lies below some point of another, so must not exceed it."""
    for j in range(len(signs)):
        if signs[j] >= 0 and low[j] >= other_high[j]:
            return False
        if signs[j] <= 0 and high[j] <= other_low[j]:
            return False
    return True


@njit(cache=True, nogil=True)
def _bounds(  # noqa: PLR0913  # a box, and the leaves as arrays
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    skip: int,
    n_leaves: int,
    lows: NDArray[np.int64],
    highs: NDArray[np.int64],
    values: NDArray[np.float64],
    signs: NDArray[np.int64],
) -> tuple[float, float]:
    """The range that the leaves other than `skip` leave to the value of a box."""
    least, most = -np.inf, np.inf
    for leaf in range(n_leaves):
        if leaf == skip:
            continue
        if values[leaf] > least and _below(lows[leaf], highs[leaf], low, high, signs):
            least = values[leaf]
        if values[leaf] < most and _below(low, high, lows[leaf], highs[leaf], signs):
            most = values[leaf]
    return least, most


@njit(cache=True, nogil=True)
def _best_split(  # noqa: C901, PLR0913  # one search; the data and the leaves as arrays
    rows: NDArray[np.int64],
    bins: NDArray[np.int64],
    target: NDArray[np.float64],
    leaf: int,
    n_leaves: int,
    lows: NDArray[np.int64],
    highs: NDArray[np.int64],
    values: NDArray[np.float64],
    signs: NDArray[np.int64],
    min_rows: int,
) -> tuple[float, int, int, float, float]:
    """Gain, input, bin, left and right value of the best split of a leaf; a gain of 0 means none."""
    n_inputs = bins.shape[1]
    best_gain, best_input, best_bin, best_left, best_right = 0.0, -1, -1, 0.0, 0.0
    own = values[leaf]
    low, high = lows[leaf].copy(), highs[leaf].copy()
    least, most = _bounds(low, high, leaf, n_leaves, lows, highs, values, signs)
    sums = np.empty((N_BINS, 2))
    total_n, total_y = float(len(rows)), 0.0
    for row in rows:
        total_y += target[row]
    for j in range(n_inputs):
        sums[:] = 0.0
        for row in rows:
            place = bins[row, j]
            sums[place, 0] += 1.0
            sums[place, 1] += target[row]
        left_n, left_y = 0.0, 0.0
        for cut in range(low[j], high[j] - 1):
            left_n += sums[cut, 0]
            left_y += sums[cut, 1]
            if left_n < min_rows or sums[cut, 0] == 0.0:
                continue
            right_n, right_y = total_n - left_n, total_y - left_y
            if right_n < min_rows:
                break
            left, right = left_y / left_n, right_y / right_n
            # What the split would bring without the other leaves.
            if left_n * (left - own) ** 2 + right_n * (right - own) ** 2 <= best_gain:
                continue
            if signs[j] != 0 and signs[j] * (right - left) < 0:
                continue
            if left < least or left > most or right < least or right > most:
                # The halves are bounded by fewer leaves than the whole.
                keep = high[j]
                high[j] = cut + 1
                lower, upper = _bounds(low, high, leaf, n_leaves, lows, highs, values, signs)
                left = min(max(left, lower), upper)
                high[j], keep_low = keep, low[j]
                low[j] = cut + 1
                lower, upper = _bounds(low, high, leaf, n_leaves, lows, highs, values, signs)
                right = min(max(right, lower), upper)
                low[j] = keep_low
                if signs[j] != 0 and signs[j] * (right - left) < 0:
                    continue
            # Squared error of the leaf now, less that of the halves.
            gain = (
                (2 * left_y * left - left_n * left * left)
                + (2 * right_y * right - right_n * right * right)
                - (2 * total_y * own - total_n * own * own)
            )
            if gain > best_gain:
                best_gain, best_input, best_bin, best_left, best_right = gain, j, cut, left, right
    return best_gain, best_input, best_bin, best_left, best_right


@njit(cache=True, nogil=True)
def _grow(  # noqa: PLR0913  # the data and the result as arrays
    bins: NDArray[np.int64],
    target: NDArray[np.float64],
    signs: NDArray[np.int64],
    max_leaves: int,
    min_rows: int,
    nodes: NDArray[np.int64],
    node_values: NDArray[np.float64],
) -> int:
    """Grow a tree best leaf first; returns the count of nodes (feature, bin, left, right) filled in."""
    n_rows, n_inputs = bins.shape
    lows = np.zeros((max_leaves, n_inputs), np.int64)
    highs = np.full((max_leaves, n_inputs), N_BINS, np.int64)
    values = np.zeros(max_leaves)
    node_of = np.zeros(max_leaves, np.int64)
    split = np.zeros((max_leaves, 5))
    fresh = np.zeros(max_leaves, np.int64)
    leaf_of = np.zeros(n_rows, np.int64)
    values[0] = np.mean(target)
    node_values[0] = values[0]
    nodes[0, 0] = -1
    n_leaves, n_nodes = 1, 1
    split[0, 0] = np.inf
    fresh[0] = -1
    while n_leaves < max_leaves:
        # A split found before other leaves took their values may not be allowed any more: the best is found anew.
        leaf = int(np.argmax(split[:n_leaves, 0]))
        if split[leaf, 0] <= 1e-12:
            break
        if fresh[leaf] != n_leaves:
            rows = np.flatnonzero(leaf_of == leaf)
            gain, j, cut, left, right = _best_split(
                rows, bins, target, leaf, n_leaves, lows, highs, values, signs, min_rows
            )
            split[leaf, 0], split[leaf, 1], split[leaf, 2], split[leaf, 3], split[leaf, 4] = gain, j, cut, left, right
            fresh[leaf] = n_leaves
            continue
        j, cut = int(split[leaf, 1]), int(split[leaf, 2])
        for row in range(n_rows):
            if leaf_of[row] == leaf and bins[row, j] > cut:
                leaf_of[row] = n_leaves
        lows[n_leaves], highs[n_leaves] = lows[leaf], highs[leaf]
        lows[n_leaves, j], highs[leaf, j] = cut + 1, cut + 1
        values[leaf], values[n_leaves] = split[leaf, 3], split[leaf, 4]
        node = node_of[leaf]
        nodes[node, 0], nodes[node, 1], nodes[node, 2], nodes[node, 3] = j, cut, n_nodes, n_nodes + 1
        nodes[n_nodes, 0], nodes[n_nodes + 1, 0] = -1, -1
        node_values[n_nodes], node_values[n_nodes + 1] = values[leaf], values[n_leaves]
        node_of[leaf], node_of[n_leaves] = n_nodes, n_nodes + 1
        split[leaf, 0], split[n_leaves, 0] = np.inf, np.inf
        fresh[leaf], fresh[n_leaves] = -1, -1
        n_leaves += 1
        n_nodes += 2
    # Leaves may have room again that other leaves took from them: let each move toward its mean once more.
    sums = np.zeros((n_leaves, 2))
    for row in range(n_rows):
        sums[leaf_of[row], 0] += 1.0
        sums[leaf_of[row], 1] += target[row]
    for _ in range(10):
        for leaf in range(n_leaves):
            least, most = _bounds(lows[leaf], highs[leaf], leaf, n_leaves, lows, highs, values, signs)
            values[leaf] = min(max(sums[leaf, 1] / sums[leaf, 0], least), most)
            node_values[node_of[leaf]] = values[leaf]
    return n_nodes


def fit_monotone_tree(
    X: NDArray[np.float32],
    target: NDArray[np.float64],
    signs: ArrayLike,
    max_leaves: int,
    min_rows: int = 5,
) -> Forest:
    """Fit one tree, by least squares, that never falls along a direction.

    Parameters
    ----------
    X : array of shape (n, n_inputs), float32
    target : array of shape (n,)
    signs : array-like of shape (n_inputs,)
        1 where the tree must not fall when the input grows, -1 where it must not rise, 0 where it may do as it likes.
    max_leaves : int
    min_rows : int
        Fewest rows of a leaf.

    Returns
    -------
    Forest
        Of one tree.
    """
    edges = [_edges(X[:, j]) for j in range(X.shape[1])]
    bins = np.column_stack([np.searchsorted(edges[j], X[:, j], side="left") for j in range(X.shape[1])])
    nodes = np.zeros((2 * max_leaves, 4), np.int64)
    values = np.zeros(2 * max_leaves)
    n_nodes = _grow(
        np.ascontiguousarray(bins, dtype=np.int64),
        np.asarray(target, np.float64),
        np.asarray(signs, np.int64),
        max_leaves,
        min_rows,
        nodes,
        values,
    )
    feature, cut, left, right = nodes[:n_nodes].T
    threshold = np.array([edges[j][b] if j >= 0 else 0.0 for j, b in zip(feature, cut, strict=True)])
    tree: dict[str, NDArray[Any]] = {
        "feature": feature, "threshold": threshold, "left": left, "right": right, "value": values[:n_nodes],
    }  # fmt: skip
    return forest_from_nodes([tree])


def _edges(column: NDArray[np.float32]) -> NDArray[np.float64]:
    """At most `N_BINS` - 1 thresholds: midpoints between the values at even quantiles of those there are."""
    distinct = np.unique(column).astype(np.float64)
    if len(distinct) > N_BINS:
        distinct = np.unique(np.quantile(column.astype(np.float64), np.linspace(0, 1, N_BINS), method="nearest"))
    return (distinct[:-1] + distinct[1:]) / 2
