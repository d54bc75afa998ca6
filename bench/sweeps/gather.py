"""The end of a sweep: the rows of all its jobs in one file, one summary, one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from bench.comparison.rows import gather
from bench.shared.command import raise_after_run
from twin import UserError

#: What the file with the rows of all jobs is called. Not the name of a job's file, so that it is not gathered again.
FILE_NAME = "comparison.parquet"


class GatherRows(Callback):
    """Hydra callback that reports on a sweep as a whole, wherever its jobs ran."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401, ARG002  # Hydra's signature
        """Make the sweeper and the launcher known that `conf/hydra` names, before Hydra looks for them."""
        from bench.sweeps.resuming import register_sweeper

        register_sweeper()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401  # Hydra's signature
        """Gather what the jobs wrote under the folder of the sweep."""
        folder = Path(config.hydra.sweep.dir)
        out = Path(config.out) if config.out else folder / FILE_NAME
        try:
            report_sweep(folder, out, Path(config.picture) if config.picture else None)
        except Exception as error:  # noqa: BLE001  # Hydra would only warn of it
            raise_after_run(error)


def report_sweep(folder: Path, out: Path, picture: Path | None = None) -> None:
    """Put the rows of a sweep's jobs together, print the summary, write rows and picture.

    Raises
    ------
    UserError
        If there are no rows, or all of them tell of a user's mistake.
    """
    from bench.comparison.compare import is_user_error
    from bench.reporting.publish import publish
    from bench.reporting.table import sweep_report

    rows = gather(folder)
    if not rows:
        raise UserError(f"{folder}: no job of the sweep has left rows")
    if all(is_user_error(row) for row in rows):
        raise UserError(rows[0].message)
    publish(rows, sweep_report(rows), out, picture)
