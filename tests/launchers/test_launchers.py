"""The same sweep through every launcher gives the same rows, and a job that is lost does not take the others along.

`make launcher-test` runs these; they start processes and a Ray cluster on this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli import CONF
from bench.rows import Row, read_rows

ROOT = CONF.parent
TINY = ["-m", "workload=groups", "workload.groups=[{count: 3, rank: 8, rate: 0.5}]", "out=rows.parquet"]
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"],
    "ray": ["hydra/launcher=ray", "hydra.launcher.init.address=local"],
}
CRASH = ["+solver.crashing._target_=tests.bench.misbehaving_solvers.Misbehaving", "+solver.crashing.how=segfault"]

pytestmark = pytest.mark.launchers


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


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_gives_the_same_rows_and_goes_on_where_it_stopped(
    name: str, tmp_path: Path, expected: list[Row]
) -> None:
    rows, _ = sweep(tmp_path, "solver=max_backbone,random", "seed=0", *CRASH, *LAUNCHERS[name])
    assert figures(rows) == figures([row for row in expected if row.seed == 0])
    rows, said = sweep(tmp_path, "solver=max_backbone,random", "seed=0,1", *CRASH, *LAUNCHERS[name])
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


@pytest.mark.parametrize("name", ["joblib", "submitit_local", "ray"])
def test_a_job_whose_own_process_dies_is_a_row(name: str, tmp_path: Path) -> None:
    """Without processes of their own (isolated=false) a solver that crashes takes its job along, as a node that fails does."""
    arguments = ["solver=max_backbone", "seed=0,1", "isolated=false", "+solver.crashing.how=killed,print"]
    rows, _ = sweep(tmp_path, *arguments, CRASH[0], *LAUNCHERS[name])
    assert len(rows) == 8
    lost = [row for row in rows if row.solver_options == "how=killed"]
    assert {row.status for row in lost} == {"crash"}
    assert all(row.message for row in lost)
