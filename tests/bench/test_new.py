"""`python -m bench.new`: what it writes. That its tests pass and its commands work is tested with the tutorials."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.new import KINDS, main, spelled_out
from bench.shared.overrides import CONF
from solvers.base import Problem
from solvers.objectives.min_gpus import MinGpus
from tests.test_repository import uncommented_options
from twin import INTERACTIVE, PUBLISHED, load_profile, score_placement
from twin.builders import groups

pytestmark = pytest.mark.usefixtures("_in_tmp_path")


def called(arguments: list[str], folder: Path, *path: Path) -> str:
    """What a Python command prints; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (CONF.parent, *path)))}
    call = [sys.executable, *arguments]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_the_house_rules(kind: str, tmp_path: Path) -> None:
    main([kind, f"my_{kind}"])
    folder = tmp_path / f"my_{kind}"
    called(["-m", "ruff", "format", "--check", "--config", str(CONF.parent / "pyproject.toml"), "."], folder)
    ignored = "INP001,PLR0913,D,S101,E402,I001"
    called(
        ["-m", "ruff", "check", "--config", str(CONF.parent / "pyproject.toml"), "--extend-ignore", ignored, "."],
        folder,
    )
    (configuration,) = folder.glob(f"conf/{kind}/*.yaml")
    text = configuration.read_text(encoding="utf-8")
    assert uncommented_options(text) == []
    assert yaml.safe_load(text)["_target_"].startswith(f"my_{kind}.")


def test_the_first_two_arguments_need_no_key() -> None:
    assert spelled_out(["solver", "mine", "out=x"]) == ["kind=solver", "name=mine", "out=x"]
    assert spelled_out(["--help"]) == ["--help"]
    assert spelled_out(["mine", "kind=solver"]) == ["name=mine", "kind=solver"]
    assert spelled_out(["out=x", "solver", "name=mine"]) == ["out=x", "kind=solver", "name=mine"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "kind and name must be given"),
        (["solver"], "name must be given"),
        (["predictor", "mine"], "kind=predictor must be one of solver, objective, workload"),
        (["solver", "name=My-Solver"], "name=My-Solver must be a name of a Python package"),
        (["solver", "name=class"], "name=class must be a name of a Python package"),
        (["solver", "exact"], "name=exact: there is a solver of this name already"),
        (["solver", "json"], "name=json: Python has a module of this name already"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.py").write_text("")
    with pytest.raises(SystemExit):
        main(["solver", "mine"])
    assert "out=mine: is there already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["work.py"]


def test_a_new_solver_places_for_the_service_level_that_it_is_asked_for(tmp_path: Path) -> None:
    """On a load on which the published rule is kept with fewer GPUs than latency is."""
    main(["solver", "packer"])
    spec = importlib.util.spec_from_file_location("packer_solver", tmp_path / "packer" / "packer" / "solver.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    profile = load_profile("llama-3.1-8b")
    workload = groups(profile, groups=[{"count": 96, "rank": 16, "rate": 0.25}], duration_s=300.0)
    gpus = []
    for service in (PUBLISHED, INTERACTIVE):
        problem = Problem(workload, profile, MinGpus(), time_limit_s=120.0, service=service)
        placement = module.Packer().solve(problem).placement
        assert score_placement(workload, placement, profile, service=service).feasible
        gpus.append(placement.n_gpus)
    assert gpus[0] <= gpus[1]
    published = module.Packer().solve(Problem(workload, profile, MinGpus(), time_limit_s=120.0)).placement
    assert not score_placement(workload, published, profile, service=INTERACTIVE).feasible
