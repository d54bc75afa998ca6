"""Baseline: best-fit decreasing in two dimensions."""

from __future__ import annotations

from typing import ClassVar

from solvers.filling.vectors import BEST_FIT, VectorPacking


class BestFitDecreasing(VectorPacking):
    """Each adapter, the largest first, goes to the fullest GPU with room."""

    name: ClassVar[str] = "best_fit_decreasing"
    rule: ClassVar[int] = BEST_FIT
