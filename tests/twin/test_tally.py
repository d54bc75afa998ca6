"""What a run comes to, counted in one pass: to the digit what NumPy makes of the same arrays."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin import INTERACTIVE, PUBLISHED, GpuResult, ServiceLevel, load_profile, simulate_requests, workload_from_groups
from twin.tally import tallied, waited

LATENCIES = ("ttft", "tpot", "itl", "e2e")


@given(
    finish_s=st.lists(st.sampled_from([np.nan, -1.0, 0.0, 5.0, 5.0000001]) | st.floats(0, 10), max_size=60),
    data=st.data(),
)
def test_tokens_are_those_that_numpy_counts(finish_s: list[float], data: st.DataObject) -> None:
    count, generator = len(finish_s), np.random.default_rng(len(finish_s))
    adapter = generator.integers(0, 4, count)
    prompt, output, requested = generator.integers(1, 10**9, (3, count))
    finish, arrived = np.array(finish_s, dtype=np.float64), data.draw(st.integers(0, count))
    served, offered, finished, tokens = tallied(finish, adapter, prompt, output, requested, arrived, 5.0, 4)
    done = np.flatnonzero((finish >= 0) & (finish <= 5.0))
    np.testing.assert_array_equal(served, np.bincount(adapter[done], (prompt + output)[done], 4))
    np.testing.assert_array_equal(offered, np.bincount(adapter[:arrived], (prompt + requested)[:arrived], 4))
    assert (finished, tokens) == (len(done), output[done].sum())


def test_who_has_no_token_waits_until_the_end_of_the_window() -> None:
    token_s, arrival_s = np.array([np.nan, -1.0, 4.0, 7.0]), np.array([1.0, 2.0, 3.5, 4.5])
    np.testing.assert_array_equal(waited(token_s, arrival_s, 5.0), [4.0, 3.0, 0.5, 0.5])


@pytest.mark.parametrize("service", [PUBLISHED, INTERACTIVE], ids=lambda service: service.name)
@pytest.mark.parametrize("rate", [0.01, 0.2, 1.5])
def test_a_verdict_says_what_the_whole_result_says(rate: float, service: ServiceLevel) -> None:
    workload = workload_from_groups([(40, 8, rate)], duration_s=120.0)
    requests = workload.lengthened(service.tail_s if service.judges_requests else 0.0).requests_of(np.arange(40))
    verdict, whole = (
        simulate_requests(
            requests,
            workload.ranks,
            load_profile("llama-3.1-8b"),
            16,
            duration_s=120.0,
            service=service,
            latencies=asked,
        )
        for asked in (False, True)
    )
    assert (verdict.fails, verdict.headroom) == (whole.fails, whole.headroom)
    for field in fields(GpuResult):
        if field.name == "judgement" and whole.judgement is not None and verdict.judgement is not None:
            np.testing.assert_array_equal(verdict.judgement.met, whole.judgement.met)
        elif field.name not in LATENCIES:
            np.testing.assert_equal(getattr(verdict, field.name), getattr(whole, field.name), err_msg=field.name)
    assert all(np.isnan(getattr(verdict, latency).mean_ms) for latency in LATENCIES)
    assert not np.isnan(whole.ttft.mean_ms)
