"""The published greedy, with tests whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors import load_predictor
from predictors.features import RATE
from solvers.base import Problem
from solvers.contents.orders import zigzag_order
from solvers.ffd import GuidedFfd
from solvers.filling.test_points import (
    TEST_POINTS,
    GpuContent,
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
        self.offered: list[list[int]] = []
        self.contents: list[GpuContent] = []

    def choose(self, content: GpuContent, places: range) -> int:
        """By the count alone."""
        count = len(content.adapters) + content.n_filled
        self.asked.append(count)
        self.offered.append(TEST_POINTS[places].tolist())
        self.contents.append(content)
        return places[-1] if count <= self.most else -1


def problem(workload: Workload) -> Problem:
    return Problem(workload, PROFILE, MinGpus(), predictor=load_predictor(PROFILE.name))


def greedy(n_adapters: int, most: int, *, as_published: bool = False) -> list[int] | None:
    workload = workload_from_groups([(n_adapters, 8, 0.01)])
    gpus = fill_by_test_points(workload, zigzag_order(workload), AtMost(most), as_published=as_published)
    if gpus is None:
        return None
    assert np.concatenate([adapters for adapters, _ in gpus]).tolist() == zigzag_order(workload).tolist()
    return [len(adapters) for adapters, _ in gpus]


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


@pytest.mark.parametrize(
    ("n_adapters", "most", "sizes"),
    [
        # 32 are committed and 8 pending; the next test point is 64, so 56 are filled in: 96 adapters.
        (40, 96, [40]),
        (40, 95, [32, 8]),
        # Nothing is committed, and nobody counts twice: 8.
        (4, 8, [4]),
        (4, 7, None),
        # 8 committed and 4 pending, 12 filled in: 24. On the next GPU 4 are tested as 8.
        (12, 24, [12]),
        (12, 23, [8, 4]),
        (32, 32, [32]),
        (600, 576, [576, 24]),
    ],
)
def test_as_published_what_is_committed_counts_twice_at_the_end(
    n_adapters: int, most: int, sizes: list[int] | None
) -> None:
    assert greedy(n_adapters, most, as_published=True) == sizes


def test_as_published_the_first_test_offers_8_slots_only() -> None:
    workload = workload_from_groups([(40, 8, 0.01)])
    published, ours = AtMost(96), AtMost(96)
    fill_by_test_points(workload, zigzag_order(workload), published, as_published=True)
    fill_by_test_points(workload, zigzag_order(workload), ours, as_published=False)
    # Tests at 8, 16 and 32, and of what is left at 64; each takes the larger.
    assert published.offered == [[8], [8, 16], [16, 32], [32, 64]]
    assert ours.offered == [[8, 16], [16, 32], [32, 64], [64, 96]]
    assert published.asked == [8, 16, 32, 96]
    assert ours.asked == [8, 16, 32, 64]
    assert published.contents[-1].counted == ours.contents[-1].counted == 64


@pytest.mark.parametrize(("as_published", "second"), [(True, [3, 2, 4, 5]), (False, [2, 3, 4, 5])])
def test_as_published_pending_adapters_of_a_rank_used_up_come_back_in_reverse(
    as_published: bool,
    second: list[int],
) -> None:
    """After 8 committed, two of rank 32 and then six of rank 8 are pending when the test at 16 fails."""
    ranks = np.array([32] * 10 + [8] * 6)
    workload = Workload(ranks, np.linspace(2, 1, 16))
    test = AtMost(8)
    gpus = fill_by_test_points(workload, np.arange(16), test, as_published=as_published)
    assert gpus is not None
    assert [len(adapters) for adapters, _ in gpus] == [8, 8]
    assert (gpus[1][0][:4] - 6).tolist() == second


@examples(25)
@given(n_adapters=st.integers(1, 700), most=st.sampled_from([8, 16, 64, 96, 500, 576]), as_published=st.booleans())
def test_every_adapter_is_placed_once(n_adapters: int, most: int, as_published: bool) -> None:
    sizes = greedy(n_adapters, most, as_published=as_published)
    assert sizes is not None
    assert sum(sizes) == n_adapters
    assert max(sizes) <= most


def test_filled_in_adapters_are_the_smallest_rank_at_the_mean_rate() -> None:
    workload = workload_from_groups([(6, 16, 0.2), (6, 8, 0.1)])
    for as_published, n_filled in ((False, 4), (True, 12)):
        test = AtMost(64)
        fill_by_test_points(workload, zigzag_order(workload), test, as_published=as_published)
        last = test.contents[-1]
        assert (last.n_filled, last.filled_rank, last.counted) == (n_filled, 8, 16)
        assert last.filled_rate == pytest.approx(0.15)


def test_the_predictors_are_told_the_test_point_whoever_counts_twice() -> None:
    """24 adapters in the sums of rates, 16 in the count, as the published features have it."""
    ours = problem(workload_from_groups([(12, 8, 0.2)]))
    assert ours.predictor is not None
    seen = []

    class Watched:
        profile, starvation_threshold = ours.profile, 0.5

        def predict_throughput(self, contents: np.ndarray) -> np.ndarray:
            seen.append(contents)
            return np.ones(len(contents))

        def predict_starvation(self, contents: np.ndarray) -> np.ndarray:
            return np.zeros(len(contents))

    test = PredictorTest(ours, Watched(), distilled=False)  # type: ignore[arg-type]  # as much as is asked
    assert test.choose(GpuContent(np.arange(12), 16, 12, 8, 0.2), range(2)) == 1
    assert seen[0][0, 0] == 16
    assert seen[0][0, RATE] == pytest.approx(24 * 0.2)


def test_a_max_loras_with_which_no_engine_starts_is_not_offered() -> None:
    """96 slots of rank 32 start on Llama: of 96 and 128 the former is left, of 128 and 160 none."""
    ours = problem(Workload(np.full(120, 32), np.zeros(120)))
    assert ours.predictor is not None
    test = PredictorTest(ours, ours.predictor, distilled=False)
    place = TEST_POINTS.tolist().index(96)
    assert test.choose(GpuContent(np.arange(120), 120), range(place, place + 2)) == place
    assert test.choose(GpuContent(np.arange(120), 120), range(place + 1, place + 3)) == -1


def test_the_twin_counts_filled_in_adapters() -> None:
    """Sixty-three adapters that a GPU can bear are refused when as many again are filled in."""
    ours = problem(workload_from_groups([(63, 8, 0.15)], duration_s=900.0))
    test = TwinTest(ours)
    slots = int(np.searchsorted(TEST_POINTS, 64))
    places = range(slots, slots + 2)
    assert test.choose(GpuContent(np.arange(63), 63), places) >= 0
    assert test.choose(GpuContent(np.arange(63), 63, 190, 8, 0.3), places) == -1


def test_the_twin_is_asked_only_where_the_predictor_is_unsure() -> None:
    ours = problem(workload_from_groups([(16, 8, 0.01), (512, 8, 1.6)], duration_s=600.0))
    few, many = GpuContent(np.arange(16), 16), GpuContent(np.arange(16, 528), 512)
    twin = TwinTest(ours)
    assert ours.predictor is not None
    test = PredictorTest(ours, ours.predictor, distilled=False, unsure=twin)
    assert test.choose(few, range(1, 3)) >= 0
    assert test.choose(many, range(9, 11)) == -1
    assert twin.calls == test.asked_twin == 0
    never = replace(ours.predictor, starvation_threshold=0.0)
    unsure = PredictorTest(ours, never, distilled=False, unsure=twin)
    assert unsure.choose(few, range(1, 3)) >= 0
    assert twin.calls == unsure.asked_twin == 1


@pytest.mark.parametrize(
    "solver",
    [
        GuidedFfd(),
        GuidedFfd("unsure", as_published=False),
        GuidedFfd("always"),
        GuidedFfd("outside", distilled=True, as_published=False),
    ],
    ids=["ffd", "ffd_checked", "always", "ffd_fast"],
)
def test_placements_are_feasible_on_the_twin(solver: GuidedFfd) -> None:
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
    solution = GuidedFfd("unsure").run(far)
    assert solution.details["twin_calls"] == solution.oracle_calls > 0
    assert "mean_prompt_tokens" in caplog.text
    assert make_oracle("predictor", far, "exact").name == "twin"
    assert GuidedFfd(twin="never").run(far).details["twin_calls"] == 0
    assert make_oracle("predictor", problem(workload), "exact").name == "predictor"


def test_less_risk_needs_no_fewer_gpus() -> None:
    workload = workload_from_groups([(400, 16, 0.05)], duration_s=1200.0)
    gpus = []
    for risk in (0.2, 0.01, 0.001):
        placement = GuidedFfd(twin="never", risk=risk).run(problem(workload)).placement
        assert placement is not None
        gpus.append(placement.n_gpus)
    assert gpus == sorted(gpus)


@pytest.mark.parametrize(("options", "told"), [({"twin": "often"}, "solver.twin=often"), ({"risk": 0.5}, "risk=0.5")])
def test_an_option_that_is_wrong_is_told(options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        GuidedFfd(**options).run(problem(workload_from_groups([(8, 8, 0.01)])))  # type: ignore[arg-type]
