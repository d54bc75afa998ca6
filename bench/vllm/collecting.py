"""Counters of running vLLM servers, as `python -m bench.calibrate metrics=` reads them, with the flags that a server tells."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pandas as pd

from bench.shared.files import write_table
from bench.vllm.metrics import SERIES, parse_metrics, series_of, text_of, value_of
from twin import UserError

_log = logging.getLogger(__name__)

#: Columns of a scrape, beside the flags.
COLUMNS = ("time_s", "running", "waiting", "prompt_tokens", "generation_tokens", "kv_usage", "adapters")
#: Flags of a server that a profile is fitted with.
FLAGS = ("max_loras", "max_lora_rank", "kv_cache_tokens", "n_adapters")
#: What a page must have to be one of vLLM's.
_NEEDED = ("running", "prompt_tokens", "generation_tokens", "kv_usage")
# So often what was collected is written, in seconds; by hand: what `kill -9` may lose.
_SAVE_EVERY_S = 60.0
# How long a page may take, and the first one of a server that does not answer, in seconds.
_TIMEOUT_S = 30.0
# More than any server has, and a column holds.
_MOST_TOKENS = 10**10
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
# Prompt tokens that prefix caching found: counted with the prompt, or, in earlier versions, when the request is admitted.
_CACHED, _HITS = "vllm:prompt_tokens_cached_total", "vllm:prefix_cache_hits_total"
_SERVED = "vllm:request_inference_time_seconds_sum"


@dataclass(frozen=True)
class Page:
    """What a metrics page says.

    Attributes
    ----------
    counters : dict of str to float
        For each of `COLUMNS` but the time; `prompt_tokens` are those computed, without what prefix caching found.
    flags : dict of str to int
        Those of `FLAGS` that it tells.
    inference_s : float, optional
        Seconds that finished requests were served, all together.
    """

    counters: dict[str, float]
    flags: dict[str, int] = field(default_factory=dict)
    inference_s: float | None = None


def read_page(text: str, origin: str) -> Page:
    """Counters and flags of one page.

    Parameters
    ----------
    text : str
    origin : str
        Where it is from, for messages.

    Raises
    ------
    UserError
        If it is no page of one vLLM engine.
    """
    try:
        values = parse_metrics(text)
        infos, totals, engines = _beside(text)
    except ValueError as error:
        raise UserError(f"{origin}: is no page of metrics ({error})") from None
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        raise UserError(f"{origin}: has no {missing[0]} of vLLM; the page /metrics of a vLLM server would be right")
    if len(engines) > 1:
        raise UserError(
            f"{origin}: is of {len(engines)} engines (--data-parallel-size); the page of a server with one would be right"
        )
    _check_values({**{SERIES[name]: values[name] for name in SERIES if name in values}, **totals}, origin)
    cache, lora = infos.get("vllm:cache_config_info", {}), infos.get("vllm:lora_requests_info", {})
    flags = {}
    tokens = _told(cache, "num_gpu_blocks") * _told(cache, "block_size")
    if 0 < tokens <= _MOST_TOKENS:
        flags["kv_cache_tokens"] = tokens
    if (max_loras := _told(lora, "max_lora")) > 0:
        flags["max_loras"] = max_loras
    values["prompt_tokens"] -= totals.get(_CACHED, totals.get(_HITS, 0.0))
    kept = {name: values.get(name, float("nan")) for name in COLUMNS[1:]}
    return Page(kept, flags, totals.get(_SERVED))


def _beside(text: str) -> tuple[dict[str, dict[str, str]], dict[str, float], set[str]]:
    """Labels of the lines that tell flags, totals that `parse_metrics` does not read, and the engines."""
    infos: dict[str, dict[str, str]] = {}
    totals: dict[str, float] = {}
    engines = set()
    for line in text.split("\n"):
        name = series_of(line)
        if name == SERIES["running"]:
            engines.add(dict(_LABEL.findall(line)).get("engine", "0"))
        elif name in ("vllm:cache_config_info", "vllm:lora_requests_info"):
            infos[name] = dict(_LABEL.findall(line))
        elif name in (_CACHED, _HITS, _SERVED):
            totals[name] = totals.get(name, 0.0) + value_of(line)
    return infos, totals, engines


def _check_values(values: dict[str, float], origin: str) -> None:
    """Refuse what no counter can be: without this a column would vanish, or a figure be made of nothing."""
    for series, value in values.items():
        most = 1.0 if series == SERIES["kv_usage"] else math.inf
        if not (math.isfinite(value) and 0 <= value <= most):
            raise UserError(f"{origin}: {series}={value:g} must be a number, {'0 to 1' if most == 1 else '0 or more'}")


def _told(labels: dict[str, str], name: str) -> int:
    """A flag among labels; 0 where there is none."""
    text = labels.get(name, "")
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else 0


@dataclass
class Collected:
    """Samples of one server, and where they are written.

    Attributes
    ----------
    origin : str
        Its URL.
    path : Path
        Parquet file; after a restart of the server another one beside it is begun.
    flags : dict of str to int
    rows : list of dict
    failures : int
        Samples that there was no answer for.
    files : list of Path
        All that were begun.
    """

    origin: str
    path: Path
    flags: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    failures: int = 0
    files: list[Path] = field(default_factory=list)
    silent: bool = False

    def add(self, time_s: float, page: Page) -> None:
        """Keep a sample; totals that fall are those of a server that was started again."""
        row = {"time_s": time_s, **page.counters}
        told = {name: value for name, value in page.flags.items() if name not in ("max_lora_rank", "n_adapters")}
        if self.rows:
            before = self.rows[-1]
            changed = any(self.flags.get(name, value) != value for name, value in told.items())
            if row["generation_tokens"] < before["generation_tokens"] or changed:
                _log.info(
                    "%s: was started again after %.0f s; what follows is in a file of its own", self.origin, time_s
                )
                self.save()
                self.rows = []
            else:
                # What prefix caching finds is counted when a request is admitted, its prompt when that is computed.
                row["prompt_tokens"] = max(row["prompt_tokens"], before["prompt_tokens"])
        self.flags |= told
        self.rows.append(row)

    def save(self) -> None:
        """Write the file; one sample alone, which tells nothing, is not written."""
        if len(self.rows) < 2:
            return
        path = self.path
        if len(self.rows) and (not self.files or self._begun != self.rows[0]["time_s"]):
            number = len(self.files) + 1
            path = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            self.files.append(path)
            self._begun = self.rows[0]["time_s"]
        frame = pd.DataFrame(self.rows).reindex(columns=[*COLUMNS])
        if frame.adapters.isna().all():
            frame = frame.drop(columns="adapters")
        write_table(frame.assign(**self.flags), self.files[-1])

    _begun: float = -1.0


async def collect(
    servers: list[Collected], *, interval_s: float, duration_s: float | None, told: Callable[[str], None]
) -> None:
    """Look at every server each `interval_s` until `duration_s` is over or the task is cancelled; what there is, is written.

    Raises
    ------
    UserError
        If one of them is no vLLM server, or does not answer the first time.
    """
    start = time.perf_counter()
    saved_s = 0.0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:
        await asyncio.gather(*(_first(session, server) for server in servers))
        try:
            number = 0
            while True:
                await asyncio.gather(*(_sample(session, server, start) for server in servers))
                passed_s = time.perf_counter() - start
                told(_progress(servers, passed_s))
                if passed_s - saved_s >= _SAVE_EVERY_S:
                    _save(servers)
                    saved_s = passed_s
                number += 1
                next_s = number * interval_s
                if duration_s is not None and next_s > duration_s:
                    return
                await asyncio.sleep(max(0.0, next_s - (time.perf_counter() - start)))
        finally:
            _save(servers)


def _save(servers: list[Collected]) -> None:
    for server in servers:
        server.save()


def _progress(servers: list[Collected], passed_s: float) -> str:
    running = sum(server.rows[-1]["running"] for server in servers if server.rows)
    waiting = sum(server.rows[-1]["waiting"] for server in servers if server.rows)
    count = sum(len(server.rows) for server in servers)
    return f"{count} samples in {passed_s:.0f} s, {running:.0f} requests running, {waiting:.0f} waiting; Ctrl-C ends and keeps them"


async def _text(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        if response.status != 200:
            raise aiohttp.ClientError(f"HTTP {response.status}")
        return await text_of(response)


async def _first(session: aiohttp.ClientSession, server: Collected) -> None:
    """Whether a server is there, and the flags that only it itself tells."""
    try:
        read_page(await _text(session, f"{server.origin}/metrics"), f"url={server.origin}")
    except (TimeoutError, aiohttp.ClientError, ValueError) as error:
        why = str(error) or "no answer in time"
        raise UserError(
            f"url={server.origin}: no page of metrics there ({why}); the address of a running vLLM server, such as "
            "http://HOST:8000, would be right"
        ) from None
    with contextlib.suppress(
        aiohttp.ClientError, asyncio.TimeoutError, ValueError, KeyError, TypeError, AttributeError
    ):
        version = json.loads(await _text(session, f"{server.origin}/version"))["version"]
        _log.info("%s: vLLM %s", server.origin, version)
    with contextlib.suppress(
        aiohttp.ClientError, asyncio.TimeoutError, ValueError, KeyError, TypeError, AttributeError
    ):
        models = json.loads(await _text(session, f"{server.origin}/v1/models"))["data"]
        adapters = sum(model.get("parent") is not None for model in models)
        if adapters:
            server.flags.setdefault("n_adapters", adapters)


async def _sample(session: aiohttp.ClientSession, server: Collected, start: float) -> None:
    """One look; where there is no answer the sample is left out."""
    before = time.perf_counter() - start
    try:
        page = read_page(await _text(session, f"{server.origin}/metrics"), server.origin)
    except (TimeoutError, aiohttp.ClientError, UserError, ValueError) as error:
        server.failures += 1
        if not server.silent:
            _log.info("%s: no answer after %.0f s (%s); asked again", server.origin, before, str(error) or "timeout")
        server.silent = True
        return
    server.silent = False
    # When in its way the page was made is not known.
    server.add((before + time.perf_counter() - start) / 2, page)


def address(url: str) -> str:
    """A server's address without the page.

    Raises
    ------
    UserError
        If it is none.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        named = False
    if not named or parts.query or parts.fragment:
        raise UserError(f"url={url}: must be the address of a server, such as http://localhost:8000")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/metrics')}"


def file_name(url: str) -> str:
    """What the file of a server is called: `localhost-8000`."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", url.split("://", 1)[1].rpartition("@")[2]).strip("-")


def two_pages(
    first: str, last: str, interval_s: float, origins: tuple[str, str]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """A scrape of two saved pages of one server.

    How many requests run at the two moments says little of the time between: their mean is that of the seconds that finished
    requests were served (Little's law), where the page has them.

    Raises
    ------
    UserError
        If they are no two pages of one server, the later one last.
    """
    pages = [read_page(text, origin) for text, origin in zip((first, last), origins, strict=True)]
    for name in ("prompt_tokens", "generation_tokens"):
        if pages[1].counters[name] < pages[0].counters[name]:
            raise UserError(
                f"{origins[1]}: its {name} are fewer than those of {origins[0]}; two pages of one server, the later one last, and no "
                "restart between them would be right"
            )
    if pages[1].counters["generation_tokens"] == pages[0].counters["generation_tokens"]:
        raise UserError(
            f"{origins[1]}: no token was generated since {origins[0]}; two pages with load between them, not the same twice, would be right"
        )
    if pages[0].flags != pages[1].flags:
        raise UserError(f"{origins[1]}: is of another server than {origins[0]}: {pages[1].flags} and {pages[0].flags}")
    served = [page.inference_s for page in pages]
    if served[0] is not None and served[1] is not None and served[1] > served[0]:
        mean = (served[1] - served[0]) / interval_s
        # The adapters at two moments say as little.
        pages = [replace(page, counters={**page.counters, "running": mean, "adapters": float("nan")}) for page in pages]
    rows = [{"time_s": time_s, **page.counters} for time_s, page in zip((0.0, interval_s), pages, strict=True)]
    return pd.DataFrame(rows).reindex(columns=[*COLUMNS]).dropna(axis="columns"), pages[1].flags
