"""The driver plays the engine around vLLM's scheduler as the engine does, and reads the decisions off correctly."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.vllm_driver import NO_ADAPTER, DriverRun, ScheduledStep, StepRecord, VllmSchedulerDriver

pytestmark = pytest.mark.conformance

STEP_S = 0.25


def step_time_s(_step: ScheduledStep) -> float:
    return STEP_S


def serve(driver: VllmSchedulerDriver, *requests: tuple[float, int, int, int], max_steps: int = 1000) -> DriverRun:
    """Run a trace given as (arrival_s, prompt tokens, output tokens, adapter) per request."""
    arrival_s, prompt_tokens, output_tokens, adapter = zip(*requests, strict=True)
    return driver.run(arrival_s, prompt_tokens, output_tokens, adapter, step_time_s, max_steps)


def scheduled(run: DriverRun) -> list[tuple[tuple[int, int], ...]]:
    return [step.scheduled for step in run.steps]


def test_one_request_runs_its_prompt_and_then_a_token_per_step() -> None:
    run = serve(VllmSchedulerDriver(num_gpu_blocks=100), (3.0, 15, 4, 0))

    assert scheduled(run) == [((0, 15),), ((0, 1),), ((0, 1),), ((0, 1),)]
    assert [step.start_s for step in run.steps] == [3.0, 3.25, 3.5, 3.75]
    assert all(step.decided_s == step.start_s and step.duration_s == STEP_S for step in run.steps)
    # The second output token is the 17th of the request and opens a block; the last one is never written.
    assert [step.blocks_in_use for step in run.steps] == [1, 1, 2, 2]
    assert [step.finished for step in run.steps] == [(), (), (), (0,)]
    assert (run.first_token_s, run.finish_s) == ((3.25,), (4.0,))
    assert run.complete
    assert not run.stalled


def test_a_prompt_longer_than_the_budget_is_split_and_yields_its_first_token_at_the_end() -> None:
    run = serve(VllmSchedulerDriver(num_gpu_blocks=100, max_num_batched_tokens=16, max_num_seqs=4), (0.0, 40, 2, 0))

    assert scheduled(run) == [((0, 16),), ((0, 16),), ((0, 8),), ((0, 1),)]
    assert [step.samples for step in run.steps] == [(False,), (False,), (True,), (True,)]
    assert run.first_token_s == (3 * STEP_S,)


def test_an_unsplit_prompt_waits_for_a_step_that_has_room_for_it() -> None:
    driver = VllmSchedulerDriver(
        num_gpu_blocks=100, max_num_batched_tokens=64, max_num_seqs=4, max_model_len=64, enable_chunked_prefill=False
    )

    run = serve(driver, (0.0, 40, 2, 0), (0.0, 40, 1, 0))

    assert scheduled(run) == [((0, 40),), ((0, 1), (1, 40))]


def test_running_requests_go_before_a_chunked_prompt_that_arrives_during_a_step() -> None:
    driver = VllmSchedulerDriver(num_gpu_blocks=100, max_num_batched_tokens=16, max_num_seqs=4)

    run = serve(driver, (0.0, 8, 4, 0), (0.1, 24, 1, 1))

    assert scheduled(run) == [((0, 8),), ((0, 1), (1, 15)), ((0, 1), (1, 9)), ((0, 1),)]
    assert [step.running for step in run.steps] == [(0,), (0, 1), (0, 1), (0,)]


def test_an_idle_engine_waits_for_the_next_arrival() -> None:
    run = serve(VllmSchedulerDriver(num_gpu_blocks=100), (10.0, 8, 1, 0), (2.0, 8, 1, 0))

    assert scheduled(run) == [((1, 8),), ((0, 8),)]
    assert run.finish_s == (10.25, 2.25)


def test_requests_that_arrive_together_queue_by_index() -> None:
    run = serve(VllmSchedulerDriver(num_gpu_blocks=100, max_num_seqs=1), *[(1.0, 8, 1, 0)] * 3)

    assert [step.waiting for step in run.steps] == [(1, 2), (2,), ()]


def test_a_full_cache_preempts_the_last_running_request_and_bars_admission_in_that_step() -> None:
    # Four usable blocks hold both prompts; the first output token of either opens a third block.
    run = serve(VllmSchedulerDriver(num_gpu_blocks=5), (0.0, 32, 3, 0), (0.0, 32, 2, 0), (0.1, 8, 1, 0))

    assert scheduled(run) == [((0, 32), (1, 32)), ((0, 1),), ((0, 1),), ((1, 33), (2, 8))]
    assert [step.preempted for step in run.steps] == [(), (1,), (), ()]
    # The preempted request has no room for its three blocks and, at the head of the queue, keeps the small one waiting.
    assert [step.waiting for step in run.steps] == [(), (1, 2), (1, 2), ()]
    assert [step.blocks_in_use for step in run.steps] == [4, 3, 3, 4]
    # Its first token came before the preemption; it recomputes its prompt and that token to get the second one.
    assert run.first_token_s[1] == STEP_S
    assert run.preemptions == (0, 1, 0)
    assert run.complete


def test_requests_preempted_in_one_step_keep_their_order_in_the_queue() -> None:
    # Four prompts fill the four usable blocks; then the first two requests take a block each from the last two.
    run = serve(VllmSchedulerDriver(num_gpu_blocks=5), *[(0.0, 16, 2, 0)] * 4)

    assert scheduled(run) == [((0, 16), (1, 16), (2, 16), (3, 16)), ((0, 1), (1, 1)), ((2, 17), (3, 17))]
    assert run.steps[1].preempted == (3, 2)
    assert run.steps[1].waiting == (2, 3)


def test_an_adapter_beyond_max_loras_is_skipped_and_the_scan_goes_on() -> None:
    driver = VllmSchedulerDriver(num_gpu_blocks=100, max_loras=2)

    run = serve(
        driver, (0.0, 8, 2, 0), (0.0, 8, 1, 1), (0.0, 8, 1, 2), (0.0, 8, 1, NO_ADAPTER), (0.0, 8, 1, 3), (0.0, 8, 1, 1)
    )

    assert scheduled(run) == [((0, 8), (1, 8), (3, 8), (5, 8)), ((0, 1), (2, 8)), ((4, 8),)]
    assert [step.waiting for step in run.steps] == [(2, 4), (4,), ()]


def test_skipped_requests_stay_ahead_of_later_arrivals() -> None:
    driver = VllmSchedulerDriver(num_gpu_blocks=100, max_loras=1)

    run = serve(driver, (0.0, 8, 3, 0), (0.0, 8, 1, 1), (0.0, 8, 1, 2), (0.1, 8, 1, 2), (0.3, 8, 1, 1))

    assert [step.waiting for step in run.steps] == [(1, 2), (1, 2, 3), (1, 2, 3, 4), (2, 3), ()]
    assert run.steps[3].scheduled == ((1, 8), (4, 8))


def test_without_lora_nothing_is_skipped() -> None:
    run = serve(VllmSchedulerDriver(num_gpu_blocks=100, max_loras=None), *[(0.0, 8, 1, NO_ADAPTER)] * 4)

    assert scheduled(run) == [((0, 8), (1, 8), (2, 8), (3, 8))]


@pytest.mark.parametrize(
    ("reserve", "first_step"), [(True, ((0, 24),)), (False, ((0, 24), (1, 8)))], ids=["prompt", "chunk"]
)
def test_admission_asks_for_room_for_the_whole_prompt_or_for_its_first_chunk(
    reserve: bool, first_step: tuple[tuple[int, int], ...]
) -> None:
    driver = VllmSchedulerDriver(
        num_gpu_blocks=5, max_num_batched_tokens=32, max_num_seqs=4, scheduler_reserve_full_isl=reserve
    )

    run = serve(driver, (0.0, 24, 2, 0), (0.0, 48, 1, 0), max_steps=1)

    assert scheduled(run) == [first_step]


def test_the_watermark_holds_for_every_admission_but_the_first() -> None:
    # int(0.3 * 11) = 3 of the ten usable blocks stay free once a request runs.
    driver = VllmSchedulerDriver(num_gpu_blocks=11, watermark=0.3)

    assert scheduled(serve(driver, (0.0, 144, 1, 0))) == [((0, 144),)]
    assert scheduled(serve(driver, (0.0, 48, 1, 0), (0.0, 64, 1, 0)))[0] == ((0, 48), (1, 64))
    assert scheduled(serve(driver, (0.0, 48, 1, 0), (0.0, 65, 1, 0)))[0] == ((0, 48),)


def test_the_long_prefill_threshold_spares_a_request_that_is_alone() -> None:
    driver = VllmSchedulerDriver(num_gpu_blocks=100, long_prefill_token_threshold=10)

    assert scheduled(serve(driver, (0.0, 25, 1, 0))) == [((0, 25),)]
    assert scheduled(serve(driver, (0.0, 25, 1, 0), (0.0, 12, 1, 0))) == [
        ((0, 10), (1, 10)),
        ((0, 10), (1, 2)),
        ((0, 5),),
    ]


def test_the_seats_limit_admission() -> None:
    run = serve(VllmSchedulerDriver(num_gpu_blocks=100, max_num_seqs=2), *[(0.0, 8, 2, 0)] * 3)

    assert scheduled(run) == [((0, 8), (1, 8)), ((0, 1), (1, 1)), ((2, 8),), ((2, 1),)]


def test_asynchronous_scheduling_decides_a_step_ahead() -> None:
    driver = VllmSchedulerDriver(num_gpu_blocks=100, async_scheduling=True)

    run = serve(driver, (0.0, 8, 4, 0), (0.1, 8, 1, 0))

    assert scheduled(run) == [((0, 8),), ((0, 1),), ((0, 1), (1, 8)), ((0, 1),)]
    assert [step.decided_s for step in run.steps] == [0.0, 0.0, 0.25, 0.5]
    assert [step.start_s for step in run.steps] == [0.0, 0.25, 0.5, 0.75]
    assert run.finish_s == (1.0, 0.75)


def test_asynchronous_scheduling_frees_a_seat_a_step_late() -> None:
    trace = [(0.0, 8, 2, 0), (0.0, 8, 3, 0), (0.0, 8, 1, 0)]

    sync = serve(VllmSchedulerDriver(num_gpu_blocks=100, max_num_seqs=2), *trace)
    ahead = serve(VllmSchedulerDriver(num_gpu_blocks=100, max_num_seqs=2, async_scheduling=True), *trace)

    assert scheduled(sync) == [((0, 8), (1, 8)), ((0, 1), (1, 1)), ((1, 1), (2, 8))]
    assert scheduled(ahead) == [((0, 8), (1, 8)), ((0, 1), (1, 1)), ((1, 1),), ((2, 8),)]
    assert ahead.complete


def test_a_batch_of_nothing_is_no_step() -> None:
    # Between the two requests the only seat waits for the first one's last token.
    driver = VllmSchedulerDriver(num_gpu_blocks=100, max_num_seqs=1, async_scheduling=True)

    assert scheduled(serve(driver, *[(0.0, 8, 1, 0)] * 2, max_steps=2)) == [((0, 8),), ((1, 8),)]


def test_a_request_that_never_fits_stalls_the_engine() -> None:
    run = serve(VllmSchedulerDriver(num_gpu_blocks=4), (0.0, 8, 2, 0), (0.1, 49, 1, 0), (0.1, 8, 1, 0))

    assert run.stalled
    assert not run.complete
    assert run.finish_s[0] == 2 * STEP_S
    assert all(math.isnan(time_s) for time_s in run.finish_s[1:])


def test_a_lone_request_that_outgrows_the_cache_preempts_itself_and_stalls() -> None:
    run = serve(VllmSchedulerDriver(num_gpu_blocks=3), (0.0, 31, 8, 0))

    assert scheduled(run) == [((0, 31),), ((0, 1),), ()]
    assert run.steps[-1].preempted == (0,)
    assert run.stalled


def test_max_steps_ends_a_run() -> None:
    run = serve(VllmSchedulerDriver(num_gpu_blocks=100), (0.0, 8, 100, 0), max_steps=7)

    assert len(run.steps) == 7
    assert not run.complete
    assert not run.stalled


def test_vllm_takes_the_settings_as_they_are_given() -> None:
    driver = VllmSchedulerDriver(
        num_gpu_blocks=77,
        block_size=8,
        max_num_seqs=3,
        max_num_batched_tokens=40,
        max_loras=5,
        max_model_len=333,
        async_scheduling=True,
        scheduler_reserve_full_isl=False,
        watermark=0.125,
        long_prefill_token_threshold=20,
    )
    scheduler = driver.new_scheduler()

    assert type(scheduler).__name__ == "AsyncScheduler"
    assert scheduler.max_num_running_reqs == scheduler.max_num_active_reqs == 3
    assert scheduler.max_num_scheduled_tokens == scheduler.scheduler_config.max_num_batched_tokens == 40
    assert scheduler.lora_config is not None
    assert scheduler.lora_config.max_loras == 5
    assert scheduler.max_model_len == 333
    assert scheduler.scheduler_reserve_full_isl is False
    assert scheduler.scheduler_config.long_prefill_token_threshold == 20
    assert scheduler.kv_cache_manager.watermark_blocks == 9
    assert scheduler.kv_cache_manager.enable_caching is False
    assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == 76
    assert [manager.block_size for manager in scheduler.kv_cache_manager.coordinator.single_type_managers] == [8]
    assert scheduler.policy.value == "fcfs"


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        (([0.0], [8, 8], [1], [0]), "one length"),
        (([0.0], [0], [1], [0]), "request 0: 0 prompt"),
        (([0.0], [2000], [49], [0]), "max_model_len=2048"),
        (([0.0], [8], [1], [-2]), "adapter"),
    ],
    ids=["lengths", "no prompt", "too long", "adapter"],
)
def test_a_trace_that_a_server_would_refuse_is_refused(
    trace: tuple[list[float], list[int], list[int], list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        VllmSchedulerDriver(num_gpu_blocks=100).run(*trace, step_time_s)


def test_a_step_time_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="step_time_fn says nan"):
        VllmSchedulerDriver(num_gpu_blocks=100).run([0.0], [8], [1], [0], lambda _step: math.nan)


REQUESTS = st.lists(
    st.tuples(st.integers(0, 12).map(lambda n: n / 8), st.integers(1, 60), st.integers(1, 20), st.integers(-1, 4)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(
    trace=REQUESTS,
    async_scheduling=st.booleans(),
    num_gpu_blocks=st.integers(6, 30),
    max_loras=st.integers(1, 3),
    max_num_seqs=st.integers(1, 6),
    reserve=st.booleans(),
)
def test_every_run_keeps_the_limits_and_serves_everybody(
    trace: list[tuple[float, int, int, int]],
    async_scheduling: bool,
    num_gpu_blocks: int,
    max_loras: int,
    max_num_seqs: int,
    reserve: bool,
) -> None:
    driver = VllmSchedulerDriver(
        num_gpu_blocks=num_gpu_blocks,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=24,
        max_loras=max_loras,
        # Five usable blocks hold the longest request that the strategy draws.
        max_model_len=80,
        async_scheduling=async_scheduling,
        scheduler_reserve_full_isl=reserve,
    )

    run = serve(driver, *trace, max_steps=20_000)

    assert run.complete
    assert run == serve(driver, *trace, max_steps=20_000)
    sampled: Counter[int] = Counter()
    computed: Counter[int] = Counter()
    for step in run.steps:
        check_limits(step, trace, driver, max_num_seqs)
        sampled.update(index for (index, _), samples in zip(step.scheduled, step.samples, strict=True) if samples)
        computed.update(dict(step.scheduled))
    for index, (arrival_s, prompt, output, _) in enumerate(trace):
        assert sampled[index] == output
        assert computed[index] >= prompt + output - 1
        assert computed[index] == prompt + output - 1 or run.preemptions[index]
        assert arrival_s < run.first_token_s[index] <= run.finish_s[index]
    assert all(
        before.start_s + STEP_S <= after.start_s for before, after in zip(run.steps, run.steps[1:], strict=False)
    )


def check_limits(
    step: StepRecord, trace: list[tuple[float, int, int, int]], driver: VllmSchedulerDriver, max_num_seqs: int
) -> None:
    requests = [index for index, _ in step.scheduled]
    assert len(set(requests)) == len(requests) <= len(step.running) <= max_num_seqs
    assert sum(tokens for _, tokens in step.scheduled) <= 24
    assert 0 <= step.blocks_in_use <= driver.num_gpu_blocks - 1
    assert len({trace[index][3] for index in requests} - {NO_ADAPTER}) <= (driver.max_loras or 0)
    assert not set(step.running) & set(step.waiting)
    assert all(trace[index][0] <= step.decided_s for index in (*step.running, *step.waiting))
