"""One run of `python -m bench`: builds what the configuration names and compares."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hydra.utils import instantiate

from bench.comparison.build import maker_of, workload_of
from bench.comparison.cache import canonical
from bench.comparison.cell import Cell, described
from bench.comparison.cells import cells_of
from bench.comparison.compare import Comparison, bare_row, compare, error_row
from bench.comparison.machine import calibration_s, processor, versions
from bench.comparison.rows import Row
from twin import load_profile

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
        solvers = {cell.solver: maker_of(cell.solver, cell.solver_options)}
        (row,) = compare(_comparison(cell), solvers, on_attempt)
    except Exception as error:  # noqa: BLE001  # the row tells
        row = error_row(error, bare_row(cell))
    return described(replace(_measured(row), calibration_s=calibration_s()), cell)


def _measured(row: Row) -> Row:
    return replace(row, processor=processor(), versions=versions())


def _comparison(cell: Cell) -> Comparison:
    profile = load_profile(cell.profile)
    return Comparison(
        workload=workload_of(json.dumps([canonical(cell.workload), profile.name]), cell, profile),
        profile=profile,
        objective=instantiate(cell.objective, _convert_="all"),
        gpus=cell.gpus,
        time_limit_s=cell.time_limit_s,
        seed=cell.seed,
        threads=cell.threads,
        repeats=cell.repeats,
        reserve=cell.reserve,
    )
