"""The cache of rows: the same question finds its row, another question does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.comparison.cache import RowCache, canonical, cell_key, key_parts
from bench.comparison.cell import Cell
from bench.comparison.rows import Row
from twin import UserError

WORKLOAD = {
    "_target_": "twin.builders.groups",
    "groups": [{"count": 2, "rank": 8, "rate": 0.5}],
    "seed": 0,
    "name": "w",
}
CELL = Cell(solver="max_pack", solver_options={"_target_": "solvers.max_pack.MaxPack"}, workload=WORKLOAD)
ROW = Row(workload="w", seed=0, solver="max_pack", objective="min_gpus", profile="p", status="feasible", gpus=2)


def changed(**changes: Any) -> Cell:  # noqa: ANN401  # fields of many types
    return replace(CELL, **changes)


def test_what_is_stored_is_found_and_nothing_else(tmp_path: Path) -> None:
    cache = RowCache(tmp_path / "cache")
    assert cache.find(CELL) is None
    full = replace(ROW, objective_key=[0.0, 2.0], adapter_ranks=[8, 8], solve_time_s=0.1 + 0.2, placement="[]")
    cache.store(CELL, full)
    assert cache.find(CELL) == full
    assert RowCache(tmp_path / "cache").find(changed(seed=1)) is None
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"gpus": 2},
        {"time_limit_s": 61.0},
        {"repeats": 2},
        {"reserve": 0.1},
        {"profile": "qwen-2.5-7b"},
        {"workload": {**WORKLOAD, "seed": 1}},
        {"workload": {**WORKLOAD, "groups": [{"count": 3, "rank": 8, "rate": 0.5}]}},
        {"workload": {**WORKLOAD, "lengths": {"_target_": "twin.fixed_lengths", "prompt_tokens": 9}}},
        {"solver_options": {**CELL.solver_options, "order": "decreasing"}},
        {"solver_options": {"_target_": "solvers.ffd.GuidedFfd"}},
        {"objective": {"_target_": "solvers.objectives.min_latency.MinLatency"}},
    ],
)
def test_another_question_has_another_key(change: dict[str, Any]) -> None:
    assert cell_key(changed(**change)) != cell_key(CELL)


@pytest.mark.parametrize(
    "change", [{"solver": "x"}, {"overrides": ("a=1",)}, {"instance": "i"}, {"best_bound": 1}, {"threads": 1}]
)
def test_what_only_tables_show_is_not_part_of_the_question(change: dict[str, Any]) -> None:
    assert cell_key(changed(**change)) == cell_key(CELL)


def test_a_file_counts_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("1")
    second.write_text("1")
    assert canonical({"path": str(first), "n": [1, "no/file"]}) == canonical({"path": str(second), "n": [1, "no/file"]})
    before = canonical(str(second))
    second.write_text("22")
    assert canonical(str(second)) != before
    assert canonical("no/such/file.csv") == "no/such/file.csv"


def test_the_profile_counts_by_its_content(tmp_path: Path) -> None:
    from importlib import resources

    text = (resources.files("twin") / "profiles" / "llama-3.1-8b__h100-64gb.json").read_text(encoding="utf-8")
    path = tmp_path / "mine.json"
    path.write_text(text)
    same = cell_key(changed(profile=str(path)))
    assert same == cell_key(changed(profile="llama-3.1-8b/h100-64gb")) == cell_key(CELL)
    path.write_text(text.replace('"min_step_ms": ', '"min_step_ms": 1'))
    assert cell_key(changed(profile=str(path))) != same


def test_the_predictor_counts_where_the_solver_asks_one() -> None:
    with_predictor = key_parts(changed(solver_options={"_target_": "solvers.ffd.GuidedFfd"}))
    without = key_parts(changed(solver_options={"_target_": "solvers.max_backbone.MaxBackbone"}))
    assert len(with_predictor["predictor"]) == 64
    assert "predictors" in with_predictor["code"]
    assert without["predictor"] is None
    assert "predictors" not in without["code"]


def test_failures_are_kept_but_not_mistakes(tmp_path: Path) -> None:
    cache = RowCache(tmp_path)
    crash = replace(ROW, status="crash", gpus=None)
    cache.store(CELL, crash)
    assert cache.find(CELL) == crash
    assert cache.find(CELL, failed=False) is None
    for details in ({"user_error": True}, {"not_made": True}):
        cache.store(changed(seed=2), replace(ROW, status="error", details=json.dumps(details)))
    assert cache.find(changed(seed=2)) is None


def test_a_damaged_file_is_no_row(tmp_path: Path) -> None:
    cache = RowCache(tmp_path)
    cache.store(CELL, ROW)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text(encoding="utf-8")[:40])
    assert cache.find(CELL) is None


DAMAGES: list[Callable[[dict[str, Any]], object]] = [
    lambda _: None,
    lambda _: [],
    lambda content: content["row"],
    lambda content: {**content, "row": 5},
    lambda content: {**content, "checksum": None},
    lambda content: {**content, "row": {**content["row"], "gpus": 1}},
    lambda content: {**content, "row": {**content["row"], "feasible": True}},
    lambda content: {**content, "row": {**content["row"], "more": 1}},
    lambda content: {**content, "row": {}},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
def test_a_row_that_was_changed_is_computed_again(damage: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    cache = RowCache(tmp_path)
    cache.store(CELL, ROW)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(json.dumps(damage(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    assert cache.find(CELL) is None


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"null", b'"row"', b"\x00" * 100])
def test_a_file_that_is_no_row_is_none(data: bytes, tmp_path: Path) -> None:
    cache = RowCache(tmp_path)
    cache.store(CELL, ROW)
    (path,) = tmp_path.rglob("*.json")
    path.write_bytes(data)
    assert cache.find(CELL) is None
    cache.store(CELL, ROW)
    assert cache.find(CELL) == ROW


def test_the_row_of_another_cell_is_no_answer(tmp_path: Path) -> None:
    cache, other = RowCache(tmp_path), changed(seed=1)
    cache.store(CELL, ROW)
    (mine,) = tmp_path.rglob("*.json")
    theirs = tmp_path / cell_key(other)[:2] / f"{cell_key(other)}.json"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_bytes(mine.read_bytes())
    assert cache.find(other) is None


@pytest.mark.parametrize(
    ("column", "value"), [("gpus", "2"), ("gpus", True), ("message", None), ("objective_key", [None])]
)
def test_a_value_of_another_type_is_no_row_although_the_checksum_is_right(
    column: str, value: object, tmp_path: Path
) -> None:
    cache = RowCache(tmp_path)
    cache.store(CELL, replace(ROW, **{column: value}))  # type: ignore[arg-type]  # that is the point
    assert cache.find(CELL) is None


def test_a_solver_of_others_is_not_imported_to_find_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_by_the_cache.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert cell_key(changed(solver_options={"_target_": "imported_by_the_cache.Mine"}))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache_dir=.*file: cannot be written"):
        RowCache(tmp_path / "file").store(CELL, ROW)
