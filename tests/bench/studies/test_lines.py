"""Tables of studies: what is there is not made again, what is of other options or another study is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.studies.lines import StudyLines
from twin import UserError


@dataclass(frozen=True)
class Line:
    """A line of a study."""

    name: str
    level: str
    share: float
    count: int
    seconds: float


@dataclass
class Options:
    """What the lines are made with."""

    seconds: float = 2.0


def lines_of(table: Path | None, seconds: float = 2.0) -> StudyLines[Line]:
    return StudyLines(Line, None if table is None else str(table), ("name", "level"), Options(seconds), ("seconds",))


def refuse() -> Line:
    pytest.fail("made again")


def test_each_line_is_written_when_it_is_made_and_never_made_again(tmp_path: Path) -> None:
    table = tmp_path / "lines.csv"
    lines = lines_of(table)
    one = Line("a, b", "x", 2 / 3, 4, 2.0)
    assert lines.line(("a, b", "x"), lambda: one) == one
    assert table.read_text() == 'name,level,share,count,seconds\n"a, b",x,0.666667,4,2.0\n'
    assert lines.line(("a, b", "x"), refuse) == one
    again = lines_of(table)
    assert again.line(("a, b", "x"), refuse) == Line("a, b", "x", 0.666667, 4, 2.0)
    again.line(("a, b", "y"), lambda: Line("a, b", "y", float("nan"), 0, 2.0))
    assert len(table.read_text().splitlines()) == 3
    # A figure that there is not is none when it is read, and it is not made again for that.
    assert lines_of(table).line(("a, b", "y"), refuse).share != 0


def test_without_a_table_nothing_is_written(tmp_path: Path) -> None:
    lines_of(None).line(("a", "x"), lambda: Line("a", "x", 1.0, 1, 2.0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("name,level,share,count,seconds\na,x,1.0,1,3.0\n", "made with another seconds"),
        ("name,count\na,1\n", "its columns must be name, level"),
        ("", "no table of an earlier run"),
        ("a,b\n1,2,3\n1,2,3,4\n", "no table of an earlier run"),
    ],
    ids=["other seconds", "other study", "empty", "no table"],
)
def test_a_table_of_something_else_is_refused(tmp_path: Path, content: str, told: str) -> None:
    table = tmp_path / "lines.csv"
    table.write_text(content)
    with pytest.raises(UserError, match=told):
        lines_of(table)
    assert table.read_text() == content
