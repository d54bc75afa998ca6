"""What a placement is compared by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from twin.score import Score


class Objective(ABC):
    """A key that orders scored placements, smaller is better, and hints that a solver may use."""

    name: ClassVar[str]
    #: Use as few GPUs as possible; otherwise the GPUs given are all to be used well.
    minimise_gpus: ClassVar[bool] = True

    @abstractmethod
    def key(self, score: Score) -> tuple[float, ...]:
        """Sort key of a scored placement; feasibility comes first in every shipped objective."""

    def missed(self, score: Score) -> str:  # noqa: ARG002  # an objective with limits looks at it
        """Which of the objective's own limits a scored placement misses, in a phrase such as "TTFT p99 <= 1 s"; empty if none."""
        return ""
