"""Rows in Parquet: other tools read these files."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest

from bench.comparison.rows import FILE_NAME, Row, gather, read_rows, write_rows
from twin import UserError

ROW = Row(workload="tiny", seed=3, solver="exact", objective="min_gpus", profile="p", status="optimal")
FULL = replace(
    ROW,
    feasible=True,
    gpus=2,
    lower_bound=2,
    starved_gpus=0,
    throughput=99.5,
    offered_throughput=100.0,
    objective_key=[0.0, 2.0, -0.095],
    placement='[{"max_loras":1,"adapters":[0]},{"max_loras":2,"adapters":[1,2]}]',
    gpu_results='[{"starved":false},{"starved":false}]',
    adapter_ranks=[8, 16, 16],
    adapter_rates=[0.1, 0.2, 0.2],
)

# The columns that other tools count on: these names do not change.
PROMISED = {
    *("workload", "seed", "solver", "objective", "status", "feasible", "gpus", "lower_bound", "starved_gpus"),
    *("memory_errors", "throughput", "offered_throughput", "itl_ms", "ttft_ms", "solve_time_s", "placement"),
}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_rows([ROW, FULL], tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet") == [ROW, FULL]


def test_the_promised_columns_are_there_with_their_types(tmp_path: Path) -> None:
    write_rows([FULL, ROW], tmp_path / "rows.parquet")
    table = pd.read_parquet(tmp_path / "rows.parquet")
    assert set(table.columns) >= PROMISED
    first = table.iloc[0]
    assert (first["gpus"], first["feasible"], first["throughput"]) == (2, True, 99.5)
    assert json.loads(first["placement"])[1] == {"max_loras": 2, "adapters": [1, 2]}
    assert pd.isna(table.iloc[1]["gpus"])


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rows([ROW], path)
    with pytest.raises(Exception, match=r"convert|type"):
        write_rows([replace(ROW, seed="not a seed")], path)  # type: ignore[arg-type]  # that is the point
    assert read_rows(path) == [ROW]
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/rows\.parquet: cannot be written"):
        write_rows([ROW], tmp_path / "file" / "rows.parquet")


def test_a_file_of_another_version_is_read(tmp_path: Path) -> None:
    """Columns that are new to us are left out, columns that are missing get their default."""
    old = pd.DataFrame(
        [{"workload": "w", "seed": 1, "solver": "s", "objective": "o", "profile": "p", "status": "x", "new": 1}]
    )
    old.to_parquet(tmp_path / "rows.parquet")
    (row,) = read_rows(tmp_path / "rows.parquet")
    assert row == Row(workload="w", seed=1, solver="s", objective="o", profile="p", status="x")


@pytest.mark.parametrize(("content", "message"), [(b"no parquet", "not a readable"), (None, "no such file")])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "rows.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_rows(path)


def test_rows_of_something_else_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="does not hold rows"):
        read_rows(tmp_path / "rows.parquet")


def test_gather_takes_the_jobs_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 0):
        write_rows([replace(ROW, seed=number)], tmp_path / str(number) / FILE_NAME)
    write_rows([ROW], tmp_path / "comparison.parquet")
    assert [row.seed for row in gather(tmp_path)] == [0, 9, 10]


def test_feasible_rows_rank_first_and_rows_without_a_placement_last() -> None:
    better = replace(FULL, solver="b", objective_key=[0.0, 1.0, 0.0])
    starving = replace(FULL, solver="c", feasible=False, objective_key=[1.0, 1.0, 0.0])
    ranked = sorted([ROW, starving, FULL, better], key=lambda row: row.rank_key)
    assert ranked == [better, FULL, starving, ROW]


def test_every_field_has_a_type_that_parquet_knows(tmp_path: Path) -> None:
    write_rows([], tmp_path / "rows.parquet")
    assert list(pd.read_parquet(tmp_path / "rows.parquet").columns) == [field.name for field in fields(Row)]


def test_rows_that_pandas_filtered_and_wrote_are_rows(tmp_path: Path) -> None:
    """It makes fractions of whole numbers where some are empty, of all where a filter leaves none."""
    write_rows([ROW, FULL, replace(FULL, gpu_limit=9)], tmp_path / "rows.parquet")
    table = pd.read_parquet(tmp_path / "rows.parquet")
    for name, rows in (("all", [ROW, FULL, replace(FULL, gpu_limit=9)]), ("head", [ROW])):
        table.head(len(rows)).to_parquet(tmp_path / f"{name}.parquet")
        assert read_rows(tmp_path / f"{name}.parquet") == rows
    table["lower_bound"] = [0.5, 1.0, 2.0]
    table.to_parquet(tmp_path / "half.parquet")
    with pytest.raises(UserError, match=r"lower_bound=0.5 must be a whole number"):
        read_rows(tmp_path / "half.parquet")


def test_columns_that_rows_need_are_named(tmp_path: Path) -> None:
    pd.DataFrame({"workload": ["w"], "seed": [1]}).to_parquet(tmp_path / "some.parquet")
    with pytest.raises(UserError, match="columns solver, objective, profile, status are missing"):
        read_rows(tmp_path / "some.parquet")
