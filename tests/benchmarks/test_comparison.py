"""Comparing benchmarks of two machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.conftest import draw_growth
from tests.benchmarks.figures import CALIBRATION


def written(path: Path, **least_s: float) -> str:
    benchmarks = [{"name": name, "stats": {"min": seconds}, "extra_info": {}} for name, seconds in least_s.items()]
    path.write_text(json.dumps({"benchmarks": benchmarks}))
    return str(path)


def test_a_slower_machine_is_no_slower_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = written(tmp_path / "base.json", **{CALIBRATION: 0.02, "drawing": 0.1, "old": 1.0})
    new = written(tmp_path / "new.json", **{CALIBRATION: 0.06, "drawing": 0.3, "young": 1.0})
    assert main([base, new, "--summary", str(tmp_path / "summary.md")]) == 0
    table = capsys.readouterr().out
    assert "| drawing | 5 | 5 | 1.00 |" in table
    assert "| old | 50 | | gone |" in table
    assert "| young | | 16.7 | new |" in table
    assert (tmp_path / "summary.md").read_text() == table


def test_slower_code_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = written(tmp_path / "base.json", **{CALIBRATION: 0.02, "drawing": 0.1, "other": 0.1})
    new = written(tmp_path / "new.json", **{CALIBRATION: 0.01, "drawing": 0.1, "other": 0.04})
    assert main([base, new]) == 1
    assert "| drawing | 5 | 10 | 2.00 **slower** |" in capsys.readouterr().out
    assert main([base, new, "--at-most", "2.1"]) == 0


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"benchmarks": [{"name": "drawing", "stats": {"min": 1.0}}]}'])
def test_another_file_is_an_error_of_one_line(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert main([str(path), str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(str(path))
    assert said.count("\n") == 1


def test_curves_are_drawn_where_there_are_any(tmp_path: Path) -> None:
    points: list[dict[str, Any]] = [
        {"extra_info": {"curve": "question", "over": over, "unit": "request"}, "stats": {"median": over / 1e6}}
        for over in (10, 100)
    ]
    draw_growth([{"extra_info": {}}], tmp_path / "none.png")
    draw_growth(points, tmp_path / "growth.png")
    assert not (tmp_path / "none.png").exists()
    assert (tmp_path / "growth.png").stat().st_size > 5000
