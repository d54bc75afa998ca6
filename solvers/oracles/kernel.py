"""The learned starvation model in compiled code, for searches that ask about thousands of contents."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.features import MAX_LORAS
from predictors.kernels import starvation_of
from twin.compiled import njit


@njit(cache=True, nogil=True, inline="always")
def starvation_at(
    content: NDArray[np.float64], max_loras: int, starvation: tuple[NDArray[Any], ...], inputs: NDArray[np.float32]
) -> float:
    """Probability that a content starves at a `max_loras`.

    Parameters
    ----------
    content : array of shape (N_FEATURES,), whose `max_loras` is overwritten
    max_loras : int
    starvation : tuple of arrays
        `Predictor.starvation_arrays` or the distilled ones.
    inputs : array of shape (N_INPUTS,), float32, scratch
    """
    content[MAX_LORAS] = max_loras
    return starvation_of(
        content, starvation[0], starvation[1], inputs,
        starvation[2], starvation[3], starvation[4], starvation[5], starvation[6], starvation[7],
    )  # fmt: skip
