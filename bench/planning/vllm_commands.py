"""The `vllm serve` command line of each GPU (flags of vLLM 0.32; 0.8.5 takes them as well)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from bench.planning.adapters import Adapter
from bench.planning.answer import GpuAnswer
from twin import ServingProfile, UserError


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
    """

    model: str
    profile: ServingProfile
    adapter_path: str = "/adapters/{name}"
    first_port: int = 8000
    gpus_per_host: int = 8
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key, text in (("model", self.model), ("adapter_path", self.adapter_path)):
            if not text.strip() or text.startswith("-"):
                raise UserError(f"{key}={text!r} must be a folder or a repository, which begins with no hyphen")
        if "{name}" not in self.adapter_path:
            raise UserError(f"adapter_path={self.adapter_path} must have {{name}} in it, where the adapter's name goes")
        if self.gpus_per_host < 1:
            raise UserError(f"gpus_per_host={self.gpus_per_host} must be 1 or more")
        if self.gpus_per_host < self.profile.tensor_parallel_size:
            raise UserError(
                f"gpus_per_host={self.gpus_per_host} must be {self.profile.tensor_parallel_size} or more: profile {self.profile.name} is "
                "of servers with so many GPUs"
            )
        if not 0 < self.first_port <= 65536 - self.gpus_per_host:
            raise UserError(f"port={self.first_port} must leave room for a port for each GPU of a host below 65536")

    def path_of(self, adapter: Adapter) -> str:
        """Where vLLM finds an adapter."""
        return adapter.path or self.adapter_path.replace("{name}", adapter.name)

    def place_of(self, gpu: int) -> tuple[int, int, int]:
        """Host, first device on it and port of a planned GPU, all counted from 0 but the port."""
        parallel = self.profile.tensor_parallel_size
        host, place = divmod(gpu, self.gpus_per_host // parallel)
        return host, place * parallel, self.first_port + place

    def devices_of(self, gpu: int) -> str:
        """Devices of a planned GPU as `CUDA_VISIBLE_DEVICES` names them: several for a server that shares its layers."""
        first = self.place_of(gpu)[1]
        return ",".join(str(first + number) for number in range(self.profile.tensor_parallel_size))


def lora_modules(adapters: Sequence[Adapter], serving: Serving) -> list[str]:
    """`--lora-modules` and a value for each adapter.

    vLLM splits `name=path` at the first "=", and takes whatever has a "," for JSON
    (`LoRAParserAction` in `vllm/entrypoints/launchers/cli_args.py`); such names and paths are given as JSON.
    """
    return ["--lora-modules", *(_module(adapter.name, serving.path_of(adapter)) for adapter in adapters)]


def arguments(gpu: GpuAnswer, serving: Serving) -> list[str]:
    """The command line of a GPU's server, one list item for each argument."""
    flags = gpu.flags(serving.profile)
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
        f"# Starts the servers of host {host}: {len(mine)} of {len(gpus)} GPUs. Written by python -m bench.plan.",
        "trap 'kill 0' INT TERM",
    ]
    for gpu in mine:
        lines += ["", f"# GPU {gpu.gpu}: {len(gpu.adapters)} adapters", f"{command_line(gpu, serving)} &"]
    return "\n".join([*lines, "", "wait", ""])


def _module(name: str, path: str) -> str:
    if "=" in name or "," in name + path:
        return json.dumps({"name": name, "path": path}, ensure_ascii=False)
    return f"{name}={path}"
