"""The published placement with its predictors distilled to one tree each."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import NDArray

from predictors import Predictor
from solvers.ffd import Ffd


class FfdFast(Ffd):
    """As `Ffd`, with the distilled trees: faster, less accurate."""

    name: ClassVar[str] = "ffd_fast"

    def model(self, predictor: Predictor) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...], float]:
        """Arrays of the distilled trees."""
        return (
            predictor.distilled_throughput_arrays,
            predictor.distilled_starvation_arrays,
            predictor.distilled_threshold,
        )
