"""How far predictors are from what the twin says: figures for the model card."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from predictors.meanfield import INPUT_NAMES
from predictors.model import Predictor, inputs_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


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
    itl_ms, ttft_ms : arrays of shape (n,)
        Means over the requests finished inside the window; NaN where there is none.
    feasible_load : array of shape (n,)
        By how much all rates can be multiplied before the content starves (`predictors.boundary`); NaN where unknown.
    group : array of shape (n,)
        Contents of one ladder have the same number: they are alike, so they must not be learned from and judged by.
    """

    contents: NDArray[np.float64]
    throughput: NDArray[np.float64]
    offered: NDArray[np.float64]
    starved: NDArray[np.bool_]
    boundary: NDArray[np.bool_]
    itl_ms: NDArray[np.float64]
    ttft_ms: NDArray[np.float64]
    feasible_load: NDArray[np.float64]
    group: NDArray[np.int64]


def smape(predicted: ArrayLike, true: ArrayLike) -> float:
    """Symmetric mean absolute percentage error without the factor 2: mean of |p - t| / (|p| + |t|), times 100.

    Parameters
    ----------
    predicted, true : arrays of shape (n,)
        Pairs in which either is not finite are left out; two zeros agree.

    Returns
    -------
    float
        In percent; NaN where no pair is left.
    """
    p, t = np.asarray(predicted, dtype=float), np.asarray(true, dtype=float)
    known = np.isfinite(p) & np.isfinite(t)
    p, t = p[known], t[known]
    if not len(p):
        return float("nan")
    total = np.abs(p) + np.abs(t)
    error = np.divide(np.abs(p - t), total, out=np.zeros_like(total), where=total > 0)
    return float(error.mean() * 100)


def macro_f1(predicted: ArrayLike, true: ArrayLike, *, of_true: bool = False) -> float:
    """Mean of F1 over the classes.

    Parameters
    ----------
    predicted, true : arrays of shape (n,), bool
    of_true : bool
        Over the classes that occur in `true` alone: one that is predicted and never there lowers the F1 of the others, and
        does not count as a class of F1 0 besides.

    Returns
    -------
    float
        NaN of nothing.
    """
    # Slow to import, and needed at the end of a training alone.
    from sklearn.metrics import f1_score

    p, t = np.asarray(predicted, dtype=bool), np.asarray(true, dtype=bool)
    labels = np.unique(t if of_true else np.concatenate([t, p]))
    return float(f1_score(t, p, average="macro", labels=labels)) if len(t) else float("nan")


def missed_starvation(probability: NDArray[np.float64], starved: NDArray[np.bool_], threshold: float) -> float:
    """Share of the starved contents that are accepted, because their probability is below the threshold."""
    return float((probability[starved] < threshold).mean()) if starved.any() else 0.0


def safe_threshold(probability: NDArray[np.float64], starved: NDArray[np.bool_], risk: float) -> float:
    """The largest threshold that misses at most the share `risk` of the starved contents."""
    worst = np.sort(probability[starved])
    return float(worst[int(risk * len(worst))]) if len(worst) else 0.5


def take(data: LabelledContents, rows: NDArray[np.int64]) -> LabelledContents:
    """Some rows of labelled contents."""
    return LabelledContents(**{part.name: getattr(data, part.name)[rows] for part in fields(LabelledContents)})


def evaluate(predictor: Predictor, data: LabelledContents) -> dict[str, dict[str, float]]:
    """Errors of the full and of the distilled models on labelled contents.

    Returns
    -------
    dict
        For `full` and `distilled`: SMAPE (without the factor 2, in %) of throughput, ITL, TTFT and feasible load, starvation
        macro-F1 at probability 1/2 and at the safe threshold, missed starvation and needlessly refused contents (in %)
        at the latter. What there is nothing to compare with is left out.
    """
    figures = {}
    for name, distilled in (("full", False), ("distilled", True)):
        chance = (
            predictor.distilled_starvation(data.contents) if distilled else predictor.predict_starvation(data.contents)
        )
        throughput = predictor.distilled_throughput if distilled else predictor.predict_throughput
        threshold = predictor.distilled_threshold if distilled else predictor.starvation_threshold
        refused = chance >= threshold
        served = ~data.starved
        known = {
            "throughput_smape": smape(throughput(data.contents), data.throughput),
            "itl_smape": smape(predictor.predict_itl_ms(data.contents, distilled=distilled), data.itl_ms),
            "ttft_smape": smape(predictor.predict_ttft_ms(data.contents, distilled=distilled), data.ttft_ms),
            "feasible_load_smape": smape(
                predictor.predict_feasible_load(data.contents, distilled=distilled), data.feasible_load
            ),
            "starvation_macro_f1": macro_f1(chance >= 0.5, data.starved),
            "safe_macro_f1": macro_f1(refused, data.starved),
            "missed_starvation": 100 * missed_starvation(chance, data.starved, threshold),
            "needless_refusals": 100 * float(refused[served].mean()) if served.any() else 0.0,
        }
        figures[name] = {key: value for key, value in known.items() if not np.isnan(value)}
    return figures


def reliability(probability: NDArray[np.float64], starved: NDArray[np.bool_]) -> list[dict[str, float]]:
    """How often contents starve that are given a probability between two bounds: what calibration promises and holds."""
    bounds = (0.0, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99, np.nextafter(1.0, 2.0))
    rows = []
    for low, high in pairwise(bounds):
        inside = (probability >= low) & (probability < high)
        if inside.any():
            rows.append(
                {
                    "from": float(low), "to": float(min(high, 1.0)), "points": int(inside.sum()),
                    "predicted": float(probability[inside].mean()), "starved": float(starved[inside].mean()),
                }
            )  # fmt: skip
    return rows


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
