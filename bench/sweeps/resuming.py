"""Sweeps (`-m`): only the jobs whose rows are missing are launched, and every job's rows come back, wherever it ran."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from bench.comparison.cell import Cell, described
from bench.comparison.cells import cells_of
from bench.comparison.config import BenchConfig
from bench.comparison.execution import execution_of, finished_rows
from bench.comparison.rows import CRASH, FILE_NAME, Row, read_rows, write_rows
from bench.launchers.register import NAMESPACE
from bench.reporting.publish import check_targets
from bench.shared.leftovers import end_what_is_left
from bench.shared.terminal import plain
from bench.sweeps.composed import Composed, ComposedJobs
from twin.errors import UserError

# Longer lists of missing jobs are cut. By hand: a few lines of a terminal.
_MOST_LISTED = 40
# How often a long search for rows says how far it is; by hand.
_TELL_S = 5.0

SWEEPER = f"{NAMESPACE}.ResumingSweeper"


class ResumingSweeper(BasicSweeper):
    """Hydra's own sweeper, with a launcher between it and the one chosen that launches what is missing.

    Parameters
    ----------
    max_batch_size, params
        As those of `BasicSweeper`.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Refuse what could not be written at the end, and wrap the launcher."""
        check_targets(config.out, config.picture)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if self.launcher is None:
            raise UserError("hydra/launcher: none is configured")
        self.launcher = ResumingLauncher(self.launcher, hydra_context, config)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Leave it to the launcher, which composes every job's configuration anyway."""


class ResumingLauncher(Launcher):
    """Launches those jobs of a batch with another launcher whose rows are not in the cache.

    Parameters
    ----------
    inner : Launcher
        Runs jobs, wherever it does.
    hydra_context : HydraContext
    config : DictConfig
        Of the sweep.
    """

    def __init__(self, inner: Launcher, hydra_context: HydraContext, config: DictConfig) -> None:
        self.inner = inner
        self.hydra_context = hydra_context
        self.config = config
        self.folder = Path(config.hydra.sweep.dir)
        self.composed_jobs = ComposedJobs(None if config.cache is False else Path(config.cache_dir), config)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing is left to do: the inner launcher has been set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Give back the rows of every job, in the order given; the rows lie in the folder of the sweep as well.

        Parameters
        ----------
        job_overrides : sequence of sequence of str
            The options of each job.
        initial_job_idx : int
            Number of the first one.
        """
        jobs = []
        told = time.monotonic()
        if len(job_overrides) > _MOST_LISTED:
            sys.stderr.write(f"sweep: {len(job_overrides)} jobs; looking for their rows in the cache\n")
        for place, options in enumerate(job_overrides):
            jobs.append(_Job(initial_job_idx + place, list(options), self))
            if time.monotonic() - told > _TELL_S:
                told = time.monotonic()
                sys.stderr.write(f"sweep: {len(jobs)} of {len(job_overrides)} jobs looked for\n")
                # Who gives up here finds them composed the next time.
                self.composed_jobs.keep()
        self.composed_jobs.keep()
        missing = [job for job in jobs if job.rows is None]
        _tell(jobs, missing)
        if missing:
            self._run(missing, initial_job_idx)
        # A file for each of two thousand jobs takes long: those that follow each other and were not run share one.
        for ran, group in groupby(jobs, key=lambda job: job.ran):
            for several in [[job] for job in group] if ran else [list(group)]:
                write_rows([row for job in several for row in job.rows or []], self._folder(several) / FILE_NAME)
        return [_job_return(job) for job in jobs]

    def _folder(self, jobs: Sequence[_Job]) -> Path:
        first, last = jobs[0].number, jobs[-1].number
        return self.folder / (str(first) if first == last else f"{first}-{last}")

    def _run(self, missing: Sequence[_Job], initial_job_idx: int) -> None:
        reason = ""
        returns: Sequence[JobReturn | None] = [None] * len(missing)
        if "joblib" in type(self.inner).__module__:
            # The processes of its pool would wait for more.
            end_what_is_left()
        try:
            returns = self.inner.launch([job.options_with_folder for job in missing], initial_job_idx)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  # the jobs that have left rows count, and the others say why they have none
            reason = f"the launcher failed: {type(error).__name__}: {error}".splitlines()[0]
        for job, result in zip(missing, returns, strict=True):
            job.finish(result, reason)


class _Job:
    """One job of a sweep: its options, its cells, and its rows as soon as they are known."""

    def __init__(self, number: int, options: list[str], launcher: ResumingLauncher) -> None:
        self.number = number
        self.options = options
        self.folder = launcher.folder / str(number)
        known = launcher.composed_jobs.find(options) or self._composed(launcher)
        self.cells: list[Cell] = known.cells
        self.execution = execution_of(known.config, sweep=True)
        self.rows: list[Row] | None = finished_rows(self.cells, self.execution)
        self.ran = self.rows is None

    def _composed(self, launcher: ResumingLauncher) -> Composed:
        composed = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, self.options)
        overrides = list(composed.hydra.overrides.task)
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        config = OmegaConf.to_object(composed)
        if not isinstance(config, BenchConfig):
            raise TypeError(f"{SWEEPER} sweeps over `python -m bench` alone")
        cells = cells_of(config, overrides)
        launcher.composed_jobs.learn(self.options, composed, cells, config)
        return Composed(cells, config)

    @property
    def options_with_folder(self) -> list[str]:
        """The options, and the folder that the job has in the whole sweep: its number among the missing is another one."""
        return [*self.options, f"hydra.sweep.subdir={self.number}"]

    def finish(self, result: JobReturn | None, reason: str) -> None:
        """Take the rows that the job handed back or left in its folder; else rows that tell why there are none."""
        found = _returned_rows(result)
        if found is None and (path := self.folder / FILE_NAME).exists():
            found = read_rows(path)
        if found is None:
            from bench.comparison.compare import bare_row

            message = reason or _failure(result)
            # What it had finished is in the cache, if the job shares this machine's disk.
            found = []
            for cell in self.cells:
                lost = described(replace(bare_row(cell), status=CRASH, message=message), cell)
                found += finished_rows([cell], self.execution) or [lost]
        elif self.execution.cache is not None:
            # The job had a cache of its own, if it ran on a machine that does not share this one's disk.
            for cell, row in zip(self.cells, found, strict=True):
                if self.execution.cache.find(cell) is None:
                    self.execution.cache.store(cell, row)
        self.rows = found


def _returned_rows(result: JobReturn | None) -> list[Row] | None:
    value: Any = result.return_value if result is not None and result.status == JobStatus.COMPLETED else None
    return value if isinstance(value, list) and all(isinstance(row, Row) for row in value) else None


def _failure(result: JobReturn | None) -> str:
    """Why a job has no rows, as far as its launcher knows."""
    error = None if result is None else vars(result).get("_return_value")
    if not isinstance(error, BaseException):
        return "the job ended without rows"
    return f"the job was lost: {type(error).__name__}: {error}".splitlines()[0]


def _job_return(job: _Job) -> JobReturn:
    result = JobReturn(overrides=job.options, status=JobStatus.COMPLETED)
    result.return_value = job.rows
    return result


def _tell(jobs: Sequence[_Job], missing: Sequence[_Job]) -> None:
    """Say on stderr what the cache has, and what is going to run."""
    if len(missing) == len(jobs):
        sys.stderr.write(f"sweep: {len(jobs)} jobs\n")
        return
    sys.stderr.write(
        f"sweep: {len(jobs)} jobs, {len(jobs) - len(missing)} of them in the cache, {len(missing)} missing\n"
    )
    for job in missing[:_MOST_LISTED]:
        sys.stderr.write(f"missing: job {job.number}: {plain(' '.join(job.options))}\n")
    if len(missing) > _MOST_LISTED:
        sys.stderr.write(f"missing: and {len(missing) - _MOST_LISTED} more\n")


def register_sweeper() -> None:
    """Make our sweeper known to Hydra, which takes plug-ins under names in `hydra_plugins` alone."""
    Plugins.instance().class_name_to_class[SWEEPER] = ResumingSweeper
