"""The fast engine decides as the step-by-step one, and both keep the laws of a serving engine."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.examples import examples
from tests.twin.drawn import Server, make_requests, servers, small_profile
from twin import GpuResult, engine, load_profile, simulate_requests, workload_from_groups
from twin.decisions import Step, expand, simulate_decisions
from twin.profile import STEP_TERMS

ONE_ADAPTER = np.array([8])


def tight(server: Server) -> Server:
    return replace(server, max_cpu_loras=max(server.max_loras, len(server.ranks) // 2))


def recorded(server: Server) -> tuple[GpuResult, list[Step]]:
    result = server.simulate(sample_every_s=0.0, record_events=500_000)
    assert len(result.samples) == result.steps
    return result, expand(server.requests, result, asynchronous=server.profile.async_scheduling)


def assert_same(one: GpuResult, other: GpuResult) -> None:
    for field in fields(GpuResult):
        if field.name not in ("events", "service", "judgement"):
            np.testing.assert_allclose(
                _numbers(getattr(one, field.name)), _numbers(getattr(other, field.name)), rtol=1e-9, err_msg=field.name
            )
    np.testing.assert_array_equal(one.events, other.events)


def _numbers(value: Any) -> NDArray[np.float64]:  # noqa: ANN401  # a field of any type
    return np.asarray(value if isinstance(value, (int, float, np.ndarray)) else [*vars(value).values()], dtype=float)


# --- the two engines


@examples(300)
@given(server=servers(), open_cap=st.sampled_from([0, 0, 5]), sample_every_s=st.sampled_from([0.0, 0.5, None]))
def test_the_fast_engine_equals_the_step_by_step_one(
    server: Server, open_cap: int, sample_every_s: float | None
) -> None:
    # Where every step is sampled, none is passed over.
    server = replace(tight(server), open_cap=open_cap)
    fast, slow = (
        server.simulate(step_by_step=step_by_step, sample_every_s=sample_every_s, record_events=500_000)
        for step_by_step in (False, True)
    )
    assert_same(fast, slow)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("rate", [0.02, 0.3, 3.0])
def test_steps_in_which_nothing_happens_are_those_that_are_sampled_one_by_one(rate: float, asynchronous: bool) -> None:
    """Minutes of decoding between arrivals: to the digit, counts of inter-token latencies included."""
    workload = workload_from_groups([(6, 8, rate), (2, 16, 2 * rate)], duration_s=300.0)
    profile = replace(load_profile("llama-3.1-8b"), async_scheduling=asynchronous)
    passed_over, visited = (
        simulate_requests(
            workload.requests, workload.ranks, profile, 4, duration_s=300.0, sample_every_s=every_s, max_samples=10**6
        )
        for every_s in (None, 0.0)
    )
    assert len(visited.samples) == visited.steps > 1000
    for field in fields(GpuResult):
        if field.name != "samples":
            np.testing.assert_equal(getattr(passed_over, field.name), getattr(visited, field.name), err_msg=field.name)


@given(place=st.integers(0, engine.ITL_BINS - 1), part=st.floats(0, 1))
def test_bins_of_latencies_are_known_by_their_edges(place: int, part: float) -> None:
    seconds = engine.ITL_FIRST_S * np.exp((place + part) * engine.ITL_LOG_WIDTH)
    where = engine.itl_bin(seconds)
    low, high = engine.bin_edges(where, seconds)
    assert low <= seconds <= high
    assert engine.itl_bin(low) == engine.itl_bin(high) == engine.itl_bin((low + high) / 2) == where
    # Wide enough to be of use: all but the very edges of the bin.
    assert high / low > 1.0099 or not 0 < where < engine.ITL_BINS - 1 or min(part, 1 - part) < 1e-6


# --- laws


@given(server=servers())
def test_no_request_is_lost_or_served_twice(server: Server) -> None:
    # Time enough for all, at a quarter of a second a step too.
    result, steps = recorded(replace(server, duration_s=2000.0))
    finished = Counter(request for step in steps for request in step.finished)
    assert set(finished.values()) <= {1}
    np.testing.assert_array_equal(np.isfinite(result.finish_s), [i in finished for i in range(len(server.requests))])
    gone: set[int] = set()
    for step in steps:
        arrived = {i for i, arrival_s in enumerate(server.requests.arrival_s) if arrival_s <= step.decided_s}
        here = Counter(step.running + step.waiting)
        assert set(here.values()) <= {1}
        assert arrived - gone <= set(here) <= arrived
        gone |= set(step.finished)
    if not result.stalled and not any(np.isnan(result.finish_s)):
        assert result.finished == len(server.requests)


def sharing(server: Server) -> NDArray[np.int64]:
    """Tokens of each request in whole blocks of a shared prompt: none without prefix caching."""
    size = server.profile.block_size
    return server.requests.shared() // size * size * server.profile.prefix_caching


def followed(server: Server, result: GpuResult, steps: list[Step]) -> Iterator[tuple[Step, NDArray[np.int64]]]:
    """Each step with the tokens that every request has in the KV cache after it, computed or found there.

    What is computed and what is found are together what is asked. What a request finds is in whole blocks, leaves it a token to
    compute, has been computed before, and is all of its shared prompt that somebody holds: without prefix caching, nothing.
    """
    requests, caching, shared = server.requests, server.profile.prefix_caching, sharing(server)
    present, most = np.zeros((2, len(requests)), dtype=np.int64)
    target = requests.prompt_tokens.copy()
    for step, in_cache in zip(steps, result.samples[:, engine.SAMPLE_KV], strict=True):
        present[np.isin(np.arange(len(requests)), step.running, invert=True)] = 0
        budget = server.profile.max_num_batched_tokens
        for place, (i, tokens) in enumerate(step.scheduled):
            budget -= tokens
            if present[i] == 0:
                found = target[i] - tokens
                if budget == 0:
                    # The budget may have cut the last one of a step: then the twin's count of tokens says what it found.
                    assert place == len(step.scheduled) - 1
                    found = int(in_cache) - tokens - sum(present[j] for j, _ in step.scheduled[:place])
                alike = (requests.adapter == requests.adapter[i]) & (shared > 0)
                held, ever = (np.minimum(shared, tokens_of)[alike].max(initial=0) for tokens_of in (present, most))
                known = caching * max(most[i], min(ever, shared[i]))
                assert found % server.profile.block_size == 0
                assert min(held, shared[i]) <= found <= min(known, target[i] - 1)
                present[i] = found
            present[i] += tokens
            most[i] = max(most[i], present[i])
            assert present[i] <= target[i]
            assert present[i] == target[i] or budget == 0
            target[i] += present[i] == target[i]
        assert in_cache == sum(present[i] for i, _ in step.scheduled)
        yield step, present.copy()


@given(server=servers())
def test_tokens_are_conserved(server: Server) -> None:
    # A preempted request asks for its prompt and what it had generated once more; nothing else is asked twice.
    result, steps = recorded(server)
    requests = server.requests
    generated = np.zeros(len(requests), dtype=np.int64)
    wanted = requests.prompt_tokens.copy()
    for step, present in followed(server, result, steps):
        assert all(present[i] == 0 for i in step.preempted)
        for i, _ in step.scheduled:
            if present[i] == wanted[i]:
                generated[i] += 1
                wanted[i] += 1
    done = np.isfinite(result.finish_s)
    np.testing.assert_array_equal(generated[done], requests.output_tokens[done])
    np.testing.assert_array_equal(np.isfinite(result.first_token_s), generated > 0)
    in_window = result.finish_s <= server.duration_s
    served = (requests.prompt_tokens + requests.output_tokens)[in_window].sum()
    assert result.throughput * server.duration_s == pytest.approx(served)
    assert result.adapter_throughput.sum() == pytest.approx(result.throughput)


@given(server=servers())
def test_limits_are_kept_in_every_step(server: Server) -> None:
    _, steps = recorded(server)
    profile = server.profile
    for step in steps:
        assert step.blocks_in_use <= server.blocks
        assert len({server.requests.adapter[i] for i, _ in step.scheduled}) <= server.max_loras
        assert sum(tokens for _, tokens in step.scheduled) <= profile.max_num_batched_tokens
        assert len(step.running) <= profile.max_num_seqs
        assert len({i for i, _ in step.scheduled}) == len(step.scheduled)
    for before, after in pairwise(steps):
        assert before.start_s + before.duration_s <= after.start_s
        assert before.decided_s <= after.decided_s <= after.start_s


@given(server=servers())
def test_the_blocks_in_use_are_those_of_the_running_requests(server: Server) -> None:
    # Those of a shared prompt are counted once, however many requests hold them.
    size, shared, adapter = server.profile.block_size, sharing(server), server.requests.adapter
    for step, present in followed(server, *recorded(server)):
        running = list(step.running)
        in_common = np.minimum(present, shared) // size
        once = np.zeros(len(server.ranks), dtype=np.int64)
        np.maximum.at(once, adapter[running], in_common[running])
        own = np.ceil(present / size)[running] - in_common[running]
        assert step.blocks_in_use == own.sum() + once.sum()


@given(server=servers())
def test_times_are_in_order(server: Server) -> None:
    result, steps = recorded(server)
    served = np.isfinite(result.finish_s)
    assert (result.first_token_s[served] <= result.finish_s[served]).all()
    started = np.isfinite(result.first_token_s)
    assert (server.requests.arrival_s[started] < result.first_token_s[started]).all()
    assert result.busy_s == pytest.approx(sum(step.duration_s for step in steps))
    if steps:
        span = steps[-1].start_s + steps[-1].duration_s - steps[0].start_s
        assert result.busy_s <= span * (1 + 1e-9)


@given(server=servers(), data=st.data())
def test_the_order_of_the_adapters_changes_nothing(server: Server, data: st.DataObject) -> None:
    # With a host slot for each adapter. Below that it matters which adapters are on the host at the start.
    order = np.array(data.draw(st.permutations(range(len(server.ranks)))))
    place = np.argsort(order)
    moved = replace(
        server,
        requests=replace(server.requests, adapter=place[server.requests.adapter]),
        ranks=server.ranks[order],
    )
    one, other = server.simulate(), moved.simulate(max_lora_rank=int(server.ranks.max()))
    np.testing.assert_array_equal(one.finish_s, other.finish_s)
    np.testing.assert_array_equal(one.first_token_s, other.first_token_s)
    np.testing.assert_array_equal(one.adapter_throughput[order], other.adapter_throughput)
    assert (one.steps, one.loads, one.preemptions) == (other.steps, other.loads, other.preemptions)


@given(server=servers())
def test_what_happens_later_changes_nothing_earlier(server: Server) -> None:
    cut = replace(server, duration_s=1.0)
    early, full = cut.simulate(), server.simulate()
    known = early.finish_s <= cut.duration_s
    np.testing.assert_array_equal(early.finish_s[known], full.finish_s[known])
    assert early.finished == (full.finish_s <= cut.duration_s).sum()


# --- more KV cache, faster steps


@given(server=servers(), more=st.integers(1, 100))
def test_kv_cache_beyond_the_need_of_all_requests_changes_nothing(server: Server, more: int) -> None:
    requests, size = server.requests, server.profile.block_size
    need = int((-(-(requests.prompt_tokens + requests.output_tokens) // size)).sum())
    enough = (need + server.profile.watermark_blocks + 1) * size
    one, other = (server.simulate(kv_tokens=kv_tokens) for kv_tokens in (enough, enough + more * size))
    np.testing.assert_array_equal(one.finish_s, other.finish_s)
    assert one.preemptions == 0


@given(server=servers(), factor=st.floats(0.1, 1.0), duration_s=st.floats(0.1, 5.0))
def test_faster_steps_never_lower_throughput_when_all_requests_are_there_at_the_start(
    server: Server, factor: float, duration_s: float
) -> None:
    # No decision depends on the time then, so that every time is multiplied by the same factor.
    at_once = replace(server.requests, arrival_s=np.zeros(len(server.requests)))
    server = replace(server, requests=at_once, duration_s=duration_s)
    faster = server.with_profile(**_scaled(server, factor))
    slow, fast = server.simulate(), faster.simulate()
    assert fast.throughput >= slow.throughput
    known = np.isfinite(slow.finish_s)
    np.testing.assert_allclose(fast.finish_s[known], slow.finish_s[known] * factor, rtol=1e-9)


@given(server=servers(asynchronous=False), factor=st.floats(0.1, 1.0), more=st.integers(0, 50))
def test_faster_steps_and_more_kv_cache_never_lower_throughput_with_one_seat(
    server: Server, factor: float, more: int
) -> None:
    # First come, first served, one at a time: a queue with one server, where nobody is hurt by a shorter service.
    server = replace(server.with_profile(max_num_seqs=1, watermark_blocks=0), duration_s=10.0, kv_tokens=1024)
    better = replace(server.with_profile(**_scaled(server, factor)), kv_tokens=1024 + more * 16)
    slow, fast = server.simulate(), better.simulate()
    known = np.isfinite(slow.finish_s)
    assert (fast.finish_s[known] <= slow.finish_s[known] * (1 + 1e-9)).all()
    assert fast.throughput >= slow.throughput


def _scaled(server: Server, factor: float) -> dict[str, object]:
    profile = server.profile
    return {
        "step_ms": tuple(factor * ms for ms in profile.step_ms),
        "scheduler_ms": tuple(factor * ms for ms in profile.scheduler_ms),
        "load_ms": tuple((server_rank, rank, factor * ms) for server_rank, rank, ms in profile.load_ms),
        "disk_load_ms": tuple((rank, factor * ms) for rank, ms in profile.disk_load_ms),
        "min_step_ms": factor * profile.min_step_ms,
    }


def _steps_of(milliseconds: float, per_token: float = 0.0) -> dict[str, object]:
    terms = {"constant": milliseconds, "tokens": per_token}
    return {
        "step_ms": tuple(terms.get(term, 0.0) for term in STEP_TERMS),
        "scheduler_ms": (0.0, 0.0, 0.0, 0.0),
        "load_ms": ((8, 8, 0.0), (16, 8, 0.0), (16, 16, 0.0)),
        "min_step_ms": 0.0,
        "reserve_full_prompt": True,
    }


def test_faster_steps_can_lower_throughput() -> None:
    # One adapter slot. Slow, adapter 1 is still running when its second request comes, which joins at once; fast, the
    # slot has gone to adapter 0 by then, and the request waits for the whole of that one.
    requests = make_requests((0.0, 1, 32, 3), (0.25, 0, 64, 7), (1.75, 1, 16, 1))
    slow, fast = (
        simulate_requests(requests, np.array([8, 8]), small_profile(**_steps_of(ms)), 1, duration_s=7.0, kv_tokens=176)
        for ms in (1000.0, 750.0)
    )
    assert slow.finish_s[2] == 3.0
    assert np.isnan(fast.finish_s[2]) or fast.finish_s[2] > 7.0
    assert fast.throughput < slow.throughput


def test_more_kv_cache_can_lower_throughput() -> None:
    # Six blocks take one request after the other. Seven admit both at once, run out a few tokens later, and the second
    # one computes its prompt twice.
    requests = make_requests((0.0, 0, 48, 5), (0.0, 0, 64, 6))
    less, more = (
        simulate_requests(
            requests, ONE_ADAPTER, small_profile(**_steps_of(250.0, 10.0)), 1, duration_s=4.0, kv_tokens=tokens
        )
        for tokens in (112, 128)
    )
    assert (less.preemptions, more.preemptions) == (0, 1)
    assert more.throughput < less.throughput


# --- cases a person would think of


def test_preempted_requests_keep_their_place_and_their_tokens() -> None:
    requests = make_requests((0.0, 0, 32, 3), (0.0, 0, 32, 2), (0.001, 0, 8, 1))
    server = Server(requests, ONE_ADAPTER, small_profile(reserve_full_prompt=True), 1, 80, 60.0, 1)
    result, steps = recorded(server)
    assert [step.scheduled for step in steps] == [((0, 32), (1, 32)), ((0, 1),), ((0, 1),), ((1, 33), (2, 8))]
    assert [step.preempted for step in steps] == [(), (1,), (), ()]
    assert result.preemptions == 1
    assert result.first_token_s[1] == steps[0].duration_s


def test_adapters_without_a_slot_are_skipped_and_the_scan_goes_on() -> None:
    requests = make_requests((0, 0, 8, 2), (0, 1, 8, 1), (0, 2, 8, 1), (0, 3, 8, 1), (0, 1, 8, 1))
    server = Server(requests, np.array([8, 8, 16, 8]), small_profile(), 2, 4800, 60.0, 4)
    _, steps = recorded(server)
    assert [step.scheduled for step in steps] == [((0, 8), (1, 8), (4, 8)), ((0, 1), (2, 8)), ((3, 8),)]
    assert [step.waiting for step in steps] == [(2, 3), (3,), ()]


def test_the_least_recently_used_adapter_gives_way() -> None:
    # Two slots; 0 and 1 are loaded, 0 is used again, so that 2 takes the place of 1 and 0 is still there at the end.
    requests = make_requests(*((float(i), adapter, 8, 2) for i, adapter in enumerate([0, 1, 0, 2, 0, 1])))
    server = Server(requests, np.array([8, 8, 8]), small_profile(), 2, 4800, 60.0, 3)
    result, _ = recorded(server)
    assert result.samples[:, engine.SAMPLE_LOADS].nonzero()[0].tolist() == [0, 2, 6, 10]
    assert (result.loads, result.disk_loads) == (4, 0)


def test_an_asynchronous_step_is_decided_while_the_one_before_it_runs() -> None:
    requests = make_requests((0.0, 0, 8, 2), (0.0, 0, 8, 3), (0.0, 0, 8, 1))
    profile = small_profile(max_num_seqs=2, **_steps_of(250.0))
    server = Server(requests, ONE_ADAPTER, profile, 1, 4800, 60.0, 1)
    _, steps = recorded(server)
    _, ahead = recorded(server.with_profile(async_scheduling=True))
    assert [step.scheduled for step in steps] == [((0, 8), (1, 8)), ((0, 1), (1, 1)), ((1, 1), (2, 8))]
    # The seat of the first request comes back a step later.
    assert [step.scheduled for step in ahead] == [((0, 8), (1, 8)), ((0, 1), (1, 1)), ((1, 1),), ((2, 8),)]
    assert [step.decided_s for step in ahead] == [0.0, 0.0, 0.25, 0.5]
    assert [step.start_s for step in ahead] == [0.0, 0.25, 0.5, 0.75]


def test_a_long_prefill_threshold_cuts_several_prompts_at_once() -> None:
    requests = make_requests((0.0, 0, 25, 1), (0.0, 0, 12, 1))
    server = Server(requests, ONE_ADAPTER, small_profile(long_prefill_token_threshold=10), 1, 4800, 60.0, 1)
    _, steps = recorded(server)
    assert [step.scheduled for step in steps] == [((0, 10), (1, 10)), ((0, 10), (1, 2)), ((0, 5),)]


def test_the_log_must_be_whole_to_be_written_out() -> None:
    requests = make_requests((0.0, 0, 8, 4), (1.0, 0, 8, 4))
    with pytest.raises(ValueError, match="3 of the"):
        simulate_decisions(requests, ONE_ADAPTER, small_profile(), 1, duration_s=60.0, max_steps=3)
