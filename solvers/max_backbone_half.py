"""Baseline: as `max_backbone`, with half as many adapter slots."""

from __future__ import annotations

from typing import ClassVar

from solvers.max_backbone import MaxBackbone


class MaxBackboneHalf(MaxBackbone):
    """As `MaxBackbone`, with a slot for every second adapter."""

    name: ClassVar[str] = "max_backbone_half"

    def slots(self, n_adapters: int) -> int:
        """`max_loras` of a GPU with so many adapters."""
        return max(1, n_adapters // 2)
