"""`python -m bench.dataset`: the same rows whoever makes them, however often it is interrupted."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from bench.dataset import DatasetConfig, main
from bench.training import labels
from bench.training.labels import make_dataset, read_dataset, read_settings
from predictors.design import DrawnContent
from predictors.features import FEATURE_NAMES
from twin import ServingProfile, UserError, load_profile

QUIET = Console(file=io.StringIO())


@pytest.fixture(scope="module")
def profile() -> ServingProfile:
    return load_profile("llama-3.1-8b")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> DatasetConfig:
    """Forty contents in pieces of seven, a quarter of them near the boundary as the first 28 show it."""
    out = tmp_path_factory.mktemp("whole") / "contents.parquet"
    return DatasetConfig(profile="llama-3.1-8b", out=str(out), points=40, boundary=0.25, guide=25, workers=1, piece=7)


@pytest.fixture(scope="module")
def table(options: DatasetConfig, profile: ServingProfile) -> pa.Table:
    path = make_dataset(options, profile, QUIET)
    assert path is not None
    return pq.read_table(path)


def same(table: pa.Table, other: pa.Table) -> bool:
    """Whether all values are equal; unknown ones are."""
    return bool(table.to_pandas().equals(other.to_pandas()))


def elsewhere(options: DatasetConfig, folder: Path, **changes: object) -> DatasetConfig:
    return replace(options, out=str(folder / "contents.parquet"), **changes)  # type: ignore[arg-type]


def test_rows_are_labelled_contents(table: pa.Table, options: DatasetConfig, profile: ServingProfile) -> None:
    assert table.num_rows == 40
    assert table["part"].to_pylist() == ["designed"] * 30 + ["boundary"] * 10
    data, made_with, settings = read_dataset(Path(options.out))
    assert data.contents.shape == (40, len(FEATURE_NAMES))
    assert data.boundary.sum() == 10
    assert made_with == profile
    assert (settings["points"], settings["seed"]) == (40, 0)
    share = data.throughput / data.offered
    assert np.all(share <= 1.0)
    np.testing.assert_array_equal(data.starved, share < 0.9)
    assert 0 < data.starved.sum() < 40
    assert np.isnan(data.feasible_load[~data.boundary]).all()
    # Ladders of four, the last one cut short.
    assert [int((data.group == -1 - number).sum()) for number in range(3)] == [4, 4, 2]
    assert np.all((data.itl_ms > 0) | np.isnan(data.itl_ms))


def test_nothing_but_the_file_is_left(table: pa.Table, options: DatasetConfig) -> None:
    assert [path.name for path in Path(options.out).parent.iterdir()] == ["contents.parquet"]


def test_processes_make_the_same_rows(
    table: pa.Table, options: DatasetConfig, profile: ServingProfile, tmp_path: Path
) -> None:
    path = make_dataset(elsewhere(options, tmp_path, workers=2), profile, QUIET)
    assert path is not None
    assert same(pq.read_table(path), table)


def test_jobs_share_the_pieces_and_the_last_command_joins_them(
    table: pa.Table, options: DatasetConfig, profile: ServingProfile, tmp_path: Path
) -> None:
    ours = elsewhere(options, tmp_path)
    for job in range(3):
        assert make_dataset(replace(ours, job=job, jobs=3), profile, QUIET) is None
    folder = Path(f"{ours.out}.pieces")
    pieces = sorted(path.name for path in folder.glob("*-*.parquet"))
    assert len(pieces) == 5 + 3
    # What is there can be learned from already.
    (folder / pieces[-1]).unlink()
    data, _, settings = read_dataset(folder)
    assert len(data.starved) == settings["points"] < settings["wanted_points"] == 40
    path = make_dataset(ours, profile, QUIET)
    assert path is not None
    assert same(pq.read_table(path), table)


def test_an_interrupted_command_goes_on(
    table: pa.Table,
    options: DatasetConfig,
    profile: ServingProfile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = elsewhere(options, tmp_path)
    label = labels._label
    left, labelled = 17, 0

    def count(content: DrawnContent, generator: np.random.Generator, profile: ServingProfile) -> list[object]:
        nonlocal labelled
        if labelled == left:
            raise KeyboardInterrupt
        labelled += 1
        return label(content, generator, profile)

    monkeypatch.setattr(labels, "_label", count)
    with pytest.raises(KeyboardInterrupt):
        make_dataset(ours, profile, QUIET)
    assert not Path(ours.out).exists()
    left = 1000
    path = make_dataset(ours, profile, QUIET)
    assert path is not None
    assert same(pq.read_table(path), table)
    # Two pieces of seven were there; the third was lost with three of its contents.
    assert labelled == 40 + 3


def test_a_sample_that_is_there_is_not_made_again(
    table: pa.Table, options: DatasetConfig, profile: ServingProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "label_piece", None)
    assert make_dataset(options, profile, QUIET) == Path(options.out)


def test_pieces_of_another_sample_are_not_mixed_in(
    options: DatasetConfig, profile: ServingProfile, tmp_path: Path
) -> None:
    ours = elsewhere(options, tmp_path, points=14, boundary=0.0)
    assert make_dataset(replace(ours, jobs=2), profile, QUIET) is None
    with pytest.raises(UserError, match="another sample"):
        make_dataset(replace(ours, seed=1), profile, QUIET)


def test_the_command_says_what_it_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "few.parquet"
    main(["profile=qwen-2.5-7b", f"out={out}", "points=6", "boundary=0", "workers=1"])
    assert capsys.readouterr().out.startswith("6 contents, ")
    assert read_settings(out) is not None


@pytest.mark.usefixtures("_in_tmp_path")
def test_jobs_run_on_a_launcher(tmp_path: Path) -> None:
    """The same command on joblib: one process for each job."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    out = tmp_path / "contents.parquet"
    sample = ["profile=qwen-2.5-7b", f"out={out}", "points=12", "boundary=0", "workers=1", "piece=3"]
    main(["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "job=0,1", "jobs=2", *sample])
    assert len(list(Path(f"{out}.pieces").glob("designed-*.parquet"))) == 4
    main(sample)
    assert read_settings(out) is not None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["out=a.parquet"], "profile must be given"),
        (["profile=llama-3.1-8b"], "out must be given"),
        (["profile=llama-3.1-8b", "out=a.csv"], "out=a.csv"),
        (["profile=llama-3.1-8b", "out=a.parquet", "points=0"], "points=0"),
        (["profile=llama-3.1-8b", "out=a.parquet", "boundary=1"], "boundary=1.0"),
        (["profile=llama-3.1-8b", "out=a.parquet", "job=2", "jobs=2"], "job=2"),
        (["profile=llama-3.1-8b", "out=a.parquet", "seed=-1"], "seed=-1"),
        (["profile=nosuch", "out=a.parquet"], "profile=nosuch"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("_in_tmp_path")
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1


def test_a_file_that_is_no_sample_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    with pytest.raises(UserError, match="no such file"):
        read_dataset(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UserError, match="not a Parquet file of"):
        read_dataset(path)


@pytest.mark.parametrize("option", ["points", "piece", "jobs"])
def test_a_sample_that_would_never_end_is_refused(
    option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["profile=llama-3.1-8b", f"out={tmp_path / 'o.parquet'}", f"{option}=99999999999999999999"])
    assert f"error: {option}=99999999999999999999 must be a whole number" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
