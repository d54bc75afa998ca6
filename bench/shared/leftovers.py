"""Nothing that a command has started outlives it, even where it is killed and other people's code has started it.

Processes of a pool wait for work minutes after their owner has been killed, or begin what they were still given. So a small process
of its own waits for the end of the command, and then ends all that carries the command's mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "LORA_PLACEMENT_BENCH_OWNER"
# A process that is about to become another program carries no mark yet: it is looked for until it must have one.
_LOOKS, _PAUSE_S = 20, 0.1

# The watcher of this process, and the end of the pipe that tells it of the end: open as long as this process lives.
_watched_by: list[tuple[subprocess.Popen[bytes], int]] = []


def end_what_is_left() -> None:
    """Let all that is started from now on end with this process; on Linux, elsewhere nothing is done."""
    if _watched_by or sys.platform != "linux":
        return
    token = secrets.token_hex(16)
    theirs, ours = os.pipe()
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(theirs), token],
        pass_fds=[theirs],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C is for the command.
        start_new_session=True,
    )
    os.close(theirs)
    _watched_by.append((watcher, ours))
    os.environ[MARK] = token


def marked(token: str) -> list[int]:
    """Process ids of all that carries a mark."""
    wanted = f"{MARK}={token}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found


def main(pipe: int, token: str) -> None:
    """Wait until the other end of a pipe is closed, and end what carries the mark."""
    os.read(pipe, 1)
    for _ in range(_LOOKS):
        for process in marked(token):
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
