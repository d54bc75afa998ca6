"""Scores: what GPUs add up to."""

import math

import numpy as np
import pytest

from tests.twin.drawn import make_requests, small_profile
from twin import (
    GpuPlan,
    GpuResult,
    Placement,
    fixed_lengths,
    score_placement,
    score_results,
    simulate_requests,
    workload_from_groups,
)

PROFILE = small_profile()


def gpu(*rows: tuple[float, int, int, int], ranks: tuple[int, ...] = (8,), max_loras: int = 1) -> GpuResult:
    return simulate_requests(make_requests(*rows), np.array(ranks), PROFILE, max_loras, duration_s=10.0)


SERVED = gpu((0.0, 0, 20, 5), (1.0, 0, 10, 8))
STARVED = gpu(*((9.9, 0, 50, 50) for _ in range(20)))
BROKEN = gpu((0.0, 0, 20, 5), ranks=(16,), max_loras=8)
IDLE = gpu()


def test_a_gpu_that_starves_is_not_hidden_by_the_others() -> None:
    score = score_results([SERVED, STARVED, SERVED])
    assert (score.gpus, score.starved_gpus, score.memory_errors, score.starved_adapters) == (3, 1, 0, 1)
    assert not score.feasible
    assert score.headroom < 0


def test_a_memory_error_starves() -> None:
    score = score_results([SERVED, BROKEN])
    assert (score.starved_gpus, score.memory_errors, score.starved_adapters) == (1, 1, 1)
    assert score.headroom == pytest.approx(-0.9)
    assert score.throughput == SERVED.throughput
    assert score.offered_throughput == SERVED.offered_throughput + BROKEN.offered_throughput


def test_latencies_are_means_over_tokens_and_requests() -> None:
    one, other = gpu((0.0, 0, 20, 3)), gpu((0.0, 0, 60, 9), (0.0, 0, 60, 9))
    score = score_results([one, other, IDLE])
    assert score.ttft_ms == pytest.approx((one.ttft.mean_ms + 2 * other.ttft.mean_ms) / 3)
    assert score.e2e_ms == pytest.approx((one.e2e.mean_ms + 2 * other.e2e.mean_ms) / 3)
    assert score.itl_ms == pytest.approx((2 * one.itl.mean_ms + 16 * other.itl.mean_ms) / 18)
    assert score.ttft_p99_ms == max(one.ttft.p99_ms, other.ttft.p99_ms)
    assert score.feasible


def test_headroom_is_that_of_the_gpu_with_the_least() -> None:
    score = score_results([SERVED, IDLE])
    assert score.headroom == pytest.approx(0.1)
    assert score.results == (SERVED, IDLE)


@pytest.mark.parametrize("results", [[], [IDLE]], ids=["no GPU", "no request"])
def test_nothing_to_serve_is_feasible(results: list[GpuResult]) -> None:
    score = score_results(results)
    assert score.feasible
    assert math.isnan(score.itl_ms)
    assert math.isnan(score.ttft_ms)
    assert score.headroom == pytest.approx(0.1)


def test_a_placement_is_scored_by_its_gpus() -> None:
    workload = workload_from_groups([(4, 8, 0.5)], lengths=fixed_lengths(20, 10), duration_s=60.0)
    score = score_placement(workload, Placement((GpuPlan((0, 1), 2), GpuPlan((2, 3), 1))), PROFILE)
    assert (score.gpus, score.starved_gpus) == (2, 0)
    assert score.throughput == sum(result.throughput for result in score.results)
    assert score.throughput == pytest.approx(30 * 2.0, rel=0.3)
