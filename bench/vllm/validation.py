"""A placement on real vLLM servers: each GPU served, measured and put beside the twin."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.vllm.backends import Cores, EngineConfig, devices, find_python, share_cores, versions
from bench.vllm.comparison import GpuComparison, simulated_curves, simulated_figures
from bench.vllm.failures import ServerError
from bench.vllm.flags import ServerFlags
from bench.vllm.measurement import (
    Figures,
    Measurement,
    figures_of,
    judgement_of,
    load_measurement,
    measurement_of,
    no_start,
)
from bench.vllm.placements import Placed
from bench.vllm.session import calls_of, serving
from twin import GpuResult, Requests, UserError
from twin.simulate import simulate_gpu

#: The twin's state is sampled as often as the server's.
SAMPLE_EVERY_S = 1.0


@dataclass
class ValidationOptions:
    """How a placement is served for real.

    `conf/validate.yaml` says what each option is for.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)
    seed: int = 0
    duration_s: float | None = None
    parallel: int | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One GPU of the placement: its server, its requests, what the twin says, and until when the server is listened to."""

    number: int
    flags: ServerFlags
    ranks: tuple[int, ...]
    requests: Requests
    simulated: GpuResult
    until_s: float

    def fingerprint(self, placed: Placed) -> str:
        """What a measurement must have been made of to be this one's."""
        flags = asdict(self.flags)
        # Windows that were measured before there were these flags.
        for name, before in (("tensor_parallel_size", 1), ("prefix_caching", False)):
            if name in flags and flags[name] == before:
                del flags[name]
        parts = hashlib.sha256(json.dumps([flags, self.ranks, placed.profile.model]).encode())
        for values in (self.requests.arrival_s, self.requests.adapter, self.requests.prompt_tokens):
            parts.update(np.ascontiguousarray(values).tobytes())
        parts.update(np.ascontiguousarray(self.requests.output_tokens).tobytes())
        return parts.hexdigest()[:16]


def jobs_of(placed: Placed, gpus: list[int] | None) -> list[Job]:
    """The GPUs to validate, all by default, with their requests as the twin gets them."""
    chosen = range(placed.placement.n_gpus) if gpus is None else gpus
    jobs = []
    intervals = placed.placement.routing_intervals(placed.workload.n_adapters)
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
            service=placed.service,
        )
        flags = ServerFlags.of(placed.profile, ranks, plan.max_loras, plan.max_cpu_loras)
        requests = placed.arriving.requests_of(local, intervals[number])
        # What arrives when the last judged request is done or late tells nothing any more.
        until_s = placed.service.horizon_s(requests, placed.workload.duration_s)
        requests = requests.take(np.flatnonzero(requests.arrival_s < until_s))
        jobs.append(Job(number, flags, ranks, requests, simulated, until_s))
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
    options: ValidationOptions, placed: Placed, todo: list[tuple[Job, list[int]]], out: Path, console: Console
) -> None:
    """Serve the GPUs, as many at a time as there is hardware for."""
    slots: asyncio.Queue[tuple[Cores, str | None]] = asyncio.Queue()
    gpus = devices(options.engine)
    parallel = options.parallel or max(1, len(gpus))
    if gpus and parallel > len(gpus):
        raise UserError(f"parallel={parallel}: there are only {len(gpus)} GPUs")
    for number, cores in enumerate(share_cores(options.engine.model_cores, parallel)):
        slots.put_nowait((cores, gpus[number] if gpus else None))
    waiting = list(reversed(todo))

    async def worker() -> None:
        while waiting:
            job, repeats = waiting.pop()
            slot = await slots.get()
            try:
                await serve_gpu(options, placed, job, repeats, out, console, slot)
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
    options: ValidationOptions,
    placed: Placed,
    job: Job,
    repeats: list[int],
    out: Path,
    console: Console,
    slot: tuple[Cores, str | None],
) -> None:
    """Serve one GPU's requests on a new server, as often as asked for, and keep what was measured."""
    cores, gpu = slot
    about: dict[str, Any] = {
        "fingerprint": job.fingerprint(placed),
        "profile": placed.profile.name,
        "gpu": job.number,
        "flags": asdict(job.flags),
        "n_adapters": len(job.ranks),
        "offered_throughput": job.simulated.offered_throughput,
        "window_s": placed.workload.duration_s,
    }

    def keep(repeat: int, measured: Measurement) -> None:
        measured.save(*place(job, repeat, out))
        console.print(f"GPU {job.number}, run {repeat + 1}: {describe(measured)}")

    try:
        async with serving(
            options.engine, job.flags, placed.profile.model, job.ranks, out / "made",
            place(job, repeats[0], out)[0] / "server.log", seed=placed.workload.seed, cores=cores, gpu=gpu,
        ) as session:  # fmt: skip
            console.print(f"GPU {job.number}: server ready in {session.server.start_s:.0f} s")
            for repeat in repeats:
                await session.settle()
                replay, metrics = await session.open_loop(job.requests.arrival_s, calls_of(job.requests), job.until_s)
                details = {**about, **session.about, "repeat": repeat, "memory_error": ""}
                keep(repeat, measurement_of(replay, metrics, details))
    except ServerError as error:
        if not error.is_memory_error:
            raise ServerError(error.kind, f"GPU {job.number}: {error}") from None
        # A verdict like any other: the twin has an opinion on it too.
        for repeat in repeats:
            keep(repeat, nothing_served({**about, "repeat": repeat}, str(error), job.until_s, options))


def nothing_served(about: Mapping[str, Any], error: str, duration_s: float, options: ValidationOptions) -> Measurement:
    """The window of a server that does not start for want of memory."""
    from bench.vllm.client import ClientLoad, Replay
    from bench.vllm.metrics import MetricsSampler

    replay = Replay((), ClientLoad(0.0, 0.0, 0.0, 0.0, 0, 0), duration_s)
    found = versions(find_python(options.engine.python))
    return measurement_of(replay, MetricsSampler("").table(), {**about, **found, "memory_error": error})


def describe(measured: Measurement) -> str:
    """One line on a finished window."""
    if measured.about["memory_error"]:
        return f"memory error: {measured.about['memory_error']}"
    failed = measured.about["failed_requests"]
    figures = figures_of(
        measured.answers,
        measured.about["offered_throughput"],
        measured.about.get("window_s", measured.about["duration_s"]),
    )
    line = f"{figures.throughput:.0f} of {figures.offered_throughput:.0f} tokens/s; {measured.client.describe()}"
    return f"{line}; {failed} requests failed ({measured.about['first_failure']})" if failed else line


def comparison_of(job: Job, windows: list[Measurement], placed: Placed) -> GpuComparison:
    """Measured and simulated figures of one GPU."""
    measured = [_figures(job, window, placed) for window in windows]
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


def _figures(job: Job, window: Measurement, placed: Placed) -> Figures:
    offered, window_s = job.simulated.offered_throughput, placed.workload.duration_s
    if window.about["memory_error"]:
        return no_start(offered, job.simulated.arrived)
    figures = figures_of(window.answers, offered, window_s)
    if not placed.service.judges_requests:
        return figures
    return replace(figures, judgement=judgement_of(window.answers, job.requests, placed.service, window_s))
