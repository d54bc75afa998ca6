"""Which oracle a solver asks."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from predictors import Predictor
from predictors.features import FEATURE_NAMES, N_SUMS
from solvers.base import Problem
from solvers.oracles.base import Oracle
from solvers.oracles.predictor import PredictorOracle, workload_tail
from twin import ServiceLevel, UserError, Workload

ORACLES = ("auto", "predictor", "distilled", "twin")


def check_oracle_option(kind: str, solver: str, allowed: Iterable[str] = ORACLES) -> None:
    """Raise `UserError` unless the option `oracle` of a solver is one of those it knows."""
    if kind not in allowed:
        raise UserError(f"solver.oracle={kind} of solver {solver}: must be one of {list(allowed)}")


def make_oracle(kind: str, problem: Problem, solver: str) -> Oracle:
    """The oracle that an option `oracle` names.

    Parameters
    ----------
    kind : {"auto", "predictor", "distilled", "twin"}
        "auto" is the predictor if the problem has one, and the twin otherwise.
    problem : Problem
    solver : str
        Name for messages.

    Raises
    ------
    UserError
        For an unknown name, and for a predictor when the problem has none.
    """
    from solvers.oracles.draws import twin_of

    check_oracle_option(kind, solver)
    learned = problem.predictor is not None and problem.predictor.knows(problem.service)
    if kind == "twin" or (kind == "auto" and not learned):
        return twin_of(problem)
    if problem.predictor is None:
        raise UserError(f"solver {solver} with oracle={kind} needs a predictor for profile {problem.profile.name}")
    if not learned:
        raise UserError(
            f"solver {solver} with oracle={kind}: the predictor has not learned service={problem.service.name} "
            f"({problem.service.in_words()}); oracle=twin asks the twin"
        )
    if say_out_of_range(problem.predictor, problem.workload):
        return twin_of(problem)
    return PredictorOracle(problem.workload, problem.profile, problem.predictor, distilled=kind == "distilled")


LOG = logging.getLogger(__name__)


def out_of_range(predictor: Predictor, workload: Workload) -> str:
    """What of a workload lies outside the range that a predictor was trained on, in words; empty if nothing does.

    Only what every GPU shares: request lengths and window. More load than was trained on starves, which is no guess.
    """
    tail = dict(zip(FEATURE_NAMES[N_SUMS:], workload_tail(workload), strict=True))
    outside = []
    for name, value in tail.items():
        low, high = predictor.card["range"][name]
        if name != "max_loras" and not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
            outside.append(f"{name} {value:g} (trained on {low:g} to {high:g})")
    return ", ".join(outside)


def say_not_learned(predictor: Predictor, level: ServiceLevel) -> bool:
    """Whether a predictor says nothing of a service level; if so that is said, as a warning in the log."""
    known = predictor.knows(level)
    if not known:
        LOG.warning(
            "predictor %s: service=%s (%s) was not learned; asking the twin instead",
            predictor.profile_name, level.name, level.in_words(),
        )  # fmt: skip
    return not known


def say_out_of_range(predictor: Predictor, workload: Workload) -> bool:
    """Whether a workload lies outside a predictor's range; if so that is said, as a warning in the log."""
    outside = out_of_range(predictor, workload)
    if outside:
        LOG.warning("predictor %s: %s; asking the twin instead", predictor.profile_name, outside)
    return bool(outside)
