"""Which oracle a solver asks."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from predictors import Predictor
from predictors.features import FEATURE_NAMES, N_SUMS
from solvers.base import Problem
from solvers.oracles.base import Oracle
from solvers.oracles.predictor import PredictorOracle, workload_tail
from twin import ServingProfile, UserError, Workload

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
    from solvers.oracles.twin import TwinOracle

    check_oracle_option(kind, solver)
    learned = not problem.service.judges_requests
    if not learned and kind not in ("twin", "auto"):
        raise UserError(
            f"solver {solver} with oracle={kind}: predictors know the published rule, not service={problem.service.name}; "
            "oracle=twin asks the twin"
        )
    if kind == "twin" or (kind == "auto" and (problem.predictor is None or not learned)):
        return TwinOracle(problem.workload, problem.profile, service=problem.service)
    if problem.predictor is None:
        raise UserError(f"solver {solver} with oracle={kind} needs a predictor for profile {problem.profile.name}")
    return learned_oracle(problem.workload, problem.profile, problem.predictor, distilled=kind == "distilled")


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


def say_out_of_range(predictor: Predictor, workload: Workload) -> bool:
    """Whether a workload lies outside a predictor's range; if so that is said, as a warning in the log."""
    outside = out_of_range(predictor, workload)
    if outside:
        LOG.warning("predictor %s: %s; asking the twin instead", predictor.profile_name, outside)
    return bool(outside)


def learned_oracle(
    workload: Workload,
    profile: ServingProfile,
    predictor: Predictor,
    *,
    distilled: bool = False,
    twin_outside: bool = True,
) -> Oracle:
    """A predictor as an oracle, or the twin for a workload outside the range that it was trained on.

    Parameters
    ----------
    workload, profile, predictor
    distilled : bool
        The single tree instead of the full model.
    twin_outside : bool
        Fall back to the twin outside the range; otherwise the predictor extrapolates.
    """
    if twin_outside and say_out_of_range(predictor, workload):
        from solvers.oracles.twin import TwinOracle

        return TwinOracle(workload, profile)
    return PredictorOracle(workload, profile, predictor, distilled=distilled)
