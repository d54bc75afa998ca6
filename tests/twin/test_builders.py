"""Workloads by description."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin import UserError, Workload, builders, fixed_lengths, load_profile

PROFILE = load_profile("llama-3.1-8b")
QWEN = load_profile("qwen-2.5-7b")

TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:40.0000000,374,44
2023-11-16 18:15:50.5000000,10,0
2023-11-16 18:15:44.2500000,900000,20
2023-11-16 18:16:40.0000000,100,100
"""


@pytest.fixture
def trace_file(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    return str(path)


def replay(path: str, **options: Any) -> Workload:  # noqa: ANN401  # options of all types
    given: dict[str, Any] = {
        "n_adapters": 5,
        "ranks": [8],
        "popularity": "zipf",
        "popularity_parameter": 1.0,
        **options,
    }
    return builders.trace(PROFILE, path=path, **given)


# --- groups, mixed, zipf


def test_groups_are_repeated_in_order() -> None:
    workload = builders.groups(
        PROFILE,
        groups=[
            {"count": 2, "rank": 8, "rate": 0.5},
            {"count": 0, "rank": 16, "rate": 1},
            {"count": 1, "rank": 32, "rate": 2},
        ],
        duration_s=60.0,
    )
    assert (workload.ranks.tolist(), workload.rates.tolist()) == ([8, 8, 32], [0.5, 0.5, 2.0])


@given(
    n_adapters=st.integers(1, 200),
    ranks=st.lists(st.sampled_from([8, 16, 32]), min_size=1, max_size=4),
    rates=st.lists(st.floats(0, 10), min_size=1, max_size=6, unique=True),
)
def test_mixed_shares_out_the_rates_and_takes_the_ranks_in_turn(
    n_adapters: int, ranks: list[int], rates: list[float]
) -> None:
    workload = builders.mixed(PROFILE, n_adapters=n_adapters, ranks=ranks, rates=rates, duration_s=60.0)
    assert workload.ranks.tolist() == [ranks[i % len(ranks)] for i in range(n_adapters)]
    counts = Counter(workload.rates.tolist())
    assert max(counts.values()) - min(counts[rate] for rate in rates) <= 1
    # Contiguous: the rate changes once per share.
    assert np.count_nonzero(np.diff(workload.rates)) <= len(rates) - 1


@given(n_adapters=st.integers(1, 500), exponent=st.floats(0, 3), total_rate=st.floats(0.01, 100))
def test_zipf_shares_out_the_total_rate(n_adapters: int, exponent: float, total_rate: float) -> None:
    workload = builders.zipf(
        PROFILE, n_adapters=n_adapters, total_rate=total_rate, exponent=exponent, ranks=[8, 16], duration_s=60.0
    )
    assert workload.total_rate == pytest.approx(total_rate)
    k = np.arange(1, n_adapters + 1)
    np.testing.assert_allclose(workload.rates * k**exponent, workload.rates[0])


def test_the_profile_says_how_early_the_model_stops() -> None:
    options: dict[str, Any] = {"n_adapters": 40, "ranks": [8], "rates": [1.0], "duration_s": 600.0}
    early = builders.mixed(QWEN, **options).requests
    full = builders.mixed(QWEN, ignore_eos=True, **options).requests
    assert (full.output_tokens == full.requested_tokens).all()
    assert early.output_tokens.sum() / early.requested_tokens.sum() == pytest.approx(QWEN.generated_fraction, abs=0.01)


def test_lengths_beyond_the_models_limit_are_refused() -> None:
    lengths = fixed_lengths(PROFILE.max_model_len, 1)
    with pytest.raises(UserError, match="max_model_len"):
        builders.mixed(PROFILE, n_adapters=1, ranks=[8], rates=[1.0], duration_s=60.0, lengths=lengths)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (builders.groups, {"groups": [{"count": -1, "rank": 8, "rate": 1}]}, r"groups\[0\].count=-1"),
        (builders.groups, {"groups": [{"count": 1, "rank": 8, "rate": -1}]}, r"groups\[0\].rate=-1"),
        (builders.groups, {"groups": [{"count": 1, "rank": "big", "rate": 1}]}, r"groups\[0\].rank='big'"),
        (builders.groups, {"groups": [{"count": 1, "rank": 8}]}, "keys count, rank and rate"),
        (builders.groups, {"groups": [[1, 8, 0.1]]}, "keys count, rank and rate"),
        (builders.mixed, {"n_adapters": -1, "ranks": [8], "rates": [1]}, "n_adapters=-1"),
        (builders.mixed, {"n_adapters": 1.5, "ranks": [8], "rates": [1]}, "n_adapters=1.5"),
        (builders.mixed, {"n_adapters": 1, "ranks": [], "rates": [1]}, r"ranks=\[\]"),
        (builders.mixed, {"n_adapters": 1, "ranks": [8], "rates": []}, r"rates=\[\]"),
        (builders.mixed, {"n_adapters": 1, "ranks": [0], "rates": [1]}, r"ranks\[0\]=0"),
        (builders.mixed, {"n_adapters": 1, "ranks": [64], "rates": [1]}, "rank=64 is unknown"),
        (builders.mixed, {"n_adapters": 1, "ranks": [8], "rates": [float("nan")]}, r"rates\[0\]=nan"),
        (builders.mixed, {"n_adapters": 1, "ranks": [8], "rates": [1], "duration_s": 0}, "duration_s=0"),
        (builders.mixed, {"n_adapters": 1, "ranks": [8], "rates": [1], "seed": -1}, "seed=-1"),
        (builders.zipf, {"n_adapters": 1, "ranks": [8], "total_rate": -1, "exponent": 1}, "total_rate=-1"),
        (builders.zipf, {"n_adapters": 1, "ranks": [8], "total_rate": 1, "exponent": -1}, "exponent=-1"),
    ],
)
def test_a_wrong_value_is_named(build: Callable[..., Workload], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"(workload|profile) .*{message}"):
        build(PROFILE, **{"duration_s": 60.0, **options})


# --- trace


def test_a_trace_is_replayed_in_order_of_arrival(trace_file: str) -> None:
    workload = replay(trace_file)
    requests = workload.requests
    assert requests.arrival_s.tolist() == [0.0, 4.25, 10.5, 60.0]
    # Cut to the model's limit, the output last; an output of nothing is one token, as an engine makes at least that.
    assert requests.prompt_tokens.tolist() == [374, PROFILE.max_model_len - 20, 10, 100]
    assert requests.output_tokens.tolist() == [44, 20, 1, 100]
    assert workload.duration_s == pytest.approx(60.0)
    assert workload.lengths.prompt.mean_tokens == pytest.approx(requests.prompt_tokens.mean())


def test_expected_rates_add_up_to_the_rate_of_the_window(trace_file: str) -> None:
    workload = replay(trace_file, start_s=2.0, duration_s=10.0)
    assert len(workload.requests) == 2
    assert workload.requests.arrival_s.tolist() == [2.25, 8.5]
    assert workload.total_rate == pytest.approx(0.2)
    assert (np.diff(workload.rates) < 0).all()


def test_measured_rates_come_from_before_the_window(trace_file: str) -> None:
    workload = replay(trace_file, start_s=20.0, history_s=20.0)
    assert len(workload.requests) == 1
    assert workload.total_rate == pytest.approx(3 / 20)
    counts = np.bincount(replay(trace_file).requests.adapter[:3], minlength=5)
    np.testing.assert_allclose(workload.rates, counts / 20)


def test_tokens_are_cut_to_the_limit_given(trace_file: str) -> None:
    requests = replay(trace_file, max_total_tokens=150).requests
    assert (requests.prompt_tokens + requests.output_tokens).max() == 150
    assert requests.output_tokens.tolist() == [44, 20, 1, 100]


@given(multiplier=st.floats(0.2, 6), seed=st.integers(0, 5))
def test_a_multiplied_trace_keeps_its_shape(
    multiplier: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [f"2023-11-16 18:{i // 60:02}:{i % 60:02}.0000000,{100 + i % 7},{10 + i % 5}" for i in range(1200)]
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    requests = replay(str(path), multiplier=multiplier, seed=seed).requests
    # Each recorded request has one copy more with the probability of the fraction: five standard deviations of that many draws.
    fraction = multiplier % 1
    deviation = (1200 * fraction * (1 - fraction)) ** 0.5
    assert abs(len(requests) - 1200 * multiplier) <= 5 * deviation + 1
    assert (np.diff(requests.arrival_s) >= 0).all()
    halves = np.histogram(requests.arrival_s, bins=[0, 600, 1200])[0]
    # The halves are drawn from 600 each, and their difference deviates as much as the whole does.
    assert abs(halves[0] - halves[1]) <= 5 * deviation + multiplier + 1
    assert set(requests.prompt_tokens) <= set(range(100, 107))


def test_copies_leave_the_recorded_requests_alone(trace_file: str) -> None:
    requests = replay(trace_file, multiplier=3.0).requests
    assert {0.0, 4.25, 10.5, 60.0} <= set(requests.arrival_s.tolist())
    assert len(requests) == 12


def test_the_seed_draws_popularity_and_senders(trace_file: str) -> None:
    options: dict[str, Any] = {"popularity": "dirichlet", "popularity_parameter": 0.5, "n_adapters": 50}
    first, again, other = (replay(trace_file, seed=seed, **options) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.rates, again.rates)
    np.testing.assert_array_equal(first.requests.adapter, again.requests.adapter)
    assert not np.array_equal(first.rates, other.rates)
    np.testing.assert_array_equal(first.requests.arrival_s, other.requests.arrival_s)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_s": 60.0}, "must have a second or more"),
        ({"start_s": 12.0, "duration_s": 20.0}, "no request"),
        ({"duration_s": 600.0}, "lie in the 60 s"),
        ({"history_s": 10.0}, "history_s=10"),
        ({"multiplier": -1.0}, "multiplier=-1"),
        ({"multiplier": 0.0}, "no request"),
        ({"popularity": "uniform"}, "popularity=uniform must be zipf or dirichlet"),
        ({"popularity": "dirichlet", "popularity_parameter": 0.0}, "popularity_parameter=0.0 must be .* 0.001 or more"),
        ({"n_adapters": 0}, "n_adapters=0"),
        ({"ranks": [64]}, "rank=64"),
        ({"max_total_tokens": 1}, "max_total_tokens=1"),
    ],
)
def test_a_wrong_option_of_a_trace_is_named(trace_file: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replay(trace_file, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "workload.path=.*no such file"),
        ("", "is empty; it must be a trace file"),
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,1\n", "column GeneratedTokens is missing"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no request in it"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,1\n", "noon"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,many,1\n", "many"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,1\n2023-11-16 18:15:47,,1\n",
            "empty in line 3",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,-1,1\n2023-11-16 18:15:47,2,1\n",
            "not be negative",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,1\n", "same TIMESTAMP"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "trace.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        replay(str(path))
    assert "trace.csv" in str(raised.value)
