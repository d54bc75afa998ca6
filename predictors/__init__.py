"""Learned models of a GPU content: throughput and starvation in microseconds, trained on the twin."""

from predictors.features import LengthStats, adapter_contributions, content_features, content_tail, length_stats
from predictors.model import Predictor, load_predictor, shipped_predictors

__all__ = [
    "LengthStats",
    "Predictor",
    "adapter_contributions",
    "content_features",
    "content_tail",
    "length_stats",
    "load_predictor",
    "shipped_predictors",
]
