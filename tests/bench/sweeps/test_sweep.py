"""Sweeps: what is missing is launched, what is there is not, and every job's rows come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from bench.__main__ import main
from bench.comparison.rows import Row, read_rows
from bench.shared.overrides import CONF

TINY = ["-m", "workload=groups", "workload.groups=[{count: 3, rank: 8, rate: 0.5}]", "out=sweep.parquet"]

pytestmark = pytest.mark.usefixtures("_in_tmp_path")


def the_launcher() -> tuple[type[Launcher], Callable[..., Sequence[JobReturn]]]:
    """Hydra's own launcher, of the class that Hydra has loaded, and how it launches."""
    found = Plugins.instance().class_name_to_class["hydra._internal.core_plugins.basic_launcher.BasicLauncher"]
    launcher = cast("type[Launcher]", found)
    return launcher, launcher.launch


def without_labels(rows: Sequence[Row]) -> list[Row]:
    return [replace(row, cell="") for row in rows]


def test_what_is_in_the_cache_is_not_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TINY, "solver=max_backbone,random", "seed=0,1"])
    first = read_rows(Path("sweep.parquet"))
    assert capsys.readouterr().err.count("job ") == 4
    main([*TINY, "solver=max_backbone,random,hrw", "seed=range(0,2)"])
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "sweep: 6 jobs, 4 of them in the cache, 2 missing"
    assert [line.split(":")[1].split()[-1] for line in said if line.startswith("missing")] == ["4", "5"]
    assert [line.split(":")[0] for line in said if line.startswith("job")] == ["job 4", "job 5"]
    rows = read_rows(Path("sweep.parquet"))
    assert [(row.solver, row.seed) for row in rows] == [
        (solver, seed) for solver in ("max_backbone", "random", "hrw") for seed in (0, 1)
    ]
    assert without_labels(rows[:4]) == without_labels(first), "with the times of the first run"


def test_without_the_cache_everything_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        main([*TINY, "solver=max_backbone", "seed=0,1", "cache=false"])
        assert capsys.readouterr().err.count("job ") == 2
    assert not Path("results/runs/cache").exists()


def test_a_single_run_uses_the_cache_on_request() -> None:
    single = [*TINY[1:], "solver=[max_backbone,random]"]
    main([*single, "cache=true"])
    first = read_rows(Path("sweep.parquet"))
    main([*single, "cache=true"])
    assert read_rows(Path("sweep.parquet")) == first
    main(single)
    # Timed anew.
    assert read_rows(Path("sweep.parquet")) != first


def test_a_glob_names_every_solver_that_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TINY, "solver=glob(max_backbone*)"])
    assert [row.solver for row in read_rows(Path("sweep.parquet"))] == ["max_backbone", "max_backbone_half"]
    assert "summary of 2 candidates" in capsys.readouterr().out


def test_a_job_that_crashes_is_a_row_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    crashing = [
        "solver=max_backbone",
        "+solver.crashing._target_=tests.bench.misbehaving_solvers.Misbehaving",
        "+solver.crashing.how=segfault,print",
    ]
    main([*TINY, *crashing])
    rows = read_rows(Path("sweep.parquet"))
    assert [(row.solver, row.status, row.feasible) for row in rows] == [
        ("max_backbone", "unchecked", True),
        ("crashing", "crash", False),
        ("max_backbone", "unchecked", True),
        ("crashing", "unchecked", True),
    ]
    assert [row.solver_options for row in rows if row.solver == "crashing"] == ["how=segfault", "how=print"]
    assert "SIGSEGV" in capsys.readouterr().out


def test_a_launcher_that_fails_leaves_the_rows_of_the_jobs_that_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a cluster that kills a job: the others have left their rows in the folder of the sweep."""
    launcher, launch = the_launcher()

    def fail_after_the_first(
        self: Launcher, jobs: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        launch(self, jobs[:1], initial_job_idx=initial_job_idx)
        raise RuntimeError("the node is gone")

    monkeypatch.setattr(launcher, "launch", fail_after_the_first)
    main([*TINY, "solver=max_backbone", "seed=0,1"])
    good, lost = read_rows(Path("sweep.parquet"))
    assert good.feasible
    assert (lost.status, lost.seed, lost.message) == ("crash", 1, "the launcher failed: RuntimeError: the node is gone")
    monkeypatch.undo()
    capsys.readouterr()


def test_a_job_without_a_shared_disk_hands_its_rows_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the job wrote is on another machine: rows and cache are filled from what it returned."""
    launcher, launch = the_launcher()

    def elsewhere(self: Launcher, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        away = tmp_path / "another machine"
        away.mkdir()
        here = Path.cwd()
        os.chdir(away)
        try:
            return launch(self, jobs, initial_job_idx=initial_job_idx)
        finally:
            os.chdir(here)

    monkeypatch.setattr(launcher, "launch", elsewhere)
    main([*TINY, "solver=max_backbone", "seed=0,1"])
    assert [row.seed for row in read_rows(Path("sweep.parquet"))] == [0, 1]
    assert list((tmp_path / "another machine").rglob("rows.parquet"))
    capsys.readouterr()
    main([*TINY, "solver=max_backbone", "seed=0,1"])
    assert "2 of them in the cache, 0 missing" in capsys.readouterr().err


def test_editing_a_solver_runs_that_solver_again(tmp_path: Path) -> None:
    """As processes: each reads the code that there is when it starts."""
    source = (CONF.parent / "solvers" / "max_backbone.py").read_text(encoding="utf-8")
    for name in ("edited", "left_alone"):
        (tmp_path / f"{name}.py").write_text(source)
    command = [sys.executable, "-m", "bench", *TINY, "solver=random", "seed=0"]
    for name in ("edited", "left_alone"):
        command += [f"+solver.{name}._target_={name}.MaxBackbone"]
    environment = {**os.environ, "PYTHONPATH": f"{CONF.parent}:{tmp_path}"}

    def rows_computed() -> list[str]:
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results/runs/cache").rglob("*.json")}
        subprocess.run(command, env=environment, capture_output=True, check=True)
        return [
            json.loads(path.read_text(encoding="utf-8"))["row"]["solver"]
            for path in (tmp_path / "results/runs/cache").rglob("*.json")
            if before.get(path) != path.stat().st_mtime_ns
        ]

    assert sorted(rows_computed()) == ["edited", "left_alone", "random"]
    (tmp_path / "edited.py").write_text(source.replace('name: ClassVar[str] = "', 'name: ClassVar[str] = "new_'))
    assert rows_computed() == ["edited"]
    assert len(read_rows(Path("sweep.parquet"))) == 3
