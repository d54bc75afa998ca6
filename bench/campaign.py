"""`python -m bench.campaign`: drives real servers through load points, from which `bench.calibrate` makes a profile.

Every finished point is on disk at once, and a campaign that was interrupted goes on where it stood.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING
from rich.console import Console

from bench.cli import command
from bench.vllm.backends import EngineConfig, devices, find_python, share_cores, versions
from bench.vllm.client import Call
from bench.vllm.failures import ServerError
from bench.vllm.measurement import load_measurement, measurement_of, write_json
from bench.vllm.server import ServerFlags, adapter_name
from bench.vllm.session import Session, serving
from bench.vllm.stopping import run_until_stopped
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
class CampaignConfig:
    """Options of `python -m bench.campaign`; `conf/campaign.yaml` says what each is for."""

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
    out: str = "results/runs/campaign"
    seed: int = 0


@command("campaign", CampaignConfig)
def main(config: CampaignConfig) -> None:
    """Measure what is missing."""
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    check(config)
    out = Path(config.out)
    todo = missing(config, out)
    total = sum(len(server.points) for server in config.servers)
    console.print(
        f"campaign: {len(config.servers)} servers, {total} points of {config.model}, seed {config.seed}; "
        f"{sum(len(points) for _, points in todo)} points on {len(todo)} servers are missing in {out}"
    )
    if not todo:
        return
    write_json(about(config), out / "campaign.json")
    run_until_stopped(measure(config, todo, out, console))
    left = missing(config, out)
    if left:
        console.print(f"{len(left)} servers have points left; the same command goes on with them")


def check(config: CampaignConfig) -> None:
    """Raise `UserError` for a campaign that makes no sense, before anything is started."""
    if not config.servers:
        raise UserError("servers: a campaign needs at least one")
    if not config.point_s > 0:
        raise UserError(f"point_s={config.point_s} must be a positive number of seconds")
    for number, server in enumerate(config.servers):
        for name in server.points:
            where = f"servers[{number}].points: {name}"
            if name not in config.points:
                raise UserError(f"{where} is not among the points; there are {', '.join(sorted(config.points))}")
            point = config.points[name]
            if min(point.concurrency, point.adapters, point.prompt_tokens, point.output_tokens) < 1:
                raise UserError(f"points.{name}: concurrency, adapters and lengths must be 1 or more")
            if 1.5 * (point.prompt_tokens + point.output_tokens) > config.max_model_len:
                raise UserError(
                    f"points.{name}: requests of up to 1.5 times {point.prompt_tokens}+{point.output_tokens} tokens exceed "
                    f"max_model_len={config.max_model_len}"
                )


def about(config: CampaignConfig) -> dict[str, Any]:
    """What a campaign's folder says of it, for `bench.calibrate`."""
    return {
        "model": config.model,
        "gpu": config.gpu,
        "engine": {key: value for key, value in asdict(config.engine).items() if key != "python"},
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "max_model_len": config.max_model_len,
        "block_size": config.block_size,
        "reserve_full_prompt": config.reserve_full_prompt,
        "async_scheduling": config.async_scheduling,
        "seed": config.seed,
        **versions(find_python(config.engine.python)),
    }


def server_name(server: CampaignServer) -> str:
    """Folder of a server's points."""
    name = f"loras-{server.max_loras}_rank-{server.max_lora_rank}_adapters-{server.adapters}"
    return name if server.max_cpu_loras is None else f"{name}_host-{server.max_cpu_loras}"


def missing(config: CampaignConfig, out: Path) -> list[tuple[CampaignServer, list[str]]]:
    """Servers with the points that are not on disk yet; a server without points is to be started once."""
    todo = []
    for server in config.servers:
        folder = out / server_name(server)
        points = [name for name in server.points if not (folder / f"{name}.json").is_file()]
        if points or not (folder / "server.json").is_file():
            todo.append((server, points))
    return todo


async def measure(
    config: CampaignConfig, todo: list[tuple[CampaignServer, list[str]]], out: Path, console: Console
) -> None:
    """Start each server in turn and drive it through its points."""
    began = asyncio.get_running_loop().time()
    cores = share_cores(config.engine.model_cores)[0]
    gpus = devices(config.engine)
    for server, points in todo:
        spent = asyncio.get_running_loop().time() - began
        if config.budget_s is not None and spent > config.budget_s:
            console.print(f"budget_s={config.budget_s:g} is spent")
            return
        folder = out / server_name(server)
        flags = ServerFlags(
            max_loras=server.max_loras,
            max_lora_rank=server.max_lora_rank,
            max_cpu_loras=server.max_cpu_loras or server.adapters,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_model_len=config.max_model_len,
            block_size=config.block_size,
        )
        ranks = [server.max_lora_rank] * server.adapters
        try:
            async with serving(
                config.engine, flags, config.model, ranks, out / "made", folder / "server.log",
                seed=config.seed, cores=cores, gpu=gpus[0] if gpus else None,
            ) as session:  # fmt: skip
                write_json({**asdict(flags), **session.about, "error": ""}, folder / "server.json")
                console.print(
                    f"{folder.name}: ready in {session.server.start_s:.0f} s, "
                    f"KV cache {session.about['kv_cache_tokens']} tokens"
                )
                for name in points:
                    await _point(config, session, flags, server, name, folder, console)
        except ServerError as error:
            if not error.is_memory_error:
                raise
            # That it does not start is a measurement: the capacity table says 0 there.
            write_json(
                {**asdict(flags), **about(config), "kv_cache_tokens": 0, "error": str(error)}, folder / "server.json"
            )
            console.print(f"{folder.name}: {error}")


async def _point(  # noqa: PLR0913  # one point of one server, and where it goes
    config: CampaignConfig,
    session: Session,
    flags: ServerFlags,
    server: CampaignServer,
    name: str,
    folder: Path,
    console: Console,
) -> None:
    point = config.points[name]
    seconds = point.seconds or config.point_s
    calls = point_calls(point, min(point.adapters, server.adapters), config.seed)
    replay, metrics = await session.closed_loop(point.concurrency, calls, seconds)
    measured = measurement_of(
        replay, metrics, {**session.about, "point": name, **asdict(point), "flags": asdict(flags), "seed": config.seed}
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


if __name__ == "__main__":
    main()
