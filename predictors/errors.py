"""How far predictors are from what the twin says: figures for the model card."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import f1_score

from predictors.meanfield import INPUT_NAMES
from predictors.model import Predictor, inputs_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledContents:
    """What the twin says of a sample of contents.

    Attributes
    ----------
    contents : array of shape (n, N_FEATURES)
    throughput, offered : arrays of shape (n,)
        Tokens per second.
    starved : array of shape (n,), bool
    boundary : array of shape (n,), bool
        Whether the content was drawn near the boundary of starvation.
    """

    contents: NDArray[np.float64]
    throughput: NDArray[np.float64]
    offered: NDArray[np.float64]
    starved: NDArray[np.bool_]
    boundary: NDArray[np.bool_]


def smape(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Symmetric mean absolute percentage error without the factor 2: mean of |p - t| / (|p| + |t|), times 100."""
    total = np.abs(predicted) + np.abs(true)
    error = np.divide(np.abs(predicted - true), total, out=np.zeros_like(total), where=total > 0)
    return float(error.mean() * 100)


def missed_starvation(probability: NDArray[np.float64], starved: NDArray[np.bool_], threshold: float) -> float:
    """Share of the starved contents that are accepted, because their probability is below the threshold."""
    return float((probability[starved] < threshold).mean()) if starved.any() else 0.0


def safe_threshold(probability: NDArray[np.float64], starved: NDArray[np.bool_], risk: float) -> float:
    """The largest threshold that misses at most the share `risk` of the starved contents."""
    worst = np.sort(probability[starved])
    return float(worst[int(risk * len(worst))]) if len(worst) else 0.5


def take(data: LabelledContents, rows: NDArray[np.int64]) -> LabelledContents:
    """Some rows of labelled contents."""
    return LabelledContents(
        data.contents[rows], data.throughput[rows], data.offered[rows], data.starved[rows], data.boundary[rows]
    )


def evaluate(predictor: Predictor, data: LabelledContents) -> dict[str, dict[str, float]]:
    """Errors of the full and of the distilled models on labelled contents.

    Returns
    -------
    dict
        For `full` and `distilled`: throughput SMAPE (without the factor 2, in %), starvation macro-F1 at probability
        1/2 and at the safe threshold, missed starvation and needlessly refused contents (in %) at the latter.
    """
    figures = {}
    for name, throughput, probability, threshold in (
        ("full", predictor.predict_throughput, predictor.predict_starvation, predictor.starvation_threshold),
        ("distilled", predictor.distilled_throughput, predictor.distilled_starvation, predictor.distilled_threshold),
    ):
        chance = probability(data.contents)
        refused = chance >= threshold
        served = ~data.starved
        figures[name] = {
            "throughput_smape": smape(throughput(data.contents), data.throughput),
            "starvation_macro_f1": _macro_f1(data.starved, chance >= 0.5),
            "safe_macro_f1": _macro_f1(data.starved, refused),
            "missed_starvation": 100 * missed_starvation(chance, data.starved, threshold),
            "needless_refusals": 100 * float(refused[served].mean()) if served.any() else 0.0,
        }
    return figures


def errors_by_region(predictor: Predictor, data: LabelledContents) -> list[dict[str, Any]]:
    """`evaluate` in slices of the sample: by estimated load, adapters per slot, `max_loras`, adapters, window."""
    inputs, _ = inputs_of((predictor.table, predictor.flags), data.contents)
    rows = []
    for name, edges in (
        ("load", (0, 0.5, 0.9, 1.1, 1.5, np.inf)),
        ("adapters_per_slot", (0, 0.999, 1.001, 2, 8, np.inf)),
        ("max_loras", (0, 8, 32, 128, np.inf)),
        ("adapters", (0, 32, 128, 384, np.inf)),
        ("window_s", (0, 700, 2000, np.inf)),
    ):
        value = inputs[:, INPUT_NAMES.index(name)]
        for low, high in pairwise(edges):
            inside = np.flatnonzero((value > low) & (value <= high))
            if len(inside):
                part = take(data, inside)
                errors = evaluate(predictor, part)
                rows.append(
                    {
                        "input": name,
                        "above": float(low),
                        "up_to": None if np.isinf(high) else float(high),
                        "points": len(inside),
                        "starved": 100 * float(part.starved.mean()),
                        "full": errors["full"],
                        "distilled": errors["distilled"],
                    }
                )
    return rows


def _macro_f1(true: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    return float(f1_score(true, predicted, average="macro", labels=sorted({*np.unique(true), *np.unique(predicted)})))
