"""What GPUs hold while they are evened out: whom the oracle is asked about first, and what moves."""

from __future__ import annotations

import numpy as np

from solvers.limits import Deadline
from solvers.spreading.even import Contents
from tests.solvers.toy_oracle import ToyOracle
from twin import workload_from_groups


def held(groups: list[list[int]], weights: list[float]) -> Contents:
    oracle = ToyOracle(workload_from_groups([(len(weights), 8, 0.1)], duration_s=60.0))
    return Contents(groups, np.array(weights), oracle, Deadline.after(600.0))


def test_the_heaviest_gpu_is_asked_about_first() -> None:
    """Whose refusal ends the asking soonest."""
    contents = held([[0], [1], [2]], [1.0, 3.0, 2.0])
    asked: list[tuple[int, ...]] = []
    contents._slots = lambda content, _=None: asked.append(content)  # type: ignore[assignment, method-assign]  # refuses all
    assert not contents.ask(most_refused=1)
    assert asked == [(1,), (2,)]


def test_the_adapter_nearest_below_half_the_difference_moves() -> None:
    """Ten against two: of those of at most four the heaviest, though moving six would do too much."""
    contents = held([[0, 1, 2], [3]], [6.0, 3.0, 1.0, 2.0])
    contents._move(0, 1)
    assert contents.contents == [(0, 2), (1, 3)]
