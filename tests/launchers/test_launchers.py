"""The same sweep through every launcher gives the same rows, and a job that is lost does not take the others along.

`make launcher-test` runs these; they start processes and a Ray cluster on this machine. Those with Slurm need a cluster:
`tests/launchers/slurm_here.sh` makes one of this machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.comparison.rows import Row, read_rows
from bench.shared.overrides import CONF

ROOT = CONF.parent
TINY = ["-m", "workload=groups", "workload.groups=[{count: 3, rank: 8, rate: 0.5}]", "out=rows.parquet"]
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"],
    "ray": ["hydra/launcher=ray", "hydra.launcher.init.address=local"],
}
ASK_SLURM = ["sinfo", "--noheader"]
SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10", "hydra.launcher.cpus_per_task=1"]
CRASH = ["+solver.crashing._target_=tests.bench.misbehaving_solvers.Misbehaving", "+solver.crashing.how=segfault"]

pytestmark = pytest.mark.launchers


def no_slurm() -> str:
    """Why there is no Slurm cluster to try, or nothing if there is one."""
    if shutil.which("sbatch") is None:
        return "there is no sbatch; see tests/launchers/slurm_here.sh"
    asked = subprocess.run(ASK_SLURM, capture_output=True, text=True, check=False)
    return "" if asked.returncode == 0 else f"Slurm does not answer; see tests/launchers/slurm_here.sh: {asked.stderr}"


with_slurm = pytest.mark.skipif(bool(no_slurm()), reason=no_slurm() or "-")


def sweep(folder: Path, *arguments: str, **environment: str) -> tuple[list[Row], str]:
    """Rows of a sweep run as a user runs it, and what it says on stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "bench", *TINY, *arguments]
    done = subprocess.run(command, cwd=folder, env=everything, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return read_rows(folder / "rows.parquet"), done.stderr


def figures(rows: Sequence[Row]) -> list[Row]:
    """The rows without what differs from run to run."""
    return [
        replace(row, solve_time_s=None, score_time_s=None, calibration_s=None, details="", message="", cell="")
        for row in rows
    ]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Rows of the sweep without a launcher of its own."""
    rows, _ = sweep(tmp_path_factory.mktemp("expected"), "solver=max_backbone,random", "seed=0,1", *CRASH)
    return rows


def test_the_sweep_has_a_row_for_each_candidate(expected: list[Row]) -> None:
    assert [(row.solver, row.seed, row.status) for row in expected] == [
        (solver, seed, status)
        for name in ("max_backbone", "random")
        for seed in (0, 1)
        for solver, status in ((name, "unchecked"), ("crashing", "crash"))
    ]


@pytest.mark.parametrize(
    "launcher",
    [*map(pytest.param, LAUNCHERS.values()), pytest.param(SLURM, marks=with_slurm)],
    ids=[*LAUNCHERS, "slurm"],
)
def test_every_launcher_gives_the_same_rows_and_goes_on_where_it_stopped(
    launcher: list[str], tmp_path: Path, expected: list[Row]
) -> None:
    rows, _ = sweep(tmp_path, "solver=max_backbone,random", "seed=0", *CRASH, *launcher)
    assert figures(rows) == figures([row for row in expected if row.seed == 0])
    rows, said = sweep(tmp_path, "solver=max_backbone,random", "seed=0,1", *CRASH, *launcher)
    assert "sweep: 4 jobs, 2 of them in the cache, 2 missing" in said
    assert figures(rows) == figures(expected)


def test_a_ray_cluster_of_two_nodes_without_a_common_folder(tmp_path: Path, expected: list[Row]) -> None:
    """The tasks run in the folder of the cluster, so what they write lies there; the rows come back all the same."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        launcher = ["hydra/launcher=ray", f"hydra.launcher.init.address={cluster.address}"]
        rows, _ = sweep(tmp_path / "sweep", "solver=max_backbone,random", "seed=0,1", *CRASH, *launcher)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray has no types
    assert figures(rows) == figures(expected)


@pytest.mark.parametrize(
    "launcher",
    [
        *(pytest.param(LAUNCHERS[name]) for name in ("joblib", "submitit_local", "ray")),
        pytest.param(SLURM, marks=with_slurm),
    ],
    ids=["joblib", "submitit_local", "ray", "slurm"],
)
def test_a_job_whose_own_process_dies_is_a_row(launcher: list[str], tmp_path: Path) -> None:
    """Without processes of their own (isolated=false) a solver that crashes takes its job along, as a node that fails does."""
    arguments = ["solver=max_backbone", "seed=0,1", "isolated=false", "+solver.crashing.how=killed,print"]
    rows, _ = sweep(tmp_path, *arguments, CRASH[0], *launcher)
    assert len(rows) == 8
    lost = [row for row in rows if row.solver_options == "how=killed"]
    assert {row.status for row in lost} == {"crash"}
    assert all(row.message for row in lost)
    if launcher is not LAUNCHERS["joblib"]:
        assert {row.status for row in rows if row.solver_options == "how=print"} == {"unchecked"}


@with_slurm
def test_a_job_that_is_cancelled_in_slurm_is_a_row_and_runs_again_the_next_time(tmp_path: Path) -> None:
    name = f"cancelled-{os.getpid()}"
    arguments = ["solver=max_backbone", "seed=0,1", f"hydra.launcher.name={name}", "hydra.launcher.array_parallelism=1"]
    slow = ["+solver.slow._target_=tests.bench.misbehaving_solvers.Misbehaving", "+solver.slow.how=slow"]
    command = [sys.executable, "-m", "bench", *TINY, *arguments, *slow, *SLURM]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 120
        listed = ""
        while not listed.strip() and time.monotonic() < deadline:
            time.sleep(1)
            ask = ["squeue", "--noheader", f"--name={name}", "--states=RUNNING", "--format=%i"]
            listed = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        assert listed.strip(), "no job of the sweep has started"
        # In the middle of the slow solver; before it, the job has no rows at all, which is no other outcome.
        time.sleep(12)
        cancel = ["scancel", listed.split()[0]]
        subprocess.run(cancel, check=True)
        _, said = running.communicate(timeout=400)
    assert running.returncode == 0, said
    rows = read_rows(tmp_path / "rows.parquet")
    assert [(row.seed, row.solver, row.status) for row in rows if row.seed == 1] == [
        (1, "max_backbone", "unchecked"),
        (1, "slow", "unchecked"),
    ]
    (cancelled,) = [row for row in rows if row.seed == 0 and row.solver == "slow"]
    assert cancelled.status == "crash"
    assert "SIGTERM" in cancelled.message or "CANCELLED" in cancelled.message
    rows, said = sweep(tmp_path, *arguments, *slow, *SLURM)
    assert "sweep: 2 jobs, 1 of them in the cache, 1 missing" in said
    assert {row.status for row in rows} == {"unchecked"}


def working_in(folder: Path) -> list[Path]:
    """The processes whose working directory is a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == folder:
                found.append(entry)
    return found


@pytest.mark.parametrize("launcher", [LAUNCHERS["basic"], LAUNCHERS["joblib"]], ids=["basic", "joblib"])
def test_nothing_is_left_of_a_sweep_that_is_killed(launcher: list[str], tmp_path: Path) -> None:
    """With kill -9, while its solvers run."""
    slow = ["+solver.slow._target_=tests.bench.misbehaving_solvers.Misbehaving", "+solver.slow.how=hang", "seed=0,1"]
    command = [sys.executable, "-m", "bench", *TINY, "solver=[]", *slow, *launcher]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as running:
        least, deadline = 3 if not launcher else 7, time.monotonic() + 120
        try:
            while len(working_in(tmp_path)) < least and time.monotonic() < deadline:
                time.sleep(0.2)
            started = len(working_in(tmp_path))
        finally:
            running.kill()
    assert started >= least
    deadline = time.monotonic() + 20
    while working_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert working_in(tmp_path) == []
