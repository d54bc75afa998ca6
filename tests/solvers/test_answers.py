"""What a solver may answer: anything that means something is taken, anything else is refused by name."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import pytest

from solvers.base import Problem, Solution, Solver, Tags, checked
from solvers.objectives.min_gpus import MinGpus
from twin import GpuPlan, Placement, load_profile, workload_from_groups

WORKLOAD = workload_from_groups([(3, 8, 0.1)], duration_s=60.0)
PROBLEM = Problem(WORKLOAD, load_profile("llama-3.1-8b"), MinGpus())
ALL = (0, 1, 2)


class Answering(Solver):
    """Answers what it was made with."""

    name: ClassVar[str] = "answering"
    tags = Tags(uses_replicas=True)

    def __init__(self, answer: Any) -> None:  # noqa: ANN401  # that is the point
        self.answer = answer

    def solve(self, problem: Problem) -> Solution:  # the contract's signature
        """The answer."""
        return self.answer  # type: ignore[no-any-return]


def plan(**changes: Any) -> Solution:  # noqa: ANN401  # fields of many types
    options = {"adapters": ALL, "max_loras": 3, **changes}
    return Solution("unchecked", Placement((GpuPlan(**options),)))


def fields(**changes: Any) -> Solution:  # noqa: ANN401  # fields of many types
    options = {"status": "unchecked", "placement": Placement((GpuPlan(ALL, 3),)), **changes}
    return Solution(**options)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "returned NoneType, not a Solution"),
        ({"placement": [[0]]}, "returned dict"),
        (fields(status="great"), "status 'great' must be one of optimal"),
        (fields(status="infeasible"), "does not go with its placement"),
        (fields(placement=[[0, 1, 2]]), "placement is a list"),
        (fields(placement=Placement((((0, 1, 2), 3),))), "no tuple of GpuPlan"),  # type: ignore[arg-type]
        (fields(placement=Placement(None)), "no tuple of GpuPlan"),  # type: ignore[arg-type]
        (fields(lower_bound=float("nan")), "lower_bound=nan must be a whole number"),
        (fields(lower_bound=-5), "lower_bound=-5 must be a whole number, 0 or more"),
        (fields(lower_bound=0.5), "lower_bound=0.5"),
        (fields(lower_bound=True), "lower_bound=True"),
        (fields(lower_bound=2), "lower bound 2 is above the 1 GPUs"),
        (fields(oracle_calls=-1), "oracle_calls=-1"),
        # Calls of several fleets are added up, which must fit into a column of rows.
        (fields(oracle_calls=2**62), "oracle_calls=4611686018427387904"),
        (fields(status="infeasible", placement=None, lower_bound=2**40), "above the 1000000 GPUs that can be of use"),
        (fields(oracle_calls=10**30), "oracle_calls=1000"),
        (fields(message=5), "message must be text"),
        (fields(message="\udcff"), "message must be text"),
        (fields(message="x" * 100_000), "message must be text of at most"),
        (fields(details=[1]), "details must be a dict"),
        (fields(details={"x": float("nan")}), "details cannot be written as JSON"),
        (fields(details={"x": {1, 2}}), "details cannot be written as JSON"),
        (fields(details={"\udcff": 1}), "details must be"),
        (fields(details={"x": "y" * 5_000_000}), "details must be at most"),
        # Six characters of ASCII each.
        (fields(details={"x": "é" * 1_000_000}), "details must be at most"),
        (plan(max_loras=-3), "max_loras=-3: must be 1 or more"),
        (plan(max_loras=0), "max_loras=0"),
        (plan(max_loras=8.5), "max_loras: 8.5 is no whole number"),
        (plan(max_loras=float("nan")), "max_loras: nan is no whole number"),
        (plan(max_loras=True), "max_loras: True is no whole number"),
        (plan(max_loras=10**30), "max_loras=1000"),
        (plan(max_cpu_loras=2.5), "max_cpu_loras: 2.5"),
        (plan(adapters=("a", "b", "c")), "adapters: a is no whole number"),
        (plan(adapters=(0.0, 1.0, 2.0)), "adapters: 0.0 is no whole number"),
        (plan(adapters=(False, True, 2)), "adapters: False is no whole number"),
        (plan(adapters=(0, 1)), "adapter 2 is placed 0 times"),
        (plan(adapters=(0, 1, 2, 2)), "lists an adapter twice"),
        (plan(adapters=(0, 1, 3)), "not in the workload"),
        (plan(shares=(float("nan"),) * 3), "share=nan: must be above 0 and at most 1"),
        (plan(shares=(-1.0, 1.0, 1.0)), "share=-1"),
        (plan(shares=(0.0, 1.0, 1.0)), "share=0"),
        (plan(shares=(2.0, 1.0, 1.0)), "share=2"),
        (plan(shares=("1", 1.0, 1.0)), "shares: 1 is no number"),
        (plan(shares=(1.0, 1.0)), "2 shares of 3 adapters"),
        (plan(shares=(0.5, 1.0, 1.0)), "adapter 0 is placed 0.5 times"),
    ],
)
def test_an_answer_that_means_nothing_is_refused(answer: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Answering(answer).run(PROBLEM)


def test_shares_that_cancel_out_are_refused() -> None:
    halves = (GpuPlan(ALL, 3, (-1.0,) * 3), GpuPlan(ALL, 3, (2.0,) * 3))
    with pytest.raises(ValueError, match="share=-1"):
        Answering(Solution("unchecked", Placement(halves))).run(PROBLEM)


def test_numbers_of_numpy_become_plain_ones() -> None:
    placement = Placement((GpuPlan(tuple(np.arange(3)), np.int64(8)),))  # type: ignore[arg-type]
    details = {"x": np.float64(1.5), "a": np.arange(3)}
    answer = Solution("unchecked", placement, np.int32(1), np.int64(3), details=details)  # type: ignore[arg-type]
    found = Answering(answer).run(PROBLEM)
    assert found.placement == Placement((GpuPlan(ALL, 8),))
    assert json.dumps([found.lower_bound, found.oracle_calls, found.details]) == '[1, 3, {"x": 1.5, "a": [0, 1, 2]}]'
    assert found.placement.to_json() == '[{"max_loras":8,"adapters":[0,1,2]}]'


def test_the_requests_that_a_solver_sees_cannot_be_written_to() -> None:
    requests = workload_from_groups([(3, 8, 0.5)], duration_s=60.0).requests
    for array in requests.columns().values():
        with pytest.raises(ValueError, match="read-only"):
            array.sort()


def test_a_bound_without_a_placement_is_of_the_size_of_the_problem() -> None:
    """A bound is drawn beside the GPUs of the others."""
    tags = Tags()
    within = fields(status="time_limit", placement=None, lower_bound=3)
    assert checked(within, PROBLEM, "answering", tags).lower_bound == 3
    with pytest.raises(ValueError, match="lower bound 5 is above the 3 GPUs"):
        checked(fields(status="time_limit", placement=None, lower_bound=5), PROBLEM, "answering", tags)
