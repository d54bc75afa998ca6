"""The four overheads of a GPU with adapters, measured points beside what the serving profile says (Figures 4 to 7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.measured.profile_from_runs import VERSION, micro_benchmarks
from bench.measured.published import PROFILE_OF_MODEL, read_table
from bench.shared.figures import INK, MARKERS, png_figure
from twin import ServingProfile, load_profile
from twin.profile import STEP_TERMS

#: The published twin's step, (c1 x running + c2) x (o1 x adapters + o2) / 100 ms, by model, and its scheduling time in seconds:
#: weights of running, waiting and waiting x max_loras / adapters, each scaled to its range (arXiv 2508.08343 and its repository).
_PUBLISHED_STEP = {
    "llama-3.1-8b-instruct": (0.0437994, 10.54174836, 1.93011757, 200.01448221),
    "qwen-2.5-7b-instruct": (0.04894489, 10.61679297, 1.66851571, 177.69399315),
}
_PUBLISHED_SCHEDULING = (
    (0.004373, 0.232143, 1081.371212),
    (0.004615, 0.0, 20309.088235),
    (-0.004391, 0.0, 16371.311594),
)
_PUBLISHED_SCHEDULING_CONSTANT = -0.000196423


def overheads_table(folder: str) -> pd.DataFrame:
    """Every measured point of the four figures.

    Parameters
    ----------
    folder : str
        With the calibration tables.

    Returns
    -------
    DataFrame
        `overhead` says of what, `unit` in what; `max_loras`, `max_lora_rank`, `rank`, `adapters` (distinct ones in a step), `running`,
        `waiting` say where, as far as they matter; `measured`, `profile` (0 tokens: does not start), and `published_twin`, which
        has formulas for two of them and takes the measured figures for the others.

    Raises
    ------
    UserError
        If a table or a column is missing.
    """
    parts = []
    for model, name in PROFILE_OF_MODEL.items():
        profile = load_profile(name)
        parts += [of(folder, model, profile).assign(model=model) for of in (_memory, _computing, _loading)]
    parts.append(_scheduling(folder, load_profile("llama-3.1-8b")).assign(model="not stated"))
    return pd.concat(parts, ignore_index=True)


def errors_table(points: pd.DataFrame) -> pd.DataFrame:
    """For each overhead and model: points, means of |x - measured| / measured in percent, points where both say whether it starts."""
    records = []
    for (overhead, model), group in points.groupby(["overhead", "model"], sort=False):
        measured = group[group.measured > 0]
        error = (measured.profile / measured.measured - 1).abs()
        theirs = (measured.published_twin / measured.measured - 1).abs()
        records.append(
            {
                "overhead": overhead,
                "model": model,
                "points": len(group),
                "mean_error_pct": error.mean() * 100,
                "median_error_pct": error.median() * 100,
                "published_twin_mean_error_pct": theirs.mean() * 100,
                "agree_on_starting": int(((group.measured > 0) == (group.profile > 0)).sum()),
            }
        )
    return pd.DataFrame(records)


def _memory(folder: str, model: str, profile: ServingProfile) -> pd.DataFrame:
    columns = ("model", "vllm_version", "max_loras", "max_lora_rank", "kv_cache_tokens", "memory_error")
    table = read_table(folder, "kv_capacity.csv", columns)
    known = (table.model == model) & (table.vllm_version == VERSION) & (table.max_loras > 0)
    # More slots than anybody measured as a row of its own are none of the profile's.
    chosen = table[known & (table.max_loras <= profile.kv.max_loras[-1])]
    failed = chosen.memory_error.map(str).str.lower() == "true"
    return pd.DataFrame(
        {
            "overhead": "memory: KV cache left",
            "unit": "tokens",
            "max_loras": chosen.max_loras,
            "max_lora_rank": chosen.max_lora_rank,
            "measured": chosen.kv_cache_tokens.where(~failed, 0),
            "profile": [
                profile.kv_tokens(int(slots), int(rank))
                for slots, rank in zip(chosen.max_loras, chosen.max_lora_rank, strict=True)
            ],
        }
    )


def _computing(folder: str, model: str, profile: ServingProfile) -> pd.DataFrame:
    terms, measured, _ = micro_benchmarks(folder, model)
    c1, c2, o1, o2 = _PUBLISHED_STEP[model]
    of = {name: terms[:, STEP_TERMS.index(name)] for name in ("running", "adapters", "max_loras", "rank")}
    return pd.DataFrame(
        {
            "overhead": "computing: a step without scheduling",
            "unit": "ms",
            "max_loras": of["max_loras"],
            "max_lora_rank": of["rank"],
            "adapters": of["adapters"],
            "running": of["running"],
            "measured": measured,
            "profile": np.maximum(terms @ np.array(profile.step_ms), profile.min_step_ms),
            "published_twin": (c1 * of["running"] + c2) * (o1 * of["adapters"] + o2) / 100,
        }
    )


def _loading(folder: str, model: str, profile: ServingProfile) -> pd.DataFrame:
    columns = ("model", "vllm_version", "phase", "max_lora_rank", "adapter_rank", "mean_ms")
    table = read_table(folder, "load_latency.csv", columns)
    known = (table.model == model) & (table.vllm_version == VERSION)
    chosen = table[known & (table.phase == "serving_cpu_to_gpu")]
    return pd.DataFrame(
        {
            "overhead": "loading: an adapter to the GPU",
            "unit": "ms",
            "max_lora_rank": chosen.max_lora_rank,
            "rank": chosen.adapter_rank,
            "measured": chosen.mean_ms,
            "profile": [
                profile.load_time_ms(int(server), int(rank))
                for server, rank in zip(chosen.max_lora_rank, chosen.adapter_rank, strict=True)
            ],
        }
    )


def _scheduling(folder: str, profile: ServingProfile) -> pd.DataFrame:
    columns = ("max_loras", "n_adapters", "avg_batch_size", "avg_waiting_queue", "sched_ms_per_step")
    table = read_table(folder, "sched_overhead.csv", columns)
    constant, running, skipped, waiting = profile.scheduler_ms
    passed_over = table.avg_waiting_queue * (1 - table.max_loras / table.n_adapters).clip(lower=0)
    values = (
        table.avg_batch_size,
        table.avg_waiting_queue,
        table.avg_waiting_queue * table.max_loras / table.n_adapters,
    )
    theirs = np.full(len(table), _PUBLISHED_SCHEDULING_CONSTANT)
    for of, (weight, least, most) in zip(values, _PUBLISHED_SCHEDULING, strict=True):
        theirs = theirs + weight * (of.to_numpy() - least) / (most - least)
    return pd.DataFrame(
        {
            "overhead": "scheduling: a step",
            "unit": "ms",
            "max_loras": table.max_loras,
            "adapters": table.n_adapters,
            "running": table.avg_batch_size,
            "waiting": table.avg_waiting_queue,
            "measured": table.sched_ms_per_step,
            "profile": constant
            + running * table.avg_batch_size
            + skipped * passed_over
            + waiting * table.avg_waiting_queue,
            "published_twin": 1000 * np.maximum(theirs, 0.0),
        }
    )


def draw(points: pd.DataFrame, path: Path) -> None:
    """Profile over measured, a panel for each overhead; on the line they agree.

    Parameters
    ----------
    points : DataFrame
        As `overheads_table` makes it.
    path : Path
        A PNG file.
    """
    names = list(points.overhead.unique())
    with png_figure(path, (4.2 * len(names), 4.0)) as figure:
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for panel, name in zip(panels, names, strict=True):
            chosen = points[points.overhead == name]
            for (model, group), marker in zip(chosen.groupby("model"), MARKERS, strict=False):
                panel.scatter(group.measured, group.profile, s=12, marker=marker, alpha=0.7, linewidths=0, label=model)
            ends = [0.0, float(chosen[["measured", "profile"]].max().max())]
            panel.plot(ends, ends, color=INK, lw=0.8)
            unit = chosen.unit.iloc[0]
            panel.set(title=name, xlabel=f"measured ({unit})", ylabel=f"profile ({unit})")
            panel.legend(frameon=False, fontsize=7)
