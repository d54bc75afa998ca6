"""What the client of the published runs sees."""

from __future__ import annotations

import numpy as np
import pytest

from bench.measured.observation import SAMPLE_EVERY_S, ClientModel, observed_itl_ms, observed_ttft_ms, stalls_of
from twin import GpuResult, Workload, load_profile, simulate_requests, workload_from_groups

NO_EFFECT = ClientModel(0.0, 0.0, 0.0, 0.0, 0.0)


def simulate(workload: Workload) -> GpuResult:
    return simulate_requests(
        workload.requests,
        workload.ranks,
        load_profile("llama-3.1-8b"),
        32,
        duration_s=workload.duration_s,
        sample_every_s=SAMPLE_EVERY_S,
    )


@pytest.fixture(scope="module")
def many_adapters() -> Workload:
    return workload_from_groups([(96, 16, 0.03)], duration_s=600.0)


def test_without_effects_the_client_sees_the_engine(many_adapters: Workload) -> None:
    result = simulate(many_adapters)
    stalls = stalls_of(result, many_adapters.requests, 600.0)
    assert observed_itl_ms(result, stalls, NO_EFFECT) == pytest.approx(result.itl.mean_ms)
    assert observed_ttft_ms(result, stalls, NO_EFFECT) == pytest.approx(result.ttft.mean_ms)


def test_the_metrics_page_only_grows(many_adapters: Workload) -> None:
    stalls = stalls_of(simulate(many_adapters), many_adapters.requests, 600.0)
    assert (np.diff(stalls.lines) >= 0).all()
    assert (np.diff(stalls.names) >= 0).all()
    assert stalls.lines[-1] > 100


def test_one_adapter_makes_few_label_sets() -> None:
    workload = workload_from_groups([(1, 16, 1.0)], duration_s=600.0)
    # Running or not, waiting or not: the sets of one adapter can be counted on one hand.
    assert stalls_of(simulate(workload), workload.requests, 600.0).lines.max() <= 4


def test_stalls_lengthen_what_the_client_measures(many_adapters: Workload) -> None:
    result = simulate(many_adapters)
    stalls = stalls_of(result, many_adapters.requests, 600.0)
    model = ClientModel(1e-4, 0.0, 2.0, 0.1, 0.1)
    assert observed_itl_ms(result, stalls, model) > result.itl.mean_ms
    assert observed_ttft_ms(result, stalls, model) > result.ttft.mean_ms


def test_no_requests_no_stalls() -> None:
    workload = workload_from_groups([(4, 16, 0.0)], duration_s=60.0)
    stalls = stalls_of(simulate(workload), workload.requests, 60.0)
    assert stalls.lines.max() == 0
