"""One job of a sweep in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from omegaconf import OmegaConf, open_dict


def execute_job(number: int, options: list[str], state: tuple[Any, ...], here: tuple[str, list[str]]) -> JobReturn:
    """Run one job where Ray has put it.

    Parameters
    ----------
    number : int
        Of the job.
    options : list of str
        Of the job.
    state : tuple
        Hydra's context, configuration, task and singletons.
    here : tuple of str and list of str
        Working directory and module path of the launching process. They are used where they exist.
    """
    hydra_context, config, task_function, singletons = state
    folder, paths = here
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
