"""A first placement for the exact solver in a few seconds, where a predictor is shipped for the profile."""

from __future__ import annotations

from dataclasses import replace

from predictors import Predictor, load_predictor, shipped_predictors
from solvers.base import Problem
from solvers.contents.orders import sorted_plan
from solvers.ffd_plus import FfdPlus
from solvers.limits import Deadline
from solvers.oracles.base import Oracle
from twin import Placement


def predictor_for(problem: Problem) -> Predictor | None:
    """The predictor of a problem, or else the one that is shipped for its profile, if there is one."""
    if problem.predictor is None and problem.profile.name in shipped_predictors():
        return load_predictor(problem.profile.name)
    return problem.predictor


def fast_answer(
    problem: Problem, oracle: Oracle, deadline: Deadline, last_deadline: Deadline, *, replicas: bool = False
) -> tuple[Placement | None, int]:
    """GPUs filled by the learned model (`solvers.ffd_plus`), all of them accepted by the oracle; None if there are none such.

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
    # The exact solver searches on the twin itself, once it knows prices and a bound.
    answer = FfdPlus(twin_search=False, replicas=replicas).solve(
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
