"""Every `max_loras` in a few questions: spans hold all values, and a span's server is no worse than any real one of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.oracles.spans import SlotSpan, costs_grow, octaves, shortfall, singles
from solvers.oracles.twin import TwinOracle
from tests.examples import examples
from twin import (
    INTERACTIVE,
    PUBLISHED,
    ServiceLevel,
    ServingProfile,
    Workload,
    load_profile,
    shipped_profiles,
    simulate_requests,
    workload_from_groups,
)


@given(most=st.integers(1, 600))
def test_octaves_hold_every_value_once(most: int) -> None:
    values = [value for span in octaves(most) for value in range(span.low, span.high + 1)]
    assert values == list(range(1, most + 1))
    assert all(span.high < 2 * span.low for span in octaves(most))


@given(low=st.integers(1, 400), width=st.integers(0, 400), count=st.integers(2, 8))
def test_parts_hold_every_value_of_a_span_once_and_are_narrower(low: int, width: int, count: int) -> None:
    span = SlotSpan(low, low + width)
    parts = span.parts(count)
    assert [v for part in parts for v in range(part.low, part.high + 1)] == list(range(low, low + width + 1))
    assert all(span.holds(part) for part in parts)
    assert span.is_single or len(parts) > 1


@examples(100)
@given(
    shares=st.lists(st.floats(0.5, 1.0), min_size=1, max_size=80),
    optimism=st.floats(0.0, 0.2),
    aim=st.integers(1, 100),
    enough=st.floats(0.6, 1.0),
)
def test_the_verdict_is_that_of_every_value_by_itself(
    shares: list[float], optimism: float, aim: int, enough: float
) -> None:
    """Whatever spans promise beyond their values: enough questions end in the truth, too few in no claim."""

    def ask(span: SlotSpan) -> float:
        best = max(shares[span.low - 1 : span.high])
        return best if span.is_single else best + optimism * np.log2(span.high / span.low)

    found = shortfall(ask, octaves(len(shares)), enough, aim, most=len(shares), most_asked=1000)
    assert (found is not None) == (max(shares) < enough)
    if found is not None:
        assert found.share >= max(shares)
        assert {v for s in found.asked for v in range(s.low, s.high + 1)} == set(range(1, len(shares) + 1))
    few = shortfall(ask, octaves(len(shares)), enough, aim, most=len(shares), most_asked=3)
    assert few is None or max(shares) < enough


def test_costs_of_slots_grow_in_every_shipped_profile() -> None:
    for name in shipped_profiles():
        profile = load_profile(name)
        assert all(costs_grow(profile, rank) for rank in profile.ranks)


def share_of(workload: Workload, profile: ServingProfile, level: ServiceLevel, span: SlotSpan) -> float:
    """What the service level looks at, of the whole GPU, on the server of a span."""
    source = workload.lengthened(level.tail_s) if level.judges_requests else workload
    requests = source.requests_of(np.arange(workload.n_adapters))
    result = simulate_requests(
        requests, workload.ranks, profile, span.low, slots=span.high, duration_s=workload.duration_s, service=level
    )
    return result.throughput / result.offered_throughput if result.judgement is None else result.judgement.goodput


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen-2.5-7b"])
@pytest.mark.parametrize("level", [PUBLISHED, INTERACTIVE], ids=lambda level: level.name)
def test_a_span_with_a_value_that_serves_is_not_ruled_out(name: str, level: ServiceLevel) -> None:
    """Up to the chance of single requests: a hundredth, the margin by which spans are ruled out.

    Far below what is promised a span's server may be the worse one: requests that wait keep others fast.
    """
    profile = load_profile(name)
    generator = np.random.default_rng(3)
    serving = 0
    for _ in range(6):
        count, rank = int(generator.integers(6, 16)), int(generator.choice([8, 32]))
        rates = generator.dirichlet(np.full(count, 1.0)) * generator.uniform(4.0, 20.0)
        workload = Workload(np.full(count, rank), rates, duration_s=120.0, seed=int(generator.integers(100)))
        for span in octaves(count):
            real = max(share_of(workload, profile, level, value) for value in singles(count)[span.low - 1 : span.high])
            serving += real >= level.share
            assert real < level.share or share_of(workload, profile, level, span) >= level.share - 0.01
    assert serving


def test_a_value_between_those_of_the_grid_is_found() -> None:
    """104 adapters of rank 32 fit on one GPU with 77 slots, and with none of the values of the grid."""
    workload = workload_from_groups([(104, 32, 0.2)])
    oracle = TwinOracle(workload, load_profile("llama-3.1-8b"))
    everything = tuple(range(104))
    assert not any(oracle.accepts(everything, value) for value in oracle.slots(everything))
    assert not oracle.starves(everything)
    verdict = oracle.verdict(everything)
    assert verdict.max_loras is not None
    assert oracle.accepts(everything, verdict.max_loras)


def test_a_rejection_at_every_value_is_a_fact() -> None:
    workload = workload_from_groups([(12, 16, 4.0)], duration_s=60.0)
    oracle = TwinOracle(workload, load_profile("llama-3.1-8b"))
    everything = tuple(range(12))
    for every_value in (False, True):
        assert oracle.verdict(everything, every_value=every_value).rejected
    assert not any(oracle.accepts(everything, value) for value in range(1, 13))


def test_both_engines_know_slots_that_cost_nothing() -> None:
    """More slots than are paid for: the fast engine and the one that visits every request agree, to the digit."""
    workload = workload_from_groups([(30, 16, 0.6)], duration_s=60.0)
    requests = workload.requests_of(np.arange(30))
    fast, plain = (
        simulate_requests(
            requests, workload.ranks, load_profile("llama-3.1-8b"), 6, slots=12, duration_s=60.0, step_by_step=way
        )
        for way in (False, True)
    )
    assert fast.throughput == plain.throughput
    assert fast.busy_s == plain.busy_s
    assert np.array_equal(fast.finish_s, plain.finish_s, equal_nan=True)
    assert fast.mean_adapters > 6
