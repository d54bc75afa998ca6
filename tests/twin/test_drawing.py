"""Requests drawn in compiled loops are those that NumPy's generators draw one adapter at a time: the reference, to the digit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from twin import Lengths, LogNormalTokens, Requests, Workload, fixed_lengths
from twin.arrivals import Arrivals, GammaArrivals, PoissonArrivals, UnpredictableArrivals
from twin.lengths import LENGTH_DRAWS
from twin.merging import in_order
from twin.streams import Streams, poisson_times, uniforms
from twin.token_tables import normal_table, output_table

LENGTHS = {
    "shipped": Lengths(),
    "stopping early": Lengths(generated_fraction=0.95),
    "independent": Lengths(correlation=0.0),
    "one length": fixed_lengths(100, 50),
    "one output length": Lengths(output=LogNormalTokens(50.0, 0.0, 1, 100)),
    "nearly the same": Lengths(correlation=0.9999),
    "against each other": Lengths(correlation=-0.9999, output=LogNormalTokens(300.0, 2.0, 1, 1024)),
    "near the end of the range": Lengths(output=LogNormalTokens(900.0, 1.0, 4, 1024)),
    "narrow in a wide range": Lengths(output=LogNormalTokens(100.0, 0.01, 1, 60_000)),
    "long": Lengths(LogNormalTokens(50.0, 0.1, 1, 200_000), LogNormalTokens(5000.0, 3.0, 1, 60_000), 90_000),
    "longer than any table": Lengths(output=LogNormalTokens(5000.0, 3.0, 1, 200_000), max_total_tokens=250_000),
}
ARRIVALS: tuple[Arrivals, ...] = (PoissonArrivals(), GammaArrivals(3.0), UnpredictableArrivals(10.0))


def generator(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, number]))


def drawn_one_by_one(workload: Workload, adapters: NDArray[np.int64], intervals: NDArray[np.float64]) -> Requests:
    """Every stream on a generator of its own, all of them sorted by NumPy, every length by SciPy."""
    ids = np.asarray(workload.ids)
    times, draws, owners = [np.empty(0)], [np.empty((0, LENGTH_DRAWS))], [np.empty(0, dtype=np.int64)]
    for place, adapter in enumerate(adapters):
        rate, identity = float(workload.rates[adapter]), int(ids[adapter])
        time = np.empty(0)
        if rate:
            time = workload.arrivals.draw(generator(workload.seed, 2 * identity), rate, workload.duration_s)
        draw = generator(workload.seed, 2 * identity + 1).random((len(time), LENGTH_DRAWS))
        routing = generator(workload.seed, 2**62 + identity).random(len(time))
        here = (intervals[place, 0] <= routing) & (routing < intervals[place, 1])
        times.append(time[here])
        draws.append(draw[here])
        owners.append(np.full(here.sum(), place))
    arrival_s, owner = np.concatenate(times), np.concatenate(owners)
    order = np.lexsort((ids[adapters][owner], arrival_s))
    return Requests(arrival_s[order], owner[order], *workload.lengths.from_uniforms(np.concatenate(draws)[order]))


def assert_same(one: Requests, other: Requests) -> None:
    for name, column in one.columns().items():
        np.testing.assert_array_equal(column, getattr(other, name), err_msg=name)
        assert column.dtype == getattr(other, name).dtype


@pytest.mark.parametrize("arrivals", ARRIVALS, ids=lambda arrivals: type(arrivals).__name__)
@given(data=st.data())
def test_requests_are_those_drawn_one_adapter_at_a_time(arrivals: Arrivals, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 5))
    rates = data.draw(st.lists(st.sampled_from([0.0, 1e-9, 0.01, 0.7, 6.0]), min_size=count, max_size=count))
    workload = Workload(
        np.full(count, 8),
        np.array(rates),
        lengths=LENGTHS[data.draw(st.sampled_from(list(LENGTHS)))],
        duration_s=data.draw(st.sampled_from([1.0, 45.5])),
        seed=data.draw(st.sampled_from([0, 7, 2**63 - 1])),
        ids=np.array(data.draw(st.lists(st.integers(0, 2**60), min_size=count, max_size=count, unique=True))),
        arrivals=arrivals,
    )
    adapters = np.array(data.draw(st.permutations(range(count)))[: count - 1 if count > 3 else count], dtype=np.int64)
    low, high = sorted(data.draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    whole, part = np.tile([0.0, 1.0], (len(adapters), 1)), np.tile([low, high], (len(adapters), 1))
    alone, reference = workload.requests_of(adapters, part), drawn_one_by_one(workload, adapters, part)
    assert_same(alone, reference)
    assert_same(workload.requests_of(adapters), drawn_one_by_one(workload, adapters, whole))
    _ = workload.requests
    assert_same(workload.requests_of(adapters, part), reference)


def test_every_way_through_the_ziggurat_is_taken() -> None:
    """A few hundred thousand gaps: its strips, their edges, and the tail beyond 7.7 means."""
    rates = np.array([50.0, 300.0])
    times, counts = poisson_times(np.uint64(3), np.array([4, 2**63], dtype=np.uint64), rates, 1000.0, 1)
    references = [
        PoissonArrivals().draw(generator(3, number), rate, 1000.0) for number, rate in ((4, 50.0), (2**63, 300.0))
    ]
    np.testing.assert_array_equal(times, np.concatenate(references))
    assert counts.tolist() == [len(reference) for reference in references]
    assert (np.diff(references[1]) * 300 > 7.7).any()


def test_uniform_draws_are_numpys() -> None:
    numbers, counts = np.array([0, 5, 2**62 + 9], dtype=np.uint64), np.array([3, 0, 1001])
    reference = np.concatenate([generator(2**40, int(n)).random((c, 3)) for n, c in zip(numbers, counts, strict=True)])
    np.testing.assert_array_equal(uniforms(np.uint64(2**40), numbers, counts, 3).T, reference)


def test_a_stream_begins_anew_each_time_it_is_opened() -> None:
    streams = Streams(11)
    first = streams.open(4).random(7)
    assert not np.array_equal(streams.open(5).random(7), first)
    # An odd number of 32-bit draws leaves half a word over.
    streams.open(5).integers(0, 10, 3, dtype=np.int32)
    np.testing.assert_array_equal(streams.open(4).random(7), first)
    np.testing.assert_array_equal(first, generator(11, 4).random(7))


@given(
    times=st.lists(st.sampled_from([0.0, 1.0, 1.5, 1e-300, 1e9]) | st.floats(0, 1e6), max_size=200),
    data=st.data(),
)
def test_order_is_that_of_a_stable_sort(times: list[float], data: st.DataObject) -> None:
    ties = data.draw(st.lists(st.integers(0, 3), min_size=len(times), max_size=len(times)))
    times_s, by = np.array(times, dtype=np.float64), np.array(ties, dtype=np.int64)
    np.testing.assert_array_equal(in_order(times_s, by), np.lexsort((by, times_s)))


@pytest.mark.parametrize("together", [1, 64, 65, 5000])
def test_bursts_are_sorted_as_well(together: int) -> None:
    times = np.random.default_rng(1).uniform(0, 1000, 5000)
    times[:together] = 500 + 1e-9 * times[:together]
    by = np.arange(5000) % 7
    np.testing.assert_array_equal(in_order(times, by), np.lexsort((by, times)))


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_are_those_of_the_reference(name: str) -> None:
    draws = np.random.default_rng(2).random((LENGTH_DRAWS, 300_000))
    ends = np.array([2.0**-53, 2.0**-40, 2.0**-21, 2.0**-20, 2.0**-12, 0.0625, 0.5, 0.75, 1 - 2.0**-20, 1 - 2.0**-53])
    draws[0, : len(ends) ** 2], draws[1, : len(ends) ** 2] = (part.ravel() for part in np.meshgrid(ends, ends))
    order = np.random.default_rng(3).permutation(draws.shape[1])
    found, reference = LENGTHS[name].from_ordered(draws, order), LENGTHS[name].from_uniforms(draws.T[order])
    for one, other in zip(found, reference, strict=True):
        np.testing.assert_array_equal(one, other)


def test_lengths_next_to_where_they_change_are_those_of_the_reference() -> None:
    """The pairs of draws whose normal variable is nearest to a change, which interpolation cannot tell apart."""
    from scipy.special import ndtr

    lengths = LENGTHS["shipped"]
    # Of a prompt at its median the output's own draw alone decides.
    bounds = output_table(*_quantiles(lengths.output)).bounds[:-1]
    own = np.sqrt(1 - lengths.correlation**2)
    draws = np.concatenate([ndtr((bounds + shift) / own) for shift in (-3e-8, -1e-9, 0.0, 1e-9, 3e-8, 2e-7)])
    draws = draws[(draws > 0) & (draws < 1)]
    uniform = np.vstack([np.full(len(draws), 0.5), draws, np.zeros(len(draws))])
    for one, other in zip(
        lengths.from_ordered(uniform, np.arange(len(draws))), lengths.from_uniforms(uniform.T), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def _quantiles(tokens: LogNormalTokens) -> tuple[NDArray[np.float64], NDArray[np.float64], int, int]:
    from twin import lengths

    table = lengths._quantile_table(tokens.mean_tokens, tokens.sigma, tokens.min_tokens, tokens.max_tokens)
    return table, lengths._GRID, tokens.min_tokens, tokens.max_tokens


def test_normal_quantiles_are_interpolated_to_a_tenth_of_what_is_left_to_the_reference() -> None:
    from scipy.special import ndtri

    from twin.token_tables import _NEAR, _normal

    shares = np.concatenate([np.geomspace(2.0**-20, 0.5, 100_000), 1 - np.geomspace(2.0**-20, 0.5, 100_000)])
    table = normal_table()
    found = np.array([_normal(share, table) for share in shares])
    assert np.abs(found - ndtri(shares)).max() < _NEAR / 10
    assert np.isnan([_normal(share, table) for share in (0.0, 2.0**-20 * 0.999, 1.0)]).all()
