"""Bounds for placements that hold on several draws: a bound for any one of these draws is one."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from solvers.base import Problem
from solvers.exact_search.bounds import Bounds
from solvers.exact_search.state import SearchState
from solvers.limits import Deadline, OutOfTimeError
from solvers.oracles.twin import TwinOracle
from twin import Placement

#: Share of an exact solve's time for the bounds of other draws. By hand.
OTHERS_SHARE = 1 / 4


def bound_of_draws(problem: Problem, placement: Placement, state: SearchState, deadline: Deadline) -> int:
    """The best lower bound among those of all draws, that of the workload's own as far as it is known.

    Parameters
    ----------
    problem : Problem
        With `other_seeds`.
    placement : Placement
        One that holds on all draws: as many GPUs need not be exceeded.
    state : SearchState
        Of the search on the workload's own draw.
    deadline : Deadline
        The time that is left is shared evenly.
    """
    best = state.progress.lower_bound
    for number, seed in enumerate(problem.other_seeds):
        if best >= placement.n_gpus:
            break
        other = replace(problem, workload=problem.workload.with_seed(seed), max_gpus=None, other_seeds=())
        ours = Deadline.after(deadline.left_s / (len(problem.other_seeds) - number))
        oracle = TwinOracle(other.workload, other.profile, service=other.service)
        oracle.deadline = ours
        with contextlib.suppress(OutOfTimeError):
            if best < 2 and oracle.verdict(tuple(range(other.workload.n_adapters))).rejected:
                best = 2
                continue
            draw = SearchState(other, oracle, ours, state.workers, replicas=state.replicas)
            draw.progress.keep(placement)
            bounds = Bounds(draw)
            for step in (bounds.first, lambda bounds=bounds: bounds.by_zones(1.0)):
                step()
                best = max(best, draw.progress.lower_bound)
    return best
