"""S-LoRA's loop: the compiled one decides as the loop written out by hand, and keeps what it promises."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin import (
    INTERACTIVE,
    Requests,
    ServingProfile,
    UserError,
    Workload,
    load_profile,
    simulate_gpu,
    simulate_requests,
)
from twin.arrivals import PoissonArrivals
from twin.lengths import fixed_lengths
from twin.profile import STEP_TERMS, KvCapacity
from twin.profile_files import parse_profile, slora_profiles
from twin.slora import SLEEP_S, TOKENS_PER_RANK, WAIT_STEPS

STEP_MS = {
    "constant": 10.0,
    "tokens": 0.5,
    "adapters": 0.25,
    "kv_tokens": 0.001,
    "eager_step": 7.0,
    "eager_tokens": 0.03,
    "loads": 2.0,
}


def small_profile(pool: int = 900, *, most_running: int = 12, batch_tokens: int = 300) -> ServingProfile:
    return ServingProfile(
        name="small/slora", model="small", gpu="small", engine="slora", engine_version="1.0",
        kv=KvCapacity((1, 64), (8, 16), ((pool, pool), (pool, pool)), pool),
        step_ms=tuple(STEP_MS.get(term, 0.0) for term in STEP_TERMS), scheduler_ms=(0.0, 0.0, 0.0, 0.0),
        load_ms=((8, 8, 0.0), (16, 8, 0.0), (16, 16, 0.0)), disk_load_ms=((8, 0.0), (16, 0.0)),
        max_num_seqs=most_running, max_num_batched_tokens=batch_tokens, max_model_len=512, block_size=1,
    )  # fmt: skip


def by_hand(  # noqa: C901, PLR0912, PLR0915  # the loop as it is written, in one piece
    requests: Requests, ranks: np.ndarray, profile: ServingProfile, duration_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """First and last token of each request by the loop as S-LoRA has it: lists of requests, sorted anew for every check."""
    pool = profile.kv.without_lora_tokens
    first, last = np.full(len(requests), np.nan), np.full(len(requests), np.nan)
    made: dict[int, int] = {}
    running: list[int] = []
    waiting: list[int] = []
    now = idle_since = 0.0
    upcoming, waited = 0, WAIT_STEPS

    def tokens_of(adapters: set[int]) -> int:
        return sum(TOKENS_PER_RANK * int(ranks[a]) for a in adapters)

    def admits(batch: list[int], candidate: int) -> bool:
        lines = [
            (int(requests.prompt_tokens[i]) + made[i], int(requests.output_tokens[i]) - made[i] - 1) for i in running
        ]
        lines += [(int(requests.prompt_tokens[i]) + 1, int(requests.output_tokens[i]) - 1) for i in [*batch, candidate]]
        lines.sort(key=lambda line: -line[1])
        held = np.cumsum([line[0] for line in lines])
        need = max(line[1] * (k + 1) + held[k] for k, line in enumerate(lines))
        adapters = {int(requests.adapter[i]) for i in [*running, *batch, candidate]}
        return bool(need < pool - tokens_of(adapters)) and len(lines) <= profile.max_num_seqs

    while True:
        if not running and not waiting:
            if upcoming == len(requests):
                break
            arrival = requests.arrival_s[upcoming]
            if arrival > now:
                now = max(arrival, idle_since + math.ceil((arrival - idle_since) / SLEEP_S) * SLEEP_S)
        if now >= duration_s:
            break
        while upcoming < len(requests) and requests.arrival_s[upcoming] <= now:
            waiting.append(upcoming)
            upcoming += 1
        batch: list[int] = []
        if not running or waited >= WAIT_STEPS:
            while waiting:
                prompts = sum(int(requests.prompt_tokens[i]) for i in [*batch, waiting[0]])
                if prompts > profile.max_num_batched_tokens or not admits(batch, waiting[0]):
                    break
                batch.append(waiting.pop(0))
        if batch:
            before = {int(requests.adapter[i]) for i in running}
            mine = {int(requests.adapter[i]) for i in batch}
            tokens = sum(int(requests.prompt_tokens[i]) for i in batch)
            milliseconds = (
                10.0 + 0.5 * tokens + 0.25 * len(mine) + 0.001 * tokens + 7.0 + 0.03 * tokens + 2.0 * len(mine - before)
            )
            now += milliseconds / 1000
            for i in batch:
                made[i], first[i] = 1, now
            running += batch
            waited = 0
        elif running:
            held = sum(int(requests.prompt_tokens[i]) + made[i] for i in running)
            adapters = len({int(requests.adapter[i]) for i in running})
            now += (10.0 + 0.5 * len(running) + 0.25 * adapters + 0.001 * held) / 1000
            for i in running:
                made[i] += 1
            waited += 1
        else:
            break  # stuck
        done = [i for i in running if made[i] == requests.output_tokens[i]]
        for i in done:
            last[i] = now
        running = [i for i in running if i not in done]
        if not running:
            idle_since = now
    return first, last


@st.composite
def traces(draw: st.DrawFn) -> tuple[Requests, np.ndarray]:
    count, adapters = draw(st.integers(1, 60)), draw(st.integers(1, 8))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    arrival_s = np.sort(generator.uniform(0, draw(st.sampled_from([0.1, 2.0, 20.0])), count))
    output = generator.integers(1, 60, count)
    requests = Requests(
        arrival_s, generator.integers(0, adapters, count), generator.integers(1, 120, count), output, output
    )
    return requests, generator.choice([8, 16], adapters)


@given(traces(), st.sampled_from([300, 900, 5000]))
def test_the_loop_decides_as_written_out(trace: tuple[Requests, np.ndarray], pool: int) -> None:
    requests, ranks = trace
    profile = replace(small_profile(pool), max_model_len=min(pool, 512))
    result = simulate_requests(requests, ranks, profile, 1, duration_s=1000.0, max_lora_rank=16)
    first, last = by_hand(requests, ranks, profile, 1000.0)
    np.testing.assert_allclose(result.first_token_s, first, rtol=1e-9)
    np.testing.assert_allclose(result.finish_s, last, rtol=1e-9)


@given(traces())
def test_tokens_are_conserved_and_max_loras_means_nothing(trace: tuple[Requests, np.ndarray]) -> None:
    requests, ranks = trace
    results = [
        simulate_requests(
            requests, ranks, small_profile(), slots, duration_s=1000.0, sample_every_s=0.0, max_samples=9999
        )
        for slots in (1, 5)
    ]
    assert (results[0].finish_s == results[1].finish_s).all()
    assert results[0].finished == len(requests)
    assert results[0].output_tokens == requests.output_tokens.sum()
    decodes = results[0].samples[results[0].samples[:, 2] == results[0].samples[:, 6]]
    assert len(decodes) <= results[0].steps


def test_requests_are_judged_after_the_window() -> None:
    workload = Workload(
        ranks=np.full(4, 8), rates=np.full(4, 0.5), arrivals=PoissonArrivals(), lengths=fixed_lengths(100, 50), duration_s=60.0,
        seed=1, name="four",
    )  # fmt: skip
    result = simulate_gpu(workload, (0, 1, 2, 3), small_profile(5000), 4, service=INTERACTIVE)
    assert result.judgement is not None
    assert result.judgement.goodput == 1.0
    assert result.feasible
    assert math.isfinite(result.itl.p95_ms)


def test_an_adapter_that_no_pool_holds_stalls() -> None:
    requests = Requests(np.zeros(1), np.zeros(1, int), np.full(1, 100), np.full(1, 50), np.full(1, 50))
    profile = replace(small_profile(160), max_model_len=160)
    assert simulate_requests(requests, np.array([16]), profile, 1, duration_s=10.0).stalled


def test_the_shipped_profile_is_found_and_others_are_refused_by_name() -> None:
    (name,) = slora_profiles()
    assert load_profile(name).engine == "slora"
    for refused in ("llama-2-7b", "llama-2-7b/h100-64gb"):
        with pytest.raises(UserError, match=r"vLLM are of 0\.5\.0, whose V0 engine"):
            load_profile(refused)
    text = small_profile().to_json()
    with pytest.raises(UserError, match=r"engine_version=0\.5\.0: vLLM before 0\.8"):
        parse_profile(text.replace('"slora"', '"vllm"').replace('"1.0"', '"0.5.0"'), "mine.json")
    with pytest.raises(UserError, match="engine='sglang': the twin has no such loop"):
        parse_profile(text.replace('"slora"', '"sglang"'), "mine.json")
