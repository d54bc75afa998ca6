"""Whether the oracle in use keeps the order that a proof rests on, on a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solvers.limits import Deadline, OutOfTimeError
from solvers.oracles.base import Oracle
from twin import Placement

#: Pairs asked about, by hand: what fits into a second on the twin. None broken in 24 says, at 95 %, that fewer than one in eight is.
PAIRS = 24


@dataclass(frozen=True)
class MonotoneSample:
    """Accepted contents, and how many of those that ask for less were rejected.

    Attributes
    ----------
    pairs, violations : int
    """

    pairs: int
    violations: int


def sample_monotonicity(oracle: Oracle, placement: Placement, seed: int, deadline: Deadline) -> MonotoneSample:
    """Ask about contents that ask for less than the accepted ones of a placement.

    Each loses a random share of its adapters; the others are replaced, where there is one, by an adapter of the workload
    that is on no larger rank and has no larger rate.

    Parameters
    ----------
    oracle : Oracle
    placement : Placement
        Every GPU of it is accepted.
    seed : int
    deadline : Deadline
        Fewer pairs are asked about when it comes.
    """
    workload = oracle.workload
    generator = np.random.default_rng(seed)
    plans = [plan for plan in placement.gpus if len(plan.adapters) > 1]
    pairs = violations = 0
    while plans and pairs < PAIRS and deadline.left_s:
        plan = plans[int(generator.integers(len(plans)))]
        content = list(plan.adapters)
        kept = generator.permutation(content)[: int(generator.integers(1, len(content)))].tolist()
        others = set(range(workload.n_adapters)) - set(content)
        for place, adapter in enumerate(kept):
            smaller = [
                other
                for other in generator.permutation(sorted(others))[:8].tolist()
                if workload.ranks[other] <= workload.ranks[adapter] and workload.rates[other] <= workload.rates[adapter]
            ]
            if smaller:
                others.remove(smaller[0])
                kept[place] = smaller[0]
        less = tuple(sorted(kept))
        try:
            violations += oracle.find_max_loras(less, plan.max_loras) is None and not oracle.is_cut_off(less)
        except OutOfTimeError:
            break
        pairs += 1
    return MonotoneSample(pairs, violations)
