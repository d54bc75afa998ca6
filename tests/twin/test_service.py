"""Service levels: who is judged, by what, and that nothing but the verdict depends on it."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.twin.drawn import Server, make_requests, servers, small_profile
from twin import (
    BATCH,
    INTERACTIVE,
    PUBLISHED,
    GpuPlan,
    GpuResult,
    Judgement,
    Placement,
    Requests,
    ServiceLevel,
    UserError,
    Workload,
    load_profile,
    score_placement,
    simulate_gpu,
    simulate_requests,
)
from twin.builders import zipf

PROFILE = load_profile("llama-3.1-8b")

levels = st.builds(
    ServiceLevel,
    name=st.just("drawn"),
    ttft_ms=st.sampled_from([1.0, 50.0, 400.0, 5000.0]),
    tpot_ms=st.sampled_from([None, 15.0, 40.0, 300.0]),
    e2el_ms=st.sampled_from([None, 100.0, 3000.0]),
    share=st.sampled_from([0.5, 0.9, 1.0]),
    warm_up=st.sampled_from([0.0, 0.3]),
    least_judged=st.sampled_from([1, 3, 20]),
)


def judged_by(server: Server, level: ServiceLevel, window_s: float, **options: Any) -> GpuResult:  # noqa: ANN401
    return server.simulate(duration_s=window_s, service=level, **options)


def same(one: Any, other: Any) -> bool:  # noqa: ANN401  # a field of any type
    if is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=np.asarray(one).dtype.kind == "f"))


@given(server=servers(), level=levels, window_s=st.sampled_from([0.5, 2.0, 60.0]))
def test_the_two_engines_judge_alike(server: Server, level: ServiceLevel, window_s: float) -> None:
    fast = judged_by(server, level, window_s)
    slow = judged_by(server, level, window_s, step_by_step=True)
    assert fast.judgement is not None
    assert slow.judgement is not None
    assert fast.judgement.met.tolist() == slow.judgement.met.tolist()
    assert fast.judgement.judged.tolist() == slow.judgement.judged.tolist()
    assert same(fast, slow)


@given(server=servers(), level=levels, window_s=st.sampled_from([0.5, 2.0, 60.0]))
def test_judging_changes_no_figure_of_the_window(server: Server, level: ServiceLevel, window_s: float) -> None:
    """Offered and served tokens, latencies, counts: all as if nobody had judged, and nothing had come after the window."""
    arrives = server.requests.arrival_s < window_s
    inside = replace(server, requests=server.requests.take(np.flatnonzero(arrives)))
    plain = inside.simulate(duration_s=window_s)
    judged = judged_by(server, level, window_s)
    different = {
        field.name
        for field in fields(GpuResult)
        if field.name not in ("service", "judgement", "first_token_s", "finish_s")
        and not same(getattr(plain, field.name), getattr(judged, field.name))
    }
    # A stall after the window is none of it, and one before it is seen by both.
    assert different <= ({"stalled"} if plain.stalled != judged.stalled else set())


@given(server=servers(), level=levels, window_s=st.sampled_from([0.5, 2.0]))
def test_the_verdict_is_that_of_every_request_looked_at_by_itself(
    server: Server, level: ServiceLevel, window_s: float
) -> None:
    """Serve everybody to the end, long after the horizon, and judge each request by hand."""
    told = judged_by(server, level, window_s).judgement
    assert told is not None
    to_the_end = server.simulate(duration_s=1e5)
    requests, overhead_s = server.requests, server.profile.request_overhead_ms / 1000
    judged, met = np.zeros(len(server.ranks), int), np.zeros(len(server.ranks), int)
    for i in range(len(requests)):
        if not level.warm_up * window_s <= requests.arrival_s[i] < window_s:
            continue
        first, last = to_the_end.first_token_s[i], to_the_end.finish_s[i]
        judged[requests.adapter[i]] += 1
        ttft_ms = (first - requests.arrival_s[i] + overhead_s) * 1000
        good = not np.isnan(first) and ttft_ms <= (level.ttft_ms or np.inf)
        if level.tpot_ms is not None and requests.output_tokens[i] > 1:
            good &= (last - first) * 1000 <= level.tpot_ms * (requests.output_tokens[i] - 1)
        if level.e2el_ms is not None:
            good &= (last - requests.arrival_s[i] + overhead_s) * 1000 <= level.e2el_ms
        met[requests.adapter[i]] += bool(good)
    assert told.judged.tolist() == judged.tolist()
    assert told.met.tolist() == met.tolist()


@pytest.mark.parametrize(
    ("limits", "allowed_s"),
    [
        ({"ttft_ms": 400.0}, 0.4),
        ({"e2el_ms": 3000.0}, 3.0),
        ({"ttft_ms": 400.0, "e2el_ms": 3000.0}, 3.0),  # in time for the first token, it has all of the three seconds
        ({"ttft_ms": 400.0, "tpot_ms": 40.0}, 0.4 + 15 * 0.04),
        ({"ttft_ms": 400.0, "tpot_ms": 40.0, "e2el_ms": 3000.0}, 1.0),
        ({"ttft_ms": 400.0, "tpot_ms": 300.0, "e2el_ms": 3000.0}, 3.0),
    ],
)
def test_a_request_is_awaited_until_it_has_met_or_missed_every_limit(
    limits: dict[str, float], allowed_s: float
) -> None:
    """Sixteen tokens asked for at 0.25 s, in a window that ends sooner than that."""
    level = replace(ServiceLevel("hand"), **limits)  # type: ignore[arg-type]  # limits alone
    assert level.horizon_s(make_requests((0.25, 0, 8, 16)), 0.3) == pytest.approx(0.25 + allowed_s)


@given(server=servers(), level=levels, factor=st.sampled_from([1.0, 1.5, 10.0]), window_s=st.sampled_from([0.5, 2.0]))
def test_looser_limits_never_lose_feasibility(
    server: Server, level: ServiceLevel, factor: float, window_s: float
) -> None:
    limits: dict[str, Any] = {name: value * factor for name, value in level.limits.items()}
    looser = replace(level, **limits)
    without = replace(level, tpot_ms=None, e2el_ms=None)
    strict = judged_by(server, level, window_s)
    for other in (looser, without):
        loose = judged_by(server, other, window_s)
        assert strict.judgement is not None
        assert loose.judgement is not None
        assert (loose.judgement.met >= strict.judgement.met).all()
        assert loose.feasible or not strict.feasible


@given(server=servers(), level=levels, share=st.floats(0.01, 1.0), window_s=st.sampled_from([0.5, 2.0]))
def test_a_larger_share_never_gains_feasibility(
    server: Server, level: ServiceLevel, share: float, window_s: float
) -> None:
    least, most = sorted([level.share, share])
    assert judged_by(server, replace(level, share=least), window_s).feasible or not (
        judged_by(server, replace(level, share=most), window_s).feasible
    )


@given(server=servers())
def test_the_published_rule_is_nine_tenths_of_the_offered_throughput(server: Server) -> None:
    result = server.simulate(duration_s=2.0)
    assert result.service == PUBLISHED
    assert result.fails == result.starved == (result.throughput < 0.9 * result.offered_throughput)
    assert result.failing_adapters.tolist() == result.starved_adapters.tolist()


@given(st.floats(0, 0.99), st.floats(1, 100), st.lists(st.floats(0, 200), max_size=30))
def test_judged_are_those_that_arrive_in_the_window_after_its_warm_up(
    warm_up: float, duration_s: float, arrival_s: list[float]
) -> None:
    requests = make_requests(*((time, 0, 1, 1) for time in arrival_s))
    judged = replace(INTERACTIVE, warm_up=warm_up).judged(requests, duration_s)
    expected = [time for time in sorted(arrival_s) if warm_up * duration_s <= time < duration_s]
    assert requests.arrival_s[judged].tolist() == expected


def test_adapters_with_few_requests_are_judged_together() -> None:
    level = replace(INTERACTIVE, share=0.9, least_judged=10)

    def judgement(*counts: tuple[int, int]) -> Judgement:
        judged, met = np.array(counts).T
        return Judgement(level, judged, met)

    # One of the two who can be told apart fails by itself, however well the others are served.
    assert judgement((10, 8), (1000, 1000)).failing.tolist() == [0]
    # 8 of 9 is too few to tell; with the other little one it is 17 of 18.
    assert judgement((9, 8), (9, 9), (100, 100)).failing.tolist() == []
    # 16 of 18: together they fail, and of them the one that missed something is named.
    assert judgement((9, 7), (9, 9), (100, 100)).failing.tolist() == [0]
    assert judgement((9, 7), (9, 9), (100, 100)).worst == pytest.approx(16 / 18)
    # Alone and too few: they count in the whole GPU only.
    assert judgement((9, 0), (1000, 1000)).failing.tolist() == []
    assert judgement((9, 0), (1000, 1000)).worst == pytest.approx(1000 / 1009)
    assert judgement((0, 0)).worst == 1.0
    assert judgement((0, 0)).goodput == 1.0


def test_a_memory_error_fails_every_level() -> None:
    requests = make_requests((0.0, 0, 4, 4))
    for level in (PUBLISHED, INTERACTIVE, BATCH):
        result = simulate_requests(
            requests, np.array([16]), small_profile(), 8, duration_s=10.0, service=level, shown=BATCH
        )
        assert result.memory_error
        assert result.fails
        assert result.headroom == pytest.approx(-level.share)
        assert result.failing_adapters.tolist() == [0]


def test_what_arrives_after_the_window_competes_with_the_judged() -> None:
    """One seat: the judged request of the end waits for those before it, whoever comes later waits behind."""
    profile = small_profile(max_num_seqs=1, scheduler_ms=(0.0, 0.0, 0.0, 0.0))
    rows = [(9.9, 0, 4, 50), (9.95, 0, 4, 2)]
    level = ServiceLevel("tight", ttft_ms=500.0, share=1.0, least_judged=1)
    args: dict[str, Any] = {"duration_s": 10.0, "service": level}
    slow = simulate_requests(make_requests(*rows), np.array([8]), profile, 1, **args)
    assert slow.judgement is not None
    assert (slow.judgement.judged.tolist(), slow.judgement.met.tolist()) == ([2], [1])
    assert slow.arrived == 2
    later = simulate_requests(make_requests(*rows, (10.0, 0, 4, 50)), np.array([8]), profile, 1, **args)
    assert later.judgement is not None
    assert later.judgement.met.tolist() == [1]
    assert later.arrived == 2, "what arrives at the window's end is not of the window"
    assert later.offered_throughput == slow.offered_throughput


def test_requests_go_on_arriving_while_the_last_judged_are_served() -> None:
    """Whoever arrives just before the window's end shares the steps with those that come after it."""
    last = (9.9, 0, 4, 60)
    crowd = [(10.0 + 0.001 * k, 0, 4, 60) for k in range(15)]
    level = ServiceLevel("tight", ttft_ms=500.0, tpot_ms=12.0, share=1.0, least_judged=1)
    met = []
    for rows in ([last], [last, *crowd]):
        result = simulate_requests(
            make_requests(*rows), np.array([8]), small_profile(), 1, duration_s=10.0, service=level
        )
        assert result.judgement is not None
        met.append(result.judgement.met.tolist())
    assert met == [[1], [0]]


@pytest.mark.parametrize("tail_s", [1.0, 120.0, 700.0])
def test_a_longer_window_has_the_same_requests_first(tail_s: float) -> None:
    workload = zipf(PROFILE, n_adapters=12, total_rate=2.0, exponent=1.0, ranks=[8], duration_s=300.0, seed=3)
    longer = workload.lengthened(tail_s)
    n = len(workload.requests)
    assert same(longer.requests.take(np.arange(n)), workload.requests)
    assert (longer.requests.arrival_s[n:] >= 300.0).all()
    assert longer.requests.arrival_s[-1] < 300.0 + tail_s
    assert workload.lengthened(tail_s) is longer
    rate = len(longer.requests.arrival_s[n:]) / tail_s
    assert tail_s < 100 or rate == pytest.approx(2.0, rel=0.3)


def test_a_trace_begins_again_after_its_window() -> None:
    trace = make_requests((0.5, 0, 3, 5), (4.0, 1, 7, 2), (9.0, 0, 1, 1))
    workload = Workload(np.array([8, 8]), np.array([0.2, 0.1]), duration_s=10.0, trace=trace)
    longer = workload.lengthened(15.0).requests
    assert longer.arrival_s.tolist() == [0.5, 4.0, 9.0, 10.5, 14.0, 19.0, 20.5, 24.0]
    assert longer.adapter.tolist() == [0, 1, 0, 0, 1, 0, 0, 1]
    assert longer.prompt_tokens.tolist() == [3, 7, 1, 3, 7, 1, 3, 7]


def test_replicas_keep_their_requests_in_a_longer_window() -> None:
    workload = zipf(PROFILE, n_adapters=3, total_rate=5.0, exponent=1.0, ranks=[8], duration_s=100.0, seed=3)
    adapters, half = np.array([0, 2]), np.array([[0.0, 0.5], [0.0, 1.0]])
    short, long = (each.requests_of(adapters, half) for each in (workload, workload.lengthened(50.0)))
    assert same(long.take(np.arange(len(short))), short)


def test_a_score_tells_what_fails_and_by_which_rule() -> None:
    """A GPU with too few slots keeps the published rule and makes its users wait for a long time."""
    workload = zipf(PROFILE, n_adapters=60, total_rate=11.0, exponent=1.0, ranks=[8, 16, 32], duration_s=600.0, seed=1)
    placement = Placement((GpuPlan(tuple(range(1, 60)), 16), GpuPlan((0,), 1)))
    published = score_placement(workload, placement, PROFILE, shown=INTERACTIVE)
    interactive = score_placement(workload, placement, PROFILE, service=INTERACTIVE)
    assert published.feasible
    assert published.failed_gpus == published.starved_gpus == 0
    assert published.goodput == interactive.goodput
    # The figures of docs/service.md.
    crowded = interactive.results[0]
    assert crowded.throughput / crowded.offered_throughput == pytest.approx(0.97, abs=0.005)
    assert crowded.judgement is not None
    assert crowded.judgement.goodput == pytest.approx(0.51, abs=0.005)
    assert not interactive.feasible
    assert interactive.failed_gpus == 1
    assert interactive.starved_gpus == 0
    assert interactive.failing_adapters > interactive.starved_adapters
    assert interactive.headroom < 0 < published.headroom
    assert interactive.worst_gpu_goodput is not None
    assert interactive.goodput is not None
    assert interactive.worst_gpu_goodput < interactive.goodput < 1
    assert interactive.worst_ms("ttft", 95) > 2000
    assert interactive.worst_ms("ttft", 50) <= interactive.worst_ms("ttft", 95) <= interactive.worst_ms("ttft", 99)
    assert score_placement(workload, placement, PROFILE).goodput is None


def test_latencies_can_be_left_out() -> None:
    workload = zipf(PROFILE, n_adapters=4, total_rate=2.0, exponent=1.0, ranks=[8], duration_s=60.0)
    requests = workload.lengthened(INTERACTIVE.tail_s).requests
    with_them, without = (
        simulate_requests(
            requests, workload.ranks, PROFILE, 4, duration_s=60.0, service=INTERACTIVE, latencies=latencies
        )
        for latencies in (True, False)
    )
    assert with_them.ttft.mean_ms > 0
    assert np.isnan(without.ttft.mean_ms)
    assert without.judgement is not None
    assert with_them.judgement is not None
    assert without.judgement.worst == with_them.judgement.worst


@given(server=servers(), level=levels)
def test_gpus_of_a_placement_are_judged_as_by_themselves(server: Server, level: ServiceLevel) -> None:
    assume(len(server.requests) > 0)
    workload = Workload(server.ranks, np.ones(len(server.ranks)), duration_s=5.0, trace=_within(server.requests, 5.0))
    alone = simulate_gpu(workload, tuple(range(len(server.ranks))), server.profile, server.max_loras, service=level)
    placement = Placement((GpuPlan(tuple(range(len(server.ranks))), server.max_loras),))
    score = score_placement(workload, placement, server.profile, service=level, threads=1)
    assert score.feasible == alone.feasible
    assert score.headroom == alone.headroom


def _within(requests: Requests, duration_s: float) -> Requests:
    return requests.take(np.flatnonzero(requests.arrival_s < duration_s))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ttft_ms": 0.0}, "service.ttft_ms=0.0 must be a number of milliseconds"),
        ({"ttft_ms": 1e12}, "service.ttft_ms=1000000000000.0 must be .* at most 86,400,000"),
        ({"ttft_ms": 10.0, "tpot_ms": 1e9}, "service.tpot_ms=1000000000.0 must be .* at most 86,400,000"),
        ({"least_judged": 10**12}, "service.least_judged=1000000000000 must be .* at most 100,000,000"),
        ({"least_judged": 2.5}, "service.least_judged=2.5 must be a whole number"),
        ({"tail_s": 1e9}, "service.tail_s=1000000000.0 must be .* at most 86,400"),
        ({"tail_s": -1.0}, "service.tail_s=-1.0"),
        ({"ttft_ms": float("nan")}, "service.ttft_ms=nan"),
        ({"e2el_ms": float("inf")}, "service.e2el_ms=inf"),
        ({"tpot_ms": 50.0}, "service.tpot_ms alone"),
        ({"share": 0.0}, "service.share=0.0"),
        ({"share": 1.01}, "service.share=1.01"),
        ({"warm_up": 1.0}, "service.warm_up=1.0"),
        ({"warm_up": -0.1}, "service.warm_up=-0.1"),
        ({"least_judged": 0}, "service.least_judged=0"),
        ({"tail_s": float("nan")}, "service.tail_s=nan"),
    ],
)
def test_levels_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ServiceLevel("mine", **options)


def test_a_tail_that_would_not_fit_into_memory_is_refused_before_it_is_made() -> None:
    """A trace of a second would be repeated a hundred thousand times."""
    busy = Workload(np.array([8]), np.array([2000.0]), duration_s=1.0)
    with pytest.raises(UserError, match=r"service\.tail_s=86400 would draw about 1\.7e\+08 requests"):
        busy.lengthened(86_400.0)
    recorded = replace(busy, trace=busy.requests)
    with pytest.raises(UserError, match=r"service\.tail_s=86400 would draw about"):
        recorded.lengthened(86_400.0)


def test_a_level_says_what_it_promises() -> None:
    assert PUBLISHED.in_words() == "throughput of at least 90% of the offered throughput on each GPU"
    assert INTERACTIVE.in_words() == (
        "95% of the requests with TTFT <= 2 s and TPOT <= 100 ms, on each GPU and for each adapter"
    )
    assert "E2E <= 120 s" in BATCH.in_words()


@pytest.mark.parametrize(
    ("limits", "first_s", "finish_s"),
    [
        ({"ttft_ms": 500.0}, 0.25, 1.0),
        ({"ttft_ms": 5000.0, "tpot_ms": 125.0}, 0.5, 1.0),
        ({"e2el_ms": 1000.0}, 0.5, 0.75),
    ],
)
def test_a_request_that_takes_exactly_its_limit_meets_it(
    limits: dict[str, float], first_s: float, finish_s: float
) -> None:
    """Five tokens, in seconds that binary fractions hold, with a quarter of a second that the server adds."""
    level = replace(ServiceLevel("edge"), **limits)  # type: ignore[arg-type]  # limits alone
    requests = make_requests((0.0, 0, 8, 5), (0.0, 0, 8, 5), (0.0, 0, 8, 5), (0.0, 0, 8, 5))
    little = 2.0**-20
    first, finish = np.array([0, 0, -1, np.nan]) + first_s, np.array([0, little, 0, 0]) + finish_s
    first[2] = -1.0
    if "tpot_ms" not in limits:
        first[1] += little
    assert level.met(requests, first, finish, 0.25).tolist() == [True, False, False, False]


def test_one_token_has_no_time_per_later_token() -> None:
    level = ServiceLevel("edge", ttft_ms=1000.0, tpot_ms=1.0)
    assert level.met(make_requests((0.0, 0, 8, 1)), np.array([0.5]), np.array([0.5]), 0.0).tolist() == [True]


def test_the_share_itself_is_enough() -> None:
    """Of twenty nineteen are 95 %, of the whole GPU, of each adapter, of those judged together."""
    level = replace(INTERACTIVE, share=0.95, least_judged=20)
    assert Judgement(level, np.array([20]), np.array([19])).failing.tolist() == []
    assert Judgement(level, np.array([20]), np.array([18])).failing.tolist() == [0]
    assert Judgement(level, np.array([10, 10]), np.array([10, 9])).failing.tolist() == []
    assert Judgement(level, np.array([10, 10]), np.array([10, 8])).failing.tolist() == [1]
    assert Judgement(level, np.array([20, 5]), np.array([18, 5])).worst_adapter == 0.9
    assert Judgement(level, np.array([5]), np.array([0])).worst_adapter == 1.0
