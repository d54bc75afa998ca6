"""Every kernel of an exact search used once, on a tiny problem: compiling takes longer than many a time limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from solvers.base import Problem
from solvers.contents.adapter_types import single_types
from solvers.exact_search.frontier import boxes_of_frontier, frontier_bound
from solvers.exact_search.greedy_answers import predictor_for
from solvers.exact_search.state import SearchState
from solvers.filling.model import FillModel
from solvers.limits import Deadline
from solvers.oracles.base import Oracle
from solvers.zones.bound import ZoneBound

# Long enough for any compiler; the steps themselves take milliseconds.
_ENOUGH_S = 600.0


def compile_all(problem: Problem, oracle: Oracle) -> None:
    """Make zones, frontier and fillings of a tiny problem.

    Parameters
    ----------
    problem : Problem
    oracle : Oracle
        For the same workload.
    """
    deadline = Deadline.after(_ENOUGH_S)
    state = SearchState(problem, oracle, deadline, 1)
    zones = ZoneBound(oracle)
    zones.rule_out(int(problem.workload.ranks.max()), zones.sums.sum(axis=0))
    zones.run(deadline, rounds=1)
    zones.run(Deadline.after(1.0), target=problem.workload.n_adapters + 1)
    singles = single_types(problem.workload)
    for types, demands in ((state.types, state.demands), (singles, oracle.demands(singles))):
        ranks, sums = np.unique(types.ranks), demands.of(types.counts)
        others = np.array([row for row in range(len(ranks) - 1, len(sums)) if row != demands.load_row])
        limits = np.full((len(ranks), 1), sums[demands.load_row])
        boxes = boxes_of_frontier(ranks, limits, np.tile(sums, (len(ranks), 1, 1)), others)
        frontier_bound(demands, types.counts, types.ranks, boxes, max_rounds=2, deadline=deadline)
    predictor = predictor_for(problem)
    if predictor is not None:
        FillModel(replace(problem, predictor=predictor), distilled=oracle.name == "distilled").compile_all()
