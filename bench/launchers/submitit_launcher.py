"""`hydra/launcher=submitit_slurm` and `submitit_local`: the jobs of a sweep as a Slurm job array, or as processes here.

Hydra's own plug-in for submitit asks `sacct` how its jobs are doing. Without Slurm's accounting that is an error, and a job
that was cancelled is waited for without end; with it, the first job that is lost ends the wait for all of them. Here a job
has ended when its result is there or when `squeue` does not list it any more, and each job is waited for on its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals

from bench.launchers.job import JobLauncher, execute_job, here, plain
from twin.errors import UserError

# Results are files, which is cheap to look for; squeue is a request to a controller that others use as well. How often: by hand.
_LOOK_S = 1.0
_ASK_S = 10.0
# A result can be late on a disk of the network. How long is waited: by hand.
_LATE_S = 15.0


class SubmititLauncher(JobLauncher):
    """Submits each job with submitit and waits for all of them; a lost job does not take the others along.

    Parameters
    ----------
    cluster : str
        `slurm`, or `local` for processes on this machine.
    submitit_folder : str
        Where submitit keeps what it sends, and the output of the jobs; nodes have to see it.
    options
        Parameters of submitit's executor; those that are null are left to it.
    """

    def __init__(self, cluster: str, submitit_folder: str, **options: Any) -> None:  # noqa: ANN401  # submitit's
        super().__init__()
        self.cluster = cluster
        self.submitit_folder = submitit_folder
        self.options = {name: value for name, value in plain(options).items() if value is not None}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; what was lost is a `JobReturn` with the status `FAILED`.

        Raises
        ------
        UserError
            If submitit or Slurm is not there, or does not take the jobs.
        """
        setup_globals()
        executor = self._executor()
        n = len(job_overrides)
        numbers = range(initial_job_idx, initial_job_idx + n)
        try:
            jobs = executor.map_array(
                execute_job, numbers, [list(options) for options in job_overrides], [self.state] * n, [here()] * n
            )
        except Exception as error:
            if type(error).__name__ == "FailedJobError":
                raise UserError(f"hydra.launcher: Slurm does not take the jobs: {_last_line(str(error))}") from None
            raise
        try:
            return _results(jobs, slurm=self.cluster == "slurm")
        except KeyboardInterrupt:
            if self.cluster == "slurm":
                array = jobs[0].job_id.split("_")[0]
                sys.stderr.write(f"the jobs go on in Slurm; scancel {array} ends them\n")
            raise

    def _executor(self) -> Any:  # noqa: ANN401  # submitit has no types that we can rely on
        try:
            import submitit
        except ImportError:
            name = f"hydra/launcher=submitit_{self.cluster}"
            raise UserError(f"{name} needs submitit: pip install 'lora-placement-bench[launchers]'") from None
        if self.cluster == "slurm" and shutil.which("sbatch") is None:
            raise UserError(
                "hydra/launcher=submitit_slurm: there is no sbatch here; start it on a node of a Slurm cluster"
            )
        executor = submitit.AutoExecutor(folder=self.submitit_folder, cluster=self.cluster)
        known = {"name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"}
        known.add("stderr_to_stdout")
        try:
            executor.update_parameters(
                **{name if name in known else f"{self.cluster}_{name}": value for name, value in self.options.items()}
            )
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise UserError(f"hydra.launcher: {error}".replace("\n", " ")) from None
        return executor


def _results(jobs: Sequence[Any], *, slurm: bool) -> list[JobReturn]:
    """What each job has given back, in their order, once all of them have ended."""
    results: dict[int, JobReturn] = {}
    gone_since: dict[int, float] = {}
    asked = time.monotonic()
    while True:
        for index, job in enumerate(jobs):
            if index in results:
                continue
            late = index in gone_since and time.monotonic() - gone_since[index] > _LATE_S
            # submitit's own answer for Slurm would be that of sacct.
            if job.paths.result_pickle.exists() or (not slurm and job.done()):
                results[index] = _result(job)
            elif late:
                results[index] = _failed(RuntimeError(f"Slurm job {job.job_id} {_last_state(job.job_id)}"))
        if len(results) == len(jobs):
            return [results[index] for index in range(len(jobs))]
        if slurm and time.monotonic() - asked > _ASK_S:
            asked = time.monotonic()
            listed = _listed()
            for index, job in enumerate(jobs):
                if listed is not None and index not in results and job.job_id not in listed:
                    gone_since.setdefault(index, asked)
        time.sleep(_LOOK_S)


def _result(job: Any) -> JobReturn:  # noqa: ANN401  # submitit's
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        result = job.result()
    except (FailedJobError, UncompletedJobError) as error:
        return _failed(RuntimeError(_last_line(str(error))))
    if not isinstance(result, JobReturn):
        raise TypeError(f"a job gave back {type(result).__name__} instead of a JobReturn")
    return result


def _failed(error: Exception) -> JobReturn:
    result = JobReturn(status=JobStatus.FAILED)
    result.return_value = error
    return result


def _last_line(text: str) -> str:
    """The line of a report of submitit's that says what went wrong: the last one before its rulers and hints."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    said = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line) or "error:" in line]
    return (said or lines or ["no reason given"])[-1]


def _listed() -> set[str] | None:
    """Ids of this user's jobs that wait or run, or None where Slurm does not answer, which says nothing of them."""
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(done.stdout.split()) if done.returncode == 0 else None


def _last_state(job_id: str) -> str:
    """How a job ended as far as Slurm still knows."""
    command = ["scontrol", "show", "job", job_id, "-o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"JobState=(\w+)", done.stdout)
    return f"ended without a result: {found[1]}" if found else "ended without a result"
