"""A window on a running server: requests sent, metrics sampled, the server watched."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.vllm.adapters import write_adapters
from bench.vllm.backends import Cores, EngineConfig, find_python, versions
from bench.vllm.client import Call, LoadGenerator, Replay, guarded
from bench.vllm.failures import Kind, ServerError
from bench.vllm.flags import ServerFlags
from bench.vllm.metrics import MetricsSampler, parse_metrics, text_of
from bench.vllm.models import model_shape, write_model
from bench.vllm.server import Server, adapter_name, running_server
from twin import Requests

#: Requests that a new server answers before it is measured: its first steps allocate and compile. How many, and for
#: how long at most: by hand.
WARM_UP_CALLS = 24
WARM_UP_S = 60.0
#: They arrive over so many seconds, by hand.
WARM_UP_SPREAD_S = 2.0
#: How long a server may take to drop the requests of a finished window, and how often it is asked. By hand.
SETTLE_S, SETTLE_POLL_S = 60.0, 0.5


@dataclass
class Session:
    """A server that is ready, and the windows on it."""

    server: Server
    vocabulary: int
    seed: int
    about: dict[str, Any] = field(default_factory=dict)

    async def open_loop(
        self, due_s: NDArray[np.float64], calls: Sequence[Call], duration_s: float
    ) -> tuple[Replay, pd.DataFrame]:
        """Replay requests at their times; the window's answers and its metrics."""
        generator = LoadGenerator(self.server.url, self.vocabulary, self.seed)
        return await self._measured(generator.open_loop(due_s, calls, duration_s), duration_s)

    async def closed_loop(
        self, concurrency: int, calls: Sequence[Call], duration_s: float
    ) -> tuple[Replay, pd.DataFrame]:
        """Keep so many requests open."""
        generator = LoadGenerator(self.server.url, self.vocabulary, self.seed)
        return await self._measured(generator.closed_loop(concurrency, calls, duration_s), duration_s)

    async def warm_up(self, names: Sequence[str], longest: int) -> None:
        """Answer some requests of mixed lengths, alone and together."""
        calls = [
            Call(names[k % len(names)], max(1, longest * (1 + k % 4) // 8), 4 + k % 8) for k in range(WARM_UP_CALLS)
        ]
        generator = LoadGenerator(self.server.url, self.vocabulary, self.seed + 1)
        arrivals = np.linspace(0, WARM_UP_SPREAD_S, len(calls))
        await guarded(generator.open_loop(arrivals, calls, WARM_UP_S, until_answered=True), self.server.watch())

    async def settle(self) -> None:
        """Wait until the server has nothing to do: requests that were open when a window ended are aborted by then.

        Raises
        ------
        ServerError
            If it is still at work after `SETTLE_S`.
        """
        await guarded(self._idle(), self.server.watch())

    async def _idle(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            for _ in range(int(SETTLE_S / SETTLE_POLL_S)):
                async with session.get(f"{self.server.url}/metrics") as response:
                    found = parse_metrics(await text_of(response))
                if found.get("running", 0.0) + found.get("waiting", 0.0) == 0:
                    return
                await asyncio.sleep(SETTLE_POLL_S)
        raise ServerError(Kind.STALLED, f"the server still has requests {SETTLE_S:g} s after the last one was sent")

    async def _measured(self, window: Awaitable[Replay], duration_s: float) -> tuple[Replay, pd.DataFrame]:
        sampler = MetricsSampler(self.server.url)
        sampling = asyncio.create_task(sampler.run())
        try:
            replay = await guarded(window, self.server.watch())
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)
        table = sampler.table()
        # After its end the window's open requests are aborted, and the server seems idle.
        return replay, table[table.time_s < duration_s].reset_index(drop=True)


@contextlib.asynccontextmanager
async def serving(  # noqa: PLR0913  # what a server is made of
    engine: EngineConfig,
    flags: ServerFlags,
    model: str,
    ranks: Sequence[int],
    folder: Path,
    log: Path,
    *,
    seed: int = 0,
    cores: Cores | None = None,
    gpu: str | None = None,
) -> AsyncIterator[Session]:
    """Make model and adapters, start a server for them, warm it up; stop it at the end.

    Parameters
    ----------
    engine : EngineConfig
    flags : ServerFlags
    model : str
        Name in `bench.vllm.models.SHAPES`.
    ranks : sequence of int
        Of the adapters, in the order of their names.
    folder : Path
        Where model and adapters are made.
    log : Path
        File for the server's output.
    seed : int
        Of the prompts.
    cores, gpu
        What the server is bound to.
    """
    flags.check(ranks)
    shape = model_shape(model, engine.model_config)
    model_folder = write_model(shape, folder / "model")
    folders = write_adapters(shape, ranks, folder / "adapters")
    async with running_server(
        engine, flags, model_folder, [folders[rank] for rank in ranks], log, cores=cores, gpu=gpu
    ) as server:
        about = {
            **versions(find_python(engine.python)),
            "engine": engine.name,
            "arguments": list(engine.arguments),
            "model": model,
            "kv_cache_tokens": server.kv_cache_tokens(),
            "start_s": round(server.start_s, 1),
            "model_cores": list(cores.model) if cores else [],
        }
        session = Session(server, int(shape["vocab_size"]), seed, about)
        names = [adapter_name(k) for k in range(len(ranks))]
        await session.warm_up(names, min(flags.max_num_batched_tokens, flags.max_model_len // 2))
        yield session


def calls_of(requests: Requests) -> list[Call]:
    """The requests of one GPU, as its server gets them: adapters are named by their place on the GPU."""
    return [
        Call(adapter_name(int(adapter)), int(prompt), int(output), int(shared))
        for adapter, prompt, output, shared in zip(
            requests.adapter, requests.prompt_tokens, requests.output_tokens, requests.shared(), strict=True
        )
    ]
