"""The published placement with its predictors distilled to one tree each."""

from __future__ import annotations

from typing import ClassVar

from solvers.ffd import Ffd


class FfdFast(Ffd):
    """As `Ffd`, with the distilled trees and without the twin: faster, less accurate."""

    name: ClassVar[str] = "ffd_fast"
    distilled: ClassVar[bool] = True

    def __init__(self, twin: str = "outside", risk: float | None = None) -> None:
        super().__init__(twin, risk)
