"""One vLLM server as a subprocess: its command, its start, its log, its end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.shared.processes import PR_SET_PDEATHSIG
from bench.vllm.backends import Cores, EngineConfig, find_python
from bench.vllm.failures import Kind, ServerError, explain_log
from bench.vllm.flags import ServerFlags

#: Name of the base model in requests.
BASE_MODEL = "base"

#: How long a server may take to end by itself before it is killed, in seconds. By hand.
STOP_S = 20.0

# vLLM closes an idle connection after 5 s by default; a pool that reuses it at that moment loses a request.
# An hour is longer than any window that is measured.
_KEEP_ALIVE_S = 3600
# How often a starting server is asked whether it is ready; by hand, it takes many seconds.
_POLL_S = 0.25
_KV_SIZE = re.compile(r"KV cache size: ([\d,]+) tokens")


def adapter_name(number: int) -> str:
    """Name of an adapter in requests."""
    return f"adapter-{number}"


def command(  # noqa: PLR0913  # what a command line is made of
    engine: EngineConfig, flags: ServerFlags, model: Path, adapters: Sequence[Path], port: int, python: str
) -> list[str]:
    """The command line of a server."""
    line = [
        python, "-m", "vllm.entrypoints.openai.api_server",
        "--host", engine.host, "--port", str(port),
        "--model", str(model), "--served-model-name", BASE_MODEL,
        "--load-format", "dummy", "--skip-tokenizer-init", "--dtype", engine.dtype,
        *flags.limit_arguments(),
        *flags.lora_arguments(),
        *engine.arguments,
    ]  # fmt: skip
    if adapters:
        line += ["--lora-modules", *(f"{adapter_name(k)}={path}" for k, path in enumerate(adapters))]
    return line


@dataclass
class Server:
    """A running server.

    Attributes
    ----------
    url : str
    process : asyncio.subprocess.Process
    log : Path
    start_s : float
        How long it took to be ready.
    """

    url: str
    process: asyncio.subprocess.Process
    log: Path
    start_s: float = 0.0

    def log_lines(self) -> list[str]:
        """The log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def kv_cache_tokens(self) -> int:
        """Size of its KV cache, as the log tells it; 0 where it does not."""
        found = _KV_SIZE.findall("\n".join(self.log_lines()))
        return int(found[-1].replace(",", "")) if found else 0

    def failure(self) -> ServerError:
        """What a dead server's log tells."""
        return explain_log(self.log_lines(), self.process.returncode)

    async def watch(self) -> None:
        """Wait until the server dies and raise what its log tells."""
        await self.process.wait()
        raise self.failure()


@contextlib.asynccontextmanager
async def running_server(  # noqa: PLR0913  # what a server is made of
    engine: EngineConfig,
    flags: ServerFlags,
    model: Path,
    adapters: Sequence[Path],
    log: Path,
    *,
    cores: Cores | None = None,
    gpu: str | None = None,
) -> AsyncIterator[Server]:
    """Start a server, wait until it is ready, and stop it with all its processes at the end.

    Parameters
    ----------
    engine : EngineConfig
    flags : ServerFlags
    model : Path
        Folder with its `config.json`.
    adapters : sequence of Path
        Folder of each adapter.
    log : Path
        File for what the server writes.
    cores : Cores, optional
        Processor cores of the CPU back end.
    gpu : str, optional
        The GPU that it sees.

    Raises
    ------
    ServerError
        Named in one line, if it does not start or dies while it is used.
    """
    python = find_python(engine.python)
    port = free_port(engine.host, engine.port)
    bound = cores or Cores()
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command(engine, flags, model, adapters, port, python),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=_environment(engine, bound, gpu),
            start_new_session=True,
            preexec_fn=functools.partial(_child_setup, bound.others),
        )
    server = Server(f"http://{engine.host}:{port}", process, log)
    try:
        await _until_ready(server, engine.start_timeout_s)
        server.start_s = time.monotonic() - began
        yield server
    finally:
        await asyncio.shield(_stop(process))


def _environment(engine: EngineConfig, cores: Cores, gpu: str | None) -> dict[str, str]:
    """Environment variables of a server's process."""
    environment = {
        **os.environ,
        # Without a word of it to anyone, and without asking a hub for the model.
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(_KEEP_ALIVE_S),
        **{key: str(value) for key, value in engine.environment.items()},
    }
    if cores.model:
        environment["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores.model))
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return environment


def _child_setup(cores: Sequence[int]) -> None:
    """In the child, before vLLM: bind it, and let it end with this process, however that ends."""
    if cores:
        os.sched_setaffinity(0, cores)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port(host: str, port: int) -> int:
    """The port if it is free, or any free one for 0.

    Raises
    ------
    ServerError
        If it is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServerError(
                Kind.PORT_IN_USE,
                f"engine.port={port} on {host} cannot be used ({error.strerror}); engine.port=0 takes a free one",
            ) from None
        return int(probe.getsockname()[1])


async def _until_ready(server: Server, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while time.monotonic() < deadline:
            if server.process.returncode is not None:
                raise server.failure()
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                async with session.get(f"{server.url}/health") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(_POLL_S)
    raise ServerError(
        Kind.NOT_READY,
        f"the server is not ready after engine.start_timeout_s={timeout_s:g}; its log is {server.log}",
    )


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a server and every process of its session."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_S)
    # Engine and workers live on where the API server was killed; the process group has them all.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    for _ in range(100):
        if not session_processes(process.pid):
            return
        await asyncio.sleep(0.05)


def session_processes(session: int) -> list[int]:
    """Processes of a session that are alive."""
    alive = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                state, *rest = (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
                if int(rest[2]) == session and state != "Z":
                    alive.append(int(entry.name))
    return alive
