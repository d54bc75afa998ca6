"""What is certain without any order of contents: one GPU for all is enough, or two are needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from solvers.base import Problem
from solvers.exact_search.answers import Answers
from solvers.exact_search.state import SearchState
from solvers.limits import Deadline
from tests.solvers.toy_oracle import ToyOracle
from twin import workload_from_groups


def answers_of(problem: Problem, count: int, rate: float) -> Answers:
    workload = workload_from_groups([(count, 8, rate)], duration_s=60.0)
    mine = replace(problem, workload=workload, max_gpus=None)
    return Answers(SearchState(mine, ToyOracle(workload), Deadline.after(60), 1))


@pytest.mark.parametrize(
    ("count", "rate", "bound", "gpus"),
    [
        (5, 1.0, 1, 1),  # 5 of the 6.7 requests/s that a GPU takes of five adapters
        (5, 1.4, 2, None),  # 7: one GPU is not enough, and that says two
        (1, 20.0, 1, None),  # a single adapter that is too much for a GPU is no matter of more GPUs
    ],
)
def test_one_gpu_for_all_or_two_at_least(
    problem: Problem, count: int, rate: float, bound: int, gpus: int | None
) -> None:
    answers = answers_of(problem, count, rate)
    answers.one_gpu()
    progress = answers.state.progress
    assert progress.lower_bound == bound
    assert (progress.best.n_gpus if progress.best else None) == gpus
    assert progress.proven == (gpus == bound)
    assert progress._certain == bound
    assert (answers.state.hint is not None) == (gpus is not None)


def test_what_is_far_too_much_is_not_asked(problem: Problem) -> None:
    """More than three times what the backbone serves: simulating that takes long."""
    answers = answers_of(problem, 400, 10.0)
    answers.one_gpu()
    assert answers.state.oracle.calls == 0
    assert answers.state.progress.lower_bound == 1
