"""`python -m bench.train`: from labelled contents to a predictor with its errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.dataset import main as make_data
from bench.train import main
from predictors import load_predictor
from twin import load_profile

SMALL = [
    "trees=3", "forest_leaves=32", "boosting_rounds=20", "distillation_points=100", "distillation_attempts=2", "folds=2",
    "svm_rows=100",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "contents.parquet"
    make_data(["profile=llama-3.1-8b", f"out={path}", "points=160", "workers=1", "piece=80"])
    return path


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


@pytest.mark.usefixtures("_in_tmp_path")
def test_data_become_a_predictor(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "models" / "mine.npz"
    main(
        [
            "profile=llama-3.1-8b",
            "models=[starvation]",
            f"data={data}",
            f"out={out}",
            f"tables={tmp_path}",
            "seed=3",
            *SMALL,
        ]
    )
    printed = capsys.readouterr().out
    assert "SMAPE" in printed
    assert "seed 3, data seed 0" in printed
    predictor = load_predictor(out)
    assert predictor.made_for(load_profile("llama-3.1-8b"))
    assert predictor.card["data"]["points"] == 160
    table = pd.read_csv(tmp_path / "llama-3.1-8b__h100-64gb.csv")
    assert table["feasible_load_smape"].notna().any()
    assert set(table["model"]) == {"full", "distilled"}
    assert {"all designed", "all boundary", "load", "window_s"} <= set(table["input"])
    card = (tmp_path / "llama-3.1-8b__h100-64gb.md").read_text()
    assert f"{predictor.card['points']} GPU contents" in card
    for heading in ("## Data", "## Range", "## Errors on twin data left out", "## Calibration", "## Risk"):
        assert heading in card
    rows = [line for line in card.splitlines() if line.startswith("| designed | full")]
    assert f"{predictor.card['test_errors']['designed']['full']['throughput_smape']:.2f}" in rows[0]


@pytest.mark.usefixtures("_in_tmp_path")
def test_without_data_they_are_made_first(tmp_path: Path) -> None:
    out = tmp_path / "mine.npz"
    main(
        [
            "profile=qwen-2.5-7b",
            f"out={out}",
            "points=160",
            "level_points=160",
            "workers=1",
            f"tables={tmp_path}",
            *SMALL,
        ]
    )
    made = load_predictor(out)
    assert made.profile_name.startswith("qwen")
    assert (tmp_path / "results/runs/train").is_dir()
    # What was learned of service levels stands beside it, and is said.
    assert made.levels is not None
    assert made.levels.card["data"]["points"] == 160
    table = pd.read_csv(tmp_path / "qwen-2.5-7b__h100-64gb__levels.csv")
    assert {"drawn limits", "interactive", "batch", "percentiles"} == set(table["level"])
    assert "## Service levels" in (tmp_path / "qwen-2.5-7b__h100-64gb.md").read_text()
    # Trained again for levels alone, it says the same of starvation.
    data = next(tmp_path.glob("results/runs/train/*__levels.parquet"))
    main(
        ["profile=qwen-2.5-7b", "models=[levels]", f"level_data={data}", f"out={out}", "seed=5", "tables=null", *SMALL]
    )
    again = load_predictor(out)
    assert again.levels is not None
    assert again.levels.card["seed"] == 5
    assert again.starvation.values(np.zeros((1, 25), np.float32)) == made.starvation.values(
        np.zeros((1, 25), np.float32)
    )
    assert again.card == made.card


@pytest.mark.usefixtures("_in_tmp_path")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["out=a.npz"], "profile must be given"),
        (["profile=llama-3.1-8b", "out=a.json"], "out=a.json"),
        (["profile=llama-3.1-8b", "data=missing.parquet"], "data=missing.parquet: no such file"),
        (["profile=llama-3.1-8b", "models=[levels,others]"], "models=['levels', 'others']"),
        (["profile=llama-3.1-8b", "models=[levels]", "out=missing.npz"], "predictor=missing.npz: no such file"),
        (["profile=llama-3.1-8b", "families=[perceptron]"], "families=['perceptron']"),
        (["profile=llama-3.1-8b", "risk=0"], "risk=0.0"),
        (["profile=nosuch"], "profile=nosuch"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert told in failure(capsys, *arguments)


@pytest.mark.usefixtures("_in_tmp_path")
def test_data_of_another_profile_are_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, "profile=qwen-2.5-7b", f"data={data}", "out=mine.npz")
    assert "another version of profile" in line or "llama" in line


@pytest.mark.usefixtures("_in_tmp_path")
def test_too_few_data_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "few.parquet"
    make_data(["profile=llama-3.1-8b", f"out={few}", "points=20", "boundary=0", "workers=1"])
    capsys.readouterr()
    assert "too few" in failure(capsys, "profile=llama-3.1-8b", f"data={few}", "out=mine.npz")
