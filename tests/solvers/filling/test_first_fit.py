"""The published greedy, with tests whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors import load_predictor
from solvers.base import Problem
from solvers.contents.orders import zigzag_order
from solvers.ffd import Ffd
from solvers.filling.test_points import (
    TEST_POINTS,
    OrderedContent,
    PredictorTest,
    PublishedTest,
    TwinTest,
    fill_by_test_points,
)
from solvers.objectives.min_gpus import MinGpus
from solvers.oracles.choice import make_oracle
from tests.examples import examples
from twin import LogNormalTokens, UserError, Workload, load_profile, workload_from_groups

PROFILE = load_profile("llama-3.1-8b")


class AtMost(PublishedTest):
    """Passes up to a number of adapters, the filled-in ones counted."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[int] = []

    def choose(self, content: OrderedContent, current: int) -> int:
        """By the count alone."""
        count = content.last - content.first + content.n_filled
        self.asked.append(count)
        return min(current + 1, len(TEST_POINTS) - 1) if count <= self.most else -1


def problem(workload: Workload) -> Problem:
    return Problem(workload, PROFILE, MinGpus(), predictor=load_predictor(PROFILE.name))


def greedy(n_adapters: int, most: int) -> list[int] | None:
    workload = workload_from_groups([(n_adapters, 8, 0.01)])
    gpus = fill_by_test_points(workload, zigzag_order(workload), AtMost(most))
    if gpus is None:
        return None
    assert [first for first, _, _ in gpus] == [0, *(last for _, last, _ in gpus[:-1])]
    assert gpus[-1][1] == n_adapters
    return [last - first for first, last, _ in gpus]


@pytest.mark.parametrize(
    ("n_adapters", "most", "sizes"),
    [
        # What is left is tested at the next test point: 40 as 64.
        (40, 64, [40]),
        (40, 63, [32, 8]),
        (32, 32, [32]),
        (100, 32, [32, 32, 32, 4]),
        # The rest is counted as 8 adapters, and then a GPU with nothing committed fails its first test.
        (4, 7, None),
        (20, 8, [8, 8, 4]),
        (600, 576, [576, 24]),
        (576, 576, [576]),
    ],
)
def test_gpus_are_filled_to_test_points(n_adapters: int, most: int, sizes: list[int] | None) -> None:
    assert greedy(n_adapters, most) == sizes


@examples(25)
@given(n_adapters=st.integers(1, 700), most=st.sampled_from([8, 16, 64, 96, 500, 576]))
def test_every_adapter_is_placed_once(n_adapters: int, most: int) -> None:
    sizes = greedy(n_adapters, most)
    assert sizes is not None
    assert sum(sizes) == n_adapters
    assert max(sizes) <= most


def test_filled_in_adapters_are_the_smallest_rank_at_the_mean_rate() -> None:
    workload = workload_from_groups([(6, 16, 0.2), (6, 8, 0.1)])

    class Last(AtMost):
        def choose(self, content: OrderedContent, current: int) -> int:
            self.content = content
            return super().choose(content, current)

    test = Last(64)
    fill_by_test_points(workload, zigzag_order(workload), test)
    assert (test.content.n_filled, test.content.filled_rank) == (4, 8)
    assert test.content.filled_rate == pytest.approx(0.15)


def test_the_twin_counts_filled_in_adapters() -> None:
    """Sixty-three adapters that a GPU can bear are refused when as many again are filled in."""
    ours = problem(workload_from_groups([(63, 8, 0.15)], duration_s=900.0))
    test = TwinTest(ours, zigzag_order(ours.workload))
    slots = int(np.searchsorted(TEST_POINTS, 64))
    assert test.choose(OrderedContent(0, 63), slots) >= 0
    assert test.choose(OrderedContent(0, 63, 190, 8, 0.3), slots) == -1


def test_the_twin_is_asked_only_where_the_predictor_is_unsure() -> None:
    ours = problem(workload_from_groups([(16, 8, 0.01), (512, 8, 1.6)], duration_s=600.0))
    order = np.arange(ours.workload.n_adapters)
    twin = TwinTest(ours, order)
    assert ours.predictor is not None
    test = PredictorTest(ours.workload, ours.predictor, order, distilled=False, unsure=twin)
    assert test.choose(OrderedContent(0, 16), 1) >= 0
    assert test.choose(OrderedContent(16, 528), 9) == -1
    assert twin.calls == test.asked_twin == 0
    never = replace(ours.predictor, starvation_threshold=0.0)
    unsure = PredictorTest(ours.workload, never, order, distilled=False, unsure=twin)
    assert unsure.choose(OrderedContent(0, 16), 1) >= 0
    assert twin.calls == unsure.asked_twin == 1


@pytest.mark.parametrize("solver", [Ffd(), Ffd(twin="never"), Ffd(twin="always"), Ffd("outside", distilled=True)])
def test_placements_are_feasible_on_the_twin(solver: Ffd) -> None:
    from twin import score_placement

    workload = workload_from_groups([(40, 16, 0.2), (40, 8, 0.4)], duration_s=600.0, seed=1)
    solution = solver.run(problem(workload))
    assert solution.status == "feasible"
    assert solution.placement is not None
    assert score_placement(workload, solution.placement, PROFILE).feasible
    if solver.twin != "unsure":
        assert solution.details["twin_calls"] == (solution.oracle_calls if solver.twin == "always" else 0)


def test_outside_the_trained_range_the_twin_is_asked_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    workload = workload_from_groups([(8, 8, 0.001)], duration_s=600.0)
    long = replace(workload.lengths, prompt=LogNormalTokens(9_000, 0.1, 4, 20_000), max_total_tokens=30_000)
    far = problem(replace(workload, lengths=long))
    solution = Ffd().run(far)
    assert solution.details["twin_calls"] == solution.oracle_calls > 0
    assert "mean_prompt_tokens" in caplog.text
    assert make_oracle("predictor", far, "exact").name == "twin"
    assert Ffd(twin="never").run(far).details["twin_calls"] == 0
    assert make_oracle("predictor", problem(workload), "exact").name == "predictor"


def test_less_risk_needs_no_fewer_gpus() -> None:
    workload = workload_from_groups([(400, 16, 0.05)], duration_s=1200.0)
    gpus = []
    for risk in (0.2, 0.01, 0.001):
        placement = Ffd(twin="never", risk=risk).run(problem(workload)).placement
        assert placement is not None
        gpus.append(placement.n_gpus)
    assert gpus == sorted(gpus)


@pytest.mark.parametrize(("options", "told"), [({"twin": "often"}, "solver.twin=often"), ({"risk": 0.5}, "risk=0.5")])
def test_an_option_that_is_wrong_is_told(options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Ffd(**options).run(problem(workload_from_groups([(8, 8, 0.01)])))  # type: ignore[arg-type]
