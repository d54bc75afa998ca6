"""The rules of the oracles, on answers that are given: slots, edges, margins, and nothing remembered for another question."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from predictors import Predictor
from predictors.features import N_SUMS, RATE
from solvers.contents.adapter_types import adapter_types
from solvers.oracles.base import MAX_LORAS_GRID, MadeUp, nearest_first
from solvers.oracles.predictor import PredictorOracle
from solvers.oracles.served import activity, drains, turned, until
from solvers.oracles.spans import SlotSpan
from solvers.oracles.twin import LEAST_DEVIATION, LEAST_UNFINISHED, SIGMAS, TURNS, TwinOracle
from tests.examples import examples
from tests.solvers.toy_oracle import ToyOracle
from tests.twin.drawn import make_requests
from twin import GpuResult, Requests, ServingProfile, Workload, load_profile, workload_from_groups
from twin.shares import whole_share

LLAMA, QWEN = load_profile("llama-3.1-8b"), load_profile("qwen-2.5-7b")


# --- chance


@pytest.mark.parametrize(
    ("turns", "excess"),
    [
        # The third time it serves: no shortfall beyond doubt, by what it is above the share less the margin.
        ([0.5, 0.95, 0.5], 0.95 - 0.9),
        ([0.93, 0.5, 0.5], 0.93 - 0.9),
        # Always the same: only the least deviation is doubted.
        ([0.5, 0.5, 0.5], 0.5 + SIGMAS * LEAST_DEVIATION - 0.9),
    ],
)
def test_what_serves_once_when_requests_move_in_time_starves_by_chance(
    turns: list[float], excess: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = workload_from_groups([(2, 8, 1.0)], duration_s=30.0)
    oracle = TwinOracle(workload, LLAMA)
    assert len(turns) <= TURNS
    answers = iter([*turns, *turns[-1:] * TURNS])
    monkeypatch.setattr(oracle, "_simulate_ranks", lambda *_: next(answers))
    monkeypatch.setattr("solvers.oracles.twin.whole_share", lambda share, _: share)
    monkeypatch.setattr("solvers.oracles.twin.missed", lambda _: LEAST_UNFINISHED)
    found = oracle._chance(0.5, workload.requests, workload.ranks, SlotSpan(1, 1))
    assert found == pytest.approx(excess + (oracle.margin if excess > 0 else 0.0))


# --- slots


def test_the_slots_worth_trying_by_hand() -> None:
    """On Llama 384, 224 and 96 start at ranks 8, 16 and 32: the grid below the adapters or the limit, and that."""
    oracle = ToyOracle(workload_from_groups([(600, 8, 0.1), (1, 16, 0.1), (1, 32, 0.1)]))
    assert oracle.slots_for(1, 8) == (1,)
    assert oracle.slots_for(8, 8) == (1, 2, 4, 8)
    assert oracle.slots_for(9, 8) == (1, 2, 4, 8, 9)
    assert oracle.slots_for(90, 32)[-2:] == (64, 90)
    assert oracle.slots_for(200, 32)[-1] == 96
    assert oracle.slots_for(600, 8)[-2:] == (320, 384)
    assert oracle.slots((0, 1, 600)) == (1, 2, 3)
    assert oracle.slots((0, 601)) == oracle.slots_for(2, 32)
    assert set(oracle.slots_for(600, 16)) == {value for value in MAX_LORAS_GRID if value <= 224}


def test_the_nearest_slots_are_the_fewest_doublings_away_and_of_two_the_smaller() -> None:
    assert nearest_first((1, 2, 4, 8, 16), 4) == [4, 2, 8, 1, 16]
    assert nearest_first((1, 2, 4, 8, 16), 16) == [16, 8, 4, 2, 1]
    assert nearest_first((12, 24), 18) == [24, 12]


def test_slots_near_the_hint_are_tried_first() -> None:
    asked: list[int] = []

    class Never(ToyOracle):
        def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
            asked.append(max_loras)
            return max_loras == 1

    oracle = Never(workload_from_groups([(100, 8, 0.1)]))
    assert oracle.find_max_loras(tuple(range(12)), 2) == 1
    assert asked == [2, 1]
    asked.clear()
    assert oracle.find_max_loras(tuple(range(12))) == 1
    assert asked[0] == 12
    asked.clear()
    oracle.find_max_loras(tuple(range(100)))
    assert asked[0] == 64, "without a hint as many as there are adapters, at most 64"


# --- the twin: shares that are given


class Given(TwinOracle):
    """A twin whose answers are given.

    Parameters
    ----------
    shares : dict
        Throughput over offered for each `max_loras`; what lies between two of them has that of the one below.
    """

    def __init__(self, shares: dict[int, float], *, cut_off: bool = False, congested: bool = False) -> None:
        super().__init__(workload_from_groups([(4, 8, 0.1)]), LLAMA)
        self.shares, self.cut_off, self.is_full = shares, cut_off, congested

    def both_shares(self, adapters: tuple[int, ...], max_loras: int) -> tuple[float, float]:
        """What is given."""
        share = self.shares[max(value for value in self.shares if value <= max_loras)]
        return share, share

    def _whole_share(self, adapters: tuple[int, ...], span: SlotSpan) -> float:
        return max(self.both_shares(adapters, value)[0] for value in range(span.low, span.high + 1))

    def is_cut_off(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:
        """What is given."""
        return self.cut_off

    def _is_congested(self, simulate: Any) -> bool:  # noqa: ANN401  # a callable that is not called
        return self.is_full


ALL = (0, 1, 2, 3)


@pytest.mark.parametrize(("share", "accepted"), [(0.9, True), (0.9 - 1e-9, False), (1.0, True), (-1.0, False)])
def test_nine_tenths_are_enough(share: float, *, accepted: bool) -> None:
    assert Given({1: share}).accepts((0,), 1) == accepted


@pytest.mark.parametrize(
    ("shares", "starves"),
    [
        ((0.95, 0.95, 0.95), False),
        ((0.905, 0.5, 0.5), False),  # accepted, so it never starves
        ((0.895, 0.5, 0.5), False),  # within the margin of a hundredth
        ((0.8901, 0.5, 0.5), False),
        ((0.8899, 0.5, 0.5), True),
        ((0.5, 0.5, 0.8901), False),  # one `max_loras` that is not beyond doubt is enough
        ((0.5, 0.5, 0.8899), True),
        ((-1.0, -1.0, -1.0), True),  # a memory error everywhere
    ],
)
def test_what_misses_the_threshold_by_the_margin_everywhere_starves(
    shares: tuple[float, float, float], *, starves: bool
) -> None:
    oracle = Given(dict(zip((1, 2, 4), shares, strict=True)))
    assert oracle.starves(ALL) == starves
    assert not starves or oracle.find_max_loras(ALL) is None


@pytest.mark.parametrize(
    ("share", "congested", "starves"),
    [(0.88, True, False), (0.86, True, True), (0.86, False, False), (-1.0, False, True)],
)
def test_a_content_that_is_cut_off_starves_only_if_it_was_congested_before(
    share: float, *, congested: bool, starves: bool
) -> None:
    """By more than 0.035 below nine tenths, and already when the window was shorter."""
    assert Given(dict.fromkeys((1, 2, 4), share), cut_off=True, congested=congested).starves(ALL) == starves


def result(share: float, *, unfinished: int = 100) -> Any:  # noqa: ANN401  # as much of a GpuResult as is looked at
    return SimpleNamespace(
        judgement=None,
        memory_error=share < 0,
        throughput=100.0 * share,
        offered_throughput=100.0,
        arrived=1000,
        finished=1000 - unfinished,
    )


@pytest.mark.parametrize(
    ("shares", "unfinished", "beyond_doubt"),
    [
        ([0.88] * 5, 100, True),  # 0.88 + 3 x 0.004, the least deviation
        ([0.889] * 5, 100, False),  # 0.889 + 0.012
        ([0.80, 0.86, 0.80, 0.86, 0.80], 100, False),  # 0.824 + 3 x 0.0329
        ([0.70, 0.74, 0.70, 0.74, 0.70], 100, True),  # 0.716 + 3 x 0.0219
        ([0.70, 0.70, 0.70, 0.70, 0.895], 100, False),  # one turn is within the margin
        ([0.70] * 5, LEAST_UNFINISHED, True),
        ([0.70] * 5, LEAST_UNFINISHED - 1, False),
    ],
)
def test_a_shortfall_is_more_than_chance(
    shares: list[float], unfinished: int, *, beyond_doubt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Given({1: 0.5})
    answers = iter(shares[1:])
    monkeypatch.setattr(oracle, "_simulate_ranks", lambda *_: result(next(answers), unfinished=unfinished))
    requests = oracle.workload.requests
    assert (oracle._chance(shares[0], requests, oracle.workload.ranks, SlotSpan(1, 1)) < 0) == beyond_doubt


@pytest.mark.parametrize(
    ("end", "earlier", "congested"),
    [
        (result(0.8), result(0.8), True),
        (result(0.8), result(0.9), False),
        (result(0.8, unfinished=LEAST_UNFINISHED), result(0.8, unfinished=LEAST_UNFINISHED), True),
        (result(0.8, unfinished=LEAST_UNFINISHED - 1), result(0.8), False),
        (result(0.8), result(0.8, unfinished=LEAST_UNFINISHED - 1), False),
    ],
)
def test_congestion_is_there_before_the_window_ends(
    end: Any,  # noqa: ANN401  # as `result` makes it
    earlier: Any,  # noqa: ANN401
    *,
    congested: bool,
) -> None:
    oracle = TwinOracle(workload_from_groups([(1, 8, 0.1)], duration_s=100.0), LLAMA)
    assert oracle._is_congested({100.0: end, 85.0: earlier}.__getitem__) == congested


class Counted(TwinOracle):
    """Simulates a formula: the share falls with the summed ranks and with how far `max_loras` is from 4."""

    def __init__(self, per_rank: float) -> None:
        super().__init__(workload_from_groups([(30, 8, 1.0), (2, 32, 1.0)], duration_s=100.0), LLAMA)
        self.per_rank = per_rank

    def _simulate_ranks(self, requests: Requests, ranks: NDArray[np.int64], span: SlotSpan) -> GpuResult:
        self.calls += 1
        share = 1.0 - self.per_rank * float(ranks.sum()) - 0.001 * abs(min(max(4, span.low), span.high) - 4)
        answer: GpuResult = result(share)
        return answer


def test_what_starves_beside_a_large_rank_may_be_served_beside_a_small_one() -> None:
    """Asked in any order, an oracle answers as a fresh one does: nothing is remembered across ranks."""
    content = tuple(range(12))
    questions = [(content, 32), (content, 8), (content, 16), (tuple(range(20)), 8), (content, 8), (content, 32)]
    # The share falls by 0.001 for each unit of rank: 12 adapters with one of 32 have 120 of them, with one of 16 104, without 96.
    asked = Counted(0.001)
    answers = [asked.congested(*question) for question in questions]
    assert answers == [Counted(0.001).congested(*question) for question in questions]
    assert answers == [True, False, False, True, False, True]


def test_what_asks_for_more_than_what_starves_is_not_simulated_again() -> None:
    oracle = Counted(0.002)
    assert oracle.congested(tuple(range(12)), 8)
    calls = oracle.calls
    assert oracle.congested(tuple(range(12)), 8)
    assert oracle.calls == calls
    assert oracle.congested(tuple(range(11)), 8), "less than it is asked about"
    assert oracle.calls > calls


def test_made_up_contents_are_remembered_by_all_that_they_ask_for() -> None:
    """A content known to starve stands for those with at least its adapters, its rank and its load, on its span's server."""

    class Drawn(TwinOracle):
        def _made_up_share(self, content: MadeUp, span: SlotSpan) -> float:
            self.calls += 1
            least = 1.1 if span.low <= 4 <= span.high else 1.05
            return least - 0.01 * content.n_adapters - 0.005 * content.rank - 0.01 * content.load

        def _made_up_drains(self, content: MadeUp, span: SlotSpan) -> bool:
            return False

    workload = workload_from_groups([(30, 8, 1.0), (2, 32, 1.0)], duration_s=100.0)
    one = Drawn(workload, LLAMA)
    generator = np.random.default_rng(0)
    starving = 0
    for _ in range(200):
        content = MadeUp(
            int(generator.integers(1, 12)), int(generator.choice([8, 16, 32])), float(generator.uniform(0, 12))
        )
        answer = one.made_up_starves(content)
        assert answer == Drawn(workload, LLAMA).made_up_starves(content)
        starving += answer
    assert 20 < starving < 180
    calls = one.calls
    assert one.made_up_starves(MadeUp(12, 32, 12.0))
    assert one.calls == calls


def test_within_the_margin_a_made_up_content_does_not_starve() -> None:
    class Same(TwinOracle):
        of, drains = 0.0, False

        def _made_up_share(self, content: MadeUp, span: SlotSpan) -> float:
            return self.of

        def _made_up_drains(self, content: MadeUp, span: SlotSpan) -> bool:
            return self.drains

    for share, drained, starves in (
        (0.9, False, False), (0.895, False, False), (0.8901, False, False), (0.8899, False, True), (0.8899, True, False),
    ):  # fmt: skip
        oracle = Same(workload_from_groups([(3, 8, 1.0)], duration_s=100.0), LLAMA)
        oracle.of, oracle.drains = share, drained
        assert oracle.made_up_starves(MadeUp(3, 8, 1.0)) == starves


# --- the twin itself


@pytest.fixture(scope="module")
def busy() -> Workload:
    """Ten adapters of which a GPU serves about half, on a model that stops before it has generated what was asked for."""
    lengths = Workload(np.array([8]), np.array([1.0])).lengths
    return Workload(
        np.array([8, 8, 16, 8, 32, 8, 16, 8, 8, 32]),
        np.array([9.0, 8.0, 7.0, 6.0, 5.0, 5.0, 4.0, 3.0, 2.0, 1.0]),
        type(lengths)(generated_fraction=0.8),
        duration_s=60.0,
    )


def test_a_content_is_answered_as_by_a_fresh_oracle(busy: Workload) -> None:
    """Whatever was asked before: other contents of the same size, other `max_loras`, other windows."""
    asked = TwinOracle(busy, QWEN)
    contents = [(0, 1, 2), (3, 4, 5), (0, 1, 2), (0, 4, 9), (3, 4, 5)]
    for content in contents:
        for max_loras in (1, 4):
            assert asked.share(content, max_loras) == TwinOracle(busy, QWEN).share(content, max_loras)
        assert asked.is_cut_off(content) == TwinOracle(busy, QWEN).is_cut_off(content)
    assert asked.calls == 6
    assert asked.share((0, 1, 2), 1) != asked.share((0, 1, 2), 4)


def test_loads_are_offered_tokens(busy: Workload) -> None:
    """Prompt and output tokens asked for, whatever the model made of them."""
    requests = busy.requests
    assert requests.output_tokens.sum() < 0.9 * requests.requested_tokens.sum()
    offered = [
        (requests.prompt_tokens + requests.requested_tokens)[requests.adapter == adapter].sum() / 60.0
        for adapter in range(10)
    ]
    oracle = TwinOracle(busy, QWEN)
    assert oracle.loads == pytest.approx(np.array(offered))
    types = adapter_types(busy)
    assert oracle.demands(types).of(types.counts)[oracle.demands(types).load_row] == pytest.approx(sum(offered))


def test_made_up_sums_are_those_of_the_requests_that_are_replayed(busy: Workload) -> None:
    """Thinned to the load, dealt to all the adapters alike, with as many ranks present as the largest says."""
    oracle = TwinOracle(busy, QWEN)
    total = float(oracle.loads.sum())
    content = MadeUp(8, 16, 0.5 * total)
    requests = oracle._thinned(content)
    dealt = np.bincount(requests.adapter, minlength=8)
    assert len(dealt) == 8
    assert dealt.min() > 0.75 * dealt.mean(), "who gets a request is no matter of whether it was kept"
    assert len(requests) == pytest.approx(len(busy.requests) / 2, rel=0.06)
    sums = oracle.made_up_sums(content)
    assert sums[:2].tolist() == [1.0, 0.0]
    assert sums[2] == pytest.approx((requests.prompt_tokens + requests.requested_tokens).sum() / 60.0)
    assert sums[3:] == pytest.approx(activity(requests, 8, oracle._service_times_s, 60.0).sum(axis=1))
    assert (np.diff(sums[3:]) >= 0).all()
    assert len(oracle._thinned(MadeUp(2, 8, 2 * total))) == len(busy.requests)
    # What was kept at a small load is kept at a large one.
    less, more = (set(oracle._thinned(MadeUp(8, 8, part * total)).arrival_s.tolist()) for part in (0.2, 0.6))
    assert less < more


def test_times_in_service_are_half_once_and_twice_what_little_s_law_says(busy: Workload) -> None:
    """On a GPU that serves less than half of what it is sent, where one request is in service for running over rate."""
    oracle = TwinOracle(busy, LLAMA)
    times_s = oracle._service_times_s
    assert times_s / times_s[1] == pytest.approx(np.array([0.5, 1.0, 2.0]))
    assert 0.1 < times_s[1] < 60.0


def test_activity_by_hand() -> None:
    """Requests at 1, 2 and 8 s of a window of 10 s, in service for 3 s each: from 1 to 5 and from 8 to 10."""
    requests = make_requests((1.0, 0, 5, 5), (2.0, 0, 5, 5), (4.0, 1, 5, 5), (8.0, 0, 5, 5))
    assert activity(requests, 3, np.array([3.0, 100.0]), 10.0) == pytest.approx(
        np.array([[0.6, 0.3, 0.0], [0.9, 0.6, 0.0]])
    )


@given(turn=st.integers(0, 5))
def test_a_turn_moves_each_adapter_s_requests_by_one_offset(turn: int) -> None:
    workload = workload_from_groups([(3, 8, 1.0)], duration_s=30.0)
    requests, moved = workload.requests, turned(workload.requests, turn, 3, 30.0)
    assert (np.diff(moved.arrival_s) >= 0).all()
    assert ((moved.arrival_s >= 0) & (moved.arrival_s < 30.0)).all()
    offsets = []
    for adapter in range(3):
        before, after = (np.sort(r.arrival_s[r.adapter == adapter]) for r in (requests, moved))
        gaps = (np.sort(np.diff(a, append=a[0] + 30.0)) for a in (before, after))
        first, second = gaps
        assert first == pytest.approx(second)
        offsets.append(float((after[0] - before[0]) % 30.0))
        tokens = (np.sort(r.prompt_tokens[r.adapter == adapter]) for r in (requests, moved))
        assert len({tuple(t.tolist()) for t in tokens}) == 1
    assert len(set(offsets)) == 3


def test_requests_until_a_time_and_what_drains() -> None:
    requests = make_requests((1.0, 0, 5, 5), (2.0, 0, 5, 5), (4.0, 0, 5, 5))
    assert len(until(requests, 4.0)) == 2
    assert len(until(requests, 4.1)) == 3
    assert drains(result(0.5, unfinished=0))
    assert not drains(result(0.5, unfinished=1))
    assert not drains(result(-1.0, unfinished=0))
    assert whole_share(result(-1.0)) == -1.0
    nothing: Any = SimpleNamespace(judgement=None, memory_error=False, throughput=0.0, offered_throughput=0.0)
    assert whole_share(nothing) == 1.0


# --- learned models


def learned(profile: ServingProfile, predictor: Predictor, *, distilled: bool = False) -> PredictorOracle:
    workload = workload_from_groups([(20, 8, 1.0), (20, 16, 0.5), (20, 32, 0.2)], duration_s=600.0)
    return PredictorOracle(workload, profile, predictor, distilled=distilled)


@pytest.mark.parametrize("distilled", [False, True])
@examples(15)
@given(data=st.data())
def test_a_learned_oracle_answers_as_a_fresh_one(
    profile: ServingProfile, predictor: Predictor, *, distilled: bool, data: st.DataObject
) -> None:
    """Whatever was asked before, of whatever rank and size: what is remembered is no answer."""
    asked = learned(profile, predictor, distilled=distilled)
    for _ in range(6):
        start, stop = sorted(data.draw(st.tuples(st.integers(0, 59), st.integers(1, 60))))
        content = tuple(range(start, stop if stop > start else start + 1))
        scale, rank = data.draw(st.floats(0.1, 8.0)), data.draw(st.sampled_from([8, 16, 32]))
        sums = scale * asked.contributions[list(content)].sum(axis=0)
        fresh = learned(profile, predictor, distilled=distilled)
        assert asked.starves_from(rank, sums) == fresh.starves_from(rank, sums)
        assert asked.find_max_loras(content) == fresh.find_max_loras(content)
        assert asked.starves(content) == fresh.starves(content)


def test_a_learned_oracle_tries_what_starts_at_the_rank_or_above(profile: ServingProfile, predictor: Predictor) -> None:
    """384, 224 and 96 slots start at ranks 8, 16 and 32, so beside rank 16 or above at most 224."""
    oracle = learned(profile, predictor)
    several = oracle.workload.n_adapters
    assert max(oracle._slots_from(8, several)) == 384
    assert max(oracle._slots_from(16, several)) == 224
    assert max(oracle._slots_from(32, several)) == 96
    known = {value for value in (*MAX_LORAS_GRID, 224, 96) if value <= 224}
    assert set(oracle._slots_from(16, several + 1)) == known
    # A content may have a slot for each of its adapters, and may be larger than what is counted.
    assert set(oracle._slots_from(16, 5)) == known | set(range(5, several + 1))


def test_of_equal_slots_the_nearest_to_the_hint_is_taken(
    profile: ServingProfile, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a probability at the threshold is rejected."""
    oracle = learned(profile, predictor)
    at = 0.0
    monkeypatch.setattr(oracle, "_starvation", lambda _, slots, __: np.full(len(slots), at))
    assert oracle.find_max_loras(tuple(range(16)), 4) == 4
    assert oracle.find_max_loras(tuple(range(16))) == 16
    at = oracle._threshold
    assert oracle.find_max_loras(tuple(range(16)), 4) is None
    assert not oracle.accepts((0,), 1)
    assert oracle.starves((0,))
    at = np.nextafter(oracle._threshold, 0.0)
    assert oracle.accepts((0,), 1)
    assert not oracle.starves((0,))


@pytest.mark.parametrize(("n_adapters", "rank"), [(1, 8), (5, 8), (5, 16), (7, 32)])
def test_a_made_up_content_has_the_sums_of_the_adapters_that_it_is_of(
    n_adapters: int, rank: int, profile: ServingProfile, predictor: Predictor
) -> None:
    """Equally busy, one of them of the rank, the others of the smallest."""
    oracle = learned(profile, predictor)
    ranks = np.array([*[8] * (n_adapters - 1), rank, 8, 16, 32])
    workload = Workload(ranks, np.array([*[3.0 / n_adapters] * n_adapters, 0.0, 0.0, 0.0]), duration_s=600.0)
    real = PredictorOracle(workload, profile, predictor)
    types = adapter_types(workload)
    counts = np.array([int(rate > 0) * count for rate, count in zip(types.rates, types.counts, strict=True)])
    assert real.demands(types).of(counts) == pytest.approx(oracle.made_up_sums(MadeUp(n_adapters, rank, 3.0)))
    sums = real.contributions[:n_adapters].sum(axis=0)
    asked: list[tuple[int, NDArray[np.float64]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracle, "starves_from", lambda largest, point: asked.append((largest, point)))
        oracle.made_up_starves(MadeUp(n_adapters, rank, 3.0))
    assert asked[0][0] == rank
    assert asked[0][1] == pytest.approx(sums)
    assert len(sums) == N_SUMS
    assert sums[RATE] == pytest.approx(3.0)
