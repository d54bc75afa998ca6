"""One GPU and whole placements: what is reported, edge cases and errors."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.twin.drawn import Server, make_requests, servers, small_profile
from twin import (
    GpuPlan,
    GpuResult,
    Lengths,
    LogNormalTokens,
    Placement,
    Requests,
    UserError,
    Workload,
    simulate_gpu,
    simulate_placement,
    simulate_requests,
    workload_from_groups,
)
from twin.profile import STEP_TERMS, KvCapacity

#: A step takes 10 ms and 1 ms for each token; nothing else costs time.
PLAIN: dict[str, Any] = {
    "step_ms": tuple({"constant": 10.0, "tokens": 1.0}.get(term, 0.0) for term in STEP_TERMS),
    "scheduler_ms": (0.0, 0.0, 0.0, 0.0),
    "load_ms": ((8, 8, 0.0), (16, 8, 0.0), (16, 16, 0.0)),
}
LENGTHS = Lengths(LogNormalTokens(20, 0.5, 1, 100), LogNormalTokens(10, 0.5, 1, 100), max_total_tokens=200)


def simulate(requests: Requests, ranks: tuple[int, ...] = (8,), max_loras: int = 1, **options: Any) -> GpuResult:  # noqa: ANN401  # fields and flags of all types
    flags = {
        key: options.pop(key) for key in ("duration_s", "kv_tokens", "max_cpu_loras", "open_cap") if key in options
    }
    profile = small_profile(**{**PLAIN, **options})
    return simulate_requests(requests, np.array(ranks), profile, max_loras, **{"duration_s": 100.0, **flags})


def small_workload(n_adapters: int = 6, rate: float = 0.3, **fields: Any) -> Workload:  # noqa: ANN401  # fields of all types
    groups = workload_from_groups([(n_adapters, 8, rate)])
    return Workload(groups.ranks, groups.rates, **{"lengths": LENGTHS, "duration_s": 60.0, **fields})


# --- one GPU


def test_nothing_offered_is_served() -> None:
    result = simulate(make_requests())
    assert (result.throughput, result.offered_throughput, result.arrived, result.finished) == (0.0, 0.0, 0, 0)
    assert result.steps == 0
    assert result.feasible
    assert not result.starved_adapters.size
    assert np.isnan(result.ttft.mean_ms)
    assert np.isnan(result.itl.p99_ms)


def test_no_adapters_at_all() -> None:
    result = simulate_requests(make_requests(), np.array([], dtype=np.int64), small_profile(), 1, duration_s=1.0)
    assert result.feasible
    assert result.max_lora_rank == 8


def test_one_request_takes_its_prefill_and_a_step_per_further_token() -> None:
    result = simulate(make_requests((2.0, 0, 40, 5)), request_overhead_ms=3.0)
    # 10 + 40 ms, then four steps of 11 ms.
    assert result.first_token_s[0] == pytest.approx(2.050)
    assert result.finish_s[0] == pytest.approx(2.094)
    assert result.ttft.mean_ms == pytest.approx(53.0)
    assert result.itl.mean_ms == pytest.approx(11.0)
    assert result.itl.p50_ms == pytest.approx(11.0, rel=0.01)
    assert result.e2e.mean_ms == pytest.approx(97.0)
    assert result.throughput == pytest.approx(45 / 100)
    assert (result.steps, result.loads, result.mean_running) == (5, 1, 1.0)
    assert result.busy_s == pytest.approx(0.094)


def test_a_request_finished_after_the_window_does_not_count() -> None:
    requests = make_requests((2.0, 0, 40, 5))
    inside, outside = (simulate(requests, duration_s=duration_s) for duration_s in (2.095, 2.093))
    assert (inside.finished, outside.finished) == (1, 0)
    assert (outside.throughput, outside.arrived) == (0.0, 1)
    assert outside.starved
    assert outside.starved_adapters.tolist() == [0]


def test_a_prompt_that_never_fits_stalls_the_engine() -> None:
    result = simulate(
        make_requests((0.0, 0, 8, 2), (1.0, 0, 100, 1), (2.0, 0, 8, 1)), kv_tokens=64, reserve_full_prompt=True
    )
    assert result.stalled
    assert result.finished == 1
    assert result.starved


def test_admission_by_first_chunk_admits_what_never_fits_and_preempts_it_for_ever() -> None:
    result = simulate(make_requests((0.0, 0, 100, 1)), kv_tokens=64, max_num_batched_tokens=32)
    assert not result.stalled
    assert result.finished == 0
    assert result.preemptions > 100


def test_a_server_that_does_not_start_serves_nothing() -> None:
    result = simulate(make_requests((0.0, 0, 8, 2)), (16,), 8)
    assert result.memory_error
    assert result.starved
    assert not result.feasible
    assert (result.throughput, result.finished, result.steps, result.kv_capacity_tokens) == (0.0, 0, 0, 0)
    assert result.starved_adapters.tolist() == [0]


def test_the_servers_rank_is_the_largest_served() -> None:
    requests = make_requests((0.0, 0, 8, 2))
    assert simulate(requests, (8, 16), 2).max_lora_rank == 16
    assert simulate(requests, (8, 8), 2).max_lora_rank == 8
    profile = small_profile()
    given = simulate_requests(requests, np.array([8]), profile, 2, duration_s=1.0, max_lora_rank=16)
    assert given.kv_capacity_tokens == profile.kv_tokens(2, 16)


def test_with_a_host_slot_for_each_adapter_none_is_loaded_from_disk() -> None:
    requests = make_requests(*((float(i), i % 3, 8, 1) for i in range(12)))
    result = simulate(requests, (8, 8, 16), 1)
    assert (result.loads, result.disk_loads) == (12, 0)


def test_fewer_host_slots_than_adapters_load_from_disk_again_and_again() -> None:
    requests = make_requests(*((float(i), i % 3, 8, 1) for i in range(12)))
    load_ms = ((8, 8, 1.0), (16, 8, 2.0), (16, 16, 3.0))
    result = simulate(requests, (8, 8, 8), 1, max_cpu_loras=2, load_ms=load_ms)
    # The first two are there at the start; from the third on, the one wanted has just been given up.
    assert (result.loads, result.disk_loads) == (12, 10)
    assert result.load_s == pytest.approx(12 * 0.001 + 10 * 0.020)
    assert result.ttft.p99_ms == pytest.approx(10 + 8 + 1 + 20)


def test_host_slots_are_at_least_the_gpus() -> None:
    requests = make_requests(*((float(i), i % 2, 8, 1) for i in range(8)))
    assert simulate(requests, (8, 8), 2, max_cpu_loras=1).loads == 2


def test_requests_beyond_the_cap_are_turned_away() -> None:
    requests = make_requests(*((0.0, 0, 8, 20) for _ in range(10)))
    result = simulate(requests, open_cap=4)
    assert (result.dropped, result.finished, result.arrived) == (6, 4, 10)
    assert (result.finish_s == -1).sum() == 6
    assert simulate(requests).dropped == 0


def test_scheduler_time_is_added_to_a_step_or_hides_behind_it() -> None:
    requests = make_requests((0.0, 0, 8, 11))
    without = simulate(requests).busy_s
    scheduler_ms = (5.0, 0.0, 0.0, 0.0)
    assert simulate(requests, scheduler_ms=scheduler_ms).busy_s == pytest.approx(without + 11 * 0.005)
    ahead = simulate(requests, scheduler_ms=scheduler_ms, async_scheduling=True)
    assert ahead.busy_s == pytest.approx(without)
    assert ahead.scheduler_s == pytest.approx(11 * 0.005)


def test_the_percentiles_of_the_inter_token_latency_are_within_their_bins() -> None:
    # Every second or so a prompt of 60 tokens makes one step of the other requests longer.
    rows = [(0.0, 0, 8, 150), *((0.5 * i, 0, 60, 1) for i in range(1, 4))]
    result = simulate(make_requests(*rows), max_num_batched_tokens=128)
    assert result.itl.p50_ms == pytest.approx(11.0, rel=0.01)
    assert result.itl.p99_ms == pytest.approx(71.0, rel=0.01)


@given(server=servers(), every_s=st.sampled_from([0.05, 1.0]))
def test_samples_are_the_first_steps_at_or_after_each_mark(server: Server, every_s: float) -> None:
    every_step = server.simulate(sample_every_s=0.0).samples
    some = server.simulate(sample_every_s=every_s).samples
    marks = np.floor(every_step[:, 0] / every_s)
    first = np.flatnonzero(np.diff(marks, prepend=-1) > 0)
    np.testing.assert_array_equal(some, every_step[first])


def test_samples_stop_when_their_room_is_full() -> None:
    requests = make_requests((0.0, 0, 8, 50))
    result = simulate_requests(
        requests, np.array([8]), small_profile(), 1, duration_s=60.0, sample_every_s=0.0, max_samples=7, record_events=1
    )
    assert (len(result.samples), len(result.events)) == (7, 1)


@pytest.mark.parametrize(
    ("requests", "ranks", "max_loras", "message"),
    [
        (make_requests(), (8,), 0, "max_loras=0"),
        (make_requests(), (8, 64), 1, "rank=64 is unknown"),
        (make_requests((0.0, 0, 200, 57)), (8,), 1, "257 tokens exceeds max_model_len=256"),
    ],
)
def test_a_wrong_value_is_named(requests: Requests, ranks: tuple[int, ...], max_loras: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        simulate(requests, ranks, max_loras)


# --- placements


def test_a_gpu_gets_the_requests_of_its_adapters() -> None:
    workload = small_workload()
    result = simulate_gpu(workload, (4, 1), small_profile(), 2)
    assert result.adapter_ids.tolist() == [4, 1]
    counts = np.bincount(workload.requests.adapter, minlength=6)
    assert result.arrived == counts[4] + counts[1]
    tokens = workload.requests.prompt_tokens + workload.requests.requested_tokens
    offered = np.bincount(workload.requests.adapter, tokens, 6) / workload.duration_s
    np.testing.assert_allclose(result.adapter_offered, offered[[4, 1]])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_placement_is_its_gpus(threads: int) -> None:
    workload = small_workload()
    placement = Placement((GpuPlan((0, 2, 4), 2), GpuPlan((1, 3, 5), 3)))
    together = simulate_placement(workload, placement, small_profile(), threads=threads, keep_requests=True)
    for plan, result in zip(placement.gpus, together, strict=True):
        alone = simulate_gpu(workload, plan.adapters, small_profile(), plan.max_loras, keep_requests=True)
        np.testing.assert_array_equal(result.finish_s, alone.finish_s)
        assert (result.steps, result.throughput) == (alone.steps, alone.throughput)


def test_moving_an_adapter_moves_its_requests_unchanged() -> None:
    workload = small_workload()
    before, after = (
        np.concatenate([result.adapter_offered for result in simulate_placement(workload, placement, small_profile())])
        for placement in (
            Placement((GpuPlan((0, 1, 2), 2), GpuPlan((3, 4, 5), 2))),
            Placement((GpuPlan((0, 1, 2, 3), 2), GpuPlan((4, 5), 2))),
        )
    )
    np.testing.assert_array_equal(before, after)


@given(share=st.floats(0.001, 0.999), seed=st.integers(0, 20))
def test_replicas_serve_each_request_once(share: float, seed: int) -> None:
    workload = small_workload(3, seed=seed)
    shares = (share, 1 - share)
    placement = Placement((GpuPlan((0, 1), 2, (1.0, shares[0])), GpuPlan((1, 2), 2, (shares[1], 1.0))))
    placement.check(workload)
    results = simulate_placement(workload, placement, small_profile(), keep_requests=True)
    assert sum(result.arrived for result in results) == len(workload.requests)
    assert sum(result.offered_throughput for result in results) == pytest.approx(
        (workload.requests.prompt_tokens + workload.requests.requested_tokens).sum() / workload.duration_s
    )


def test_the_order_of_the_adapters_of_a_gpu_changes_nothing() -> None:
    workload = small_workload(rate=2.0)
    one, other = (
        simulate_gpu(workload, adapters, small_profile(), 2, keep_requests=True)
        for adapters in [(0, 1, 2, 3), (2, 0, 3, 1)]
    )
    np.testing.assert_array_equal(one.finish_s, other.finish_s)


def test_a_plan_may_name_its_host_slots() -> None:
    workload = small_workload()
    plan = GpuPlan((0, 1, 2, 3, 4, 5), 1)
    roomy, tight = (
        simulate_placement(workload, Placement((replace(plan, max_cpu_loras=slots),)), small_profile())[0]
        for slots in (None, 2)
    )
    assert roomy.disk_loads == 0
    assert tight.disk_loads > 10


def test_the_times_of_single_requests_are_kept_on_demand() -> None:
    workload = small_workload()
    assert not simulate_gpu(workload, (0,), small_profile(), 1).finish_s.size
    assert simulate_gpu(workload, (0,), small_profile(), 1, keep_requests=True).finish_s.size


def test_a_placement_of_nothing() -> None:
    assert simulate_placement(small_workload(), Placement(()), small_profile()) == []


def test_a_longer_window_serves_the_same_requests_at_the_same_times() -> None:
    kv = KvCapacity((1,), (8,), ((100_000,),), 100_000)
    profile = small_profile(kv=kv, load_ms=((8, 8, 1.0),), disk_load_ms=((8, 1.0),))
    short, long = (
        simulate_gpu(small_workload(duration_s=s), (0, 1, 2), profile, 1, keep_requests=True) for s in (30.0, 60.0)
    )
    done = np.flatnonzero(short.finish_s <= 30.0)
    np.testing.assert_allclose(short.finish_s[done], long.finish_s[done])
