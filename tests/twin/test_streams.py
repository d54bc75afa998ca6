"""Random streams: each is opened for one use, so that nothing drawn says anything of what else is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from predictors.design import content_generator
from twin import Workload, builders, load_profile, streams, workload_from_groups

PROFILE = load_profile("llama-3.1-8b")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Keys of the streams that are opened, in order: by NumPy's generators, and in compiled loops."""
    keys: list[tuple[int, ...]] = []
    philox, drawn, times = np.random.Philox, streams.uniforms, streams.poisson_times

    def spy(*arguments: Any, **options: Any) -> np.random.Philox:  # noqa: ANN401  # whatever Philox takes
        keys.append(tuple(int(part) for part in options["key"]))
        return philox(*arguments, **options)

    def spy_on_uniforms(seed: np.uint64, numbers: NDArray[np.uint64], *rest: Any) -> NDArray[np.float64]:  # noqa: ANN401
        keys.extend((int(seed), int(number)) for number in numbers)
        return drawn(seed, numbers, *rest)

    def spy_on_times(seed: np.uint64, numbers: NDArray[np.uint64], *rest: Any) -> tuple[Any, Any]:  # noqa: ANN401
        keys.extend((int(seed), int(number)) for number in numbers)
        return times(seed, numbers, *rest)

    monkeypatch.setattr(np.random, "Philox", spy)
    monkeypatch.setattr("twin.workload.uniforms", spy_on_uniforms)
    monkeypatch.setattr("twin.workload.poisson_times", spy_on_times)
    return keys


def once(keys: list[tuple[int, ...]]) -> bool:
    return max(Counter(keys).values()) == 1


def trace_of(folder: Path, **options: Any) -> Workload:  # noqa: ANN401  # options of all types
    rows = [f"2023-11-16 18:00:{second:02}.0000000,100,10" for second in range(60)]
    path = folder / "trace.csv"
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    given = {"n_adapters": 12, "ranks": [8], "popularity": "dirichlet", "popularity_parameter": 0.5, **options}
    return builders.trace(PROFILE, path=str(path), **given)


@pytest.mark.parametrize(
    "build",
    [
        lambda _: builders.dirichlet(
            PROFILE, n_adapters=12, total_rate=5.0, concentration=0.5, ranks=[8], duration_s=60.0
        ),
        lambda _: builders.zipf(PROFILE, n_adapters=12, total_rate=5.0, exponent=1.0, ranks=[8], duration_s=60.0),
        trace_of,
        lambda folder: trace_of(folder, multiplier=2.5),
    ],
    ids=["dirichlet", "zipf", "trace", "multiplied trace"],
)
def test_no_stream_is_opened_for_two_uses(
    build: Callable[[Path], Workload], opened: list[tuple[int, ...]], tmp_path: Path
) -> None:
    """Popularity, who sends which recorded request, arrivals, lengths and routing: one stream each."""
    workload = build(tmp_path)
    everything = np.arange(workload.n_adapters)
    before = len(opened)
    _ = workload.requests
    if workload.trace is None:
        assert len(opened) - before == 2 * workload.n_adapters, "arrivals and lengths of each adapter"
    workload.requests_of(everything, np.tile([0.0, 0.5], (workload.n_adapters, 1)))
    assert once(opened)
    assert {key[0] for key in opened} == {workload.seed}


def test_a_popularity_says_nothing_of_that_of_another_builder(tmp_path: Path) -> None:
    """The same seed, number of adapters and concentration."""
    recorded = trace_of(tmp_path)
    drawn = builders.dirichlet(
        PROFILE, n_adapters=12, total_rate=recorded.total_rate, concentration=0.5, ranks=[8], duration_s=60.0
    )
    assert not np.allclose(recorded.rates, drawn.rates)


def test_adapters_have_streams_of_their_own_whatever_their_identities(opened: list[tuple[int, ...]]) -> None:
    """Arrivals, lengths and routing of the identities 0 to 50: a hundred and fifty-three streams."""
    workload = Workload(np.full(51, 8), np.full(51, 0.1), duration_s=20.0, ids=np.arange(51)[::-1], seed=7)
    workload.requests_of(np.arange(51), np.tile([0.0, 1.0], (51, 1)))
    assert len(set(opened)) == len(opened) == 153


def test_arrivals_lengths_and_routing_are_independent() -> None:
    """Ranks of the first draws of 400 adapters do not go together."""
    workload = workload_from_groups([(400, 8, 0.05)], duration_s=400.0)
    first = np.searchsorted(workload.requests.adapter[workload._rows], np.arange(400))
    rows = workload._rows[np.minimum(first, len(workload._rows) - 1)]
    arrival, prompt = workload.requests.arrival_s[rows], workload.requests.prompt_tokens[rows]
    routed = workload.routing_draws(np.arange(400), np.ones(400, dtype=np.int64))
    for one, other in ((arrival, prompt), (arrival, routed), (prompt, routed)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.2


def test_contents_of_a_sample_are_drawn_and_simulated_from_streams_of_their_own() -> None:
    """Of (seed, index, use): twelve contents, both uses, two seeds."""
    draws = {
        content_generator(seed, index, stream).random() for seed in (0, 1) for index in range(12) for stream in (0, 1)
    }
    assert len(draws) == 48
    assert content_generator(3, 5).random() == content_generator(3, 5, 0).random()
