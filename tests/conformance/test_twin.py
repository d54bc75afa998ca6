"""The twin decides every step as vLLM's own scheduler does, on the same requests and the same clock."""

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from packaging.version import Version
from vllm import __version__

from tests.conformance.conftest import Tally
from tests.conformance.vllm_driver import DriverRun, ScheduledStep, VllmSchedulerDriver
from tests.twin.drawn import Server, make_requests, servers, small_profile
from twin.decisions import Step, simulate_decisions

pytestmark = pytest.mark.conformance

#: Rules that the drawn workloads must reach, each in some of the steps.
RULES = {
    "admission",
    "later chunk",
    "preemption",
    "several preemptions",
    "preempted itself",
    "preempted while draining",
    "resumption",
    "adapter skipped",
    "seats full",
    "blocks do not fit",
    "finish",
    "one-token output",
    "simultaneous arrivals",
    "stall",
    "asynchronous",
    "shared prompt found",
    "shared prompt gone",
    "own blocks found again",
}

#: The release that is installed counts the adapters of all running requests against `max_loras`.
COUNTS_RUNNING = Version(__version__) >= Version("0.33")


def vllm_run(server: Server, steps: list[Step]) -> DriverRun:
    """Serve the requests with vLLM's scheduler; its n-th step takes as long as the twin's n-th step."""
    profile = server.profile
    num_gpu_blocks = server.kv_tokens // profile.block_size
    driver = VllmSchedulerDriver(
        num_gpu_blocks=num_gpu_blocks,
        block_size=profile.block_size,
        max_num_seqs=profile.max_num_seqs,
        max_num_batched_tokens=profile.max_num_batched_tokens,
        max_loras=server.max_loras,
        max_model_len=profile.max_model_len,
        async_scheduling=profile.async_scheduling,
        scheduler_reserve_full_isl=profile.reserve_full_prompt,
        # vLLM takes a share and rounds down.
        watermark=(profile.watermark_blocks + 0.5) / num_gpu_blocks if profile.watermark_blocks else 0.0,
        long_prefill_token_threshold=profile.long_prefill_token_threshold,
        enable_prefix_caching=profile.prefix_caching,
    )
    durations: Iterator[float] = iter([step.duration_s for step in steps])

    def step_time_s(_step: ScheduledStep) -> float:
        # A step that the twin did not make takes no time; it shows as a divergence.
        return next(durations, 0.0)

    requests = server.requests
    return driver.run(
        requests.arrival_s.tolist(),
        requests.prompt_tokens.tolist(),
        requests.output_tokens.tolist(),
        requests.adapter.tolist(),
        step_time_s,
        # One step more than the twin made, where the twin says that it is over.
        max_steps=len(steps) + (not _cut_off(server, steps)),
        shared_tokens=requests.shared().tolist(),
    )


def _cut_off(server: Server, steps: list[Step]) -> bool:
    return bool(steps) and steps[-1].start_s + steps[-1].duration_s >= server.duration_s


def first_divergence(server: Server, steps: list[Step], run: DriverRun, *, stalled: bool) -> str | None:
    """Say where the twin's steps and vLLM's differ, or None."""
    for number, (twin, vllm) in enumerate(zip(steps, run.steps, strict=False)):
        for field in fields(Step):
            ours, theirs = getattr(twin, field.name), getattr(vllm, field.name)
            if ours != theirs:
                return f"step {number}, {field.name}: twin {ours}, vLLM {theirs}\n{server}"
    if len(steps) != len(run.steps):
        return f"twin {len(steps)} steps, vLLM {len(run.steps)}\n{server}"
    if not _cut_off(server, steps) and stalled != run.stalled:
        return f"twin stalled: {stalled}, vLLM: {run.stalled}\n{server}"
    return None


def check(server: Server, tally: Tally | None = None) -> list[Step]:
    """Compare one workload, through the engine that its profile takes."""
    result, steps = simulate_decisions(
        server.requests,
        server.ranks,
        server.profile,
        server.max_loras,
        duration_s=server.duration_s,
        kv_tokens=server.kv_tokens,
    )
    divergence = first_divergence(server, steps, vllm_run(server, steps), stalled=result.stalled)
    if tally is not None:
        tally.workloads += 1
        tally.steps += len(steps)
        tally.divergences += divergence is not None
        if divergence is not None:
            tally.diverged[f"{_what_differs(divergence)} ({_rules_of(server)})"] += 1
        count_rules(server, steps, tally, stalled=result.stalled)
    assert divergence is None, divergence
    return steps


def _what_differs(divergence: str) -> str:
    head = divergence.splitlines()[0].split(":")[0]
    return head.rpartition(", ")[2] if head.startswith("step ") else head


def _rules_of(server: Server) -> str:
    profile = server.profile
    rules = {
        "asynchronous": profile.async_scheduling,
        "whole prompt": profile.reserve_full_prompt,
        "watermark": profile.watermark_blocks > 0,
        "long prefill threshold": profile.long_prefill_token_threshold > 0,
        "prefix caching": profile.prefix_caching,
        "fewer slots than adapters": server.max_loras < len(server.ranks),
    }
    return ", ".join(rule for rule, holds in rules.items() if holds) or "no rule but the basic ones"


def count_rules(server: Server, steps: list[Step], tally: Tally, *, stalled: bool) -> None:
    """Count the steps in which each rule decided something, and the workloads that were drawn with a property."""
    profile, requests, rules = server.profile, server.requests, tally.rules
    rules["stall"] += stalled
    rules["asynchronous"] += len(steps) if profile.async_scheduling else 0
    rules["simultaneous arrivals"] += len(np.unique(requests.arrival_s)) < len(requests)
    before: Step | None = None
    prefilled: set[int] = set()
    resumed: set[int] = set()
    served: set[int] = set()
    for step in steps:
        old = set(before.running) if before else set()
        admitted = [i for i, _ in step.scheduled if i not in old]
        rules["admission"] += bool(admitted)
        rules["later chunk"] += any(i in old and i not in prefilled for i, _ in step.scheduled)
        rules["preemption"] += bool(step.preempted)
        rules["several preemptions"] += len(step.preempted) > 1
        rules["preempted itself"] += bool(step.preempted) and not step.scheduled
        rules["preempted while draining"] += bool(before and set(before.finished) & set(step.preempted))
        rules["resumption"] += bool(resumed.intersection(admitted))
        rules["finish"] += bool(step.finished)
        rules["one-token output"] += any(requests.output_tokens[i] == 1 for i in step.finished)
        budget = profile.max_num_batched_tokens - sum(tokens for _, tokens in step.scheduled)
        if step.waiting and budget and not step.preempted:
            adapters = {requests.adapter[i] for i, _ in step.scheduled}
            refused = [len(adapters) == server.max_loras and requests.adapter[i] not in adapters for i in step.waiting]
            full = len(step.running) == profile.max_num_seqs
            rules["seats full"] += full
            rules["adapter skipped"] += not full and any(refused)
            rules["blocks do not fit"] += not full and not all(refused)
        if profile.prefix_caching and budget:
            count_found(server, {i: tokens for i, tokens in step.scheduled if i in admitted}, resumed, served, tally)
        served |= {int(requests.adapter[i]) for i, _ in step.scheduled}
        resumed |= set(step.preempted)
        computed = {i: tokens for i, tokens in step.scheduled if tokens > 1}
        prefilled -= set(step.preempted) | set(admitted)
        prefilled |= {i for i, _ in step.scheduled if i not in computed}
        before = step


def count_found(server: Server, admitted: dict[int, int], resumed: set[int], served: set[int], tally: Tally) -> None:
    """Count what requests that were admitted in one step, with budget left, found in the KV cache, or could have."""
    shared = server.requests.shared()
    for i, tokens in admitted.items():
        missing = int(server.requests.prompt_tokens[i]) - tokens
        if i in resumed:
            tally.rules["own blocks found again"] += bool(missing > shared[i])
        elif shared[i] >= server.profile.block_size and server.requests.adapter[i] in served:
            tally.rules["shared prompt found" if missing > 0 else "shared prompt gone"] += 1


@pytest.mark.parametrize("caching", [False, True], ids=["no-caching", "prefix-caching"])
@pytest.mark.parametrize("long_prefill", [False, True], ids=["whole", "long-prefill-threshold"])
@pytest.mark.parametrize("reserve", [False, True], ids=["first-chunk", "full-prompt"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_the_twin_decides_every_step_as_vllm(
    asynchronous: bool, reserve: bool, long_prefill: bool, caching: bool, tally: Tally
) -> None:
    drawn = servers(
        asynchronous=asynchronous, reserve=reserve, long_prefill=long_prefill, caching=caching, count_running=COUNTS_RUNNING,
        max_requests=80,
    )  # fmt: skip

    @settings(max_examples=100 if long_prefill else 300)
    @given(server=drawn)
    def compare(server: Server) -> None:
        check(server, tally)

    compare()


def test_the_drawn_workloads_reach_every_rule(tally: Tally) -> None:
    if tally.workloads < 1000:
        pytest.skip("needs the drawn workloads of the test above, all of them")
    assert tally.steps >= 100_000
    assert {rule for rule, count in tally.rules.items() if count} == RULES


def test_the_engine_has_nothing_to_run_while_the_only_seat_waits_for_its_last_token() -> None:
    # Found by drawing: the step after such a pause was written out with the finished request still in its seat.
    profile = small_profile(max_num_seqs=1, async_scheduling=True)
    requests = make_requests((0.0, 0, 8, 2), (0.0, 0, 8, 1), (9.0, 0, 8, 1))
    steps = check(Server(requests, np.array([8]), profile, 1, 1600, 60.0, 1))
    assert [step.scheduled for step in steps] == [((0, 8),), ((0, 1),), ((1, 8),), ((2, 8),)]
    assert [step.running for step in steps] == [(0,), (0,), (1,), (2,)]


def test_a_request_can_be_preempted_when_its_last_token_is_on_its_way() -> None:
    # Three usable blocks: the second request is done in the first step, and the first one wants its block in the next.
    profile = small_profile(async_scheduling=True, reserve_full_prompt=True)
    requests = make_requests((0.0, 0, 32, 3), (0.0, 0, 8, 1), (0.0, 0, 8, 1))
    steps = check(Server(requests, np.array([8]), profile, 1, 64, 60.0, 1))
    assert steps[0].finished == (1,)
    assert steps[1].preempted == (1,)
    assert steps[1].waiting == (1, 2)
    assert steps[2].waiting == (2,)
