"""How the time of a question grows: over requests, over adapters, over GPUs. `make benchmarks` draws it (results/benchmarks/growth.png).

A question is what a solver asks: the requests of a content are drawn, and simulated without percentiles. Nothing is kept from one
question to the next.
"""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from twin import (
    GpuPlan,
    GpuResult,
    Placement,
    Requests,
    ServingProfile,
    Workload,
    load_profile,
    score_placement,
    simulate_requests,
    workload_from_groups,
)

PROFILE, MAX_LORAS = "llama-3.1-8b", 64
#: Requests that an adapter of the second curve sends in the window, on average: what is measured is the adapter.
IDLE = 0.01


def drawn(workload: Workload) -> Requests:
    return workload.requests_of(np.arange(workload.n_adapters))


def question(workload: Workload, profile: ServingProfile) -> GpuResult:
    return simulate_requests(
        drawn(workload),
        workload.ranks,
        profile,
        min(MAX_LORAS, workload.n_adapters),
        duration_s=workload.duration_s,
        latencies=False,
    )


def note(benchmark: BenchmarkFixture, curve: str, over: int, unit: str) -> None:
    """A point of a curve: the time for each of what it grows over."""
    if benchmark.stats:
        seconds = benchmark.stats.stats.median
        benchmark.extra_info.update({"curve": curve, "over": over, "unit": unit})
        benchmark.extra_info[f"ns_per_{unit}"] = round(seconds / over * 1e9, 1)


@pytest.mark.parametrize("requests_per_s", [1, 10, 30, 60, 200])
def test_drawing_over_requests(benchmark: BenchmarkFixture, requests_per_s: int) -> None:
    workload = workload_from_groups([(100, 8, requests_per_s / 100)])
    requests = benchmark(drawn, workload)
    note(benchmark, "drawing, 100 adapters", len(requests), "request")
    assert len(requests) > 0


@pytest.mark.parametrize("requests_per_s", [1, 10, 30, 60, 200])
def test_a_question_over_requests(benchmark: BenchmarkFixture, requests_per_s: int) -> None:
    workload, profile = workload_from_groups([(100, 8, requests_per_s / 100)]), load_profile(PROFILE)
    result = benchmark(question, workload, profile)
    note(benchmark, "question, 100 adapters", result.arrived, "request")
    assert result.finished > 0


@pytest.mark.parametrize("n_adapters", [10, 100, 1000, 10_000])
def test_a_question_over_adapters(benchmark: BenchmarkFixture, n_adapters: int) -> None:
    duration_s = 600.0
    workload = workload_from_groups([(n_adapters, 8, IDLE / duration_s)], duration_s=duration_s)
    result = benchmark(question, workload, load_profile(PROFILE))
    note(benchmark, "question, nearly idle adapters", n_adapters, "adapter")
    assert result.arrived < n_adapters


@pytest.mark.parametrize("n_gpus", [1, 10, 100])
def test_a_score_over_gpus(benchmark: BenchmarkFixture, n_gpus: int) -> None:
    n_gpus = n_gpus if benchmark.enabled else min(n_gpus, 3)
    workload = workload_from_groups([(100 * n_gpus, 8, 0.1)])
    plans = tuple(GpuPlan(tuple(range(100 * gpu, 100 * (gpu + 1))), MAX_LORAS) for gpu in range(n_gpus))
    score = benchmark(score_placement, workload, Placement(plans), load_profile(PROFILE))
    note(benchmark, "score, 100 adapters and 10 requests/s each", n_gpus, "gpu")
    assert score.gpus == n_gpus
