"""Load points of a campaign: measured one by one on real servers."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING
from rich.console import Console

from bench.vllm.backends import EngineConfig, devices, find_python, share_cores, versions
from bench.vllm.client import Call
from bench.vllm.failures import ServerError
from bench.vllm.flags import ServerFlags
from bench.vllm.measurement import load_measurement, measurement_of, write_json
from bench.vllm.server import adapter_name
from bench.vllm.session import Session, serving
from twin import UserError


@dataclass
class PointConfig:
    """One load point: how many requests are open, for how many adapters, and how long they are on average."""

    concurrency: int = MISSING
    adapters: int = MISSING
    prompt_tokens: int = MISSING
    output_tokens: int = MISSING
    seconds: float | None = None


@dataclass
class CampaignServer:
    """One server of a campaign: its flags, its adapters, and the names of the points it is driven through."""

    max_loras: int = MISSING
    max_lora_rank: int = MISSING
    adapters: int = MISSING
    max_cpu_loras: int | None = None
    points: list[str] = field(default_factory=list)


@dataclass
class CampaignOptions:
    """The servers of a campaign and the load points they are driven through.

    `conf/campaign.yaml` says what each option is for.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)
    model: str = MISSING
    gpu: str = MISSING
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 4096
    block_size: int = 16
    reserve_full_prompt: bool = True
    async_scheduling: bool = False
    servers: list[CampaignServer] = field(default_factory=list)
    points: dict[str, PointConfig] = field(default_factory=dict)
    point_s: float = 15.0
    budget_s: float | None = None
    seed: int = 0


def check(options: CampaignOptions) -> None:
    """Raise `UserError` for a campaign that makes no sense, before anything is started."""
    if not options.servers:
        raise UserError("servers: a campaign needs at least one")
    if not options.point_s > 0:
        raise UserError(f"point_s={options.point_s} must be a positive number of seconds")
    for number, server in enumerate(options.servers):
        for name in server.points:
            where = f"servers[{number}].points: {name}"
            if name not in options.points:
                raise UserError(f"{where} is not among the points; there are {', '.join(sorted(options.points))}")
            point = options.points[name]
            if min(point.concurrency, point.adapters, point.prompt_tokens, point.output_tokens) < 1:
                raise UserError(f"points.{name}: concurrency, adapters and lengths must be 1 or more")
            if 1.5 * (point.prompt_tokens + point.output_tokens) > options.max_model_len:
                raise UserError(
                    f"points.{name}: requests of up to 1.5 times {point.prompt_tokens}+{point.output_tokens} tokens exceed "
                    f"max_model_len={options.max_model_len}"
                )


def about(options: CampaignOptions) -> dict[str, Any]:
    """What a campaign's folder says of it, for `bench.calibrate`."""
    return {
        "model": options.model,
        "gpu": options.gpu,
        "engine": {key: value for key, value in asdict(options.engine).items() if key != "python"},
        "max_num_seqs": options.max_num_seqs,
        "max_num_batched_tokens": options.max_num_batched_tokens,
        "max_model_len": options.max_model_len,
        "block_size": options.block_size,
        "reserve_full_prompt": options.reserve_full_prompt,
        "async_scheduling": options.async_scheduling,
        "seed": options.seed,
        **versions(find_python(options.engine.python)),
    }


def server_name(server: CampaignServer) -> str:
    """Folder of a server's points."""
    name = f"loras-{server.max_loras}_rank-{server.max_lora_rank}_adapters-{server.adapters}"
    return name if server.max_cpu_loras is None else f"{name}_host-{server.max_cpu_loras}"


def missing(options: CampaignOptions, out: Path) -> list[tuple[CampaignServer, list[str]]]:
    """Servers with the points that are not on disk yet; a server without points is to be started once."""
    todo = []
    for server in options.servers:
        folder = out / server_name(server)
        points = [name for name in server.points if not (folder / f"{name}.json").is_file()]
        if points or not (folder / "server.json").is_file():
            todo.append((server, points))
    return todo


async def measure(
    options: CampaignOptions, todo: list[tuple[CampaignServer, list[str]]], out: Path, console: Console
) -> None:
    """Start each server in turn and drive it through its points."""
    began = asyncio.get_running_loop().time()
    cores = share_cores(options.engine.model_cores)[0]
    gpus = devices(options.engine)
    for server, points in todo:
        spent = asyncio.get_running_loop().time() - began
        if options.budget_s is not None and spent > options.budget_s:
            console.print(f"budget_s={options.budget_s:g} is spent")
            return
        folder = out / server_name(server)
        flags = ServerFlags(
            max_loras=server.max_loras,
            max_lora_rank=server.max_lora_rank,
            max_cpu_loras=server.max_cpu_loras or server.adapters,
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens,
            max_model_len=options.max_model_len,
            block_size=options.block_size,
        )
        ranks = [server.max_lora_rank] * server.adapters
        try:
            async with serving(
                options.engine, flags, options.model, ranks, out / "made", folder / "server.log",
                seed=options.seed, cores=cores, gpu=gpus[0] if gpus else None,
            ) as session:  # fmt: skip
                write_json({**asdict(flags), **session.about, "error": ""}, folder / "server.json")
                console.print(
                    f"{folder.name}: ready in {session.server.start_s:.0f} s, "
                    f"KV cache {session.about['kv_cache_tokens']} tokens"
                )
                for name in points:
                    await _point(options, session, flags, server, name, folder, console)
        except ServerError as error:
            if not error.is_memory_error:
                raise
            # That it does not start is a measurement: the capacity table says 0 there.
            write_json(
                {**asdict(flags), **about(options), "kv_cache_tokens": 0, "error": str(error)}, folder / "server.json"
            )
            console.print(f"{folder.name}: {error}")


async def _point(  # noqa: PLR0913  # one point of one server, and where it goes
    options: CampaignOptions,
    session: Session,
    flags: ServerFlags,
    server: CampaignServer,
    name: str,
    folder: Path,
    console: Console,
) -> None:
    point = options.points[name]
    seconds = point.seconds or options.point_s
    calls = point_calls(point, min(point.adapters, server.adapters), options.seed)
    replay, metrics = await session.closed_loop(point.concurrency, calls, seconds)
    measured = measurement_of(
        replay, metrics, {**session.about, "point": name, **asdict(point), "flags": asdict(flags), "seed": options.seed}
    )
    measured.save(folder, name)
    tokens = float(measured.answers.received_tokens.sum()) / seconds
    console.print(f"  {name}: {tokens:.0f} output tokens/s; {replay.client.describe()}")
    if measured.about["failed_requests"]:
        console.print(f"  {measured.about['failed_requests']} requests failed: {measured.about['first_failure']}")


def point_calls(point: PointConfig, adapters: int, seed: int, n_calls: int = 4096) -> list[Call]:
    """Requests of a point: lengths between half and one and a half times the mean, adapters in turn."""
    draws = np.random.Generator(np.random.Philox(key=[seed, point.concurrency]))

    def lengths(mean: int) -> list[int]:
        low, high = (mean + 1) // 2, mean + mean // 2
        return [int(value) for value in draws.integers(low, high, n_calls, endpoint=True)]

    return [
        Call(adapter_name(k % adapters), prompt, output)
        for k, (prompt, output) in enumerate(
            zip(lengths(point.prompt_tokens), lengths(point.output_tokens), strict=True)
        )
    ]


def read_points(folder: Path) -> list[tuple[str, Path]]:
    """Names and folders of a campaign's finished points."""
    return [
        (path.stem, path.parent)
        for path in sorted(folder.glob("*/*.json"))
        if path.name != "server.json" and load_measurement(path.parent, path.stem) is not None
    ]
