"""Rules of dealing adapters to GPUs: each adapter once, and as evenly as the rule says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.spreading.dealing import least_loaded, rank_by_rank, slices
from solvers.spreading.exchange_kernel import exchange, sums_after

WEIGHTS = st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40)


@given(weights=WEIGHTS, n_gpus=st.integers(1, 8), seed=st.integers(0, 9))
def test_each_adapter_is_dealt_once(weights: list[float], n_gpus: int, seed: int) -> None:
    sizes = np.array(weights)
    ranks = np.random.default_rng(seed).choice([8, 16, 32], len(sizes))
    order = np.argsort(-sizes, kind="stable")
    for groups in (
        least_loaded(sizes, order, n_gpus),
        rank_by_rank(sizes, ranks, n_gpus),
        slices(sizes, order, n_gpus),
    ):
        assert len(groups) == n_gpus
        assert sorted(adapter for group in groups for adapter in group) == list(range(len(sizes)))


@given(weights=WEIGHTS, n_gpus=st.integers(1, 8))
def test_no_gpu_is_fuller_than_another_by_more_than_an_adapter(weights: list[float], n_gpus: int) -> None:
    sizes = np.array(weights)
    loads = [sizes[group].sum() for group in least_loaded(sizes, np.arange(len(sizes)), n_gpus)]
    assert max(loads) - min(loads) <= sizes.max() + 1e-9


def test_ties_go_to_the_gpu_with_fewer_adapters() -> None:
    assert least_loaded(np.array([0.0, 0.0, 1.0, 0.0]), np.arange(4), 2) == [[0, 2], [1, 3]]


def test_ranks_stay_together() -> None:
    ranks = np.array([8, 32, 8, 32, 8, 32])
    assert [set(ranks[group]) for group in rank_by_rank(np.ones(6), ranks, 2)] == [{32}, {8}]


@pytest.mark.parametrize("b", [-1, 3], ids=["move", "swap"])
def test_an_exchange_leaves_the_sums_of_the_contents(b: int) -> None:
    rows = np.random.default_rng(0).random((6, 4))
    gpu_of = np.array([0, 0, 0, 1, 1, 2])
    sums = np.array([rows[gpu_of == gpu].sum(axis=0) for gpu in range(3)])
    counts = np.bincount(gpu_of)
    first, second = np.empty(4), np.empty(4)
    before = sums.copy()
    sums_after(rows, sums, 0, 1, 1, b, first, second)
    assert np.array_equal(sums, before), "asking changes nothing"
    exchange(gpu_of, sums, counts, 0, 1, 1, b, first, second)
    assert gpu_of.tolist() == ([0, 1, 0, 1, 1, 2] if b < 0 else [0, 1, 0, 0, 1, 2])
    assert counts.tolist() == np.bincount(gpu_of).tolist()
    assert np.allclose(sums, [rows[gpu_of == gpu].sum(axis=0) for gpu in range(3)])
