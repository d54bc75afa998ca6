"""`python -m bench`: compares placement solvers on one workload; with `-m` on many."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from rich.console import Console

from bench.cli import command
from bench.compare import is_user_error
from bench.config import BenchConfig
from bench.plugins import register_solvers
from bench.publish import check_targets, publish
from bench.rows import FILE_NAME, Row, write_rows
from bench.run import failed_rows, run, solver_options
from bench.table import comparison_report
from twin import UserError


@command("config", BenchConfig)
def main(config: BenchConfig) -> None:
    """Compare the solvers of a configuration, report, and write rows and picture."""
    check_targets(config.out, config.picture)
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    folder = Path(job.runtime.output_dir)
    if job.mode == RunMode.MULTIRUN:
        write_rows(_sweep_job(config, overrides, int(job.job.num)), folder / FILE_NAME)
        return
    rows = _progress(config, overrides)
    if all(is_user_error(row) for row in rows):
        raise UserError(rows[0].message)
    out = Path(config.out) if config.out else folder / FILE_NAME
    publish(rows, comparison_report(rows), out, Path(config.picture) if config.picture else None)


def _progress(config: BenchConfig, overrides: list[str]) -> list[Row]:
    """Rows of a run, with the solver at work shown on a terminal."""
    names = list(solver_options(config))
    rows: list[Row] = []
    with Console(stderr=True).status("") as status:
        status.update(f"{names[0]} on workload {config.workload.get('name')}")
        for row in run(config, overrides):
            rows.append(row)
            if len(rows) < len(names):
                status.update(f"{names[len(rows)]} on workload {config.workload.get('name')}")
    return rows


def _sweep_job(config: BenchConfig, overrides: list[str], number: int) -> list[Row]:
    """Rows of one job of a sweep: whatever goes wrong in it becomes rows, so that the other jobs go on."""
    try:
        rows = list(run(config, overrides))
    except Exception as error:  # noqa: BLE001  # the row tells
        rows = failed_rows(config, error, overrides)
    for row in rows:
        gpus = f"{row.gpus} GPUs" if row.gpus is not None else row.message
        sys.stderr.write(
            f"job {number}: {row.workload_label} seed {row.seed} {row.solver_label}: {row.status}, {gpus}\n"
        )
    return rows


if __name__ == "__main__":
    register_solvers()
    main()
