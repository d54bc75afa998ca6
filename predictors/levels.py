"""Models of service levels: whether a content keeps one, for limits that are given, and percentiles of its latency.

A limit is an input of the trees, beside how far the content's own times are from it. Once it is given, a split on it is decided, and
a split on a time over a limit is one on the time: what is left (`given`) is a forest over the inputs of a content alone, that the
compiled questions of starvation walk. The trees never fall when an adapter joins and never rise when a limit is looser.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from predictors.meanfield import INPUT_NAMES, MONOTONE, N_INPUTS
from predictors.trees import Forest, forest_from_nodes
from twin.service import BATCH, INTERACTIVE, ServiceLevel

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Limits on the time to the first token and on the mean time of each later one that are learned, least and most.
TTFT_LIMITS_MS = (200.0, 10_000.0)
TPOT_LIMITS_MS = (20.0, 200.0)
#: Limits on the time to the first token by which a content is labelled: that of `interactive`, and others drawn.
N_TTFT_LIMITS = 9
#: Percentiles of latency that are learned.
PERCENTILES = (50, 90, 95, 99)
PERCENTILE_NAMES = tuple(f"{what}_p{percentile}_ms" for what in ("ttft", "itl") for percentile in PERCENTILES)

# What the trees of service levels see behind the inputs of a content: each limit, and times of the content over it.
_TTFT, _TPOT = N_INPUTS, N_INPUTS + 1
_OVER_LIMIT = (("first_token_ms", _TTFT), ("slot_wait_ms", _TTFT), ("step_ms", _TPOT), ("full_step_ms", _TPOT))
LIMITED_NAMES = (
    *INPUT_NAMES, "ttft_limit_ms", "tpot_limit_ms",
    *(f"{name}_over_limit" for name, _ in _OVER_LIMIT),
)  # fmt: skip
LIMITED_MONOTONE = (*MONOTONE, -1, -1, *(1 for _ in _OVER_LIMIT))
#: What the trees of percentiles see, and the directions they keep to: a higher percentile is never less.
PERCENTILE_INPUTS = (*INPUT_NAMES, "percentile")
PERCENTILE_MONOTONE = (*(0 for _ in INPUT_NAMES), 1)

Latency = Literal["ttft", "itl"]


@dataclass(frozen=True)
class Verdicts:
    """Models of whether a content fails a level.

    Attributes
    ----------
    forest : Forest
        Score that grows with the probability of failing; `calibration` makes a probability of it.
    tree : Forest
        One tree distilled from it, whose leaves are probabilities.
    calibration : array of shape (2, n)
        Scores and probabilities, both ascending.
    thresholds, distilled_thresholds : dict
        For each share of the failing contents that may be missed the probability from which on a content counts as failing.
    """

    forest: Forest
    tree: Forest
    calibration: NDArray[np.float64]
    thresholds: dict[str, float]
    distilled_thresholds: dict[str, float]


@dataclass(frozen=True)
class LevelModels:
    """What was learned of service levels under one serving profile.

    Attributes
    ----------
    limited, batch : Verdicts
        For limits that are given (`LIMITED_NAMES`; `interactive` is one of them), and for the level `batch`.
    ttft, itl, ttft_tree, itl_tree : Forest
        Logarithm of a percentile of the latency over the estimated step time (`PERCENTILE_INPUTS`).
    card : dict
        Data, errors on left-out data.
    """

    limited: Verdicts
    batch: Verdicts
    ttft: Forest
    itl: Forest
    ttft_tree: Forest
    itl_tree: Forest
    card: dict[str, Any]

    def verdicts(self, level: ServiceLevel) -> Verdicts | None:
        """The models of a level, over the inputs of a content alone; None where it was not learned."""
        if not _is_learned(level):
            return None
        if level.e2el_ms is not None:
            return self.batch
        limits = level.limits["ttft_ms"], level.limits["tpot_ms"]
        mine = self.limited
        return replace(
            mine, forest=_given(_ByIdentity(mine.forest), *limits), tree=_given(_ByIdentity(mine.tree), *limits)
        )

    def percentile(self, what: Latency, percentile: int, *, distilled: bool) -> Forest:
        """Logarithm of a percentile of the latency over the estimated step time, over the inputs of a content alone."""
        return _given(_ByIdentity(getattr(self, f"{what}_tree" if distilled else what)), float(percentile))


def _is_learned(level: ServiceLevel) -> bool:
    """Whether a level judges as the labels did, and its limits are within what they were drawn from."""
    rule = ("share", "warm_up", "least_judged", "tail_s")
    if any(getattr(level, name) != getattr(INTERACTIVE, name) for name in rule):
        return False
    if level.limits == BATCH.limits:
        return True
    return (
        level.limits.keys() == INTERACTIVE.limits.keys()
        and TTFT_LIMITS_MS[0] <= level.limits["ttft_ms"] <= TTFT_LIMITS_MS[1]
        and TPOT_LIMITS_MS[0] <= level.limits["tpot_ms"] <= TPOT_LIMITS_MS[1]
    )


def limited_inputs(
    inputs: NDArray[np.float32], ttft_ms: NDArray[np.float64] | float, tpot_ms: NDArray[np.float64] | float
) -> NDArray[np.float32]:
    """What the trees of service levels see, shape (n, len(LIMITED_NAMES)).

    Parameters
    ----------
    inputs : array of shape (n, N_INPUTS)
    ttft_ms, tpot_ms : arrays of shape (n,), or numbers
        Limits.
    """
    limits = {_TTFT: np.broadcast_to(ttft_ms, len(inputs)), _TPOT: np.broadcast_to(tpot_ms, len(inputs))}
    over = [inputs[:, INPUT_NAMES.index(name)] / limits[limit] for name, limit in _OVER_LIMIT]
    return np.column_stack([inputs, *limits.values(), *over]).astype(np.float32)


def percentile_inputs(inputs: NDArray[np.float32], percentile: NDArray[np.int64] | int) -> NDArray[np.float32]:
    """What the trees of percentiles see, shape (n, len(PERCENTILE_INPUTS))."""
    return np.column_stack([inputs, np.broadcast_to(percentile, len(inputs))]).astype(np.float32)


class _ByIdentity:
    """A forest as the key of a cache, which also keeps it."""

    def __init__(self, forest: Forest) -> None:
        self.forest = forest

    def __hash__(self) -> int:
        return id(self.forest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.forest is self.forest


# Solvers ask about one level again and again, and a forest takes a tenth of a second.
@lru_cache(maxsize=64)
def _given(key: _ByIdentity, *values: float) -> Forest:
    known = {N_INPUTS + place: value for place, value in enumerate(values)}
    of_limits = _OVER_LIMIT if len(values) > 1 else ()
    over = {
        N_INPUTS + len(values) + place: (INPUT_NAMES.index(name), known[limit])
        for place, (name, limit) in enumerate(of_limits)
    }
    return given(key.forest, known, over)


def given(forest: Forest, known: dict[int, float], over: dict[int, tuple[int, float]]) -> Forest:
    """A forest some of whose inputs are known.

    Parameters
    ----------
    forest : Forest
    known : dict
        Value of each input that is known: its splits are decided.
    over : dict
        For each input that is another over a number: the other, and the number. A split on it becomes one on the other.

    Returns
    -------
    Forest
        With the same value wherever these inputs have these values, up to the rounding of a threshold.
    """
    trees = []
    for root in forest.roots:
        nodes: dict[str, list[float]] = {name: [] for name in ("feature", "threshold", "left", "right", "value")}
        # A node to come, and where its place is to be written.
        todo: list[tuple[int, tuple[list[float], int] | None]] = [(int(root), None)]
        while todo:
            node, parent = todo.pop()
            feature = int(forest.feature[node])
            while feature in known:
                node = node + 1 if known[feature] <= forest.threshold[node] else int(forest.right[node])
                feature = int(forest.feature[node])
            place = len(nodes["feature"])
            if parent is not None:
                parent[0][parent[1]] = place
            base, factor = over.get(feature, (feature, 1.0))
            cut = float(forest.threshold[node])
            for name, value in (
                ("feature", base), ("threshold", cut * factor), ("left", 0), ("right", 0), ("value", cut),
            ):  # fmt: skip
                nodes[name].append(value)
            if feature >= 0:
                todo.append((int(forest.right[node]), (nodes["right"], place)))
                todo.append((node + 1, (nodes["left"], place)))
        trees.append(
            {
                name: np.array(values, np.float64 if name in ("threshold", "value") else np.int64)
                for name, values in nodes.items()
            }
        )
    return forest_from_nodes(trees)
