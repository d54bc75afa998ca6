"""When bounds meet, what they may not say, and when few adapters are worth assigning one by one."""

from __future__ import annotations

import pytest

from solvers.exact_search.assignment_loop import worth_trying
from solvers.exact_search.progress import Progress
from solvers.limits import NoPlacementError
from twin import GpuPlan, Placement


def on(n_gpus: int) -> Placement:
    return Placement(tuple(GpuPlan((adapter,), 1) for adapter in range(n_gpus)))


def test_bounds_meet_at_the_placement_s_gpus() -> None:
    progress = Progress(None, "toy")
    progress.raise_bound(3)
    assert not progress.proven, "there is no placement yet"
    progress.keep(on(4))
    assert not progress.proven
    assert progress.details()["gap"] == 0.25
    progress.raise_bound(4)
    assert progress.proven
    assert not progress.refuted, "a bound that is reached is not refuted"
    assert progress.details()["gap"] == 0.0
    assert [entry[1:] for entry in progress.history] == [(3, None), (3, 4), (4, 4)]


def test_the_better_placement_and_the_higher_bound_stay() -> None:
    progress = Progress(None, "toy")
    progress.keep(on(4))
    first = progress.best
    progress.keep(on(5))
    progress.keep(on(4))
    assert progress.best is first
    progress.raise_bound(3)
    progress.raise_bound(2)
    assert progress.lower_bound == 3
    assert len(progress.history) == 2


def test_a_bound_above_the_placement_is_dropped_with_what_it_rests_on() -> None:
    progress = Progress(None, "toy")
    progress.raise_bound(2, certain=True)
    progress.keep(on(4))
    progress.raise_bound(3)
    progress.fractional_bound = 2.5
    progress.raise_bound(5)
    assert progress.refuted
    assert (progress.lower_bound, progress.fractional_bound) == (2, 0.0)


def test_a_bound_at_the_gpu_limit_leaves_hope_and_one_above_does_not() -> None:
    progress = Progress(3, "toy")
    progress.raise_bound(3)
    with pytest.raises(
        NoPlacementError, match=r"at least 4 GPUs are needed, more than the limit of 3 \(proven for the toy\)"
    ):
        progress.raise_bound(4)


@pytest.mark.parametrize(
    ("n_adapters", "n_gpus", "bound", "worth"),
    [
        (128, 10, 9.0, True),
        (129, 10, 9.0, False),
        (128, 11, 9.0, False),
        (10, 3, 2.0, True),
        (10, 3, 2.0 + 1e-9, True),
        (10, 3, 2.1, False),
        (10, 3, 3.0, False),
    ],
)
def test_adapters_are_assigned_one_by_one_where_that_may_save_a_gpu(
    n_adapters: int, n_gpus: int, bound: float, *, worth: bool
) -> None:
    """Few adapters on few GPUs, and a bound that leaves room for one less."""
    assert worth_trying(n_adapters, n_gpus, bound) == worth
