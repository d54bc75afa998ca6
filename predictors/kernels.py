"""Compiled questions to the predictors, one content at a time and in batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from predictors import features as content_places
from predictors.meanfield import LOAD_INPUT, N_INPUTS, SERVICE_INPUT, estimated_share, model_inputs
from predictors.trees import forest_value
from twin.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: What `values_of` can be asked about.
THROUGHPUT, STARVATION, LATENCY, FEASIBLE_LOAD = range(4)


@njit(cache=True, nogil=True)
def interpolate(value: float, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> float:
    """Piecewise linear function through (xs, ys), constant outside; `xs` ascends."""
    last = len(xs) - 1
    if value <= xs[0]:
        return float(ys[0])
    if value >= xs[last]:
        return float(ys[last])
    right = np.searchsorted(xs, value)
    share = (value - xs[right - 1]) / (xs[right] - xs[right - 1])
    return float(ys[right - 1] + share * (ys[right] - ys[right - 1]))


@njit(cache=True, nogil=True)
def throughput_of(  # noqa: PLR0913  # the arrays of a table and of a forest
    content: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    inputs: NDArray[np.float32],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
) -> float:
    """Throughput of one content in tokens per second; `inputs` of shape (N_INPUTS,), float32, is scratch."""
    if model_inputs(content, table, flags, inputs) != 0:
        return 0.0
    offered = content[content_places.RATE] * (content[content_places.PROMPT] + content[content_places.REQUESTED])
    correction = math.exp(forest_value(inputs, roots, feature, threshold, right))
    return float(offered * min(1.0, estimated_share(inputs) * correction))


@njit(cache=True, nogil=True)
def starvation_of(  # noqa: PLR0913  # the arrays of a table, of a forest and of its calibration
    content: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    inputs: NDArray[np.float32],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
    calibration_x: NDArray[np.float64],
    calibration_y: NDArray[np.float64],
) -> float:
    """Probability that one content starves; `inputs` of shape (N_INPUTS,), float32, is scratch."""
    state = model_inputs(content, table, flags, inputs)
    if state != 0:
        return 0.0 if state == 1 else 1.0
    return interpolate(forest_value(inputs, roots, feature, threshold, right), calibration_x, calibration_y)


@njit(cache=True, nogil=True)
def latency_of(  # noqa: PLR0913  # the arrays of a table and of a forest
    content: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    inputs: NDArray[np.float32],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
) -> float:
    """ITL or TTFT of one content in milliseconds, by the forest given; NaN where nothing is served."""
    if model_inputs(content, table, flags, inputs) != 0:
        return math.nan
    step_ms = 1000.0 * inputs[SERVICE_INPUT] * content[content_places.WINDOW] / content[content_places.OUTPUT]
    return float(step_ms * math.exp(forest_value(inputs, roots, feature, threshold, right)))


@njit(cache=True, nogil=True)
def feasible_load_of(  # noqa: PLR0913  # the arrays of a table and of a forest
    content: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    inputs: NDArray[np.float32],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
) -> float:
    """Factor by which the rates of one content can be multiplied before it starves; infinite where nothing is asked."""
    state = model_inputs(content, table, flags, inputs)
    if state != 0:
        return math.inf if state == 1 else 0.0
    return float(math.exp(forest_value(inputs, roots, feature, threshold, right)) / max(1e-9, inputs[LOAD_INPUT]))


@njit(cache=True, nogil=True)
def values_of(  # noqa: PLR0913  # what is asked, and the arrays of a table, of a forest and of its calibration
    target: int,
    contents: NDArray[np.float64],
    table: NDArray[np.float64],
    flags: NDArray[np.float64],
    roots: NDArray[np.int32],
    feature: NDArray[np.int16],
    threshold: NDArray[np.float32],
    right: NDArray[np.int32],
    calibration_x: NDArray[np.float64],
    calibration_y: NDArray[np.float64],
) -> NDArray[np.float64]:
    """What the kernel of a target says of each row of `contents`; only starvation is calibrated.

    One kernel with a branch in its loop: handed over as an argument or behind `*arrays`, the kernel asked costs a tenth
    more time (1.50 in place of 1.38 ms for 4,000 contents and a single tree).
    """
    inputs = np.empty(N_INPUTS, np.float32)
    values = np.empty(len(contents))
    for i in range(len(contents)):
        if target == THROUGHPUT:
            values[i] = throughput_of(contents[i], table, flags, inputs, roots, feature, threshold, right)
        elif target == STARVATION:
            values[i] = starvation_of(
                contents[i], table, flags, inputs, roots, feature, threshold, right, calibration_x, calibration_y
            )
        elif target == LATENCY:
            values[i] = latency_of(contents[i], table, flags, inputs, roots, feature, threshold, right)
        else:
            values[i] = feasible_load_of(contents[i], table, flags, inputs, roots, feature, threshold, right)
    return values
