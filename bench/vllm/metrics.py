"""A server's Prometheus metrics, read once a second."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass, field

import aiohttp
import pandas as pd

#: Column, and the series that it is the sum of. Counters are cumulative since the server's start.
SERIES = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_usage": "vllm:kv_cache_usage_perc",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generation_tokens": "vllm:generation_tokens_total",
    "preemptions": "vllm:num_preemptions_total",
    # The histogram of tokens per engine step: its count is the number of steps, its sum their tokens.
    "steps": "vllm:iteration_tokens_total_count",
    "step_tokens": "vllm:iteration_tokens_total_sum",
}
# The name of the share of the KV cache in use up to vLLM 0.9.
_OLD_NAMES = {"vllm:gpu_cache_usage_perc": "kv_usage"}
_COLUMN_OF = {name: column for column, name in SERIES.items()} | _OLD_NAMES
_ADAPTERS = "vllm:lora_requests_info"
_RUNNING_ADAPTERS = re.compile(r'running_lora_adapters="([^"]*)"')


def parse_metrics(text: str) -> dict[str, float]:
    """Values of `SERIES` in a metrics page, and `adapters`: the distinct adapters that run.

    `vllm:lora_requests_info` has a line for every set of adapters ever seen; the one with the latest time is current.
    """
    values: dict[str, float] = {}
    latest, adapters = -1.0, float("nan")
    for line in text.splitlines():
        if not line.startswith("vllm:"):
            continue
        name = line[: line.find("{")] if "{" in line else line.split(" ", 1)[0]
        column = _COLUMN_OF.get(name)
        if column is not None:
            values[column] = values.get(column, 0.0) + float(line.rsplit(" ", 1)[1])
        elif name == _ADAPTERS and (found := _RUNNING_ADAPTERS.search(line)):
            stamp = float(line.rsplit(" ", 1)[1])
            if stamp > latest:
                latest = stamp
                adapters = float(len([part for part in found.group(1).split(",") if part]))
    values["adapters"] = adapters
    return values


@dataclass
class MetricsSampler:
    """Reads the metrics page every `interval_s` while it runs.

    Attributes
    ----------
    url : str
        Of the server.
    interval_s : float
    rows : list of dict
        One sample each: `time_s` since the start (`time.perf_counter`, in the middle of the request), `page_bytes`,
        and what `parse_metrics` gives.
    """

    url: str
    interval_s: float = 1.0
    rows: list[dict[str, float]] = field(default_factory=list)

    async def run(self) -> None:
        """Sample until cancelled; a sample that fails is left out."""
        timeout = aiohttp.ClientTimeout(total=30)
        start = time.perf_counter()
        async with aiohttp.ClientSession(timeout=timeout) as session:
            number = 0
            while True:
                with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, ValueError):
                    before = time.perf_counter() - start
                    async with session.get(f"{self.url}/metrics") as response:
                        text = await response.text()
                    after = time.perf_counter() - start
                    self.rows.append({"time_s": (before + after) / 2, "page_bytes": len(text), **parse_metrics(text)})
                number += 1
                wait = number * self.interval_s - (time.perf_counter() - start)
                if wait > 0:
                    await asyncio.sleep(wait)

    def table(self) -> pd.DataFrame:
        """All samples; columns that the server does not export are NaN."""
        return pd.DataFrame(self.rows).reindex(columns=["time_s", "page_bytes", *SERIES, "adapters"])
