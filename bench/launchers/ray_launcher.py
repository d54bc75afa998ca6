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

from hydra.core.utils import JobReturn, JobStatus, setup_globals

from bench.launchers.job import JobLauncher, execute_job, here, plain
from twin.errors import UserError


class RayLauncher(JobLauncher):
    """Runs each job as a Ray task and waits for all of them; a lost job does not take the others along.

    Parameters
    ----------
    init : mapping
        Options of `ray.init`.
    remote : mapping
        Options of `ray.remote`.
    """

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]) -> None:
        super().__init__()
        self.init = init
        self.remote = remote

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
            state = ray.put(self.state)
            jobs = [
                task.remote(initial_job_idx + place, list(options), state, here())
                for place, options in enumerate(job_overrides)
            ]
            return [_result(job) for job in jobs]
        finally:
            if own:
                ray.shutdown()


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
