"""Speed of the twin: `make benchmarks`. In other test runs each of these runs once, as a test of itself.

Besides the times, each row carries `steps_per_s` (engine steps per second), `simulated_hours_per_s`, and
`times_real_time`, all of one core, drawn requests given.
"""

from dataclasses import replace

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from twin import (
    INTERACTIVE,
    PUBLISHED,
    GpuPlan,
    GpuResult,
    Placement,
    ServiceLevel,
    ServingProfile,
    Workload,
    load_profile,
    score_placement,
    shipped_profiles,
    simulate_gpu,
    simulate_requests,
    workload_from_groups,
)

N_ADAPTERS, MAX_LORAS, HOUR_S = 96, 32, 3600.0

#: Requests per second of each of the 96 adapters: from an idle GPU to one that serves half of what is offered.
LOADS = {"idle": 0.003, "light": 0.02, "busy": 0.06, "full": 0.15, "overloaded": 0.6}


def hour_of(rate: float) -> Workload:
    workload = workload_from_groups([(N_ADAPTERS, 16, rate)], duration_s=HOUR_S)
    _ = workload.requests
    return workload


def simulate(workload: Workload, profile: ServingProfile) -> GpuResult:
    return simulate_gpu(workload, np.arange(N_ADAPTERS), profile, MAX_LORAS)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("name", shipped_profiles())
def test_an_hour_of_one_gpu(benchmark: BenchmarkFixture, name: str, load: str) -> None:
    workload, profile = hour_of(LOADS[load]), load_profile(name)
    result = benchmark(simulate, workload, profile)
    assert result.steps > 1000
    if benchmark.stats:
        seconds = benchmark.stats.stats.median
        benchmark.extra_info["steps_per_s"] = round(result.steps / seconds)
        benchmark.extra_info["simulated_hours_per_s"] = round(HOUR_S / 3600 / seconds, 1)
        benchmark.extra_info["times_real_time"] = round(HOUR_S / seconds)
        benchmark.extra_info["served_share"] = round(result.throughput / result.offered_throughput, 3)


@pytest.mark.parametrize("latencies", [False, True], ids=["verdict", "percentiles"])
@pytest.mark.parametrize("service", [PUBLISHED, INTERACTIVE], ids=lambda level: level.name)
def test_a_verdict(benchmark: BenchmarkFixture, service: ServiceLevel, latencies: bool) -> None:
    """Ten minutes of a busy GPU, requests given: throughput alone, or requests judged by their latency and the tail after the window."""
    workload, profile = workload_from_groups([(N_ADAPTERS, 16, 0.2)], duration_s=600.0), load_profile("llama-3.1-8b")
    requests = (workload.lengthened(service.tail_s) if service.judges_requests else workload).requests
    result = benchmark(
        simulate_requests, requests, workload.ranks, profile, MAX_LORAS, duration_s=600.0, service=service, latencies=latencies
    )  # fmt: skip
    assert (result.judgement is not None) == service.judges_requests
    if benchmark.stats:
        benchmark.extra_info["ns_per_request"] = round(benchmark.stats.stats.median / len(requests) * 1e9)


@pytest.mark.parametrize("n_gpus", [10])
def test_an_hour_of_a_fleet_with_its_requests(benchmark: BenchmarkFixture, n_gpus: int) -> None:
    # What a simulated GPU costs when its requests are drawn for it alone, as in fleets that do not fit in memory.
    workload = workload_from_groups([(100 * n_gpus, 8, 0.1)], duration_s=HOUR_S)
    plans = tuple(GpuPlan(tuple(range(100 * gpu, 100 * (gpu + 1))), MAX_LORAS) for gpu in range(n_gpus))
    profile = load_profile("llama-3.1-8b")
    score = benchmark(score_placement, workload, Placement(plans), profile)
    assert score.gpus == n_gpus
    if benchmark.stats:
        benchmark.extra_info["gpu_hours_per_s"] = round(n_gpus / benchmark.stats.stats.median, 1)


@pytest.mark.parametrize("caching", [False, True], ids=["off", "on"])
@pytest.mark.parametrize("load", ["light", "busy", "full"])
def test_what_prefix_caching_costs(benchmark: BenchmarkFixture, load: str, caching: bool) -> None:
    """The same requests with and without it, of prompts that have nothing in common: what is kept for nothing."""
    workload = hour_of(LOADS[load])
    profile = replace(load_profile("llama-3.1-8b"), prefix_caching=caching)
    result = benchmark(simulate, workload, profile)
    assert result.steps > 1000
    if benchmark.stats:
        benchmark.extra_info["ns_per_request"] = round(benchmark.stats.stats.median / len(workload.requests) * 1e9)
