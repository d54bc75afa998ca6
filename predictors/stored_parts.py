"""The parts of a predictor file: forests and calibrations, every array checked before compiled code walks it."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from predictors.levels import LIMITED_NAMES, PERCENTILE_INPUTS, LevelModels, Verdicts
from predictors.meanfield import N_INPUTS
from predictors.trees import Forest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VERDICTS = {"limited": LIMITED_NAMES, "batch": LIMITED_NAMES[:N_INPUTS]}
_PERCENTILES = ("ttft", "itl", "ttft_tree", "itl_tree")


def forest_arrays(name: str, forest: Forest) -> dict[str, NDArray[Any]]:
    """A forest as arrays whose names begin with its own."""
    return {f"{name}_{part.name}": getattr(forest, part.name) for part in fields(Forest)}


def levels_as_arrays(levels: LevelModels) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Models of service levels as what the header says of them, and their arrays."""
    header: dict[str, Any] = {
        "inputs": LIMITED_NAMES, "percentile_inputs": PERCENTILE_INPUTS, "card": levels.card, "thresholds": {},
    }  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {}
    for name in _VERDICTS:
        mine: Verdicts = getattr(levels, name)
        header["thresholds"][name] = [mine.thresholds, mine.distilled_thresholds]
        arrays |= forest_arrays(f"levels_{name}", mine.forest) | forest_arrays(f"levels_{name}_tree", mine.tree)
        arrays[f"levels_{name}_calibration"] = mine.calibration
    for name in _PERCENTILES:
        arrays |= forest_arrays(f"levels_{name}", getattr(levels, name))
    return header, arrays


def levels_of(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> LevelModels | None:
    """The models of service levels in a file; None where those of another release see other inputs.

    Raises
    ------
    KeyError, ValueError
        If arrays are missing, or are no trees.
    """
    if (header["inputs"], header["percentile_inputs"]) != (list(LIMITED_NAMES), list(PERCENTILE_INPUTS)):
        return None
    parts: dict[str, Any] = {
        name: Verdicts(
            read_forest(f"levels_{name}", arrays, len(inputs)),
            read_forest(f"levels_{name}_tree", arrays, len(inputs)),
            read_calibration(arrays[f"levels_{name}_calibration"]),
            *header["thresholds"][name],
        )
        for name, inputs in _VERDICTS.items()
    }
    parts |= {name: read_forest(f"levels_{name}", arrays, len(PERCENTILE_INPUTS)) for name in _PERCENTILES}
    return LevelModels(**parts, card=header["card"])


def read_calibration(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """A table that ascends."""
    table = np.ascontiguousarray(table, np.float64)
    if table.ndim != 2 or len(table) != 2 or not np.all(np.diff(table[0]) > 0) or not np.all(np.diff(table[1]) >= 0):
        raise ValueError("calibration must ascend")
    return table


def read_forest(name: str, arrays: dict[str, NDArray[Any]], n_inputs: int) -> Forest:
    """A forest that is safe to walk: compiled code does not check its steps, so every node is checked here.

    Parameters
    ----------
    name : str
        What the names of its arrays begin with.
    arrays : dict
    n_inputs : int
        It may split on so many.

    Raises
    ------
    KeyError, ValueError
        If arrays are missing, or are no trees.
    """
    parts = {part.name: arrays[f"{name}_{part.name}"] for part in fields(Forest)}
    forest = Forest(
        parts["roots"].astype(np.int32),
        parts["feature"].astype(np.int16),
        parts["threshold"].astype(np.float32),
        parts["right"].astype(np.int32),
    )
    n_nodes = len(forest.feature)
    node = np.flatnonzero(forest.feature >= 0)
    right = forest.right[node]
    if (
        any(array.ndim != 1 for array in forest.arrays)
        or not len(forest.threshold) == len(forest.right) == n_nodes
        or not forest.n_trees
        or np.any((forest.roots < 0) | (forest.roots >= n_nodes))
        or np.any(forest.feature >= n_inputs)
        # Children stand behind their parent, so a walk ends.
        or np.any((right <= node) | (right >= n_nodes) | (node + 1 >= n_nodes))
        or not np.all(np.isfinite(forest.threshold))
    ):
        raise ValueError(f"the arrays of {name} are no trees")
    return forest
