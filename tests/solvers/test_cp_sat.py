"""CP-SAT on the learned model's own frontier, against brute force on the same model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors import Predictor, adapter_contributions, load_predictor
from predictors.features import MAX_LORAS, N_FEATURES, N_SUMS
from solvers.base import Problem, Solution
from solvers.contents.adapter_types import AdapterTypes, adapter_types
from solvers.contents.rounding import rounded
from solvers.cp_sat import CpSat
from solvers.ffd import GuidedFfd
from solvers.filling import frontier
from solvers.filling.frontier import Frontier, StarvationModel, TooLargeError, largest_contents
from solvers.limits import Deadline
from solvers.objectives.min_gpus import MinGpus
from solvers.oracles.base import MAX_LORAS_GRID
from solvers.oracles.predictor import workload_tail
from tests.examples import examples
from twin import INTERACTIVE, ServiceLevel, UserError, Workload, load_profile, workload_from_groups

PROFILE = load_profile("llama-3.1-8b")


def asked(workload: Workload, **more: object) -> Problem:
    """With time to compile in."""
    return Problem(workload, PROFILE, MinGpus(), load_predictor(PROFILE.name), time_limit_s=600.0, **more)  # type: ignore[arg-type]  # fields of Problem


def accepted(workload: Workload, adapters: Sequence[int], predictor: Predictor) -> bool:
    """Whether the forest accepts a content at one value of `max_loras` or another."""
    slots = sorted({*MAX_LORAS_GRID, *(PROFILE.largest_max_loras(rank) for rank in PROFILE.ranks)})
    contents = np.empty((len(slots), N_FEATURES))
    mine = list(adapters)
    contents[:, :N_SUMS] = adapter_contributions(workload.ranks[mine], workload.rates[mine]).sum(axis=0)
    contents[:, N_SUMS:] = workload_tail(workload)
    contents[:, MAX_LORAS] = slots
    return bool((predictor.predict_starvation(contents) < predictor.starvation_threshold).any())


def accepted_counts(workload: Workload, types: AdapterTypes) -> list[tuple[int, ...]]:
    """Every content that the model accepts, counted by type, the empty one included."""
    predictor = load_predictor(PROFILE.name)
    return [
        counts
        for counts in product(*(range(count + 1) for count in types.counts.tolist()))
        if not any(counts) or accepted(workload, types.contents(np.array(counts)), predictor)
    ]


def fewest(workload: Workload) -> int:
    """By trying every accepted content for the next GPU."""
    types = adapter_types(workload)
    contents = [np.array(counts) for counts in accepted_counts(workload, types) if any(counts)]

    @cache
    def of(left: tuple[int, ...]) -> int:
        if not any(left):
            return 0
        first = next(kind for kind, count in enumerate(left) if count)
        return 1 + min(
            of(tuple((np.array(left) - content).tolist()))
            for content in contents
            if content[first] and (content <= left).all()
        )

    return of(tuple(types.counts.tolist()))


def check_placement(workload: Workload, solution: Solution) -> int:
    """That the model accepts each GPU of a placement; how many there are."""
    assert solution.placement is not None
    solution.placement.check(workload)
    assert all(accepted(workload, plan.adapters, load_predictor(PROFILE.name)) for plan in solution.placement.gpus)
    return solution.placement.n_gpus


FEW_TYPES = [
    [(4, 8, 6.0), (3, 16, 8.0), (3, 32, 3.0)],
    [(5, 8, 9.0), (4, 8, 5.0), (5, 8, 2.0)],
    [(6, 16, 4.0), (2, 16, 12.0)],
    [(3, 32, 7.0), (3, 8, 11.0), (2, 8, 3.0), (2, 16, 1.0)],
    [(9, 8, 4.0)],
]


@pytest.mark.parametrize("groups", FEW_TYPES)
def test_the_optimum_is_that_of_brute_force(groups: list[tuple[int, int, float]]) -> None:
    workload = workload_from_groups(groups, duration_s=600.0)
    solution = CpSat().run(asked(workload))
    assert solution.status == "optimal"
    assert check_placement(workload, solution) == solution.lower_bound == fewest(workload)
    assert solution.details["classes"] == len(groups)


@pytest.mark.parametrize("groups", FEW_TYPES)
def test_the_frontier_has_every_largest_content_and_no_other(groups: list[tuple[int, int, float]]) -> None:
    workload = workload_from_groups(groups, duration_s=600.0)
    types = adapter_types(workload)
    contents = np.array(accepted_counts(workload, types))
    largest = {
        tuple(content)
        for content in contents.tolist()
        if not ((contents >= content).all(axis=1) & (contents != content).any(axis=1)).any()
    }
    model = StarvationModel(asked(workload), distilled=False)
    table = largest_contents(model, types, Deadline.after(60.0), loads=True)
    assert {tuple(content) for content in table.tolist()} == largest


@examples(8)
@given(rates=st.lists(st.floats(2.0, 14.0), min_size=2, max_size=7), seed=st.integers(0, 9))
def test_rounded_to_classes_bound_and_placement_hold_all_the_same(rates: list[float], seed: int) -> None:
    """Adapters that all differ, rounded to one class for each rank: up for the placement, down for the bound."""
    ranks = np.random.default_rng(seed).choice([8, 32], len(rates))
    workload = Workload(ranks, np.array(rates), duration_s=600.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("solvers.filling.frontier.CLASSES", (1,))
        solution = CpSat().run(asked(workload))
    assert solution.lower_bound is not None
    assert solution.lower_bound <= fewest(workload) <= check_placement(workload, solution)
    assert solution.details["classes"] == min(len(set(ranks.tolist())), len(adapter_types(workload)))


def test_a_gpu_of_ffd_may_stay_where_rounding_would_refuse_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """All as busy as the busiest of their rank need far more GPUs than ffd does."""
    monkeypatch.setattr("solvers.filling.frontier.CLASSES", (1,))
    workload = Workload(np.resize([8, 32], 60), np.geomspace(0.02, 4.0, 60), duration_s=600.0)
    greedy = GuidedFfd().run(asked(workload))
    solution = CpSat().run(asked(workload))
    assert greedy.placement is not None
    assert solution.details["classes"] == 2
    assert check_placement(workload, solution) <= greedy.placement.n_gpus


def test_a_bound_that_cannot_be_had_does_not_cost_the_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded up there is a table, rounded down there is none: one GPU is the bound."""
    monkeypatch.setattr("solvers.filling.frontier.CLASSES", (1,))

    def tabulated(*arguments: Any, up: bool) -> Frontier:  # noqa: ANN401  # as the real one
        if not up:
            raise TooLargeError
        return frontier.tabulated(*arguments, up=up)

    monkeypatch.setattr("solvers.cp_sat.tabulated", tabulated)
    workload = Workload(np.full(12, 8), np.geomspace(1.0, 4.0, 12), duration_s=600.0)
    solution = CpSat().run(asked(workload))
    assert check_placement(workload, solution) >= 1
    assert solution.lower_bound == 1


def test_classes_are_of_one_rank_and_as_busy_as_their_busiest_or_idlest_member() -> None:
    """Of 9, 8 and 1 the neighbours 9 and 8 are merged first: that adds one request/s."""
    types = adapter_types(Workload(np.array([8, 8, 8, 32]), np.array([8.0, 1.0, 9.0, 2.0])))
    up, down = rounded(types, 3, up=True), rounded(types, 3, up=False)
    assert up.ranks.tolist() == down.ranks.tolist() == [32, 8, 8]
    assert up.rates.tolist() == [2.0, 9.0, 1.0]
    assert down.rates.tolist() == [2.0, 8.0, 1.0]
    assert [sorted(members.tolist()) for members in up.members] == [[3], [0, 2], [1]]
    assert up.counts.tolist() == [1, 2, 1]
    assert len(rounded(types, 1, up=True)) == 2, "a rank is never rounded"


@pytest.mark.parametrize("oracle", ["predictor", "distilled"])
def test_ffd_is_never_better_on_its_own_model(oracle: str) -> None:
    workload = workload_from_groups([(40, 16, 0.2), (20, 8, 1.6), (12, 32, 0.8)], duration_s=600.0)
    given_ = asked(workload)
    exact = CpSat(oracle).run(given_)
    greedy = GuidedFfd(distilled=oracle == "distilled").run(given_)
    assert exact.status == "optimal"
    assert exact.placement is not None
    assert greedy.placement is not None
    assert exact.placement.n_gpus <= greedy.placement.n_gpus == exact.details["hint_gpus"]
    # Which is what keeps the bound out of those of the twin.
    assert exact.details["oracle"] == oracle


def test_a_placement_may_be_proven_impossible() -> None:
    workload = workload_from_groups([(6, 8, 8.0)], duration_s=600.0)
    few = CpSat().run(asked(workload, max_gpus=1))
    assert few.status == "infeasible"
    assert "needs more GPUs than the limit of 1" in few.message
    alone = CpSat().run(asked(workload_from_groups([(1, 8, 0.1), (1, 8, 90.0)], duration_s=600.0)))
    assert alone.status == "infeasible"
    assert "adapter 1 (rank 8, rate 90 req/s) is predicted to starve a GPU alone" in alone.message


def test_a_model_that_is_too_large_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solvers.filling.frontier.MOST_CONTENTS", 1)
    solution = CpSat().run(replace(asked(workload_from_groups([(20, 8, 2.0), (20, 32, 3.0)])), time_limit_s=10.0))
    assert solution.status == "time_limit"
    assert solution.message.startswith("the model is too large")
    assert "\n" not in solution.message


def test_a_service_level_that_was_not_learned_is_told() -> None:
    workload = workload_from_groups([(3, 8, 1.0)], duration_s=600.0)
    with pytest.raises(UserError, match="solver cp_sat: the predictor has not learned service=mine"):
        CpSat().run(asked(workload, service=ServiceLevel("mine", e2el_ms=123.0)))
    assert CpSat().run(asked(workload, service=INTERACTIVE)).status == "optimal"
