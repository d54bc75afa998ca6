"""Fits of a serving profile: capacity, load times, scheduler time, step time."""

from twin.calibration.scheduler import SchedulerFit, fit_scheduler_time
from twin.calibration.step_time import (
    OperatingPoint,
    StepFit,
    StepObservation,
    fit_step_time,
    match_operating_point,
    step_term_values,
)
from twin.calibration.tables import kv_capacity_from_rows, load_times_from_rows

__all__ = [
    "OperatingPoint",
    "SchedulerFit",
    "StepFit",
    "StepObservation",
    "fit_scheduler_time",
    "fit_step_time",
    "kv_capacity_from_rows",
    "load_times_from_rows",
    "match_operating_point",
    "step_term_values",
]
