"""Baseline: first-fit decreasing in two dimensions."""

from __future__ import annotations

from typing import ClassVar

from solvers.filling.vectors import FIRST_FIT, VectorPacking


class FirstFitDecreasing(VectorPacking):
    """Each adapter, the largest first, goes to the first GPU with room."""

    name: ClassVar[str] = "first_fit_decreasing"
    rule: ClassVar[int] = FIRST_FIT
