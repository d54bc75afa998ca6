"""`python -m bench`: compares placement solvers on one workload; with `-m` on many.

What runs and reports is imported when it is needed, Numba with it: `--help` and a mistake in the options need none of it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from bench.comparison.config import BenchConfig
from bench.shared.command import command
from bench.shared.plugins import register_solvers
from bench.shared.processes import watch_owner
from bench.shared.terminal import at_work, console, plain
from twin import UserError

if TYPE_CHECKING:
    from bench.comparison.rows import Row


@command("config", BenchConfig)
def main(config: BenchConfig) -> list[Row] | None:
    """Compare the solvers of a configuration, report, and write rows and picture; a job of a sweep hands its rows over."""
    from bench.comparison.compare import is_user_error
    from bench.comparison.rows import FILE_NAME, write_rows
    from bench.reporting.publish import check_targets, publish
    from bench.reporting.table import comparison_report
    from bench.statistics.contradictions import all_contradictions, end_with
    from bench.suites.run import run_suite

    check_targets(config.out, config.picture)
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    folder = Path(job.runtime.output_dir)
    if config.suite:
        if job.mode == RunMode.MULTIRUN:
            raise UserError("suite: runs all its instances in one job, and cannot be swept with -m")
        run_suite(config, overrides)
        return None
    if job.mode == RunMode.MULTIRUN:
        rows = _sweep_job(config, overrides, folder.name)
        write_rows(rows, folder / FILE_NAME)
        return rows
    rows = _rows(config, overrides)
    if all(is_user_error(row) for row in rows):
        raise UserError(rows[0].message)
    out = Path(config.out) if config.out else folder / FILE_NAME
    publish(rows, comparison_report(rows), out, Path(config.picture) if config.picture else None)
    end_with(all_contradictions(rows))
    return None


def _rows(config: BenchConfig, overrides: list[str]) -> list[Row]:
    """Rows of a run, with the solver at work shown on a terminal."""
    from bench.comparison.cells import solver_options
    from bench.comparison.run import run

    if config.isolated:
        return _apart(config, overrides)
    names = list(solver_options(config))
    rows: list[Row] = []
    with at_work(console(stderr=True), f"{names[0]} on workload {config.workload.get('name')}") as show:
        for row in run(config, overrides):
            rows.append(row)
            if len(rows) < len(names):
                show(f"{names[len(rows)]} on workload {config.workload.get('name')}")
    return rows


def _apart(config: BenchConfig, overrides: list[str]) -> list[Row]:
    """Rows of a run with each solver in a process of its own; those that are there when it is interrupted are written."""
    from bench.comparison.cells import cells_of
    from bench.comparison.execution import execution_of, run_cells
    from bench.comparison.rows import FILE_NAME, write_rows
    from bench.comparison.run import check_options

    cells = cells_of(config, overrides)
    check_options(cells)
    rows: list[Row] = []
    try:
        return run_cells(cells, execution_of(config), rows.append)
    except KeyboardInterrupt:
        if rows:
            out = Path(config.out) if config.out else Path(HydraConfig.get().runtime.output_dir) / FILE_NAME
            write_rows(rows, out)
            sys.stderr.write(f"{len(rows)} of {len(cells)} rows  {out}\n")
        raise


def _sweep_job(config: BenchConfig, overrides: list[str], name: str) -> list[Row]:
    """Rows of one job of a sweep: whatever goes wrong in it becomes rows, so that the other jobs go on."""
    from bench.comparison.cells import cells_of
    from bench.comparison.execution import execution_of, run_cells
    from bench.comparison.run import run_cell

    if current_process().name != "MainProcess":
        # A worker of joblib would wait for more jobs of a command that has been killed.
        watch_owner(os.getppid())
    cells = cells_of(config, overrides)
    if not config.isolated:
        rows = [run_cell(cell) for cell in cells]
    else:
        rows = run_cells(cells, replace(execution_of(config, sweep=True), show=False))
    for row in rows:
        gpus = f"{row.gpus} GPUs" if row.gpus is not None else row.message
        line = f"job {name}: {row.workload_label} seed {row.seed} {row.solver_label}: {row.status}, {gpus}"
        sys.stderr.write(f"{plain(line)}\n")
    return rows


if __name__ == "__main__":
    register_solvers()
    main()
