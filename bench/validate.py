"""`python -m bench.validate placement=FILE`: a placement on real vLLM servers, beside what the twin says of it.

Each GPU of the placement becomes a server with its flags and adapters; it gets exactly the requests that the twin saw, at
their times. A finished GPU is on disk at once, and the same command goes on where it was interrupted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING
from rich.console import Console

from bench.cli import command
from bench.vllm.backends import Cores, EngineConfig, devices, find_python, share_cores, versions
from bench.vllm.comparison import GpuComparison, report, simulated_curves, simulated_figures, write_summary
from bench.vllm.failures import ServerError
from bench.vllm.measurement import (
    Measurement,
    figures_of,
    load_measurement,
    measurement_of,
    no_start,
    write_json,
)
from bench.vllm.pictures import draw
from bench.vllm.placements import Placed, read_placed
from bench.vllm.server import ServerFlags
from bench.vllm.session import calls_of, serving
from bench.vllm.stopping import run_until_stopped
from twin import GpuResult, Requests, UserError
from twin.simulate import _routing_intervals, simulate_gpu

#: The twin's state is sampled as often as the server's.
SAMPLE_EVERY_S = 1.0


@dataclass
class ValidateConfig:
    """Options of `python -m bench.validate`; `conf/validate.yaml` says what each is for."""

    placement: str = MISSING
    solver: str | None = None
    row_seed: int | None = None
    workload: dict[str, Any] | None = None
    profile: str | None = None
    engine: EngineConfig = field(default_factory=EngineConfig)
    seed: int = 0
    duration_s: float | None = None
    gpus: list[int] | None = None
    repeats: int = 1
    parallel: int | None = None
    out: str = "results/runs/validate"
    picture: str | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One GPU of the placement: its server, its requests, and what the twin says."""

    number: int
    flags: ServerFlags
    ranks: tuple[int, ...]
    requests: Requests
    simulated: GpuResult

    def fingerprint(self, placed: Placed) -> str:
        """What a measurement must have been made of to be this one's."""
        parts = hashlib.sha256(json.dumps([asdict(self.flags), self.ranks, placed.profile.model]).encode())
        for values in (self.requests.arrival_s, self.requests.adapter, self.requests.prompt_tokens):
            parts.update(np.ascontiguousarray(values).tobytes())
        parts.update(np.ascontiguousarray(self.requests.output_tokens).tobytes())
        return parts.hexdigest()[:16]


@command("validate", ValidateConfig)
def main(config: ValidateConfig) -> None:
    """Measure what is missing, compare, and write summary and picture."""
    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    if config.repeats < 1:
        raise UserError(f"repeats={config.repeats} must be 1 or more")
    if config.parallel is not None and config.parallel < 1:
        raise UserError(f"parallel={config.parallel} must be 1 or more, or null for one on each GPU")
    placed = read_placed(
        config.placement,
        solver=config.solver,
        seed=config.row_seed,
        workload=config.workload,
        profile=config.profile,
        duration_s=config.duration_s,
    )
    jobs = jobs_of(placed, config.gpus)
    out = Path(config.out)
    kept = finished(placed, jobs, config.repeats, out)
    missing = {job: [r for r in range(config.repeats) if (job.number, r) not in kept] for job in jobs}
    todo = [(job, repeats) for job, repeats in missing.items() if repeats]
    # What is only compared again needs no vLLM.
    found = versions(find_python(config.engine.python)) if todo else versions_of(kept)
    console.print(
        f"validating {placed.label}: {len(jobs)} of {placed.placement.n_gpus} GPUs, {placed.workload.duration_s:g} s, "
        f"{config.repeats} times; profile {placed.profile.name}, vLLM {found['vllm']} on {found['hardware']}, "
        f"seed {placed.workload.seed}"
    )
    if str(found["vllm"]) != placed.profile.engine_version:
        console.print(
            f"note: the profile is of vLLM {placed.profile.engine_version}; what differs between versions shows as error"
        )
    if kept:
        console.print(f"{len(kept)} windows are in {out} already, {sum(map(len, missing.values()))} are missing")
    try:
        if todo:
            run_until_stopped(measure(config, placed, todo, out, console))
    finally:
        kept = finished(placed, jobs, config.repeats, out)
        if len(kept) < len(jobs) * config.repeats:
            console.print(f"{len(kept)} finished windows are kept in {out}; the same command goes on with the others")
    comparisons = [comparison_of(job, [kept[job.number, r] for r in range(config.repeats)], placed) for job in jobs]
    console.print(report(comparisons, placed.profile.name))
    write_summary(comparisons, out / "summary.csv")
    write_json({"profile": placed.profile.name, "placement": placed.label, **found}, out / "validation.json")
    picture = Path(config.picture) if config.picture else out / "validation.png"
    draw(comparisons, picture, f"{placed.label}: real vLLM {found['vllm']} and the twin ({placed.profile.name})")
    console.print(f"summary  {out / 'summary.csv'}\npicture  {picture}", soft_wrap=True)


def jobs_of(placed: Placed, gpus: list[int] | None) -> list[Job]:
    """The GPUs to validate, all by default, with their requests as the twin gets them."""
    chosen = range(placed.placement.n_gpus) if gpus is None else gpus
    jobs = []
    intervals = _routing_intervals(placed.workload, placed.placement)
    for number in chosen:
        if not 0 <= number < placed.placement.n_gpus:
            raise UserError(f"gpus: no GPU {number}; the placement has {placed.placement.n_gpus}, counted from 0")
        plan = placed.placement.gpus[number]
        local = np.asarray(plan.adapters, dtype=np.int64)
        ranks = tuple(int(rank) for rank in placed.workload.ranks[local])
        simulated = simulate_gpu(
            placed.workload,
            plan.adapters,
            placed.profile,
            plan.max_loras,
            intervals=intervals[number],
            max_cpu_loras=plan.max_cpu_loras,
            sample_every_s=SAMPLE_EVERY_S,
            keep_requests=True,
        )
        profile = placed.profile
        flags = ServerFlags(
            max_loras=plan.max_loras,
            max_lora_rank=profile.server_rank(max(ranks)),
            max_cpu_loras=max(plan.max_cpu_loras or len(ranks), plan.max_loras),
            max_num_seqs=profile.max_num_seqs,
            max_num_batched_tokens=profile.max_num_batched_tokens,
            max_model_len=profile.max_model_len,
            block_size=profile.block_size,
        )
        jobs.append(Job(number, flags, ranks, placed.workload.requests_of(local, intervals[number]), simulated))
    return jobs


def finished(placed: Placed, jobs: list[Job], repeats: int, out: Path) -> dict[tuple[int, int], Measurement]:
    """Windows that are on disk, by GPU and repeat.

    Raises
    ------
    UserError
        If the folder holds windows of other requests or flags.
    """
    found = {}
    for job in jobs:
        for repeat in range(repeats):
            folder, name = place(job, repeat, out)
            kept = load_measurement(folder, name)
            if kept is None:
                continue
            if kept.about["fingerprint"] != job.fingerprint(placed):
                raise UserError(
                    f"out={out}: {folder.name}/{name} was measured with other requests or flags; give another folder"
                )
            found[job.number, repeat] = kept
    return found


def versions_of(kept: Mapping[tuple[int, int], Measurement]) -> dict[str, Any]:
    """Versions and hardware that kept windows were measured with."""
    about = next(iter(kept.values())).about
    return {key: about[key] for key in ("vllm", "torch", "transformers", "python", "hardware", "cores")}


def place(job: Job, repeat: int, out: Path) -> tuple[Path, str]:
    """Folder and name of a window."""
    return out / f"gpu-{job.number}", f"run-{repeat}"


async def measure(
    config: ValidateConfig, placed: Placed, todo: list[tuple[Job, list[int]]], out: Path, console: Console
) -> None:
    """Serve the GPUs, as many at a time as there is hardware for."""
    slots: asyncio.Queue[tuple[Cores, str | None]] = asyncio.Queue()
    gpus = devices(config.engine)
    parallel = config.parallel or max(1, len(gpus))
    if gpus and parallel > len(gpus):
        raise UserError(f"parallel={parallel}: there are only {len(gpus)} GPUs")
    for number, cores in enumerate(share_cores(config.engine.model_cores, parallel)):
        slots.put_nowait((cores, gpus[number] if gpus else None))
    waiting = list(reversed(todo))

    async def worker() -> None:
        while waiting:
            job, repeats = waiting.pop()
            slot = await slots.get()
            try:
                await serve_gpu(config, placed, job, repeats, out, console, slot)
            finally:
                slots.put_nowait(slot)

    workers = [asyncio.create_task(worker()) for _ in range(parallel)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def serve_gpu(  # noqa: PLR0913  # one GPU, and where it runs
    config: ValidateConfig,
    placed: Placed,
    job: Job,
    repeats: list[int],
    out: Path,
    console: Console,
    slot: tuple[Cores, str | None],
) -> None:
    """Serve one GPU's requests on a new server, as often as asked for, and keep what was measured."""
    cores, gpu = slot
    duration_s = placed.workload.duration_s
    about: dict[str, Any] = {
        "fingerprint": job.fingerprint(placed),
        "profile": placed.profile.name,
        "gpu": job.number,
        "flags": asdict(job.flags),
        "n_adapters": len(job.ranks),
        "offered_throughput": job.simulated.offered_throughput,
    }

    def keep(repeat: int, measured: Measurement) -> None:
        measured.save(*place(job, repeat, out))
        console.print(f"GPU {job.number}, run {repeat + 1}: {describe(measured)}")

    try:
        async with serving(
            config.engine, job.flags, placed.profile.model, job.ranks, out / "made",
            place(job, repeats[0], out)[0] / "server.log", seed=placed.workload.seed, cores=cores, gpu=gpu,
        ) as session:  # fmt: skip
            console.print(f"GPU {job.number}: server ready in {session.server.start_s:.0f} s")
            for repeat in repeats:
                await session.settle()
                replay, metrics = await session.open_loop(job.requests.arrival_s, calls_of(job.requests), duration_s)
                details = {**about, **session.about, "repeat": repeat, "memory_error": ""}
                keep(repeat, measurement_of(replay, metrics, details))
    except ServerError as error:
        if not error.is_memory_error:
            raise ServerError(error.kind, f"GPU {job.number}: {error}") from None
        # A verdict like any other: the twin has an opinion on it too.
        for repeat in repeats:
            keep(repeat, nothing_served({**about, "repeat": repeat}, str(error), duration_s, config))


def nothing_served(about: Mapping[str, Any], error: str, duration_s: float, config: ValidateConfig) -> Measurement:
    """The window of a server that does not start for want of memory."""
    from bench.vllm.client import ClientLoad, Replay
    from bench.vllm.metrics import MetricsSampler

    replay = Replay((), ClientLoad(0.0, 0.0, 0.0, 0.0, 0, 0), duration_s)
    found = versions(find_python(config.engine.python))
    return measurement_of(replay, MetricsSampler("").table(), {**about, **found, "memory_error": error})


def describe(measured: Measurement) -> str:
    """One line on a finished window."""
    if measured.about["memory_error"]:
        return f"memory error: {measured.about['memory_error']}"
    failed = measured.about["failed_requests"]
    figures = figures_of(measured.answers, measured.about["offered_throughput"], measured.about["duration_s"])
    line = f"{figures.throughput:.0f} of {figures.offered_throughput:.0f} tokens/s; {measured.client.describe()}"
    return f"{line}; {failed} requests failed ({measured.about['first_failure']})" if failed else line


def comparison_of(job: Job, windows: list[Measurement], placed: Placed) -> GpuComparison:
    """Measured and simulated figures of one GPU."""
    offered = job.simulated.offered_throughput
    measured = [
        no_start(offered, len(job.requests))
        if window.about["memory_error"]
        else figures_of(window.answers, offered, placed.workload.duration_s)
        for window in windows
    ]
    return GpuComparison(
        number=job.number,
        flags=job.flags,
        n_adapters=len(job.ranks),
        measured=tuple(measured),
        simulated=simulated_figures(job.simulated),
        metrics=tuple(window.metrics for window in windows),
        curves=simulated_curves(job.simulated, job.requests.arrival_s, placed.workload.duration_s),
        client_limited=any(window.client.was_the_limit for window in windows),
    )


if __name__ == "__main__":
    main()
