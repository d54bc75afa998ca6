"""What stands in somebody's file is shown letter by letter: no markup, nothing that the terminal obeys."""

import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.comparison.rows import Row
from bench.reporting.table import comparison_report
from bench.shared.mistakes import mistakes_as_exit
from bench.shared.terminal import at_work, console, plain, progress_bar, tracked
from twin import UserError


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


#: What a terminal obeys or what hides text; `\r` alone would write over the line.
OBEYED = [
    "\x1b[31mred",
    "a\rb",
    "a\x08b",
    "\x9b2J",
    "\u202egnp.exe",
    "\u2066x",
    "\u061cx",
    "a\u2028b",
    "\ud800",
    "\x00",
]


@pytest.mark.parametrize("name", OBEYED)
def test_what_a_terminal_obeys_is_written_as_an_escape(name: str) -> None:
    shown = plain(name)
    assert shown.isprintable()
    assert shown.encode("ascii").decode("unicode_escape") == name


@given(st.text())
def test_an_escaped_text_has_nothing_left_to_escape(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", plain(text))


@pytest.mark.parametrize("text", ["a\tb\n", "köln-Ω", "日本語", "👩‍🔬", "می‌خواهم"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "[/]", "[red", ":warning:", "[link=http://x]y[/link]"])
@pytest.mark.parametrize("terminal", [True, False])
def test_markup_in_a_name_is_no_markup(name: str, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    table = Table("name", title=f"of {name}")
    table.add_row(name)
    console(width=160).print(Group(f"said {name}", Text(f"as text {name}"), table), soft_wrap=True)
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert text.count(name) == 4


@pytest.mark.parametrize("name", OBEYED)
def test_a_console_shows_escapes_wherever_a_name_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    table = Table("name", title=name)
    table.add_row(name)
    table.add_row(Text(name))
    console().print(Group(name, table))
    # Rich itself drops a few control characters of a `Text`, which is as good.
    assert not set(name) & {character for character in stream.getvalue() if not character.isprintable()} - {"\n"}
    assert stream.getvalue().count(plain(name)) >= 3


def test_the_columns_of_a_table_stay_in_line_beside_an_escaped_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    rows = [
        Row(workload="w", seed=0, solver=name, objective="o", profile="p", status="feasible")
        for name in ("short", "\x1b[2J\u202e")
    ]
    console().print(comparison_report(rows))
    lines = [line for line in stream.getvalue().splitlines() if line.startswith(("│", "┃"))]
    assert len({len(line) for line in lines}) == 1


def test_a_spinner_and_a_bar_take_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with at_work(console(stderr=True)) as show:
        show("[/] one \x1b[2J")
    with progress_bar(console(stderr=True)) as progress:
        progress.add_task("[/] three", total=1)
    assert "[/] one \\x1b[2J" in stream.getvalue()
    assert "[/] three" in stream.getvalue()


def test_a_bar_leaves_nothing_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked([1, 2], "counting")) == [1, 2]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_mistake_is_told_with_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), mistakes_as_exit():
        raise UserError("name \x1b[2J\u202e is taken")
    assert capsys.readouterr().err == "error: name \\x1b[2J\\u202e is taken\n"
