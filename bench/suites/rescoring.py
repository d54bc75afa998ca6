"""Placements of rows scored again by the twin of today, and where it says something else than the row."""

from __future__ import annotations

import math

from bench.comparison.rows import Row
from bench.suites.instance import Instance
from twin import Placement, Score, ServiceLevel, load_profile, score_placement

#: What a row and the twin of today must say alike; whole numbers exactly, the others up to rounding of sums.
FIGURES = ("throughput", "offered_throughput", "itl_ms", "ttft_ms", "e2e_ms", "headroom")
COUNTS = ("gpus", "starved_gpus", "memory_errors", "starved_adapters", "feasible")


def scored_again(instance: Instance, row: Row, service: ServiceLevel) -> Score:
    """The score of a row's placement on an instance, from the instance's own workload and profile.

    Raises
    ------
    ValueError
        If the placement is none, or not one of this workload (`twin.UserError` is a ValueError).
    """
    placement = Placement.from_json(row.placement or "", f"{row.workload}, {row.solver}")
    workload = instance.workload()
    placement.check(workload)
    return score_placement(workload, placement, load_profile(instance.profile), service=service)


def difference(row: Row, score: Score) -> str:
    """The first figure that the twin of today gives differently, as "gpus was 3 and is 4"; empty where none is."""
    for name in (*COUNTS, *FIGURES):
        was, now = getattr(row, name), _figure(score, name)
        if was != now and not (name in FIGURES and was is not None and now is not None and math.isclose(was, now)):
            return f"{name} was {was} and is {now}"
    return ""


def _figure(score: Score, name: str) -> float | None:
    """A figure as rows have it: None for what is not there."""
    value = float(getattr(score, name))
    return value if math.isfinite(value) else None
