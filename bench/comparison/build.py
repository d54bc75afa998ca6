"""What a cell names, made: its workload and its solver."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException

from bench.comparison.cell import Cell
from bench.shared.mistakes import explain, explain_instantiation
from solvers.base import Solver
from solvers.objectives.base import Objective
from twin import ServiceLevel, ServingProfile, UserError, Workload
from twin.numbers import shown

# The workload of the last cell: the next one is often of the same, and its requests need not be drawn again.
_last_workload: list[tuple[str, Workload]] = []


def workload_of(key: str, cell: Cell, profile: ServingProfile) -> Workload:
    """The workload of a cell; that of the last one if it has the same key."""
    if not _last_workload or _last_workload[0][0] != key:
        _last_workload[:] = [(key, build_workload(cell.workload, profile))]
    return _last_workload[0][1]


def service_of(cell: Cell) -> ServiceLevel:
    """The service level that a cell is scored by.

    Raises
    ------
    UserError
        For what is none.
    """
    return level_of(cell.service)


def level_of(options: Mapping[str, Any]) -> ServiceLevel:
    """The service level that some options describe; the published rule where there are none.

    Raises
    ------
    UserError
        For what is none.
    """
    for name, value in options.items():
        odd = isinstance(value, bool) or (isinstance(value, float) and math.isnan(value))
        if odd or isinstance(value, str) != (name == "name"):
            raise UserError(f"service.{name}={shown(value)} must be {'text' if name == 'name' else 'a number'}")
    try:
        return ServiceLevel(**options)
    except (TypeError, OverflowError) as error:
        raise UserError(f"service: {error}") from None


def build_workload(options: Mapping[str, Any], profile: ServingProfile) -> Workload:
    """The workload that a configuration describes, for a serving profile.

    Raises
    ------
    UserError
        For options that its builder does not know, or refuses.
    """
    # The profile is handed over afterwards: Hydra would make a configuration of it.
    builder = made(options, "workload", partial=True)
    try:
        inspect.signature(builder).bind(profile)
    except (TypeError, ValueError) as error:
        raise UserError(f"workload: {options['_target_']}: {error.__cause__ or error}") from None
    workload = builder(profile)
    if not isinstance(workload, Workload):
        raise UserError(f"workload: {options['_target_']} must return a twin.Workload")
    return workload


def objective_of(options: Mapping[str, Any]) -> Objective:
    """The objective that some options describe.

    Raises
    ------
    UserError
        For options that it does not know, or refuses, and for what is none.
    """
    objective = made(options, "objective")
    if not isinstance(objective, Objective):
        raise UserError(f"objective: {shown(options.get('_target_'))} makes no solvers.objectives.base.Objective")
    return objective


def made(options: Mapping[str, Any], key: str, *, partial: bool = False) -> Any:  # noqa: ANN401  # whatever _target_ makes
    """What the `_target_` of an option makes, its arguments included.

    Raises
    ------
    UserError
        For whatever goes wrong while it is made: the row of a candidate tells it as a mistake in the options.
    """
    try:
        return instantiate(options, _partial_=partial, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{key}: {explain_instantiation(error)}") from None
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{key}: {explain(error) or 'nested too deeply'}") from None


def maker_of(name: str, options: Mapping[str, Any]) -> Callable[[], Solver]:
    """What makes a solver; a mistake in its options is told at once, a solver that cannot be imported when it is asked for."""
    try:
        solver = instantiate(options, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, TypeError):
            raise UserError(f"solver.{name}: {cause}") from None
        failure = error
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"solver.{name}: {explain(error) or 'nested too deeply'}") from None
    else:
        if not isinstance(solver, Solver):
            raise UserError(f"solver.{name}: {options['_target_']} is no solvers.base.Solver")
        return lambda: solver

    def fail() -> Solver:
        raise failure

    return fail
