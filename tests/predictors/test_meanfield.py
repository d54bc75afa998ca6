"""The queueing estimate that the learned models start from, against the twin and its own promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from predictors import content_features, shipped_predictors
from predictors.features import MAX_LORAS
from predictors.meanfield import INPUT_NAMES, INPUTS, load_rate, model_inputs, profile_table
from predictors.model import inputs_of
from twin import Lengths, ServingProfile, Workload, load_profile, simulate_requests

LENGTHS = Lengths()


@pytest.fixture(scope="module", params=shipped_predictors())
def profile(request: pytest.FixtureRequest) -> ServingProfile:
    return load_profile(request.param)


def inputs(profile: ServingProfile, content: NDArray[np.float64]) -> dict[str, float]:
    values, state = inputs_of(profile_table(profile), content[None])
    assert state[0] == 0
    return dict(zip(INPUT_NAMES, values[0].astype(float), strict=True))


@given(
    ranks=st.lists(st.sampled_from([8, 16, 32]), min_size=1, max_size=40),
    rates=st.lists(st.floats(0.003, 6.4), min_size=40, max_size=40),
    max_loras=st.integers(1, 96),
    joins=st.tuples(st.sampled_from([8, 16, 32]), st.floats(0.0, 6.4)),
    name=st.sampled_from(shipped_predictors()),
)
def test_inputs_move_as_they_promise_when_an_adapter_joins(
    ranks: list[int], rates: list[float], max_loras: int, joins: tuple[int, float], name: str
) -> None:
    """What makes acceptance monotone: every input of the trees has the direction that the trees are constrained to."""
    profile = load_profile(name)
    rates = rates[: len(ranks)]
    before = inputs(profile, content_features(ranks, rates, max_loras, LENGTHS))
    after = inputs(profile, content_features([*ranks, joins[0]], [*rates, joins[1]], max_loras, LENGTHS))
    for input_name, sign in INPUTS:
        if sign:
            assert sign * (after[input_name] - before[input_name]) >= -2e-6 * abs(before[input_name]), input_name
        else:
            assert after[input_name] == before[input_name]


@pytest.mark.parametrize(
    ("n_adapters", "rate", "max_loras"), [(16, 0.05, 16), (64, 0.1, 64), (96, 0.02, 32), (200, 0.01, 64)]
)
def test_a_gpu_with_room_runs_as_estimated(
    profile: ServingProfile, n_adapters: int, rate: float, max_loras: int
) -> None:
    workload = Workload(np.full(n_adapters, 16), np.full(n_adapters, rate), duration_s=3600.0, seed=3)
    result = simulate_requests(workload.requests, workload.ranks, profile, max_loras, duration_s=3600.0)
    content = content_features(workload.ranks, workload.rates, max_loras, LENGTHS)
    estimate = inputs(profile, content)
    assert estimate["load"] < 1
    assert result.throughput == pytest.approx(result.offered_throughput, rel=0.05)
    # Little's law: the requests that run are the rate times the time that one takes.
    assert result.mean_running * result.busy_s / 3600 == pytest.approx(
        estimate["sum_rate"] * estimate["service_over_window"] * 3600, rel=0.2
    )
    loads = load_rate(content, max_loras)
    assert result.loads / 3600 == pytest.approx(loads, rel=0.25, abs=0.03)


def test_capacity_is_near_the_twins(profile: ServingProfile) -> None:
    """A GPU that is offered twice its capacity, with a slot for each adapter, serves about half."""
    ranks, rates = np.full(32, 8), np.full(32, 0.1)
    load = inputs(profile, content_features(ranks, rates, 32, LENGTHS))["load"]
    workload = Workload(ranks, rates * 2 / load, duration_s=1800.0)
    result = simulate_requests(workload.requests, ranks, profile, 32, duration_s=1800.0)
    twice = inputs(profile, content_features(ranks, workload.rates, 32, LENGTHS))["load"]
    assert result.throughput / result.offered_throughput == pytest.approx(1 / twice, rel=0.12)


def test_states_without_a_model_are_told_apart(profile: ServingProfile) -> None:
    table, flags = profile_table(profile)
    scratch = np.empty(len(INPUTS), np.float32)
    content = content_features([8], [0.1], 8, LENGTHS)
    assert model_inputs(content, table, flags, scratch) == 0
    assert model_inputs(content_features([8], [0.0], 8, LENGTHS), table, flags, scratch) == 1
    assert model_inputs(content_features([], [], 8, LENGTHS), table, flags, scratch) == 1
    for impossible in (0, profile.kv.max_loras[-1] + 1):
        content[MAX_LORAS] = impossible
        assert model_inputs(content, table, flags, scratch) == 2
    too_many = profile.largest_max_loras(32) + 1
    assert model_inputs(content_features([32], [0.1], too_many, LENGTHS), table, flags, scratch) == 2
    # A rank that the profile does not know is a GPU that does not start.
    assert model_inputs(content_features([128], [0.1], 1, LENGTHS), table, flags, scratch) == 2
