"""Speed of the predictors: `make benchmarks`. In other test runs each of these runs once, as a test of itself.

A single call is what a solver's compiled loop asks: an adapter joins a content, the model answers, the adapter leaves.
`ns_per_call` is its time, of one core, features included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from predictors import Predictor, adapter_contributions, content_features, load_predictor, shipped_predictors
from predictors.features import N_SUMS
from predictors.kernels import starvation_of, throughput_of
from predictors.meanfield import N_INPUTS
from twin import Lengths
from twin.compiled import njit

CALLS = 20_000


@njit(cache=True)
def ask_about_starvation(
    content: NDArray[np.float64], rows: NDArray[np.float64], arrays: tuple[NDArray[Any], ...], calls: int
) -> float:
    inputs = np.empty(N_INPUTS, np.float32)
    total = 0.0
    for call in range(calls):
        row = rows[call % len(rows)]
        for place in range(N_SUMS):
            content[place] += row[place]
        total += starvation_of(
            content, arrays[0], arrays[1], inputs, arrays[2], arrays[3], arrays[4], arrays[5], arrays[6], arrays[7]
        )
        for place in range(N_SUMS):
            content[place] -= row[place]
    return total


@njit(cache=True)
def ask_about_throughput(
    content: NDArray[np.float64], rows: NDArray[np.float64], arrays: tuple[NDArray[Any], ...], calls: int
) -> float:
    inputs = np.empty(N_INPUTS, np.float32)
    total = 0.0
    for call in range(calls):
        row = rows[call % len(rows)]
        for place in range(N_SUMS):
            content[place] += row[place]
        total += throughput_of(content, arrays[0], arrays[1], inputs, arrays[2], arrays[3], arrays[4], arrays[5])
        for place in range(N_SUMS):
            content[place] -= row[place]
    return total


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load_predictor(shipped_predictors()[0])


@pytest.mark.parametrize("model", ["full", "distilled"])
@pytest.mark.parametrize("target", ["starvation", "throughput"])
@pytest.mark.parametrize(("n_adapters", "max_loras"), [(64, 64), (400, 64)], ids=["slots for all", "loads"])
def test_a_single_call(
    benchmark: BenchmarkFixture, predictor: Predictor, n_adapters: int, max_loras: int, target: str, model: str
) -> None:
    content = content_features(
        np.resize([8, 16], n_adapters), np.full(n_adapters, 10 / n_adapters), max_loras, Lengths()
    )
    rows = adapter_contributions(np.resize([8, 16], 50), np.linspace(0.01, 0.1, 50))
    arrays = getattr(predictor, f"{target}_arrays" if model == "full" else f"distilled_{target}_arrays")
    ask = ask_about_starvation if target == "starvation" else ask_about_throughput
    total = benchmark(ask, content, rows, arrays, CALLS)
    assert np.isfinite(total)
    if benchmark.stats:
        benchmark.extra_info["ns_per_call"] = round(benchmark.stats.stats.median / CALLS * 1e9)


@pytest.mark.parametrize("model", ["predict", "distilled"])
@pytest.mark.parametrize("target", ["starvation", "throughput"])
def test_a_batch(benchmark: BenchmarkFixture, predictor: Predictor, target: str, model: str) -> None:
    content = content_features(np.resize([8, 16], 100), np.full(100, 0.1), 32, Lengths())
    contents = np.repeat(content[None], 10_000, axis=0)
    answers = benchmark(getattr(predictor, f"{model}_{target}"), contents)
    assert len(answers) == 10_000
    if benchmark.stats:
        benchmark.extra_info["ns_per_content"] = round(benchmark.stats.stats.median / 10_000 * 1e9)


@pytest.mark.parametrize("distilled", [False, True], ids=["full", "distilled"])
@pytest.mark.parametrize("target", ["itl_ms", "ttft_ms", "feasible_load"])
def test_a_batch_of_latencies(benchmark: BenchmarkFixture, predictor: Predictor, target: str, distilled: bool) -> None:
    content = content_features(np.resize([8, 16], 100), np.full(100, 0.1), 32, Lengths())
    contents = np.repeat(content[None], 10_000, axis=0)
    answers = benchmark(getattr(predictor, f"predict_{target}"), contents, distilled=distilled)
    assert np.all(answers > 0)
    if benchmark.stats:
        benchmark.extra_info["ns_per_content"] = round(benchmark.stats.stats.median / 10_000 * 1e9)
