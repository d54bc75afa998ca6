"""One run of `python -m bench`: builds what the configuration names and compares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from bench.compare import Comparison, compare, error_row, version
from bench.config import BenchConfig
from bench.rows import ERROR, Row
from solvers.base import Solver
from twin import ServingProfile, UserError, Workload, load_profile


def run(config: BenchConfig, overrides: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the rows of a configuration's candidates, each as soon as it is there.

    Parameters
    ----------
    config : BenchConfig
    overrides : sequence of str
        The command line that made it, so that the rows tell variants of a workload or a solver apart.

    Raises
    ------
    UserError
        For what is wrong with the workload, the profile, the objective or the options of a solver.
    """
    solvers = {name: _maker(name, options) for name, options in solver_options(config).items()}
    profile = load_profile(config.profile)
    comparison = Comparison(
        workload=build_workload(config.workload, profile),
        profile=profile,
        objective=instantiate(config.objective, _convert_="all"),
        gpus=config.gpus,
        time_limit_s=config.time_limit_s,
        seed=config.seed,
        threads=config.threads,
    )
    for row in compare(comparison, solvers):
        yield labelled(row, overrides)


def build_workload(options: dict[str, Any], profile: ServingProfile) -> Workload:
    """The workload that a configuration describes, for a serving profile.

    Raises
    ------
    UserError
        For options that its builder does not know, or refuses.
    """
    # The profile is handed over afterwards: Hydra would make a configuration of it.
    builder = instantiate(options, _partial_=True, _convert_="all")
    try:
        inspect.signature(builder).bind(profile)
    except (TypeError, ValueError) as error:
        raise UserError(f"workload: {options['_target_']}: {error.__cause__ or error}") from None
    workload = builder(profile)
    if not isinstance(workload, Workload):
        raise UserError(f"workload: {options['_target_']} must return a twin.Workload")
    return workload


def solver_options(config: BenchConfig) -> dict[str, dict[str, Any]]:
    """Options of each solver by its name.

    Raises
    ------
    UserError
        If a YAML puts its options in the wrong place, or there is no solver.
    """
    if not config.solver:
        raise UserError("solver: name at least one, for instance solver=ffd")
    for name, options in config.solver.items():
        if not isinstance(options, dict) or "_target_" not in options:
            raise UserError(
                f"solver.{name} must be the options of one solver with its _target_; "
                "a YAML in conf/solver starts with the line `# @package solver.NAME`"
            )
    return config.solver


def labelled(row: Row, overrides: Sequence[str]) -> Row:
    """The row with what the command line changed in its workload and its solver."""
    workload, solver = [], []
    for override in overrides:
        text = override.lstrip("+~")
        if text.startswith(("workload.", "workload/")):
            workload.append(text[len("workload.") :])
        elif text.startswith(f"solver.{row.solver}.") and not text.startswith(f"solver.{row.solver}._target_="):
            solver.append(text.removeprefix(f"solver.{row.solver}."))
    return replace(row, workload_options=" ".join(workload), solver_options=" ".join(solver))


def failed_rows(config: BenchConfig, error: Exception, overrides: Sequence[str] = ()) -> list[Row]:
    """Rows of a run that ended before there was a workload to solve, one for each solver."""
    row = Row(
        workload=str(config.workload.get("name", "")),
        seed=config.seed,
        solver="",
        objective=_name(lambda: instantiate(config.objective).name, str(config.objective.get("_target_"))),
        profile=_name(lambda: load_profile(config.profile).name, config.profile),
        status=ERROR,
        time_limit_s=config.time_limit_s,
        gpu_limit=config.gpus,
        version=version(),
    )
    return [labelled(error_row(error, replace(row, solver=name)), overrides) for name in config.solver]


def _name(find: Callable[[], str], otherwise: str) -> str:
    """A name as the rows of a good run have it, if what it names can be made at all."""
    try:
        return find()
    except Exception:  # noqa: BLE001  # the row tells of another error, or of this one
        return otherwise


def _maker(name: str, options: dict[str, Any]) -> Callable[[], Solver]:
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
    else:
        if not isinstance(solver, Solver):
            raise UserError(f"solver.{name}: {options['_target_']} is no solvers.base.Solver")
        return lambda: solver

    def fail() -> Solver:
        raise failure

    return fail
