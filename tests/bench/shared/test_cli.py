"""What all commands share: options, and one clear line for a mistake."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.shared.command import command
from bench.shared.mistakes import explain
from bench.shared.overrides import CONF
from twin import UserError


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command line that must fail says on stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.usefixtures("_in_tmp_path")
@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("solver=nosuch", ["solver=nosuch: no such solver; available are ", " exact, ffd, "]),
        ("solver=exakt", ["did you mean exact?"]),
        ("workload=nosuch", ["workload=nosuch: no such workload; available are", "paper_4gpus"]),
        ("profile=nosuch", ["profile=nosuch: no such serving profile", "llama-3.1-8b"]),
        ("profile=missing.json", ["profile=missing.json: no such file"]),
        ("sed=1", ["sed: no such option (did you mean seed?)"]),
        ("solver.exact.nosuch=1", ["solver.exact.nosuch: no such option", "the options in solver.exact are"]),
        ("seed=abc", ["seed=abc must be a whole number"]),
        ("gpus=1.5", ["gpus=1.5 must be a whole number"]),
        ("seed=null", ["seed"]),
        ("seed", ["'seed'"]),
        ("seed=[", ["'seed=['"]),
        ("seed=1,2", ["seed=1,2", "--multirun"]),
        ("workload=null", ["workload=null must be one of azure_code, "]),
        ("workload=azure_conv", ["workload.path must be given"]),
        ("gpus=0", ["gpus=0 must be 1 or more"]),
        ("out=rows.csv", ["out=rows.csv must be the name of a .parquet file"]),
        ("picture=rows.jpg", ["picture=rows.jpg must be the name of a .png file"]),
        ("objective=min_latency", ["add gpus=N"]),
        ("workload.ranks=[64]", ["rank=64", "[8, 16, 32]"]),
        ("workload.rates=[-1]", ["rates[0]=-1"]),
        ("workload._target_=twin.builders.nosuch", ["twin.builders.nosuch"]),
        ("+workload.nosuch=1", ["unexpected keyword argument 'nosuch'"]),
        ("+solver.max_pack.nosuch=1", ["solver.max_pack", "unexpected keyword argument 'nosuch'"]),
        ("solver.max_pack.order=nosuch", ["order=nosuch"]),
        ("+solver.mine._target_=twin.UserError", ["solver.mine: twin.UserError is no solvers.base.Solver"]),
        ("+solver.mine.name=x", ["solver.mine", "_target_"]),
        ("workload._target_=twin.load_profile", ["workload"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], argument: str, parts: list[str]
) -> None:
    line = failure(capsys, argument)
    for part in parts:
        assert part in line


@pytest.mark.usefixtures("_in_tmp_path")
def test_flags_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Only one of --run" in failure(capsys, "--run", "--multirun")


def test_a_command_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Types are converted, interpolations resolved, a bug in the command is not taken for a mistake of the user."""

    @dataclass
    class Options:
        name: str = "x"
        twice: str = "${name}${name}"
        count: int = 1

    (tmp_path / "own.yaml").write_text(
        "defaults: [own_schema, _self_, override hydra/job_logging: none, override hydra/hydra_logging: none]\n"
        "name: y\nhydra: {output_subdir: null, run: {dir: .}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.shared.command.CONF", tmp_path)
    seen: list[Options] = []

    @command("own", Options)
    def own(options: Options) -> None:
        seen.append(options)
        if options.count == 13:
            raise ArithmeticError("a bug")

    own(["count=2"])
    own([])
    assert seen == [Options("y", "yy", 2), Options("y", "yy", 1)]
    with pytest.raises(ArithmeticError, match="a bug"):
        own(["count=13"])


def test_what_is_not_a_mistake_of_the_user_is_not_explained() -> None:
    assert explain(ZeroDivisionError("x")) is None
    assert explain(ValueError("x")) is None


def test_a_user_error_is_found_behind_what_was_made_of_it() -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = UserError("key=1:\n  must be 2")
    assert explain(outer) == "key=1: must be 2"


def test_runs_from_any_folder_and_leaves_no_traceback(tmp_path: Path) -> None:
    """As a process: the exit code, and stderr with nothing but the line."""
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    call = [sys.executable, "-m", "bench", "solver=nosuch"]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: solver=nosuch: no such solver")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str]) -> None:
    """As `python -m bench --help | head -1` does."""
    reading, writing = os.pipe()
    os.close(reading)
    command_line = [sys.executable, "-m", "bench", *arguments]
    with os.fdopen(writing, "w") as nobody_reads:
        done = subprocess.run(command_line, stdout=nobody_reads, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 141
    assert done.stderr == ""


def test_a_run_whose_folder_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").write_text("")
    assert "results" in failure(capsys)


def test_a_full_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bench.rules"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")
