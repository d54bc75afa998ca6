"""Decision trees as plain arrays, evaluated in compiled code.

A tree's nodes stand in preorder: the left child of node `i` is node `i + 1`, so only the right child is
stored. A leaf has feature -1 and its value in place of the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from twin.compiled import njit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def tree_value(
    inputs: NDArray[np.float32],
    root: int,
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
) -> float:
    """Value of the leaf that `inputs` (shape (n_inputs,)) falls into, from node `root` down."""
    node = root
    while feature[node] >= 0:
        node = node + 1 if inputs[feature[node]] <= threshold[node] else right[node]
    return float(threshold[node])


@njit(cache=True, nogil=True)
def forest_value(
    inputs: NDArray[np.float32],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
) -> float:
    """Sum of the values of all trees."""
    total = 0.0
    for tree in range(len(roots)):
        total += tree_value(inputs, roots[tree], feature, threshold, right)
    return total


@njit(cache=True, nogil=True)
def forest_values(
    inputs: NDArray[np.float32],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
) -> NDArray[np.float64]:
    """`forest_value` of each row of `inputs`, shape (n, n_inputs)."""
    values = np.empty(len(inputs))
    for i in range(len(inputs)):
        values[i] = forest_value(inputs[i], roots, feature, threshold, right)
    return values


@dataclass(frozen=True)
class Forest:
    """A sum of trees; a single tree is a forest of one. Averages have their weight in the leaves.

    Attributes
    ----------
    roots : array of shape (n_trees,), int32
    feature : array of shape (n_nodes,), int16
        -1 in a leaf.
    threshold : array of shape (n_nodes,), float32
        Inputs up to it go left; in a leaf: the value.
    right : array of shape (n_nodes,), int32
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    right: NDArray[np.int32]

    def __post_init__(self) -> None:
        for array in self.arrays:
            array.flags.writeable = False

    @property
    def arrays(self) -> tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.float32], NDArray[np.int32]]:
        """The four arrays, in the order that the kernels take them."""
        return self.roots, self.feature, self.threshold, self.right

    @property
    def n_trees(self) -> int:
        """How many trees there are."""
        return len(self.roots)

    @property
    def n_leaves(self) -> int:
        """How many leaves all trees have together."""
        return int((self.feature < 0).sum())

    def values(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sum of the trees for each row.

        Parameters
        ----------
        inputs : array of shape (n, n_inputs), float32

        Returns
        -------
        array of shape (n,)
        """
        values: NDArray[np.float64] = forest_values(np.ascontiguousarray(inputs, np.float32), *self.arrays)
        return values

    def rules(self, names: Sequence[str], tree: int = 0, digits: int = 4) -> str:
        """One tree as indented text, for people.

        Parameters
        ----------
        names : sequence of str, shape (n_inputs,)
        """
        lines: list[str] = []
        todo = [(int(self.roots[tree]), 0, "")]
        while todo:
            node, depth, condition = todo.pop()
            place = int(self.feature[node])
            value = f"{self.threshold[node]:.{digits}g}"
            lines.append("  " * depth + condition + (value if place < 0 else ""))
            if place >= 0:
                todo.append((int(self.right[node]), depth + 1, f"{names[place]} > {value}: "))
                todo.append((node + 1, depth + 1, f"{names[place]} <= {value}: "))
        return "\n".join(line.rstrip() for line in lines if line.strip())


def _round_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each value: a float32 is <= the one exactly when <= the other."""
    rounded = values.astype(np.float32)
    above = rounded.astype(np.float64) > values
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    return rounded


def forest_from_nodes(trees: Sequence[dict[str, NDArray[Any]]]) -> Forest:
    """A forest from trees given as node arrays with arbitrary places of the children.

    Parameters
    ----------
    trees : sequence of dict
        Each with `feature` (-1 in a leaf), `threshold`, `left`, `right`, `value`, arrays of shape (n_nodes,);
        node 0 is the root.
    """
    roots: list[int] = []
    features: list[int] = []
    thresholds: list[np.float32] = []
    rights: list[int] = []
    for nodes in trees:
        roots.append(len(features))
        cuts = _round_down(np.asarray(nodes["threshold"], np.float64))
        # Preorder by an explicit stack; the parent of a right child learns its place when it comes up.
        todo = [(0, -1)]
        while todo:
            node, parent = todo.pop()
            if parent >= 0:
                rights[parent] = len(features)
            place = len(features)
            feature = int(nodes["feature"][node])
            features.append(feature)
            thresholds.append(cuts[node] if feature >= 0 else np.float32(nodes["value"][node]))
            rights.append(-1)
            if feature >= 0:
                todo.append((int(nodes["right"][node]), place))
                todo.append((int(nodes["left"][node]), -1))
    return Forest(
        np.array(roots, np.int32),
        np.array(features, np.int16),
        np.array(thresholds, np.float32),
        np.array(rights, np.int32),
    )
