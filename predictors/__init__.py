"""Learned models of a GPU content: throughput, starvation, latency and feasible load in microseconds, trained on the twin."""

from predictors.features import LengthStats, adapter_contributions, content_features, content_tail, length_stats
from predictors.model import Predictor
from predictors.store import load_predictor, save_predictor, shipped_predictors

__all__ = [
    "LengthStats",
    "Predictor",
    "adapter_contributions",
    "content_features",
    "content_tail",
    "length_stats",
    "load_predictor",
    "save_predictor",
    "shipped_predictors",
]
