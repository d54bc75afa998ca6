"""A first placement for the exact solver in a second or so, and what `ffd_plus` finds, for it to improve on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from predictors import Predictor, load_predictor, shipped_predictors
from solvers.base import Problem
from solvers.contents.divided import DividedWorkload, divided, in_order_of_gpus, with_shares
from solvers.contents.orders import decreasing_order, sorted_plan
from solvers.exact_search.state import SearchState
from solvers.ffd_plus import FfdPlus
from solvers.filling.model import FillModel
from solvers.limits import Deadline
from solvers.mending.hot import backbone_of, tokens_per_s
from solvers.oracles.base import Oracle, nearest_first
from solvers.oracles.draws import twin_of
from solvers.oracles.twin import TwinOracle
from solvers.spreading.dealing import slices
from twin import GpuPlan, Placement

# All of these are by hand: they decide how soon the first placement is there, and how good it is.

#: Adapters up to which the forest fills GPUs; the single tree takes a tenth of the time, which matters for tens of thousands.
MOST_FOR_FOREST = 5000
#: `max_loras` that are asked about for a GPU before it is halved, and the shortfall beyond which no other is.
TRIES, HOPELESS = 3, 0.05
#: Load of a GPU where no predictor is shipped, in terms of what the backbone serves alone, and `max_loras` tried first.
HALF_FULL, FIRST_SLOTS = 0.5, 64


def predictor_for(problem: Problem) -> Predictor | None:
    """The predictor of a problem, or else the one that is shipped for its profile, if there is one."""
    if problem.predictor is None and problem.profile.name in shipped_predictors():
        return load_predictor(problem.profile.name)
    return problem.predictor


class FirstAnswer:
    """GPUs filled by the learned model, or evenly by load where there is none; those that the twin refuses are halved until it accepts.

    Parameters
    ----------
    state : SearchState
        With its hot adapters known, if there are any.

    Attributes
    ----------
    unchecked : Placement
        As the model has it.
    calls : int
        Contents that were asked about besides those that the state's oracle counts.
    """

    def __init__(self, state: SearchState) -> None:
        self.state = state
        self.calls = 0
        problem, counts = state.problem, state.hot_parts
        self._parts: DividedWorkload | None = None
        if counts is not None and (counts > 1).any():
            self._parts = divided(problem.workload, np.where(counts > 1, 2 * counts, counts))
            problem = replace(problem, workload=self._parts)
        self._workload = problem.workload
        self._filled = tuple(GpuPlan(content, slots) for content, slots in _filled(problem))
        self.unchecked = self._of_adapters(self._filled)

    def _of_adapters(self, plans: tuple[GpuPlan, ...]) -> Placement:
        placement = Placement(plans)
        return placement if self._parts is None else with_shares(self._parts, in_order_of_gpus(self._parts, placement))

    def accepted(self) -> Placement | None:
        """A placement every GPU of which the twin accepts; None where halving does not lead to one.

        Raises
        ------
        OutOfTimeError
        """
        state, oracle = self.state, self.state.oracle
        if self._parts is not None or not isinstance(oracle, TwinOracle):
            oracle = twin_of(state.problem, self._workload)
            oracle.deadline = state.deadline
        before = oracle.calls
        plans = self._filled
        while True:
            # Halves take the place of their whole, so that the parts of an adapter on the other GPUs stay the same.
            asked = Placement(plans) if self._parts is None else in_order_of_gpus(self._parts, Placement(plans))
            halved = [self._asked(oracle, plan) for plan in asked.gpus]
            plans = tuple(plan for several in halved for plan in several)
            if len(plans) == len(asked.gpus) or not all(halved):
                break
        if self._parts is not None:
            self.calls += oracle.calls - before
        return self._of_adapters(plans) if all(halved) else None

    def _asked(self, oracle: TwinOracle, plan: GpuPlan) -> list[GpuPlan]:
        """The plan with a `max_loras` at which it is accepted, or its halves; nothing where it cannot be halved."""
        self.state.deadline.check()
        content, hint = plan.adapters, plan.max_loras
        slots = _near(oracle, content, hint) if len(content) > 1 else oracle.find_max_loras(content, hint)
        if slots is not None:
            return [GpuPlan(content, slots)]
        if len(content) == 1:
            return []
        weights = tokens_per_s(self._workload)
        busiest_first = sorted(content, key=lambda adapter: -weights[adapter])
        return [GpuPlan(tuple(sorted(busiest_first[half::2])), hint) for half in (0, 1)]


def _filled(problem: Problem) -> list[tuple[tuple[int, ...], int]]:
    """Contents with their `max_loras`."""
    workload, predictor = problem.workload, predictor_for(problem)
    if predictor is not None:
        distilled = workload.n_adapters > MOST_FOR_FOREST
        model = FillModel(replace(problem, predictor=predictor), distilled=distilled)
        filling = model.filled(decreasing_order(workload))
        groups = zip(filling.groups(), filling.slots.tolist(), strict=True)
        return [(tuple(group), min(slots, len(group))) for group, slots in groups if group]
    load = tokens_per_s(workload)
    count = max(1, math.ceil(float(load.sum()) / (HALF_FULL * backbone_of(problem))))
    even = slices(load, decreasing_order(workload), count)
    return [(tuple(sorted(group)), _starting(problem, group)) for group in even if group]


def _starting(problem: Problem, group: list[int]) -> int:
    most = problem.profile.largest_max_loras(int(problem.workload.ranks[group].max()))
    return max(1, min(len(group), FIRST_SLOTS, most))


def _near(oracle: TwinOracle, content: tuple[int, ...], hint: int) -> int | None:
    """One of a few `max_loras` near a hint at which the content is accepted."""
    for value in nearest_first(oracle.slots(content), hint)[:TRIES]:
        share = oracle.share(content, value)
        if share >= oracle.service.share:
            return value
        if share < oracle.service.share - HOPELESS:
            return None
    return None


def greedy_answer(
    problem: Problem, oracle: Oracle, deadline: Deadline, last_deadline: Deadline, *, replicas: bool = False
) -> tuple[Placement | None, int]:
    """What `ffd_plus` finds without its search on the twin, all GPUs accepted by the oracle; None if it finds none such.

    The exact solver searches on the twin itself, once it knows prices and a bound.

    Parameters
    ----------
    problem : Problem
        Its GPU limit is not kept.
    oracle : Oracle
        Asked about the GPUs that the other solver had no time to check.
    deadline : Deadline
        For the other solver.
    last_deadline : Deadline
        For the oracle.
    replicas : bool
        Adapters may be divided among GPUs.

    Returns
    -------
    placement : Placement or None
    calls : int
        Contents that the other solver asked about.

    Raises
    ------
    OutOfTimeError
    """
    predictor = predictor_for(problem)
    if predictor is None:
        return None, 0
    deadline.check()
    time_limit_s = max(deadline.left_s, 0.1)
    answer = FfdPlus(twin_search=False, replicas=replicas, best_service=False).solve(
        replace(problem, predictor=predictor, max_gpus=None, time_limit_s=time_limit_s)
    )
    if answer.placement is None or answer.status == "feasible" or answer.placement.has_replicas:
        return (answer.placement if answer.status == "feasible" else None), answer.oracle_calls
    plans = []
    for plan in answer.placement.gpus:
        last_deadline.check()
        adapters = tuple(sorted(plan.adapters))
        slots = oracle.find_max_loras(adapters, plan.max_loras)
        if slots is None:
            return None, answer.oracle_calls
        plans.append(sorted_plan(adapters, slots))
    return Placement(tuple(plans)), answer.oracle_calls
