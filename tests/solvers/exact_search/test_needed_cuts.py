"""Which cuts a certificate has to hold: those that no other makes superfluous, each once, in their order."""

from __future__ import annotations

import numpy as np

from solvers.exact_search.certificate import _needed


def test_a_cut_is_needed_unless_another_rules_out_all_that_it_does() -> None:
    """At a rank as low or lower and sums as low or lower; alike in both counts once."""
    cuts = [
        (8, np.array([2.0, 2.0])),
        (16, np.array([1.0, 1.0])),
        (8, np.array([1.0, 1.0])),
        (8, np.array([0.5, 3.0])),
        (8, np.array([1.0, 1.0])),
        (16, np.array([0.5, 0.5])),
    ]
    assert [(rank, sums.tolist()) for rank, sums in _needed(cuts)] == [
        (8, [1.0, 1.0]),
        (8, [0.5, 3.0]),
        (16, [0.5, 0.5]),
    ]
    assert [rank for rank, _ in _needed(cuts[:1])] == [8]
