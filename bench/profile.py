"""`python -m bench.profile model=... gpu=...`: a serving profile of a server that nobody measured.

Kernel tables say what a step of the model takes on the GPU, the model's `config.json` what it needs of memory, and the measured
profiles what the rest takes: host, LoRA kernels, loads (bench/estimating). With `runs=DIR` it measures instead how wrong that is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.estimating.anchor import anchored, with_specialised_kernels
from bench.estimating.constants import measured_constants, version_numbers
from bench.estimating.estimate import ONE_POINT_ERROR_PCT, STEP_ERROR_PCT, ServerShape, estimate_profile
from bench.estimating.gpus import gpu_named
from bench.estimating.shape import load_shape
from bench.estimating.steps import KernelFit
from bench.estimating.tables import DTYPES
from bench.estimating.transfer import transfers
from bench.estimating.transfer_picture import draw
from bench.measured.profile_from_scrapes import FLAGS
from bench.shared.command import command
from bench.shared.files import check_folder
from bench.shared.terminal import console
from twin import ServingProfile, UserError, load_profile
from twin.files import write_text
from twin.numbers import number, seed_number, whole

#: `max_num_batched_tokens` and `max_num_seqs` of an API server, as vLLM chooses them: on large GPUs, and on others.
WIDE, NARROW = (8192, 1024), (2048, 256)


@dataclass
class ProfileConfig:
    """Options of `python -m bench.profile`; `conf/profile.yaml` says what each is for."""

    model: str | None = None
    gpu: str | None = None
    tp: int = 1
    dtype: str = "bf16"
    vllm: str = "0.24.0"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    profile: str | None = None
    anchor: str | None = None
    specialize_active_lora: bool = False
    max_loras: int | None = None
    max_lora_rank: int | None = None
    kv_cache_tokens: int | None = None
    n_adapters: int | None = None
    name: str | None = None
    out: str = "results/runs/profiles"
    runs: str | None = None
    window_s: float = 3600.0
    seed: int = 0


@command("profile", ProfileConfig)
def main(config: ProfileConfig) -> None:
    """Estimate one profile and write it, or measure the error of estimates."""
    terminal = console()
    seed_number("seed", config.seed)
    out = check_folder("out", config.out)
    if config.runs is not None:
        measure(config, out, terminal)
        return
    profile, kernels = _estimated(config)
    if config.specialize_active_lora:
        profile = with_specialised_kernels(profile)
    anchor = None
    if config.anchor is not None:
        profile, anchor = anchored(profile, config.anchor, {flag: getattr(config, flag) for flag in FLAGS})
    suffix = ("-specialized" if config.specialize_active_lora else "") + ("-anchored" if anchor else "")
    profile = replace(profile, name=config.name or f"{profile.name}{suffix}")
    path = out / f"{profile.name.replace('/', '__')}.json"
    profile.save(path)
    terminal.print(
        f"{profile.name}: {profile.model} on {profile.gpu}, vLLM {profile.engine_version}, estimated, seed {config.seed}"
    )
    terminal.print(
        f"step of one request {sum(profile.step_coefficients(0, 8)[place] for place in (0, 1, 3)):.1f} ms without adapters; "
        f"KV cache of {profile.kv_tokens(8, profile.ranks[0])} tokens with 8 slots of rank {profile.ranks[0]}; "
        f"at most {profile.largest_max_loras(profile.server_rank(min(16, profile.ranks[-1])))} slots of rank 16"
    )
    if anchor is None:
        terminal.print(
            f"nobody measured this server: step times of models that were not measured are {STEP_ERROR_PCT:.0f} % off in the mean "
            f"(results/profiles)"
        )
    else:
        terminal.print(
            f"scaled to {config.anchor}: steps take {anchor.steps:.3f} times as long as estimated, the KV cache has "
            f"{anchor.kv_cache:.3f} times as many tokens; its {anchor.windows} windows are then {anchor.scatter_pct:.1f} % off, other "
            f"servers {ONE_POINT_ERROR_PCT:.0f} % (results/profiles)"
        )
    if kernels is not None:
        terminal.print(
            f"the terms follow the kernel tables within {kernels.error_pct:.1f} % (95 % of steps: {kernels.error_p95_pct:.0f} %)"
        )
    terminal.print(f"wrote {path}")


def _estimated(config: ProfileConfig) -> tuple[ServingProfile, KernelFit | None]:
    """The estimate to start from: one that is there, or one that the kernel tables give."""
    if config.profile is not None:
        if config.model is not None or config.gpu is not None:
            raise UserError(
                f"profile={config.profile}: is an estimate that is there; leave model and gpu out, or profile"
            )
        if config.anchor is None and not config.specialize_active_lora:
            raise UserError(
                f"profile={config.profile}: what is to become of it? anchor=FILE scales it to a measured server"
            )
        profile = load_profile(config.profile)
        if not profile.provenance.get("estimated"):
            raise UserError(
                f"profile={config.profile}: was measured; an estimated one would be right: python -m bench.calibrate metrics=[FILE] "
                f"prior={config.profile} fits a profile to measurements"
            )
        return profile, None
    if config.model is None or config.gpu is None:
        raise UserError(
            "give model=NAME (or the folder of its config.json) and gpu=NAME; profile=NAME for an estimate that is there; or runs=DIR to "
            "measure the error"
        )
    shape, server = load_shape(config.model), _server(config)
    parts = [
        server.gpu.name,
        *([f"tp{server.tp}"] if server.tp > 1 else []),
        *([server.dtype] if server.dtype != "bf16" else []),
    ]
    base = config.model if config.model.islower() and "/" not in config.model else shape.name.split("/")[-1].lower()
    name = f"{base.removesuffix('.json')}/{'-'.join(parts)}"
    estimate = estimate_profile(config.name or name, shape, server, measured_constants(), seed=config.seed)
    return estimate.profile, estimate.kernels


def measure(config: ProfileConfig, out: Path, terminal: Console) -> None:
    """Write `transfer.csv`, `transfer_runs.csv` and `transfer.png`."""
    number("window_s", config.window_s, above=0.0, at_most=1e5, unit="seconds")
    found, rows = transfers(str(config.runs), config.window_s, config.seed, terminal)
    table = Table(title="A measured model, estimated from the other one")
    for heading in (
        "constants of",
        "estimated",
        "runs",
        "step time off",
        "bias",
        "with one point",
        "KV cache off",
        "at most",
    ):
        table.add_column(heading, justify="left" if heading in ("constants of", "estimated") else "right")
    for one in found:
        table.add_row(
            one.source, one.target, str(one.runs), f"{one.step_error_pct:.1f} %", f"{one.step_bias_pct:+.1f} %",
            f"{one.one_point_error_pct:.1f} %", f"{one.kv_error_pct:.1f} %", f"{one.kv_worst_pct:.1f} %",
        )  # fmt: skip
    summary = pd.DataFrame([asdict(one) for one in found]).round(2)
    write_text(out / "transfer.csv", summary.to_csv(index=False))
    write_text(out / "transfer_runs.csv", rows.to_csv(index=False))
    draw(rows, out / "transfer.png")
    terminal.print(table)
    terminal.print(f"wrote {out}/transfer.csv, transfer_runs.csv, transfer.png (seed {config.seed})")


def _server(config: ProfileConfig) -> ServerShape:
    gpu = gpu_named(str(config.gpu))
    if config.dtype not in DTYPES:
        raise UserError(f"dtype={config.dtype}: must be one of {', '.join(DTYPES)}")
    whole("tp", config.tp, at_least=1, at_most=8, unit="GPUs")
    version_numbers(config.vllm)
    batched, seqs = WIDE if gpu.wide_steps else NARROW
    context = load_shape(str(config.model)).context
    limits = {
        "max_num_seqs": (config.max_num_seqs, seqs, 10**5),
        "max_num_batched_tokens": (config.max_num_batched_tokens, batched, 10**6),
        "max_model_len": (config.max_model_len, context, context),
    }
    chosen = {
        key: whole(key, default if value is None else value, at_least=1, at_most=most)
        for key, (value, default, most) in limits.items()
    }
    return ServerShape(gpu, config.tp, config.dtype, config.vllm.removeprefix("v"), **chosen)


if __name__ == "__main__":
    main()
