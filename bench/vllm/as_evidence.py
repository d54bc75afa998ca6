"""Validated windows as `bench.evidence` reads them: what the GPU was asked for, the verdict, and simulated over measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.evidence.demand import demand_of_gpu, lengths_of
from bench.evidence.runs import record
from bench.vllm.comparison import GpuComparison
from bench.vllm.placements import Placed


def evidence_rows(comparisons: Sequence[GpuComparison], placed: Placed) -> list[dict[str, Any]]:
    """One row for each window, but those whose load generator was late: their servers were asked for less.

    None where requests do not come one by one at random: what bursts ask for is not in these figures.
    """
    lengths = lengths_of(placed.workload)
    if lengths is None:
        return []
    return [
        record(
            demand_of_gpu(placed.placement.gpus[gpu.number], placed.workload),
            lengths,
            (figures.starved, figures.memory_error),
            [
                getattr(gpu.simulated, name) / measured if (measured := getattr(figures, name)) else float("nan")
                for name in ("throughput", "itl_ms", "ttft_ms")
            ],
            run=f"gpu-{gpu.number}/run-{run}",
            profile=placed.profile.name,
            window_s=placed.workload.duration_s,
            max_loras=gpu.flags.max_loras,
            max_lora_rank=gpu.flags.max_lora_rank,
        )
        for gpu in comparisons
        if not gpu.client_limited
        for run, figures in enumerate(gpu.measured)
    ]
