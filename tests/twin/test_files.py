"""Files are there as a whole or not at all, and a disk that refuses is one line."""

import errno
import os
import threading
from pathlib import Path

import pytest

from twin import UserError
from twin.files import write_bytes, write_text, written


def write_half(path: Path, error: Exception) -> None:
    with written(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "deep" / "a.txt", "ä\n")
    assert (tmp_path / "new" / "deep" / "a.txt").read_bytes() == "ä\n".encode()
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["a.txt"]


def test_half_a_character_is_written_as_its_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "x\udc80")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "x\\udc80"


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(path, ZeroDivisionError())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    error = OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device")
    with pytest.raises(UserError, match=r"a\.txt: cannot be written \(No space left on device\)$"):
        write_half(path, error)
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_is_refused_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UserError, match="Read-only file system"):
        write_bytes(tmp_path / "a", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file/a", "file is not a folder"),
        ("file/b/a", "Not a directory"),
        ("folder", "a folder"),
        ("n" * 300, "File name too long"),
        (f"{'n' * 300}/a", "File name too long"),
    ],
)
def test_a_path_that_cannot_be_a_file_is_refused_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=rf"^{tmp_path / name}: cannot be written \(.*{reason}\)$"):
        write_text(tmp_path / name, "new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_not_replaced_by_a_file(device: str) -> None:
    with pytest.raises(UserError, match="no regular file"):
        write_text(Path(device), "x")
    assert Path(device).is_char_device()


def test_the_longest_name_that_a_file_can_have_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    write_text(path, "x")
    assert path.read_text() == "x"


def test_an_error_names_the_file_as_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^out=DIR: cannot be written \(a folder\)$"):
        write_text(tmp_path, "x", "out=DIR")


def test_threads_that_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a"
    texts = [str(number) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]
