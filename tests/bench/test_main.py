"""`python -m bench` on a tiny workload: one run, a sweep, and what they leave."""

import json
import re
from pathlib import Path

import matplotlib.image as mpimg
import pandas as pd
import pytest

from bench.__main__ import main
from bench.comparison.rows import read_rows
from bench.shared.overrides import CONF
from solvers.registry import list_solvers
from twin import Placement

TINY = ["workload=groups", "workload.groups=[{count: 6, rank: 8, rate: 0.5}, {count: 3, rank: 16, rate: 2}]"]
SHIPPED = sorted(entry.name for entry in list_solvers() if entry.target.startswith("solvers."))

pytestmark = pytest.mark.usefixtures("_in_tmp_path")


def test_all_shipped_solvers_are_compared_by_default(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main([*TINY, "out=found/rows.parquet", "time_limit_s=20"])
    table = pd.read_parquet(tmp_path / "found" / "rows.parquet")
    assert sorted(table["solver"]) == SHIPPED
    assert set(table["status"]) <= {"optimal", "feasible", "unchecked"}, list(table["message"])
    # A solver that has asked an oracle keeps its word here; the others are scored all the same.
    assert table.loc[table["status"] != "unchecked", "feasible"].all()
    for row in read_rows(tmp_path / "found" / "rows.parquet"):
        assert row.placement is not None
        placed = {adapter for plan in Placement.from_json(row.placement).gpus for adapter in plan.adapters}
        assert placed == set(range(9))
    assert mpimg.imread(tmp_path / "found" / "rows.png").shape[1] > 1000
    printed = capsys.readouterr().out
    assert "profile llama-3.1-8b/h100-64gb · seed 0 · objective min_gpus" in printed
    assert all(re.search(rf"│ {name} +│ (yes|no)", printed) for name in SHIPPED)
    assert "found/rows.parquet" in printed


def test_the_proven_bound_is_below_what_is_feasible(tmp_path: Path) -> None:
    main([*TINY, "out=rows.parquet", "solver=[exact,max_pack]"])
    rows = {row.solver: row for row in read_rows(tmp_path / "rows.parquet")}
    bound = rows["exact"].lower_bound
    assert bound is not None
    assert all(row.gpus is not None and bound <= row.gpus for row in rows.values())


def test_without_out_the_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    main([*TINY, "solver=max_pack"])
    main([*TINY, "solver=max_pack"])
    runs = sorted(path.relative_to(tmp_path).parts[:3] for path in tmp_path.rglob("rows.parquet"))
    assert runs == [("results", "runs", "bench")] * 2
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".parquet", ".png"}


def test_a_sweep_gives_one_row_for_each_job_and_one_summary(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["-m", *TINY, "solver=max_pack,latency", "seed=0,1", "out=sweep.parquet"])
    rows = read_rows(tmp_path / "sweep.parquet")
    assert [(row.solver, row.seed) for row in rows] == [
        ("max_pack", 0),
        ("max_pack", 1),
        ("latency", 0),
        ("latency", 1),
    ]
    assert all(row.feasible for row in rows)
    printed = capsys.readouterr()
    assert printed.out.count("summary of 4 candidates") == 1
    assert printed.err.count("job ") == 4
    assert (tmp_path / "sweep.png").exists()


def test_a_row_of_a_sweep_is_that_of_the_single_run(tmp_path: Path) -> None:
    main(["-m", *TINY, "solver=max_pack,latency", "out=sweep.parquet"])
    main([*TINY, "solver=[max_pack,latency]", "out=single.parquet"])
    columns = [
        "solver",
        "status",
        "feasible",
        "gpus",
        "throughput",
        "itl_ms",
        "oracle_calls",
        "placement",
        "fleet_searched",
    ]
    sweep, single = (pd.read_parquet(tmp_path / f"{name}.parquet")[columns] for name in ("sweep", "single"))
    pd.testing.assert_frame_equal(sweep, single)


def test_a_job_of_a_sweep_that_fails_is_a_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["-m", *TINY, "solver=max_pack", "workload.duration_s=600,-1", "out=sweep.parquet"])
    good, bad = read_rows(tmp_path / "sweep.parquet")
    assert good.feasible
    assert (bad.status, bad.solver, bad.workload_options.split()[-1]) == ("error", "max_pack", "duration_s=-1")
    assert "duration_s=-1 must be a number" in bad.message
    assert bad.message in capsys.readouterr().out


def test_a_sweep_of_nothing_but_mistakes_fails_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["-m", *TINY, "solver=max_pack", "seed=-1,-2"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: workload.seed=-1")


def test_a_sweep_that_cannot_be_gathered_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Hydra swallows what goes wrong in a callback; the command must not."""
    (tmp_path / "out.parquet").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(["-m", *TINY, "solver=max_pack", "out=out.parquet"])
    assert stopped.value.code == 2
    assert "out=out.parquet is a folder" in capsys.readouterr().err


def test_a_solver_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main([*TINY, "solver=max_pack", "+solver.gone._target_=not_installed.Solver", "out=rows.parquet"])
    good, bad = read_rows(tmp_path / "rows.parquet")
    assert good.feasible
    assert bad.status == "error"
    assert "No module named 'not_installed'" in bad.message
    assert "gone: error: " in capsys.readouterr().out


def test_an_impossible_workload_is_infeasible_with_the_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    groups = "workload.groups=[{count: 1, rank: 8, rate: 0.1}, {count: 1, rank: 8, rate: 900}]"
    main(["workload=groups", groups, "workload.duration_s=60", "solver=max_pack", "out=rows.parquet"])
    (row,) = read_rows(tmp_path / "rows.parquet")
    assert (row.status, row.feasible, row.placement) == ("none_found", False, None)
    assert "adapter 1" in row.message
    assert f"max_pack: none found: {row.message[:40]}" in capsys.readouterr().out


def test_a_fleet_too_small_is_not_called_feasible(tmp_path: Path) -> None:
    groups = "workload.groups=[{count: 8, rank: 8, rate: 20}]"
    main(
        [
            "workload=groups",
            groups,
            "workload.duration_s=120",
            "solver=[max_pack,latency]",
            "gpus=1",
            "out=rows.parquet",
        ]
    )
    for row in read_rows(tmp_path / "rows.parquet"):
        assert not row.feasible
        assert row.gpus in (None, 1)


def test_an_empty_workload(tmp_path: Path) -> None:
    main(["workload=groups", "workload.groups=[]", "out=rows.parquet"])
    rows = read_rows(tmp_path / "rows.parquet")
    assert [(row.gpus, row.feasible, json.loads(row.placement or "")) for row in rows] == [(0, True, [])] * len(SHIPPED)


def test_the_help_names_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "paper_4gpus" in printed
    assert "max_pack" in printed


def test_the_configuration_is_found_whatever_the_folder() -> None:
    assert CONF.is_absolute()
    assert (CONF / "config.yaml").exists()


@pytest.mark.parametrize("isolated", ["true", "false"])
@pytest.mark.parametrize(
    "options",
    [
        ["workload/arrivals=unpredictable", "workload.arrivals.period_s=1e-9"],
        ["workload/arrivals=gamma", "workload.arrivals.cv=-1"],
        ["workload.lengths.prompt.mean_tokens=-1"],
        ["workload.lengths.prompt._target_=twin.lengths.Nothing"],
    ],
)
def test_a_mistake_inside_the_workload_is_the_users(
    options: list[str], isolated: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line and exit code 2, nothing written: rows of errors alone are no comparison."""
    with pytest.raises(SystemExit, match="2"):
        main([*TINY, "solver=[max_pack]", "out=r.parquet", f"isolated={isolated}", *options])
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.glob("r.*"))
