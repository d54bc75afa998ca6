"""The `vllm serve` command line of each GPU (flags of vLLM 0.32; 0.8.5 takes them as well)."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from bench.planning.adapters import Adapter
from bench.planning.answer import GpuAnswer
from twin import Fleet, ServingProfile, UserError


@dataclass(frozen=True)
class Serving:
    """What the servers have in common.

    Attributes
    ----------
    model : str
        Base model: a Hugging Face repository or a folder.
    profile : ServingProfile
        Its limits are the servers' flags, as the figures hold for them only.
    adapter_path : str
        Where adapters without a path are; `{name}` in it is the adapter's name.
    first_port : int
    gpus_per_host : int
        GPUs of one host: ports and `CUDA_VISIBLE_DEVICES` start anew on each.
    extra : tuple of str
        Further arguments of every server.
    fleet : Fleet, optional
        Types of the GPUs; those of one type have hosts of their own.
    kinds : tuple of str
        With a fleet of several types, the type of each planned GPU.
    """

    model: str
    profile: ServingProfile
    adapter_path: str = "/adapters/{name}"
    first_port: int = 8000
    gpus_per_host: int = 8
    extra: tuple[str, ...] = ()
    fleet: Fleet | None = None
    kinds: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        for key, text in (("model", self.model), ("adapter_path", self.adapter_path)):
            if not text.strip() or text.startswith("-"):
                raise UserError(f"{key}={text!r} must be a folder or a repository, which begins with no hyphen")
        if "{name}" not in self.adapter_path:
            raise UserError(f"adapter_path={self.adapter_path} must have {{name}} in it, where the adapter's name goes")
        if self.gpus_per_host < 1:
            raise UserError(f"gpus_per_host={self.gpus_per_host} must be 1 or more")
        for profile in [self.profile] if self.fleet is None else [kind.profile for kind in self.fleet.types]:
            if self.gpus_per_host < profile.tensor_parallel_size:
                raise UserError(
                    f"gpus_per_host={self.gpus_per_host} must be {profile.tensor_parallel_size} or more: profile {profile.name} is "
                    "of servers with so many GPUs"
                )
        if not 0 < self.first_port <= 65536 - self.gpus_per_host:
            raise UserError(f"port={self.first_port} must leave room for a port for each GPU of a host below 65536")

    def path_of(self, adapter: Adapter) -> str:
        """Where vLLM finds an adapter."""
        return adapter.path or self.adapter_path.replace("{name}", adapter.name)

    def place_of(self, gpu: int) -> tuple[int, int, int]:
        """Host, first device on it and port of a planned GPU, all counted from 0 but the port."""
        parallel = self.profile_of(gpu).tensor_parallel_size
        host, place = divmod(self._number(gpu), self.gpus_per_host // parallel)
        return self._first_host(gpu) + host, place * parallel, self.first_port + place

    def profile_of(self, gpu: int) -> ServingProfile:
        """Serving profile of the type that a planned GPU is of."""
        if self.fleet is None or not self.kinds:
            return self.profile
        return next(kind.profile for kind in self.fleet.types if kind.name == self.kinds[gpu])

    def _number(self, gpu: int) -> int:
        """Which one of its type a planned GPU is."""
        return self.kinds[:gpu].count(self.kinds[gpu]) if self.kinds else gpu

    def _first_host(self, gpu: int) -> int:
        """The first host of a planned GPU's type."""
        hosts = 0
        for kind in () if self.fleet is None or not self.kinds else self.fleet.types:
            if kind.name == self.kinds[gpu]:
                break
            each = self.gpus_per_host // kind.profile.tensor_parallel_size
            hosts += math.ceil(self.kinds.count(kind.name) / each)
        return hosts

    def devices_of(self, gpu: int) -> str:
        """Devices of a planned GPU as `CUDA_VISIBLE_DEVICES` names them: several for a server that shares its layers."""
        first = self.place_of(gpu)[1]
        return ",".join(str(first + number) for number in range(self.profile_of(gpu).tensor_parallel_size))


def lora_modules(adapters: Sequence[Adapter], serving: Serving) -> list[str]:
    """`--lora-modules` and a value for each adapter.

    vLLM splits `name=path` at the first "=", and takes whatever has a "," for JSON
    (`LoRAParserAction` in `vllm/entrypoints/launchers/cli_args.py`); such names and paths are given as JSON.
    """
    return ["--lora-modules", *(_module(adapter.name, serving.path_of(adapter)) for adapter in adapters)]


def arguments(gpu: GpuAnswer, serving: Serving) -> list[str]:
    """The command line of a GPU's server, one list item for each argument."""
    flags = gpu.flags(serving.profile_of(gpu.gpu))
    return [
        "vllm", "serve", serving.model,
        "--port", str(serving.place_of(gpu.gpu)[2]),
        *flags.limit_arguments(),
        *flags.lora_arguments(),
        *serving.extra,
        *lora_modules(gpu.adapters, serving),
    ]  # fmt: skip


def command_line(gpu: GpuAnswer, serving: Serving) -> str:
    """The command for a shell, on the device of its host that the GPU is."""
    return f"CUDA_VISIBLE_DEVICES={serving.devices_of(gpu.gpu)} {shlex.join(arguments(gpu, serving))}"


def script(gpus: Sequence[GpuAnswer], serving: Serving, host: int) -> str:
    """A shell script that starts the servers of one host and waits for them.

    It ends all of them when it is interrupted.
    """
    mine = [gpu for gpu in gpus if serving.place_of(gpu.gpu)[0] == host]
    lines = [
        "#!/bin/sh",
        f"# Starts the servers of host {host}{_of_type(mine[0])}: {len(mine)} of {len(gpus)} GPUs. Written by python -m bench.plan.",
        "trap 'kill 0' INT TERM",
    ]
    for gpu in mine:
        lines += ["", f"# GPU {gpu.gpu}: {len(gpu.adapters)} adapters", f"{command_line(gpu, serving)} &"]
    return "\n".join([*lines, "", "wait", ""])


def _of_type(gpu: GpuAnswer) -> str:
    return "" if gpu.gpu_type is None else f" (GPUs of type {gpu.gpu_type})"


def _module(name: str, path: str) -> str:
    if "=" in name or "," in name + path:
        return json.dumps({"name": name, "path": path}, ensure_ascii=False)
    return f"{name}={path}"
