"""Baseline: worst-fit decreasing in two dimensions."""

from __future__ import annotations

from typing import ClassVar

from solvers.filling.vectors import WORST_FIT, VectorPacking


class WorstFitDecreasing(VectorPacking):
    """Each adapter, the largest first, goes to the emptiest GPU with room."""

    name: ClassVar[str] = "worst_fit_decreasing"
    rule: ClassVar[int] = WORST_FIT
