"""Offered is what is asked for, throughput is what was made, and a GPU starves below nine tenths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.twin.drawn import small_profile
from twin import Requests, score_results, simulate_requests
from twin.results import GpuResult

PROFILE = small_profile()


def run(duration_s: float = 60.0) -> GpuResult:
    """Two adapters: 20 + 5 of 12 asked for, 30 + 6 of 6; the third request comes too late to end."""
    requests = Requests(
        np.array([0.0, 1.0, duration_s - 0.001]),
        np.array([0, 1, 1]),
        np.array([20, 30, 40]),
        np.array([5, 6, 7]),
        np.array([12, 6, 9]),
    )
    return simulate_requests(requests, np.array([8, 8]), PROFILE, 2, duration_s=duration_s)


def test_offered_counts_what_is_asked_for_and_throughput_what_is_made() -> None:
    """Offered 32 + 36 + 49, served 25 + 36: tokens of finished requests only."""
    result = run()
    assert result.offered_throughput * 60 == pytest.approx(32 + 36 + 49)
    assert result.throughput * 60 == pytest.approx(25 + 36)
    assert result.adapter_offered * 60 == pytest.approx(np.array([32.0, 85.0]))
    assert result.adapter_throughput * 60 == pytest.approx(np.array([25.0, 36.0]))
    assert (result.arrived, result.finished) == (3, 2)
    assert result.output_tokens == 11
    assert result.starved_adapters.tolist() == [0, 1]


@pytest.mark.parametrize(("share", "starved"), [(0.9, False), (0.9 - 1e-9, True), (0.0, True), (1.0, False)])
def test_nine_tenths_are_enough(share: float, *, starved: bool) -> None:
    result = replace(
        run(),
        throughput=100.0 * share,
        offered_throughput=100.0,
        adapter_throughput=np.array([100.0 * share, 100.0]),
        adapter_offered=np.array([100.0, 100.0]),
    )
    assert result.starved == starved
    assert result.feasible != starved
    assert result.starved_adapters.tolist() == ([0] if starved else [])
    score = score_results([result])
    assert score.headroom == pytest.approx(share - 0.9)
    assert score.feasible != starved


def test_a_score_is_the_sum_of_its_gpus_and_its_worst_headroom() -> None:
    one = replace(run(), throughput=95.0, offered_throughput=100.0)
    other = replace(run(), throughput=50.0, offered_throughput=50.0)
    score = score_results([one, other])
    assert (score.throughput, score.offered_throughput, score.gpus) == (145.0, 150.0, 2)
    assert score.headroom == pytest.approx(0.05)
    late = replace(one, ttft=replace(one.ttft, p99_ms=900.0)), replace(other, ttft=replace(other.ttft, p99_ms=300.0))
    assert score_results(list(late)).ttft_p99_ms == 900.0
