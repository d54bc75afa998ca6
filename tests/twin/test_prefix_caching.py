"""With prefix caching what is in the KV cache is not computed again, and is given up in vLLM's order."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.twin.drawn import Server, make_requests, servers, small_profile
from tests.twin.test_engine import assert_same, recorded, tight
from twin import GpuResult, UserError, load_profile, simulate_requests, workload_from_groups
from twin.builders import groups, zipf
from twin.subsets import subset
from twin.workload import Workload


def cached_server(*rows: tuple[float, int, int, int], shared: int, kv_tokens: int = 1600, max_loras: int = 2) -> Server:
    """A server with blocks of 16 tokens, and two adapters with shared prompts of so many tokens."""
    profile = small_profile(prefix_caching=True, reserve_full_prompt=True)
    requests = make_requests(*rows).sharing(np.array([shared, shared]))
    return Server(requests, np.array([8, 8]), profile, max_loras, kv_tokens, 60.0, 2)


@examples(300)
@given(server=servers(caching=True, max_requests=60), sample_every_s=st.sampled_from([0.0, None]))
def test_runs_of_blocks_are_blocks_looked_at_one_by_one(server: Server, sample_every_s: float | None) -> None:
    fast, slow = (
        tight(server).simulate(step_by_step=step_by_step, sample_every_s=sample_every_s, record_events=500_000)
        for step_by_step in (False, True)
    )
    assert_same(fast, slow)


def test_a_shared_prompt_is_computed_once_per_adapter() -> None:
    server = cached_server((0.0, 0, 40, 2), (1.0, 0, 50, 2), (2.0, 1, 50, 2), (3.0, 1, 35, 2), shared=34)
    _, steps = recorded(server)
    admitted = [step.scheduled[0] for step in steps if step.scheduled[0][1] > 1]
    # Two full blocks of it are found; the two tokens of the third one are computed by everybody.
    assert admitted == [(0, 40), (1, 18), (2, 50), (3, 3)]


def test_requests_of_one_step_share_what_the_first_of_them_computes() -> None:
    server = cached_server((0.0, 0, 33, 3), (0.0, 0, 33, 3), shared=32)
    _, steps = recorded(server)
    assert steps[0].scheduled == ((0, 33), (1, 1))
    assert [step.blocks_in_use for step in steps] == [4, 4, 4]


def test_a_prompt_that_is_no_longer_than_the_shared_one_has_none_of_it() -> None:
    server = cached_server((0.0, 0, 40, 2), (1.0, 0, 32, 2), shared=32)
    assert server.requests.shared().tolist() == [32, 0]
    _, steps = recorded(server)
    assert (1, 32) in [step.scheduled[0] for step in steps]


def test_what_was_used_least_recently_is_given_up_from_its_end() -> None:
    # Nine usable blocks. The first adapter's two and the private rest wait in the queue until the second one's request takes seven.
    rows = [(0.0, 0, 40, 2), (1.0, 1, 100, 2), (2.0, 0, 40, 2)]
    server = cached_server(*rows, shared=32, kv_tokens=160)
    _, steps = recorded(server)
    assert [step.scheduled[0] for step in steps if step.scheduled[0][1] > 1] == [(0, 40), (1, 64), (1, 36), (2, 8)]
    less = replace(server, kv_tokens=128)
    _, steps = recorded(less)
    assert [step.scheduled[0] for step in steps if step.scheduled[0][1] > 1] == [(0, 40), (1, 64), (1, 36), (2, 40)]


def test_a_preempted_request_finds_its_blocks_again() -> None:
    rows = [(0.0, 0, 32, 3), (0.0, 0, 32, 2), (0.001, 0, 8, 1)]
    server = cached_server(*rows, shared=0, kv_tokens=80)
    result, steps = recorded(server)
    assert [step.preempted for step in steps] == [(), (1,), (), ()]
    # One of its two blocks went to the first request: it computes 17 tokens of its 33.
    assert [step.scheduled for step in steps] == [((0, 32), (1, 32)), ((0, 1),), ((0, 1),), ((1, 17), (2, 8))]
    assert result.preemptions == 1


@given(server=servers(caching=False))
def test_shared_prompts_say_nothing_to_a_server_without_prefix_caching(server: Server) -> None:
    nobody = replace(server, requests=replace(server.requests, shared_tokens=None))
    one, other = server.simulate(record_events=10**5), nobody.simulate(record_events=10**5)
    for field in fields(GpuResult):
        np.testing.assert_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


@given(server=servers(caching=True))
def test_without_shared_prompts_and_preemptions_caching_changes_nothing(server: Server) -> None:
    plenty = replace(server, requests=replace(server.requests, shared_tokens=None), kv_tokens=10**6)
    one, other = plenty.simulate(), plenty.with_profile(prefix_caching=False).simulate()
    np.testing.assert_array_equal(one.finish_s, other.finish_s)
    assert one.preemptions == other.preemptions == 0


@given(server=servers(caching=True))
def test_with_room_for_all_nobody_is_later_for_what_is_found(server: Server) -> None:
    # All at once and first come first served: then nothing but the work decides.
    at_once = replace(server.requests, arrival_s=np.zeros(len(server.requests)))
    plenty = replace(server, requests=at_once, kv_tokens=10**6, duration_s=2000.0).with_profile(max_num_seqs=1)
    one, other = plenty.simulate(), plenty.with_profile(prefix_caching=False).simulate()
    assert (one.finish_s <= other.finish_s * (1 + 1e-9)).all()


def test_shared_prompts_come_before_the_drawn_ones() -> None:
    plain = workload_from_groups([(3, 8, 2.0)], duration_s=60.0)
    shared = replace(plain, shared_prompt_tokens=np.array([0, 100, 1000]))
    one, other = plain.requests, shared.requests
    np.testing.assert_array_equal(one.arrival_s, other.arrival_s)
    np.testing.assert_array_equal(other.prompt_tokens - one.prompt_tokens, np.array([0, 100, 1000])[one.adapter])
    np.testing.assert_array_equal(other.shared_tokens, np.array([0, 100, 1000])[one.adapter])
    mine = shared.requests_of(np.array([2, 0]))
    np.testing.assert_array_equal(mine.shared(), np.array([1000, 0])[mine.adapter])
    np.testing.assert_allclose(shared.mean_request_tokens - plain.mean_request_tokens, [0, 100, 1000])


def test_some_adapters_of_a_workload_send_what_they_send_in_it() -> None:
    drawn = replace(workload_from_groups([(3, 8, 2.0)], duration_s=60.0), shared_prompt_tokens=np.array([0, 100, 1000]))
    some = np.array([2, 0])
    for workload in (drawn, replace(drawn, trace=drawn.requests)):
        mine, expected = subset(workload, some), workload.requests_of(some)
        for name, column in expected.columns().items():
            np.testing.assert_array_equal(getattr(mine.requests, name), column, err_msg=name)
        np.testing.assert_array_equal(mine.mean_request_tokens, workload.mean_request_tokens[some])
    assert subset(drawn, np.array([1, 1]), ids=[5, 6]).requests.shared().tolist()[:2] == [100, 100]


def test_a_busy_server_serves_far_more_with_its_shared_prompts_cached() -> None:
    workload = replace(workload_from_groups([(8, 8, 2.0)], duration_s=60.0), shared_prompt_tokens=np.full(8, 1500))
    profile = load_profile("llama-3.1-8b")
    off, on = (
        simulate_requests(
            workload.requests, workload.ranks, replace(profile, prefix_caching=caching), 8, duration_s=60.0
        )
        for caching in (False, True)
    )
    assert on.throughput > 1.05 * off.throughput
    assert on.ttft.mean_ms < 0.5 * off.ttft.mean_ms


def test_builders_take_shared_prompts() -> None:
    profile = load_profile("llama-3.1-8b")
    some = [{"count": 2, "rank": 8, "rate": 0.5}, {"count": 1, "rank": 8, "rate": 0.5, "shared_prompt_tokens": 700}]
    workload = groups(profile, groups=some, duration_s=60.0)
    assert workload.shared_prompt_tokens is not None
    assert workload.shared_prompt_tokens.tolist() == [0, 0, 700]
    # Two types for whoever goes by rank and rate.
    assert len(np.unique(workload.rates)) == 2
    assert groups(profile, groups=some[:1], duration_s=60.0).shared_prompt_tokens is None
    like = zipf(
        profile, n_adapters=4, total_rate=1.0, exponent=1.0, ranks=[8], duration_s=60.0, shared_prompt_tokens=300
    )
    assert like.shared_prompt_tokens is not None
    assert like.shared_prompt_tokens.tolist() == [300] * 4


@pytest.mark.parametrize(
    ("shared", "message"),
    [([1], "1 shared_prompt_tokens and 2 ranks"), ([1, -1], "shared_prompt_tokens=-1 of adapter 1")],
    ids=["count", "negative"],
)
def test_a_shared_prompt_that_cannot_be_is_refused(shared: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Workload(np.array([8, 8]), np.array([1.0, 1.0]), shared_prompt_tokens=np.array(shared))


def test_a_shared_prompt_that_the_server_cannot_take_is_refused() -> None:
    with pytest.raises(UserError, match="and a shared prompt of 200000 tokens exceed max_model_len"):
        zipf(
            load_profile("llama-3.1-8b"), n_adapters=4, total_rate=1.0, exponent=1.0, ranks=[8], duration_s=60.0,
            shared_prompt_tokens=200_000,
        )  # fmt: skip
