"""One job of a sweep in a process of its own, and what launchers of such jobs share."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


class JobLauncher(Launcher):
    """A launcher whose jobs run in processes elsewhere by `execute_job`."""

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the jobs need."""
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    @property
    def state(self) -> tuple[Any, ...]:
        """What `execute_job` wants of Hydra."""
        return (self.hydra_context, self.config, self.task_function, Singleton.get_state())


def here() -> tuple[str, list[str]]:
    """Working directory and module path of this process, for `execute_job`."""
    return str(Path.cwd()), list(sys.path)


def execute_job(number: int, options: list[str], state: tuple[Any, ...], place: tuple[str, list[str]]) -> JobReturn:
    """Run one job where the launcher has put it.

    Parameters
    ----------
    number : int
        Of the job.
    options : list of str
        Of the job.
    state : tuple
        Hydra's context, configuration, task and singletons.
    place : tuple of str and list of str
        Working directory and module path of the launching process. They are used where they exist.
    """
    hydra_context, config, task_function, singletons = state
    folder, paths = place
    if Path(folder).is_dir():
        os.chdir(folder)
    sys.path += [path for path in paths if path not in sys.path and Path(path).exists()]
    setup_globals()
    Singleton.set_state(singletons)
    job = hydra_context.config_loader.load_sweep_config(config, options)
    with open_dict(job):
        job.hydra.job.id = f"{job.hydra.job.name}_{number}"
        job.hydra.job.num = number
    HydraConfig.instance().set_config(job)
    return run_job(
        hydra_context=hydra_context,
        config=job,
        task_function=task_function,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as plain Python values."""
    values = OmegaConf.to_container(OmegaConf.create(dict(options)), resolve=True)
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}
