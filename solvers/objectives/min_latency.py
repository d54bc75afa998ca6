"""The lowest latency on a given fleet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from solvers.objectives.base import Objective
from twin.errors import UserError

if TYPE_CHECKING:
    from twin.score import Score

METRICS = ("e2e_ms", "itl_ms", "ttft_ms")


class MinLatency(Objective):
    """Feasible first, then lower mean latency, whatever the number of GPUs.

    Parameters
    ----------
    metric : {"e2e_ms", "itl_ms", "ttft_ms"}
        Which mean latency counts.
    """

    name: ClassVar[str] = "min_latency"
    minimise_gpus: ClassVar[bool] = False

    def __init__(self, metric: str = "e2e_ms") -> None:
        if metric not in METRICS:
            msg = f"objective.metric={metric}: must be one of {list(METRICS)}"
            raise UserError(msg)
        self.metric = metric

    def key(self, score: Score) -> tuple[float, ...]:
        """(failing GPUs, mean latency)."""
        latency = getattr(score, self.metric)
        return (score.failed_gpus, math.inf if math.isnan(latency) else latency)
