"""`python -m bench.collect url=http://HOST:8000`: saves the counters of running vLLM servers, for `python -m bench.calibrate metrics=`.

What a server tells of its flags stands in the file beside the counters. Ctrl-C ends it and keeps what was collected. Two pages
that were saved by hand do as well.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from bench.shared.command import command
from bench.shared.files import check_folder, write_table
from bench.shared.terminal import at_work, console
from bench.vllm.collecting import FLAGS, Collected, address, collect, file_name, two_pages
from bench.vllm.stopping import run_until_stopped
from twin import UserError
from twin.inputs import read_text
from twin.numbers import MOST_ADAPTERS, number, whole

# By name: as a command this module is called __main__, whose notes nobody shows.
_log = logging.getLogger("bench.collect")
_MOST = {"max_loras": 10**5, "max_lora_rank": 2**16, "kv_cache_tokens": 10**10, "n_adapters": MOST_ADAPTERS}
_WEEK_S = 7 * 86400.0


@dataclass
class CollectConfig:
    """Options of `python -m bench.collect`; `conf/collect.yaml` says what each is for."""

    url: Any = None
    pages: list[str] | None = None
    pages_interval_s: float | None = None
    interval_s: float = 2.0
    duration_s: float | None = None
    max_loras: int | None = None
    max_lora_rank: int | None = None
    kv_cache_tokens: int | None = None
    n_adapters: int | None = None
    out: str = "results/runs/collected"


@command("collect", CollectConfig)
def main(config: CollectConfig) -> None:
    """Collect, write, and say how to go on."""
    terminal = console()
    if (config.url is None) == (config.pages is None):
        raise UserError(
            "give either url=http://HOST:8000 (or a list of running servers) or pages=[FIRST,LAST] (saved metrics pages of one)"
        )
    given = {
        flag: whole(flag, getattr(config, flag), at_least=1, at_most=_MOST[flag])
        for flag in FLAGS
        if getattr(config, flag) is not None
    }
    out = check_folder("out", config.out)
    if config.pages is not None:
        _end([_of_pages(config, given, out)], terminal)
        return
    number("interval_s", config.interval_s, at_least=0.1, at_most=3600.0, unit="seconds")
    if config.duration_s is not None:
        number("duration_s", config.duration_s, at_least=config.interval_s, at_most=_WEEK_S, unit="seconds")
    servers = _servers(config.url, given, out)
    until = "Ctrl-C" if config.duration_s is None else f"{config.duration_s:g} s"
    terminal.print(
        f"looking at {len(servers)} server{'s' * (len(servers) != 1)} every {config.interval_s:g} s until {until}"
    )
    try:
        with at_work(console(stderr=True)) as told:
            work = collect(servers, interval_s=config.interval_s, duration_s=config.duration_s, told=told)
            run_until_stopped(work)
    except KeyboardInterrupt:
        if not any(server.files for server in servers):
            raise
    for server in servers:
        if server.failures:
            _log.info("%s: %d looks had no answer and are left out", server.origin, server.failures)
    _end([path for server in servers for path in server.files], terminal)


def _servers(url: object, given: dict[str, int], out: Path) -> list[Collected]:
    urls = url if isinstance(url, list) else [url]
    if not urls:
        raise UserError("url=[]: name at least one server")
    origins = [address(str(each)) for each in urls]
    names = [file_name(origin) for origin in origins]
    for k, name in enumerate(names):
        if name in names[:k]:
            raise UserError(f"url={urls[k]}: is there twice; one file for each server")
    return [
        Collected(origin, out / f"{name}.parquet", dict(given)) for origin, name in zip(origins, names, strict=True)
    ]


def _of_pages(config: CollectConfig, given: dict[str, int], out: Path) -> Path:
    """The file of two saved pages."""
    paths = list(config.pages or [])
    if len(paths) != 2:
        raise UserError(f"pages={paths}: two pages of one server are needed, pages=[FIRST,LAST]")
    if config.pages_interval_s is None:
        raise UserError(
            "pages_interval_s must be given: a page does not say when it was made; how many seconds lie between the two?"
        )
    interval_s = number("pages_interval_s", config.pages_interval_s, at_least=1.0, at_most=_WEEK_S, unit="seconds")
    texts = [read_text(path, "a saved page of metrics", key="pages") for path in paths]
    frame, told = two_pages(texts[0], texts[1], interval_s, (f"pages={paths[0]}", f"pages={paths[1]}"))
    path = out / f"{Path(paths[1]).stem}.parquet"
    write_table(frame.assign(**{**given, **told}), path)
    return path


def _end(paths: Sequence[Path], terminal: Console) -> None:
    """What was written, and the command that reads it."""
    if not paths:
        raise UserError("fewer than two looks: nothing was written; a longer duration_s would be right")
    missing: list[str] = []
    for path in paths:
        frame = pd.read_parquet(path)
        span_s = float(frame.time_s.iloc[-1] - frame.time_s.iloc[0])
        made = float(frame.generation_tokens.iloc[-1] - frame.generation_tokens.iloc[0]) / span_s
        told = ", ".join(f"{flag}={int(frame[flag].iloc[0])}" for flag in FLAGS if flag in frame)
        terminal.print(
            f"wrote {path}: {len(frame)} samples over {span_s:.0f} s, {frame.running.mean():.1f} requests running in the mean, "
            f"{made:.0f} tokens/s generated; {told or 'no flags'}",
            soft_wrap=True,
        )
        missing += [flag for flag in FLAGS if flag not in frame and flag not in missing]
    asked = "".join(f" {flag}=NUMBER" for flag in missing)
    if missing:
        terminal.print(f"not told by the server: {', '.join(missing)}; the calibration needs them")
    listed = ",".join(map(str, paths))
    terminal.print(
        f"now: python -m bench.calibrate metrics=[{listed}]{asked} prior=PROFILE name=MODEL/GPU", soft_wrap=True
    )


if __name__ == "__main__":
    main()
