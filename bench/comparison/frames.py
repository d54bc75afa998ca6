"""How a harness and a solver's process talk: one JSON object at a time over a pipe, marked, so that stray bytes are noticed."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable
from typing import Any

_MARK = b"\x00placement\x00"
# Bytes of a frame's length in front of it: 64 bits.
_LENGTH = 8
# How often the time left is looked at, and how much is read at once. By hand: small beside the seconds of a limit, and
# large beside most answers.
_TICK_S = 0.5
_CHUNK = 1 << 20

#: A solver that is imported and compiled has so many times the margin. By hand: where nothing is compiled yet and others want the cores
#: too, a solver of this package has taken a minute and a half; one that never answers is found out in the end all the same.
COMPILING = 5


class Overdue(Exception):  # noqa: N818  # what has happened, not what is wrong
    """There was no whole frame in the time given."""


class Closed(Exception):  # noqa: N818  # as above
    """The other end is gone."""


class BadFrame(ValueError):  # noqa: N818  # as above
    """What came is no frame of this protocol."""


def write_frame(pipe: int, content: dict[str, Any]) -> None:
    """Write one object.

    Raises
    ------
    OSError
        If the pipe is closed.
    """
    data = json.dumps(content, allow_nan=False).encode()
    rest = memoryview(_MARK + len(data).to_bytes(_LENGTH, "big") + data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def read_frame(
    pipe: int, time_s: float = float("inf"), largest: int = 1 << 40, gone: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Read one object.

    Parameters
    ----------
    pipe : int
        File descriptor.
    time_s : float
        How long to wait for all of it. Time in which this process was stopped counts little.
    largest : int
        Most bytes of an object.
    gone : callable
        Whether the process that was to write has ended; asked when nothing comes, since one that it has left behind may
        hold the pipe open.

    Raises
    ------
    Overdue, Closed, BadFrame
    """
    head, left_s = _read(pipe, len(_MARK) + _LENGTH, time_s, gone)
    length = int.from_bytes(head[len(_MARK) :], "big")
    if not head.startswith(_MARK):
        raise BadFrame("bytes that are no answer")
    if length > largest:
        raise BadFrame(f"an answer of {length} bytes, where {largest} are the most")
    data, _ = _read(pipe, length, left_s, gone)
    try:
        content = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"an answer that is no JSON ({str(error)[:100]})") from None
    if not isinstance(content, dict):
        raise BadFrame("an answer that is no JSON object")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _read(pipe: int, length: int, left_s: float, gone: Callable[[], bool]) -> tuple[bytes, float]:
    """So many bytes, and the time that is left."""
    data = bytearray()
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    while len(data) < length:
        before = time.monotonic()
        ready = poller.poll(1000 * _TICK_S)
        left_s -= min(time.monotonic() - before, 2 * _TICK_S)
        if ready:
            part = os.read(pipe, min(_CHUNK, length - len(data)))
            if not part:
                raise Closed
            data += part
            if not data.startswith(_MARK[: len(data)]) and length == len(_MARK) + _LENGTH:
                raise BadFrame("bytes that are no answer")
        elif gone():
            raise Closed
        if left_s <= 0 and len(data) < length:
            raise Overdue
    return bytes(data), left_s
