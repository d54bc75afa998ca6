"""Files written whole or not at all: under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from twin.errors import UserError

_numbers = itertools.count()


@contextlib.contextmanager
def written(path: Path, named: str = "") -> Iterator[Path]:
    """A temporary name beside a file; what the block writes there becomes the file when it ends without an error.

    Parameters
    ----------
    path : Path
        Folders on the way are made.
    named : str
        What an error calls the file, such as `out=DIR: plan.json`; by default its path.

    Yields
    ------
    Path
        No other process or thread has the same. It is gone afterwards, whatever happened.

    Raises
    ------
    UserError
        If the file cannot be written: for what the system says to the block, and before it for a path that cannot be one.
    """
    named = named or str(path)
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{named}: cannot be written ({'a folder' if path.is_dir() else 'no regular file'})")
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name is cut: with what is added it must not be longer than a file system takes.
        temporary = path.with_name(f"{path.name[:40]}.{os.getpid()}-{next(_numbers)}.tmp")
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{named}: cannot be written ({refusal(error)})") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, named: str = "") -> None:
    """Write a text file as UTF-8; half a character (a surrogate) becomes its escape.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"), named)


def write_bytes(path: Path, data: bytes, named: str = "") -> None:
    """Write a file.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    with written(path, named) as temporary:
        temporary.write_bytes(data)


def refusal(error: OSError) -> str:
    """Why the system refused, in its own words and without the file's name."""
    if isinstance(error, FileExistsError) and error.filename is not None:
        return f"{error.filename} is not a folder"
    if error.errno is None:
        return " ".join(str(error).split())
    return os.strerror(error.errno)
