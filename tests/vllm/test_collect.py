"""Counters of a real server (CPU build, a minute): what is collected is what it did, and a profile is fitted to it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest

from bench import calibrate
from bench.measured.profile_from_scrapes import FLAGS, read_scrape
from bench.vllm.adapters import write_adapters
from bench.vllm.backends import EngineConfig
from bench.vllm.collecting import Collected, collect
from bench.vllm.flags import ServerFlags
from bench.vllm.models import TINY_LLAMA, model_shape, write_model
from bench.vllm.server import adapter_name, running_server
from twin import load_profile

pytestmark = pytest.mark.vllm
PROMPT, OUTPUT, REQUESTS = 30, 40, 24


async def _one(session: aiohttp.ClientSession, url: str, number: int) -> None:
    asked = {"model": adapter_name(number % 3), "prompt": [5] * PROMPT, "max_tokens": OUTPUT, "ignore_eos": True}
    async with session.post(f"{url}/v1/completions", json=asked) as response:
        assert response.status == 200
        await response.read()


async def _served(tmp_path: Path) -> tuple[Collected, int]:
    """A server that is looked at while it serves, and the size of its KV cache by its log."""
    shape = model_shape(TINY_LLAMA)
    model = write_model(shape, tmp_path / "model")
    adapters = write_adapters(shape, [8], tmp_path / "adapters")
    engine = EngineConfig(
        name="vllm_cpu", device="cpu", python=sys.executable, arguments=["--enforce-eager", "--no-enable-log-requests"],
        environment={"VLLM_CPU_KVCACHE_SPACE": "1"}, start_timeout_s=300,
    )  # fmt: skip
    flags = ServerFlags(2, 8, 3, max_num_seqs=16, max_num_batched_tokens=128, max_model_len=2048, block_size=32)
    async with running_server(engine, flags, model, [adapters[8]] * 3, tmp_path / "server.log") as server:
        found = Collected(server.url, tmp_path / "server.parquet", {"max_lora_rank": 8})
        async with aiohttp.ClientSession() as session:
            looking = asyncio.ensure_future(collect([found], interval_s=0.25, duration_s=None, told=lambda _: None))
            await asyncio.sleep(1.0)
            await asyncio.gather(*(_one(session, server.url, number) for number in range(REQUESTS)))
            # vLLM counts a step's tokens after the client has got them.
            await asyncio.sleep(2.0)
            looking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await looking
        return found, server.kv_cache_tokens()


def test_the_counters_of_a_real_server_are_collected(tmp_path: Path) -> None:
    found, kv_cache_tokens = asyncio.run(_served(tmp_path))
    assert found.files == [tmp_path / "server.parquet"]
    scrape = read_scrape(str(found.files[0]), dict.fromkeys(FLAGS))
    assert (scrape.max_loras, scrape.max_lora_rank, scrape.n_adapters) == (2, 8, 3)
    # The log counts whole blocks less the one that vLLM keeps for itself, or not: releases differ.
    assert abs(scrape.kv_cache_tokens - kv_cache_tokens) <= 32
    assert scrape.generation_tokens[-1] - scrape.generation_tokens[0] == REQUESTS * OUTPUT
    assert scrape.prompt_tokens[-1] - scrape.prompt_tokens[0] == REQUESTS * PROMPT
    assert 1 < scrape.running.max() <= 16
    calibrate.main([
        f"metrics=[{found.files[0]}]", "prior=tiny-llama/cpu", "scrape_window_s=2", "name=real/server", f"out={tmp_path}",
    ])  # fmt: skip
    assert load_profile(str(tmp_path / "real__server.json")).provenance["windows"] > 0
