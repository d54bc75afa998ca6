"""Spreads of very many adapters: as those of few, and within the time that there is."""

import numpy as np
import pytest

from solvers.base import Problem
from solvers.contents.adapter_types import adapter_types
from solvers.limits import Deadline, OutOfTimeError
from solvers.min_max_load import _contents, _Dealt
from solvers.spreading.latency_model import LatencyModel
from twin import Workload


@pytest.mark.parametrize("n_gpus", [1, 3, 7])
def test_adapters_dealt_in_one_piece_are_counted_and_placed_as_from_the_table_of_counts(n_gpus: int) -> None:
    """A table of GPUs by types does not fit into memory where every adapter is a type of its own."""
    generator = np.random.default_rng(n_gpus)
    workload = Workload(generator.choice([8, 16], 40), generator.choice([0.1, 0.2, 0.5], 40), duration_s=60.0)
    types = adapter_types(workload)
    gpu_of = generator.integers(0, n_gpus, 40)
    groups = [np.flatnonzero(gpu_of == gpu).tolist() for gpu in range(n_gpus)]
    dealt = _Dealt.of(groups, types)
    counts = np.array([[len(np.intersect1d(group, members)) for members in types.members] for group in groups])
    np.testing.assert_array_equal(dealt.counts(), counts)
    assert dealt.contents() == _contents(counts, types)
    units = generator.integers(1, 1000, len(types))
    assert dealt.largest(units) == (counts @ units).max()


def test_a_spread_in_pieces_is_that_of_one_and_ends_with_its_time(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LatencyModel(problem)
    order = np.argsort(-problem.workload.rates, kind="stable")
    monkeypatch.setattr("solvers.spreading.latency_model.DEALT", len(order))
    whole = model.spread(order, 3)
    monkeypatch.setattr("solvers.spreading.latency_model.DEALT", 2)
    assert model.spread(order, 3, Deadline.after(60.0)) == whole
    with pytest.raises(OutOfTimeError):
        model.spread(order, 3, Deadline.after(0.0))
