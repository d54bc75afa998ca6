"""Placements: what a valid one is, and their JSON."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin import GpuPlan, Placement, UserError, workload_from_groups

WORKLOAD = workload_from_groups([(3, 8, 0.1)])

PLANS = st.builds(
    GpuPlan,
    st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True).map(tuple),
    st.integers(1, 64),
    st.none(),
    st.one_of(st.none(), st.integers(64, 100)),
) | st.builds(GpuPlan, st.just((1, 2)), st.integers(1, 9), st.tuples(st.floats(0, 1), st.floats(0, 1)))


@given(placement=st.lists(PLANS, max_size=4).map(tuple).map(Placement))
def test_json_gives_the_placement_back(placement: Placement) -> None:
    assert Placement.from_json(placement.to_json()) == placement


def test_a_placement_of_each_adapter_once_is_valid() -> None:
    placement = Placement((GpuPlan((2, 0), 2), GpuPlan((1,), 1, None, 4)))
    placement.check(WORKLOAD)
    assert (placement.n_gpus, placement.has_replicas) == (2, False)


def test_replicas_are_valid_if_their_shares_add_up() -> None:
    shared = Placement((GpuPlan((0, 1), 2, (1.0, 0.25)), GpuPlan((1, 2), 2, (0.75, 1.0))))
    shared.check(WORKLOAD)
    assert shared.has_replicas


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ([GpuPlan((0, 1, 2), 3), GpuPlan((), 1)], "GPU 1 has no adapters"),
        ([GpuPlan((0, 1, 2), 0)], "max_loras=0"),
        ([GpuPlan((0, 1, 2), 3, None, 2)], "max_cpu_loras=2 must be max_loras=3 or more"),
        ([GpuPlan((0, 0, 1, 2), 3)], "lists an adapter twice"),
        ([GpuPlan((0, 1, 3), 3)], "not in the workload"),
        ([GpuPlan((0, 1, -1), 3)], "not in the workload"),
        ([GpuPlan((0, 1), 2)], "adapter 2 is placed 0 times"),
        ([GpuPlan((0, 1), 2), GpuPlan((1, 2), 2)], "adapter 1 is placed 2 times"),
        ([GpuPlan((0, 1), 2, (1.0, 0.5)), GpuPlan((1, 2), 2, (0.4, 1.0))], "adapter 1 is placed 0.9 times"),
    ],
)
def test_what_is_wrong_with_a_placement_is_said(plans: list[GpuPlan], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Placement(tuple(plans)).check(WORKLOAD)


@pytest.mark.parametrize("text", ["", "{}", '[{"adapters": [1]}]', '[{"adapters": 1, "max_loras": 1}]', "[1]"])
def test_text_that_is_no_placement_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"mine\.json: a placement is"):
        Placement.from_json(text or "nothing", "mine.json")
