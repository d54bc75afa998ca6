"""Problems that each solver answers in a second or two."""

from __future__ import annotations

import pytest

from predictors import Predictor, load_predictor
from solvers.base import Problem
from solvers.objectives.min_gpus import MinGpus
from twin import ServingProfile, Workload, load_profile, workload_from_groups

WINDOW_S = 600.0


@pytest.fixture(scope="session")
def profile() -> ServingProfile:
    return load_profile("llama-3.1-8b")


@pytest.fixture(scope="session")
def predictor(profile: ServingProfile) -> Predictor:
    return load_predictor(profile.name)


@pytest.fixture(scope="session")
def workload() -> Workload:
    """Some load for two GPUs or three, of three kinds of adapters."""
    return workload_from_groups([(24, 8, 0.8), (12, 16, 0.4), (6, 32, 1.6)], duration_s=WINDOW_S, name="three kinds")


@pytest.fixture(scope="session")
def problem(workload: Workload, profile: ServingProfile, predictor: Predictor) -> Problem:
    return Problem(workload, profile, MinGpus(), predictor, max_gpus=6, time_limit_s=20.0)
