"""One run of `python -m bench`: builds what the configuration names and compares."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bench.comparison.asked import Asked
from bench.comparison.build import maker_of, objective_of, service_of, workload_of
from bench.comparison.cache import canonical
from bench.comparison.cell import Cell, described
from bench.comparison.cells import cells_of
from bench.comparison.common import fewest
from bench.comparison.compare import Comparison, bare_row, candidate, compare, error_row
from bench.comparison.known import is_shipped, targets
from bench.comparison.machine import calibration_s, processor, versions
from bench.comparison.rows import Row
from bench.comparison.solver_process import SolverProcess
from solvers.base import Solver
from twin import fleet_of, load_profile

if TYPE_CHECKING:
    from bench.comparison.config import BenchConfig


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
    solvers = {cell.solver: maker_of(cell.solver, cell.solver_options) for cell in cells}
    comparison = comparison_of(cells[0])
    for cell, row in zip(cells, compare(comparison, solvers), strict=True):
        yield described(_measured(row), cell)


def check_options(cells: Sequence[Cell]) -> None:
    """Tell a mistake in the options of a solver that the command line has changed, before anything is run.

    Code of other packages is not run here: what is wrong with their solvers, the rows say.

    Raises
    ------
    UserError
    """
    for cell in cells:
        changed = any(override.lstrip("+~").startswith(f"solver.{cell.solver}.") for override in cell.overrides)
        if changed and all(str(target).partition(".")[0] in _OURS for target in targets(cell.solver_options)):
            maker_of(cell.solver, cell.solver_options)


_OURS = ("bench", "predictors", "solvers", "twin")


def run_cell(cell: Cell) -> Row:
    """The row of one cell, solver and all in this process; an exception becomes a row as well."""
    try:
        solvers = {cell.solver: maker_of(cell.solver, cell.solver_options)}
        (row,) = compare(comparison_of(cell), solvers)
    except Exception as error:  # noqa: BLE001  # the row tells
        row = error_row(error, bare_row(cell))
    return _finished(row, cell)


def run_cell_apart(cell: Cell, margin_s: float, on_attempt: Callable[[Row], None]) -> Row:
    """The row of one cell, its solver in a process forked from this one, which itself runs no code of the solver.

    Parameters
    ----------
    cell : Cell
    margin_s : float
        The solver is killed when it has not answered this long after its time limit.
    on_attempt : callable
        Gets the row as far as it is known, each time before the solver is asked.
    """
    started: list[SolverProcess] = []
    try:
        comparison = comparison_of(cell)

        def ask() -> Asked:
            make = partial(_make, cell)
            _prepare(cell, comparison)
            started.append(SolverProcess(comparison, cell.solver, make, margin_s))
            return started[0]

        row = candidate(comparison, cell.solver, ask, on_attempt)
    except Exception as error:  # noqa: BLE001  # the row tells
        row = error_row(error, bare_row(cell))
    finally:
        for process in started:
            process.end()
    return _finished(row, cell)


def _make(cell: Cell) -> Solver:
    return maker_of(cell.solver, cell.solver_options)()


def _prepare(cell: Cell, comparison: Comparison) -> None:
    """Import what is shipped, and draw requests that are asked for, once for all processes forked from this one."""
    if not is_shipped(cell.solver_options, "solver"):
        return
    module, _, name = cell.solver_options["_target_"].rpartition(".")
    tags = vars(importlib.import_module(module))[name].tags
    if tags.replays_requests:
        _ = comparison.planned.requests
    if tags.needs_predictor:
        import predictors  # noqa: F401


def _finished(row: Row, cell: Cell) -> Row:
    return described(replace(_measured(row), calibration_s=calibration_s()), cell)


def _measured(row: Row) -> Row:
    return replace(row, processor=processor(), versions=versions())


def comparison_of(cell: Cell) -> Comparison:
    """What the candidates of a cell have in common, its workload made.

    Raises
    ------
    UserError
        For what is wrong with the workload, the profile or the objective.
    """
    fleet = fleet_of(cell.fleet, "fleet of the cell") if cell.fleet else None
    profile = load_profile(cell.profile) if fleet is None else fleet.types[0].profile
    return Comparison(
        workload=workload_of(json.dumps([canonical(cell.workload), profile.name]), cell, profile),
        profile=profile,
        objective=objective_of(cell.objective),
        gpus=cell.gpus if fleet is None else fewest(cell.gpus, fleet.max_gpus),
        time_limit_s=cell.time_limit_s,
        seed=cell.seed,
        threads=cell.threads,
        repeats=cell.repeats,
        reserve=cell.reserve,
        draws=cell.draws,
        service=service_of(cell),
        fleet=fleet,
    )
