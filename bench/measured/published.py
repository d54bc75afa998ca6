"""Published vLLM runs: read a folder of run tables and say each run as a workload.

The folder holds `runs.csv` (one row per real serving run: configuration, measured figures, quality
flags) and the calibration tables beside it, in the form that the public result logs of
arXiv 2508.08343 (FerranAgulloLopez/GPULLMAdapterOptimization, Apache-2.0) were put into.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.measured.tables import check_columns, read_frame
from bench.vllm.flags import VLLM_LORA_RANKS
from twin import Lengths, UserError, Workload, simulate_requests
from twin.numbers import LONGEST_S, MOST_ADAPTERS, number, whole

if TYPE_CHECKING:
    from twin import GpuResult, ServingProfile

#: Profile that serves a model name of the tables.
PROFILE_OF_MODEL = {
    "llama-3.1-8b-instruct": "llama-3.1-8b",
    "qwen-2.5-7b-instruct": "qwen-2.5-7b",
}

#: The load generator of these runs opened one connection per request and ran out of ports with
#: about this many open; further requests failed at once.
OPEN_REQUESTS_CAP = 25_300

#: Families of Poisson-per-adapter serving runs on vLLM 0.8.5.
SERVING_FAMILIES = ("dt", "ml")

# Mean prompt and requested output tokens of the ShareGPT pool where a row does not give its own.
DEFAULT_PROMPT_TOKENS = 222.7
DEFAULT_OUTPUT_TOKENS = 198.0

_COUNTS = ("max_loras", "n_adapters", "max_lora_rank", "total_time_s")
_FIGURES = (
    "mean_input_len", "mean_output_len", "total_throughput", "output_throughput", "mean_itl_ms", "mean_ttft_ms",
    "kv_cache_tokens", "completed", "total_output_tokens", "median_ttft_ms", "series_mean_running", "series_mean_waiting",
    "series_n_raw", "series_span_s",
)  # fmt: skip

COLUMNS = (
    "run_id", "family", "model", "scenario", "vllm_version", "max_loras", "n_adapters",
    "max_lora_rank", "adapter_ranks", "adapter_rates", "rate_counts", "total_time_s", "status",
    "memory_error", "suspect", "len_source", "mean_input_len", "mean_output_len",
    "total_throughput", "output_throughput", "mean_itl_ms", "mean_ttft_ms", "starved_est",
    "kv_cache_tokens", "port_exhaustion", "completed", "total_output_tokens",
    "median_ttft_ms", "series_mean_running", "series_mean_waiting", "series_n_raw", "series_span_s",
)  # fmt: skip


def read_table(folder: str, name: str, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read one CSV table of the folder.

    Raises
    ------
    UserError
        If the folder, the file or a column is missing.
    """
    path = Path(folder) / name
    if not path.is_file():
        msg = f"runs={folder}: no file {name} in it; give the folder that holds the run tables"
        raise UserError(msg)
    table = read_frame(path, "a table of published runs (CSV)")
    missing = [column for column in columns if column not in table]
    if missing:
        msg = f"{path}: columns {missing} are missing"
        raise UserError(msg)
    return table


def read_runs(folder: str) -> pd.DataFrame:
    """Serving runs of the known models: `status` ok without a suspicion, or a memory error.

    Returns
    -------
    DataFrame, one row per run, with boolean `memory_error` and `port_exhaustion`.
    """
    runs = read_table(folder, "runs.csv", COLUMNS)
    known = runs.model.isin(PROFILE_OF_MODEL) & runs.family.isin(SERVING_FAMILIES)
    usable = ((runs.status == "ok") & runs.suspect.isna()) | (runs.status == "memory_error")
    rows = runs[known & usable].copy()
    path = Path(folder) / "runs.csv"
    if rows.empty:
        raise UserError(
            f"{path}: no run in it can be used: model must be one of {', '.join(PROFILE_OF_MODEL)}, family one of "
            f"{', '.join(SERVING_FAMILIES)}, and status ok (without suspicion) or memory_error"
        )
    check_columns(rows, path, _COUNTS)
    check_columns(rows, path, _FIGURES, empty=True)
    for column in (*_COUNTS, *_FIGURES):
        rows[column] = pd.to_numeric(rows[column])
    for place, row in zip(rows.index, rows.itertuples(), strict=True):
        _check_adapters(row, f"{path}: row {place + 2}")
    rows["memory_error"] = rows.status == "memory_error"
    rows["port_exhaustion"] = rows.port_exhaustion.map(str).str.lower().isin(("true", "1", "1.0"))
    return rows.reset_index(drop=True)


def _check_adapters(row: Any, where: str) -> None:  # noqa: ANN401  # a row of any columns
    """Refuse a run whose adapters cannot be told."""
    count = whole(f"{where}, column n_adapters", _as_whole(row.n_adapters), at_least=1, at_most=MOST_ADAPTERS)
    for column, least in (("max_loras", 1), ("max_lora_rank", 1)):
        whole(f"{where}, column {column}", _as_whole(getattr(row, column)), at_least=least, at_most=10**6)
    number(f"{where}, column total_time_s", row.total_time_s, above=0.0, at_most=LONGEST_S, unit="seconds")
    try:
        ranks, rates = expand_adapters(row.adapter_ranks, row.adapter_rates, row.rate_counts, count)
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{where}: adapter_ranks={row.adapter_ranks}, adapter_rates={row.adapter_rates} and rate_counts={row.rate_counts} "
            f"must be numbers joined by hyphens, as 8-16-32 ({error})"
        ) from None
    if len(rates) != count or not (np.isfinite(rates) & (rates >= 0)).all():
        raise UserError(
            f"{where}: adapter_rates={row.adapter_rates} and rate_counts={row.rate_counts} must give each of the "
            f"{count} adapters a rate, 0 or more"
        )
    if not set(ranks) <= set(VLLM_LORA_RANKS) or max(ranks) > row.max_lora_rank:
        raise UserError(
            f"{where}: adapter_ranks={row.adapter_ranks} must be ranks that vLLM knows ({', '.join(map(str, VLLM_LORA_RANKS))}), at most "
            f"max_lora_rank={row.max_lora_rank:g}"
        )


def _as_whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def expand_adapters(ranks: str, rates: str, counts: object, n_adapters: int) -> tuple[np.ndarray, np.ndarray]:
    """Ranks and rates of a run's adapters.

    The launcher cycled the ranks over the adapters; which of them got which rate is not recorded,
    so rates come in blocks, which crosses the two evenly.
    """
    known_ranks = [int(rank) for rank in str(ranks).split("-")]
    each = [float(rate) for rate in str(rates).split("-")]
    if isinstance(counts, str):
        number = [int(float(count)) for count in counts.split("-")]
    else:
        # Servers that did not start printed no counts; the launcher's are equal to within one.
        number = [len(part) for part in np.array_split(np.arange(n_adapters), len(each))]
    all_rates = np.repeat(each, number)
    return np.resize(known_ranks, n_adapters), np.resize(all_rates, n_adapters)


@dataclass(frozen=True)
class PublishedRun:
    """One run as the twin sees it: its workload and server flags, nothing that was measured."""

    run_id: str
    workload: Workload
    max_loras: int
    max_lora_rank: int


def run_of_row(row: pd.Series, profile: ServingProfile, *, seed: int = 0) -> PublishedRun:
    """Workload and flags of one row of `read_runs`.

    The prompt pool's mean lengths are part of the workload (the client sent them); lengths derived
    from completed requests are a result of the run and are not used.
    """
    n_adapters = int(row.n_adapters)
    ranks, rates = expand_adapters(row.adapter_ranks, row.adapter_rates, row.rate_counts, n_adapters)
    from_pool = row.len_source == "prompt_pool"
    prompt = float(row.mean_input_len) if from_pool else DEFAULT_PROMPT_TOKENS
    output = float(row.mean_output_len) if from_pool else DEFAULT_OUTPUT_TOKENS
    workload = Workload(
        ranks=ranks,
        rates=rates,
        lengths=sharegpt_lengths(prompt, output, profile.generated_fraction),
        duration_s=float(row.total_time_s),
        seed=seed,
        name=str(row.run_id),
    )
    return PublishedRun(str(row.run_id), workload, int(row.max_loras), int(row.max_lora_rank))


def sharegpt_lengths(prompt: float, output: float, generated_fraction: float) -> Lengths:
    """Long-tailed lengths with the given means, cut as vLLM's serving benchmark cuts ShareGPT."""
    default = Lengths()
    return replace(
        default,
        prompt=replace(default.prompt, mean_tokens=prompt),
        output=replace(default.output, mean_tokens=output),
        generated_fraction=generated_fraction,
    )


def replay(
    run: PublishedRun,
    profile: ServingProfile,
    *,
    open_cap: int = OPEN_REQUESTS_CAP,
    sample_every_s: float | None = None,
) -> GpuResult:
    """Simulate the run's workload with the run's flags."""
    workload = run.workload
    return simulate_requests(
        workload.requests,
        workload.ranks,
        profile,
        run.max_loras,
        max_lora_rank=run.max_lora_rank,
        duration_s=workload.duration_s,
        open_cap=open_cap,
        sample_every_s=sample_every_s,
    )
