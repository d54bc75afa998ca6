"""The first placement of an exact search: soon, and one that the twin accepts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solvers.base import Problem
from solvers.exact_search.answers import Answers
from solvers.exact_search.greedy_answers import FirstAnswer
from solvers.exact_search.state import SearchState
from solvers.limits import Deadline
from solvers.objectives.min_gpus import MinGpus
from solvers.oracles.twin import TwinOracle
from twin import INTERACTIVE, PUBLISHED, ServiceLevel, Workload, load_profile, score_placement


def skewed(count: int, rate: float, hot: float = 0.0) -> Workload:
    """All different; the first one hot if asked for."""
    generator = np.random.default_rng(count)
    rates = generator.lognormal(0, 1.0, count)
    rates *= rate / rates.sum()
    rates[0] += hot
    return Workload(generator.choice([8, 16, 32], count), rates, duration_s=120.0, seed=5)


def state_of(workload: Workload, service: ServiceLevel, *, name: str = "llama-3.1-8b/h100-64gb") -> SearchState:
    """At the start of a search; no predictor is shipped for a profile of another name."""
    profile = replace(load_profile("llama-3.1-8b"), name=name)
    problem = Problem(workload, profile, MinGpus(), service=service, time_limit_s=600.0)
    oracle = TwinOracle(workload, profile, service=service)
    return SearchState(problem, oracle, Deadline.after(600.0), 1, replicas=True)


@pytest.mark.parametrize("service", [PUBLISHED, INTERACTIVE], ids=["published", "interactive"])
@pytest.mark.parametrize("name", ["llama-3.1-8b/h100-64gb", "mine"])
@pytest.mark.parametrize(
    ("count", "rate", "hot"), [(12, 60.0, 0.0), (150, 90.0, 0.0), (600, 40.0, 0.0), (8, 4.0, 70.0)]
)
def test_the_twin_accepts_the_first_placement_after_few_questions(
    service: ServiceLevel, name: str, count: int, rate: float, hot: float
) -> None:
    workload = skewed(count, rate, hot)
    state = state_of(workload, service, name=name)
    Answers(state).look_for_hot()
    first = FirstAnswer(state)
    placement = first.accepted()
    assert placement is not None
    assert state.has_hot == bool(hot)
    assert score_placement(workload, placement, state.problem.profile, service=service).feasible
    # A GPU that is refused is asked about thrice at most, and then halved.
    assert state.oracle.calls + first.calls <= 8 * placement.n_gpus


def test_what_no_gpu_was_asked_about_holds_every_adapter_too() -> None:
    workload = skewed(8, 4.0, 70.0)
    state = state_of(workload, PUBLISHED)
    Answers(state).look_for_hot()
    placement = FirstAnswer(state).unchecked
    placement.check(workload)
    assert placement.has_replicas
