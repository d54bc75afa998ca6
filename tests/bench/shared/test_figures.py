"""Pictures are written whole or not at all."""

from pathlib import Path

import pytest

from bench.shared.figures import png_figure
from twin import UserError


def test_a_figure_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    with png_figure(path, (2, 1), dpi=100) as figure:
        figure.subplots().plot([1, 2], [3, 4])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]


def test_a_drawing_that_fails_leaves_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), png_figure(path):
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.png: cannot be written"), png_figure(tmp_path / "file" / "a.png"):
        pass
