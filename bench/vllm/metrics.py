"""A server's Prometheus metrics, read once a second."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass, field

import aiohttp
import pandas as pd

from twin.numbers import shown

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
#: Bytes of a page that are read; a server's page has a line for every set of adapters that it ever ran.
MOST_BYTES = 64 * 2**20
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
# name{labels} value [milliseconds]: what stands last may be a time. No underscore, which Python takes in a number.
_SAMPLE = re.compile(
    r"[A-Za-z_:][A-Za-z0-9_:]*(?:\s*\{[^\"}]*(?:\"(?:[^\"\\]|\\.)*\"[^\"}]*)*\}\s*|\s+)([0-9A-Za-z.+-]+)(?:\s+-?[0-9]+)?\s*"
)


def series_of(line: str) -> str:
    """Name of the series that a line of a metrics page is of; empty for a comment."""
    found = _NAME.match(line)
    return found.group() if found else ""


def value_of(line: str) -> float:
    """Value of a line `name{labels} value [time]`.

    Raises
    ------
    ValueError
        With the line, if it is none.
    """
    found = _SAMPLE.fullmatch(line)
    try:
        return float(found.group(1) if found else "")
    except ValueError:
        raise ValueError(f"{shown(line)}: must be a name, labels and a number") from None


async def text_of(response: aiohttp.ClientResponse) -> str:
    """The body of an answer.

    Raises
    ------
    ValueError
        If it is larger than `MOST_BYTES`, or not UTF-8.
    """
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MOST_BYTES:
            raise ValueError(f"its answer has more than {MOST_BYTES} bytes")
    return body.decode()


def parse_metrics(text: str) -> dict[str, float]:
    """Values of `SERIES` in a metrics page, and `adapters`: the distinct adapters that run.

    `vllm:lora_requests_info` has a line for every set of adapters ever seen; the one with the latest time is current.

    Raises
    ------
    ValueError
        With the line that has no number.
    """
    values: dict[str, float] = {}
    latest, adapters = -1.0, float("nan")
    for line in text.split("\n"):
        name = series_of(line)
        column = _COLUMN_OF.get(name)
        if column is not None:
            values[column] = values.get(column, 0.0) + value_of(line)
        elif name == _ADAPTERS and (found := _RUNNING_ADAPTERS.search(line)):
            stamp = value_of(line)
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
                        text = await text_of(response)
                    after = time.perf_counter() - start
                    self.rows.append({"time_s": (before + after) / 2, "page_bytes": len(text), **parse_metrics(text)})
                number += 1
                wait = number * self.interval_s - (time.perf_counter() - start)
                if wait > 0:
                    await asyncio.sleep(wait)

    def table(self) -> pd.DataFrame:
        """All samples; columns that the server does not export are NaN."""
        return pd.DataFrame(self.rows).reindex(columns=["time_s", "page_bytes", *SERIES, "adapters"])
