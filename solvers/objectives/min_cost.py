"""The cheapest GPUs that keep the service level."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from solvers.objectives.base import Objective

if TYPE_CHECKING:
    from twin.score import Score


class MinCost(Objective):
    """Feasible first, then the lower sum of prices, then more headroom; of one type at price 1 this is `min_gpus`."""

    name: ClassVar[str] = "min_cost"

    def key(self, score: Score) -> tuple[float, ...]:
        """(failing GPUs, cost, -headroom)."""
        return (score.failed_gpus, score.cost, -score.headroom)
