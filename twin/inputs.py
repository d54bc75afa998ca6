"""Files that a user gives, read with one clear line for whatever is wrong with them."""

from __future__ import annotations

import json
import stat
import unicodedata
from pathlib import Path
from typing import Any

from twin.errors import UserError
from twin.numbers import shown

#: Text files are read whole; nothing that is read in this way comes near this size.
MOST_BYTES = 256_000_000
# The only marks without a shape that names need: joiners, in scripts whose letters join. Others change the direction of what
# follows, or make two names that look the same.
_JOINERS = "\u200c\u200d"


def read_text(path: str | Path, what: str, *, key: str = "") -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Parameters
    ----------
    path : str or Path
    what : str
        What the file should be, for the message: "a CSV file with the columns ...".
    key : str
        The option that names the file, where there is one.

    Raises
    ------
    UserError
        If there is no such file, it is a folder, too large, cannot be read, or holds no text.
    """
    where = f"{key}={path}" if key else str(path)
    size = regular_size(path, where, what)
    if size > MOST_BYTES:
        raise UserError(f"{where}: {size / 1e6:.0f} MB are too much for {what}; at most {MOST_BYTES / 1e6:.0f} MB")
    try:
        with Path(path).open("rb") as file:
            # What the kernel makes up, as in /proc, says that it has no size, and may have no end.
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error}); it must be {what}") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{where}: is too much for {what}; at most {MOST_BYTES / 1e6:.0f} MB")
    return decoded(data, where, what)


def regular_size(path: str | Path, where: str, what: str) -> int:
    """Bytes of a file of the usual kind: reading a pipe or a device may wait for ever, or never end.

    Parameters
    ----------
    path : str or Path
    where : str
        The file as messages name it.
    what : str
        What the file should be, for the message.

    Raises
    ------
    UserError
        If there is no such file, or it is a folder, a pipe or a device.
    """
    if "\0" in where:
        raise UserError(f"{shown(where)}: no file can have this name; it must be {what}")
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        raise UserError(f"{where}: no such file; it must be {what}") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error}); it must be {what}") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{where}: is a folder; it must be {what}")
    if not stat.S_ISREG(found.st_mode):
        kind = "a pipe" if stat.S_ISFIFO(found.st_mode) else "a device or socket"
        raise UserError(f"{where}: is {kind}; it must be {what}, in a file")
    return found.st_size


def filled_size(path: str | Path, where: str, what: str) -> int:
    """As `regular_size`, of a file with something in it: what the kernel makes up, as in /proc, says that it is empty.

    Raises
    ------
    UserError
        For an empty one too.
    """
    size = regular_size(path, where, what)
    if not size:
        raise UserError(f"{where}: is empty; it must be {what}")
    return size


def decoded(data: bytes, where: str, what: str) -> str:
    """Bytes as text in UTF-8; `UserError` if they are none, or hold no text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where}: not a text file in UTF-8; it must be {what}") from None
    if "\0" in text:
        raise UserError(f"{where}: has NUL bytes in it, so it is no text; it must be {what}")
    if not text.strip():
        raise UserError(f"{where}: is empty; it must be {what}")
    return text


def parse_json(text: str, where: str, what: str) -> Any:  # noqa: ANN401  # whatever JSON holds
    """What a JSON text holds.

    Raises
    ------
    UserError
        If it is no JSON, is nested too deeply, or an object has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, where))
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{where}: nested too deeply; it must be {what}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON (line {error.lineno}: {error.msg}); it must be {what}") from None
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({error}); it must be {what}") from None


def read_json(path: str | Path, what: str, *, key: str = "") -> Any:  # noqa: ANN401  # whatever JSON holds
    """What a JSON file holds; see `read_text` and `parse_json`."""
    return parse_json(read_text(path, what, key=key), f"{key}={path}" if key else str(path), what)


def plain_text(key: str, value: object, *, at_most: int = 200) -> str:
    """A name or title that can be shown, and be a part of a file's name.

    Raises
    ------
    UserError
        If it is no text, empty, longer than `at_most` bytes, or has characters that cannot be seen or turn the text around.
    """
    if not isinstance(value, str):
        raise UserError(f"{key}={shown(value)} must be text; in quotes, if it looks like a number")
    if not value.strip():
        raise UserError(f"{key}={value!r} must not be empty")
    bad = next((mark for mark in value if hidden(mark)), None)
    if bad is not None:
        raise UserError(
            f"{key}={shown(value)!a} has the character U+{ord(bad):04X}, which cannot be shown; leave it out"
        )
    if len(value.encode()) > at_most:
        raise UserError(f"{key}={shown(value)} has {len(value.encode())} bytes; at most {at_most} fit a file's name")
    return value


def hidden(mark: str) -> bool:
    """Whether a character controls a terminal, turns text around, has no shape, or is half of one."""
    return unicodedata.category(mark) in {"Cc", "Cs", "Cf", "Zl", "Zp"} and mark not in _JOINERS


def _object(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{where}: the key {shown(twice)} is there twice; once is right")
    return values
