"""A folder of run tables whose "measured" figures the twin made itself, with a profile that the test knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bench.measured.published import replay, run_of_row
from twin import ServingProfile, load_profile
from twin.profile import STEP_TERMS

MODEL = "llama-3.1-8b-instruct"
LEFT_OUT = "scenario-c"

#: The truth that a calibration has to find: few terms, so that few runs tell them.
TRUE_STEP_MS = {"constant": 9.0, "adapters": 0.4, "tokens": 0.05, "max_loras": 0.05}


def true_profile() -> ServingProfile:
    """The profile that the runs are made with."""
    return replace(
        load_profile("llama-3.1-8b"),
        step_ms=tuple(TRUE_STEP_MS.get(term, 0.0) for term in STEP_TERMS),
        scheduler_ms=(0.02, 0.003, 0.0002, 0.0),
        generated_fraction=0.95,
    )


def write_tables(folder: Path) -> pd.DataFrame:
    """Write runs.csv and the calibration tables; returns the runs."""
    profile = true_profile()
    rows = []
    for scenario, ranks, rates in (
        ("scenario-a", "8-16", "0.4-0.1"),
        ("scenario-b", "16-16", "0.2-0.05"),
        (LEFT_OUT, "8-16", "0.3-0.1"),
    ):
        for n_adapters in (8, 32, 64):
            rows += [
                _run(profile, scenario, ranks, rates, n_adapters, max_loras)
                for max_loras in (8, 32)
                if max_loras <= n_adapters
            ]
    failed = dict.fromkeys(rows[0], np.nan) | {
        "run_id": "fails", "family": "ml", "model": MODEL, "scenario": "scenario-a", "status": "memory_error",
        "max_loras": 384, "n_adapters": 384, "max_lora_rank": 16, "adapter_ranks": "8-16", "adapter_rates": "0.4-0.1",
        "total_time_s": 300.0,
    }  # fmt: skip
    runs = pd.DataFrame([*rows, failed])
    runs.to_csv(folder / "runs.csv", index=False)
    _write_calibration_tables(folder, profile)
    return runs


def _run(
    profile: ServingProfile, scenario: str, ranks: str, rates: str, n_adapters: int, max_loras: int
) -> dict[str, object]:
    row: dict[str, object] = {
        "run_id": f"{scenario}/{max_loras}_{n_adapters}", "family": "ml", "model": MODEL, "scenario": scenario,
        "vllm_version": "0.8.5", "max_loras": max_loras, "n_adapters": n_adapters, "max_lora_rank": 16,
        "adapter_ranks": ranks, "adapter_rates": rates, "rate_counts": f"{n_adapters // 2}-{n_adapters // 2}",
        "total_time_s": 300.0, "status": "ok", "memory_error": False, "suspect": np.nan, "len_source": "prompt_pool",
        "mean_input_len": 222.0, "mean_output_len": 197.0, "port_exhaustion": False,
    }  # fmt: skip
    # Another seed than the calibration's, so that it does not see the very same requests.
    run = run_of_row(pd.Series(row), profile, seed=100)
    result = replay(run, profile)
    return row | {
        "total_throughput": result.throughput,
        "output_throughput": result.output_tokens / 300,
        "mean_itl_ms": result.itl.mean_ms,
        "mean_ttft_ms": result.ttft.mean_ms,
        "median_ttft_ms": result.ttft.p50_ms,
        "starved_est": result.starved,
        "kv_cache_tokens": result.kv_capacity_tokens,
        "completed": result.finished,
        "total_output_tokens": result.output_tokens,
        "series_mean_running": result.mean_running * min(1.0, result.busy_s / 300),
        "series_mean_waiting": result.mean_waiting,
        "series_n_raw": 150,
        "series_span_s": 300.3,
    }


def _write_calibration_tables(folder: Path, profile: ServingProfile) -> None:
    kv = [
        {
            "model": MODEL, "vllm_version": "0.8.5", "max_loras": slots, "max_lora_rank": rank, "max_num_seqs": 2048,
            "kv_cache_tokens": profile.kv_tokens(slots, rank) or np.nan,
            "memory_error": profile.kv_tokens(slots, rank) == 0,
        }
        for slots in (8, 32, 128, 384)
        for rank in (8, 16, 32)
    ]  # fmt: skip
    pd.DataFrame(kv).to_csv(folder / "kv_capacity.csv", index=False)
    loads = [
        {
            "model": MODEL, "vllm_version": "0.8.5", "phase": phase, "max_lora_rank": server, "adapter_rank": rank,
            "mean_ms": profile.load_time_ms(server, rank) if phase == "serving_cpu_to_gpu" else 50.0 + rank,
        }
        for phase in ("serving_cpu_to_gpu", "server_start_disk_to_cpu")
        for server in (8, 16, 32)
        for rank in (8, 16, 32)
        if rank <= server
    ]  # fmt: skip
    pd.DataFrame(loads).to_csv(folder / "load_latency.csv", index=False)
    constant, per_running, per_skipped, _ = profile.scheduler_ms
    overhead = [
        {
            "max_loras": 8, "n_adapters": adapters, "avg_batch_size": running, "avg_waiting_queue": waiting,
            "sched_ms_per_step": constant + per_running * running + per_skipped * waiting * (1 - 8 / adapters),
        }
        for adapters in (8, 64)
        for running in (10.0, 100.0)
        for waiting in (0.0, 500.0)
    ]  # fmt: skip
    pd.DataFrame(overhead).to_csv(folder / "sched_overhead.csv", index=False)
    steps = [
        {
            "model": MODEL, "lora_enabled": True, "max_loras": 300, "n_steps": 100, "mean_batched_tokens": tokens,
            "mean_distinct_adapters": adapters, "distinct_adapters_gt": adapters - 1, "sched_ms_median": 0.2,
            "step_ms_median": 0.2 + TRUE_STEP_MS["constant"] + TRUE_STEP_MS["adapters"] * adapters
            + TRUE_STEP_MS["tokens"] * tokens + TRUE_STEP_MS["max_loras"] * 300,
        }
        for tokens in (10.0, 50.0, 200.0)
        for adapters in (1.0, 8.0)
    ]  # fmt: skip
    pd.DataFrame(steps).to_csv(folder / "step_times_binned.csv", index=False)
    probe = {"model": MODEL, "max_num_seqs": 220, "vllm_version": "0.8.5", "max_lora_rank": 8}
    pd.DataFrame([probe]).to_csv(folder / "lora_overhead.csv", index=False)
