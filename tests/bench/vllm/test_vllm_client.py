"""The load generator against a server that streams like vLLM, in a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.vllm import client
from bench.vllm.client import Call, ClientLoad, LoadGenerator, Replay, tokens_in
from bench.vllm.failures import Kind, ServerError
from bench.vllm.metrics import MetricsSampler, parse_metrics
from bench.vllm.server import free_port

STREAMING = Path(__file__).with_name("streaming.py")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port("127.0.0.1", 0)
    with subprocess.Popen([sys.executable, str(STREAMING), str(port)]) as process:
        address = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=1):  # noqa: S310  # this very machine
                    break
            except OSError:
                process.poll()
                assert process.returncode is None
                asyncio.run(asyncio.sleep(0.05))
        yield address
        process.terminate()


def replay(url: str, due_s: list[float], calls: list[Call], duration_s: float) -> Replay:
    return asyncio.run(LoadGenerator(url, 2048).open_loop(np.array(due_s), calls, duration_s))


def test_every_token_is_timed(url: str) -> None:
    done = replay(url, [0.1, 0.3], [Call("every-0.1", 30, 5), Call("every-0.2", 3, 2)], 1.5)
    first, second = done.answers
    assert (first.error, second.error) == ("", "")
    assert len(first.token_s) == first.tokens == 5
    assert 0.1 <= first.sent_s <= first.first_token_s <= first.finish_s
    # 0.1 s before each token; how late a busy machine makes them is not asked.
    assert first.first_token_s - first.sent_s >= 0.1
    assert first.finish_s - first.first_token_s >= 0.4
    assert second.finish_s >= 0.3 + 2 * 0.2


def test_what_is_open_at_the_end_has_not_failed(url: str) -> None:
    done = replay(url, [0.0], [Call("every-0.1", 5, 1000)], 0.6)
    (answer,) = done.answers
    assert answer.error == ""
    assert np.isnan(answer.finish_s)
    assert 0 < len(answer.token_s) <= 6


def test_a_refusal_is_told(url: str) -> None:
    (answer,) = replay(url, [0.0], [Call("refused", 5, 3)], 0.3).answers
    assert answer.error.startswith("HTTP 404")
    assert "no such adapter" in answer.error


def test_connections_are_reused(url: str) -> None:
    """Forty requests one after the other need one connection, not forty."""
    done = replay(url, [0.05 * k for k in range(40)], [Call("every-0.001", 5, 2)] * 40, 2.5)
    assert sum(np.isfinite(answer.finish_s) for answer in done.answers) == 40
    # Two may overlap on a slow machine.
    assert done.client.connections <= 8
    assert done.client.connections == done.client.most_open


def test_a_closed_loop_keeps_its_requests_open(url: str) -> None:
    done = asyncio.run(LoadGenerator(url, 2048).closed_loop(7, [Call("every-0.02", 5, 3)], 1.0))
    assert done.client.most_open == 7
    assert done.client.connections == 7
    assert len(done.answers) > 7


def test_two_thousand_open_requests(url: str) -> None:
    """All are open at once, none is lost, and the generator says how late it was."""
    calls = [Call("every-1.0", 20, 4)] * 2000
    generator = LoadGenerator(url, 2048)
    done = asyncio.run(generator.open_loop(np.linspace(0, 2, 2000), calls, 60.0, until_answered=True))
    assert done.client.most_open == 2000
    assert done.client.connections == 2000
    assert [answer.error for answer in done.answers if answer.error] == []
    finished = [answer for answer in done.answers if np.isfinite(answer.finish_s)]
    assert len(finished) == 2000
    assert all(answer.tokens == 4 for answer in finished)
    assert done.client.loop_lag_max_ms > 0


def test_a_server_that_makes_no_token_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "STALL_S", 0.3)
    with pytest.raises(ServerError, match=r"made no token in 0\.3 s with 1 requests open") as caught:
        replay(url, [0.0], [Call("every-30", 5, 3)], 20.0)
    assert caught.value.kind is Kind.STALLED


def test_a_server_that_is_not_there_fails_every_request() -> None:
    done = replay(f"http://127.0.0.1:{free_port('127.0.0.1', 0)}", [0.0], [Call("every-1", 5, 3)], 0.3)
    assert "Connect" in done.answers[0].error


@pytest.mark.parametrize(
    ("event", "tokens"),
    [
        (b'data: {"choices":[{"prompt_token_ids":[1,2,3],"token_ids":[4]}]}', 1),
        (b'data: {"choices":[{"prompt_token_ids":null,"token_ids":[4,5,6]}],"x":[1,2]}', 3),
        (b'data: {"choices":[{"token_ids":[]}]}', 0),
        (b'data: {"choices":[{"token_ids":null,"finish_reason":"length"}]}', 0),
        (b'data: {"choices":[{"text":" a"}]}', 1),
        (b'data: {"choices":[],"usage":{}}', 0),
        (b"data: [DONE]", 0),
    ],
)
def test_tokens_of_an_event(event: bytes, tokens: int) -> None:
    assert tokens_in(event) == tokens


@pytest.mark.parametrize(
    ("lag_ms", "late_ms", "share", "limit"),
    [(1.0, 1.0, 0.3, False), (80.0, 1.0, 0.3, True), (1.0, 80.0, 0.3, True), (1.0, 1.0, 0.97, True)],
)
def test_the_generator_says_when_it_was_the_limit(lag_ms: float, late_ms: float, share: float, limit: bool) -> None:
    load = ClientLoad(lag_ms, lag_ms, late_ms, share, 3, 3)
    assert load.was_the_limit is limit
    assert ("the client was the limit" in load.describe()) is limit


def test_metrics_are_sampled(url: str) -> None:
    sampler = MetricsSampler(url, interval_s=0.1)

    async def sample() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sampler.run(), 0.55)

    asyncio.run(sample())
    table = sampler.table()
    assert len(table) >= 2
    assert table.steps.tolist() == [5.0] * len(table)
    assert np.diff(table.time_s).min() > 0


def test_the_latest_line_says_which_adapters_run() -> None:
    page = (
        'vllm:lora_requests_info{running_lora_adapters="a,b",waiting_lora_adapters="c"} 10.0\n'
        'vllm:lora_requests_info{running_lora_adapters="",waiting_lora_adapters=""} 30.5\n'
        'vllm:lora_requests_info{running_lora_adapters="a,b,c",waiting_lora_adapters=""} 20.0\n'
        'vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_running{engine="1"} 3.0\n'
        'vllm:gpu_cache_usage_perc{engine="0"} 0.5\nprocess_open_fds 34.0\n'
    )
    assert parse_metrics(page) == {"adapters": 0.0, "running": 5.0, "kv_usage": 0.5}
