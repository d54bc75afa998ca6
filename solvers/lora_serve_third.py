"""Baseline: LoRAServe with a third as many adapter slots."""

from __future__ import annotations

from typing import ClassVar

from solvers.lora_serve import LoraServe


class LoraServeThird(LoraServe):
    """As `LoraServe`, with a slot for every third adapter."""

    name: ClassVar[str] = "lora_serve_third"

    def slots(self, n_adapters: int) -> int:
        """`max_loras` of a GPU with so many adapters."""
        return max(1, n_adapters // 3)
