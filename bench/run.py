"""One run of `python -m bench`: builds what the configuration names and compares."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from bench.cache import canonical
from bench.cell import Cell
from bench.cells import cells_of, described
from bench.compare import Comparison, compare, error_row, version
from bench.config import BenchConfig
from bench.machine import calibration_s, processor, versions
from bench.rows import ERROR, Row
from solvers.base import Solver
from twin import ServingProfile, UserError, Workload, load_profile


def run(config: BenchConfig, overrides: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the rows of a configuration's candidates, each as soon as it is there; all are computed in this process.

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
    cells = cells_of(config, overrides)
    solvers = {cell.solver: _maker(cell.solver, cell.solver_options) for cell in cells}
    comparison = _comparison(cells[0])
    for cell, row in zip(cells, compare(comparison, solvers), strict=True):
        yield described(_measured(row), cell)


def run_cell(cell: Cell, on_attempt: Callable[[Row], None] | None = None) -> Row:
    """The row of one cell, computed in this process; an exception becomes a row as well.

    Parameters
    ----------
    cell : Cell
    on_attempt : callable, optional
        Gets the row as far as it is known, each time before the solver is called.
    """
    try:
        solvers = {cell.solver: _maker(cell.solver, cell.solver_options)}
        (row,) = compare(_comparison(cell), solvers, on_attempt)
    except Exception as error:  # noqa: BLE001  # the row tells
        row = error_row(error, bare_row(cell))
    return described(replace(_measured(row), calibration_s=calibration_s()), cell)


def bare_row(cell: Cell) -> Row:
    """Row of a cell of which nothing is known but what was asked."""
    return Row(
        workload=str(cell.workload.get("name", "")),
        seed=cell.seed,
        solver=cell.solver,
        objective=_name(lambda: instantiate(cell.objective).name, str(cell.objective.get("_target_"))),
        profile=_name(lambda: load_profile(cell.profile).name, cell.profile),
        status=ERROR,
        time_limit_s=cell.time_limit_s,
        gpu_limit=cell.gpus,
        reserve=cell.reserve,
        version=version(),
    )


def _measured(row: Row) -> Row:
    return replace(row, processor=processor(), versions=versions())


def _comparison(cell: Cell) -> Comparison:
    profile = load_profile(cell.profile)
    return Comparison(
        workload=_workload(json.dumps([canonical(cell.workload), profile.name]), cell, profile),
        profile=profile,
        objective=instantiate(cell.objective, _convert_="all"),
        gpus=cell.gpus,
        time_limit_s=cell.time_limit_s,
        seed=cell.seed,
        threads=cell.threads,
        repeats=cell.repeats,
        reserve=cell.reserve,
    )


# The workload of the last cell: the next one is often of the same, and its requests need not be drawn again.
_last_workload: list[tuple[str, Workload]] = []


def _workload(key: str, cell: Cell, profile: ServingProfile) -> Workload:
    if not _last_workload or _last_workload[0][0] != key:
        _last_workload[:] = [(key, build_workload(cell.workload, profile))]
    return _last_workload[0][1]


def build_workload(options: Mapping[str, Any], profile: ServingProfile) -> Workload:
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


def _name(find: Callable[[], str], otherwise: str) -> str:
    """A name as the rows of a good run have it, if what it names can be made at all."""
    try:
        return find()
    except Exception:  # noqa: BLE001  # the row tells of another error, or of this one
        return otherwise


def _maker(name: str, options: Mapping[str, Any]) -> Callable[[], Solver]:
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
