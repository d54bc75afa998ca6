"""`python -m bench.solvers`: the list, and the contract checks of a solver by name or class."""

from pathlib import Path

import pytest

from bench.shared.terminal import console
from bench.solvers import listing, main
from solvers.registry import SolverEntry, list_solvers

pytestmark = pytest.mark.usefixtures("_in_tmp_path")


def test_every_solver_is_listed_with_its_class_and_tags(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main([])
    printed = capsys.readouterr().out
    for entry in list_solvers():
        assert f"{entry.name} " in printed
    (line,) = [text for text in printed.splitlines() if text.startswith("lora_serve ")]
    assert "solvers.lora_serve.LoraServe" in line
    assert "needs fleet" in line
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_solver_that_cannot_be_imported_is_listed_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(listing([SolverEntry("theirs", "theirs.Solver", None, "ImportError: no libgurobi")]))
    printed = " ".join(capsys.readouterr().out.split())
    assert "theirs theirs.Solver cannot be imported: ImportError: no libgurobi" in printed


@pytest.mark.parametrize("name", ["least_loaded", "solvers.least_loaded.LeastLoaded"])
def test_a_good_solver_passes_its_checks(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([f"check={name}"])
    printed = capsys.readouterr().out
    assert "ok      places_each_adapter_once" in printed
    assert "broken" not in printed


def test_a_breach_is_told_and_the_command_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["check=tests.bench.boastful.Boastful"])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert "broken  what_it_vouches_for_is_feasible" in printed.out
    assert "Boastful breaks the contract in" in printed.err


@pytest.mark.parametrize("name", ["no_such_solver", "pathlib.Path"])
def test_what_is_no_solver_is_the_users_mistake(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([f"check={name}"])
    assert stopped.value.code == 2
    assert f"check={name}" in capsys.readouterr().err
