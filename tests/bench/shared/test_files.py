"""Every command refuses in one line an output that cannot be written, before its work; nothing is left behind."""

import importlib
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from bench.shared.files import check_file, check_folder, write_table
from twin import UserError

REFERENCE = str(Path(__file__).resolve().parents[3] / "results" / "reference" / "ci.parquet")

#: Each option that names an output: the command, its other arguments, the option, the ending of the file (None for a folder).
OUTPUTS = [
    ("bench.__main__", (), "out", ".parquet"),
    ("bench.__main__", (), "picture", ".png"),
    ("bench.__main__", ("suite=benchmark",), "suite.results", None),
    ("bench.__main__", ("cache=true",), "cache_dir", None),
    ("bench.best_service", (REFERENCE,), "table", ".csv"),
    ("bench.bound_check", (REFERENCE,), "table", ".csv"),
    ("bench.calibrate", ("metrics=[a.prom]",), "out", None),
    ("bench.campaign", (), "out", None),
    ("bench.collect", ("url=http://127.0.0.1:9",), "out", None),
    ("bench.dataset", ("profile=llama-3.1-8b",), "out", ".parquet"),
    ("bench.fidelity", ("runs=.",), "out", ".csv"),
    ("bench.fidelity", ("runs=.",), "summary", ".csv"),
    ("bench.fidelity", ("runs=.", "predictor=llama-3.1-8b"), "picture", ".png"),
    ("bench.max_pack", (), "out", None),
    ("bench.monotony", (), "table", ".csv"),
    ("bench.online", (), "out", None),
    ("bench.paper", ("runs=.",), "out", None),
    ("bench.plan", ("adapters=a.csv",), "out", None),
    ("bench.profile", ("model=mistral-7b", "gpu=a100-80gb"), "out", None),
    ("bench.refute", (), "table", ".csv"),
    ("bench.new", ("solver", "my_solver"), "out", None),
    ("bench.pareto", (), "out", None),
    ("bench.regress", (), "out", ".parquet"),
    ("bench.regress", (), "summary", ".md"),
    ("bench.report", (REFERENCE,), "out", ".html"),
    ("bench.report", (REFERENCE,), "paper", None),
    ("bench.robustness", (REFERENCE,), "out", ".parquet"),
    ("bench.robustness", (REFERENCE,), "table", ".csv"),
    ("bench.robustness", (REFERENCE,), "picture", ".png"),
    ("bench.rules", (), "picture", ".png"),
    ("bench.train", ("profile=llama-3.1-8b",), "out", ".npz"),
    ("bench.train", (), "tables", None),
    ("bench.validate", ("placement=a.json",), "out", None),
    ("bench.validate", ("placement=a.json",), "picture", ".png"),
]


@pytest.mark.parametrize("place", ["file/a", "/proc/1/a"])
@pytest.mark.parametrize(
    ("module", "arguments", "option", "suffix"), OUTPUTS, ids=[f"{each[0]}-{each[2]}" for each in OUTPUTS]
)
def test_an_output_that_cannot_be_written_is_one_line(
    module: str,
    arguments: tuple[str, ...],
    option: str,
    suffix: str | None,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    target = Path(f"{place}{suffix or ''}")
    (tmp_path / "file").write_text("old")
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(module).main([*arguments, f"{option}={target}"])
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.err.startswith(f"error: {option}={target}")
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert (tmp_path / "file").read_text() == "old"
    # Hydra makes the folder of a run.
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder.csv", "table=folder.csv is a folder, not a file"),
        ("a.txt", "table=a.txt must be the name of a .csv file"),
        ("n" * 300 + ".csv", "File name too long"),
        ("/proc/1/a.csv", "cannot be written"),
        ("file/a.csv", "file is not a folder"),
        ("file/b/a.csv", "file is not a folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError) as raised:
        check_file("table", name, ".csv")
    assert message in str(raised.value)


def test_a_file_is_no_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="must be a folder"):
        check_folder("out", str(tmp_path / "file"))


def test_a_target_that_can_be_written_leaves_no_trace(tmp_path: Path) -> None:
    assert check_file("out", str(tmp_path / "new" / "a.csv"), ".csv") == tmp_path / "new" / "a.csv"
    assert check_folder("out", str(tmp_path / "new")) == tmp_path / "new"
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_no_target() -> None:
    with pytest.raises(UserError, match="no regular file"):
        check_file("table", os.devnull)


def test_a_table_is_written_without_the_index_of_its_frame(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.parquet"
    write_table(pd.DataFrame({"a": [1, 2]}, index=[5, 6]), path)
    assert parquet.read_table(path).column_names == ["a"]
    write_table(pa.table({"b": [1.5]}), path)
    assert parquet.read_table(path).to_pylist() == [{"b": 1.5}]
    assert list(path.parent.iterdir()) == [path]


def test_a_table_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.parquet: cannot be written"):
        write_table(pa.table({"a": [1]}), tmp_path / "file" / "a.parquet")
