"""The fewest GPUs that keep the service level."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from solvers.objectives.base import Objective

if TYPE_CHECKING:
    from twin.score import Score


class MinGpus(Objective):
    """Feasible first, then fewer GPUs, then more headroom."""

    name: ClassVar[str] = "min_gpus"

    def key(self, score: Score) -> tuple[float, ...]:
        """(failing GPUs, GPUs, -headroom)."""
        return (score.failed_gpus, score.gpus, -score.headroom)
