"""`hydra/launcher=ray`: the jobs of a sweep as tasks of a Ray cluster.

Hydra's own plug-in for Ray (hydra-ray-launcher 1.2) cannot be installed beside scikit-learn: it wants cloudpickle below 3,
and joblib 1.6 wants 3 or later. What it does is little.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from twin.errors import UserError


class RayLauncher(Launcher):
    """Runs each job as a Ray task and waits for all of them; a lost job does not take the others along.

    Parameters
    ----------
    init : mapping
        Options of `ray.init`.
    remote : mapping
        Options of `ray.remote`.
    """

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]) -> None:
        self.init = init
        self.remote = remote
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the jobs need."""
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; what was lost is a `JobReturn` with the status `FAILED`.

        Raises
        ------
        UserError
            If Ray is not installed, or the cluster cannot be reached.
        """
        try:
            import ray
        except ImportError:
            raise UserError("hydra/launcher=ray needs Ray: pip install 'lora-placement-bench[launchers]'") from None
        setup_globals()
        own = not ray.is_initialized()
        if own:
            _connect(plain(self.init))
        try:
            task = ray.remote(**plain(self.remote))(execute_job) if self.remote else ray.remote(execute_job)
            state = ray.put((self.hydra_context, self.config, self.task_function, Singleton.get_state()))
            here = (str(Path.cwd()), list(sys.path))
            jobs = [
                task.remote(initial_job_idx + place, list(options), state, here)
                for place, options in enumerate(job_overrides)
            ]
            return [_result(job) for job in jobs]
        finally:
            if own:
                ray.shutdown()


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


def _connect(options: dict[str, Any]) -> None:
    import ray

    # Tasks import this package before they run: from where this process has it, if it is not installed there.
    environment = options.setdefault("runtime_env", {}).setdefault("env_vars", {})
    environment.setdefault("PYTHONPATH", os.pathsep.join(path or str(Path.cwd()) for path in sys.path))
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, TypeError) as error:
        raise UserError(f"hydra.launcher.init: {error}") from None


def _result(job: Any) -> JobReturn:  # noqa: ANN401  # Ray has no types
    import ray
    from ray.exceptions import RayError

    try:
        result = ray.get(job)
    except RayError as error:
        result = JobReturn(status=JobStatus.FAILED)
        result.return_value = error
    if not isinstance(result, JobReturn):
        raise TypeError(f"a Ray task gave back {type(result).__name__} instead of a JobReturn")
    return result


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as plain Python values."""
    values = OmegaConf.to_container(OmegaConf.create(dict(options)), resolve=True)
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}
