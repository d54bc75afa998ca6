"""Processes that end with those who own them, on Linux; elsewhere what can be done is done."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

#: From linux/prctl.h.
PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# How often it is looked whether the owner is still there: by hand.
_POLL_S = 0.5
# A process that forks while its tree is ended shows up in a later look. By hand: 0.4 s in all.
_LOOKS = 20
_PAUSE_S = 0.02
_watched: set[int] = set()


def die_with_parent(parent: int) -> None:
    """Let the kernel end this process when the thread ends that started it.

    Parameters
    ----------
    parent : int
        Process id of the parent, which may be gone already.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends, however it was detached."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def watch_owner(owner: int) -> None:
    """End this process and all below it when its parent is no longer `owner`; looked at twice a second, in a thread."""
    if owner in _watched:
        return
    _watched.add(owner)
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()


def _end_with(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_POLL_S)
    end_below(os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)


def below(process: int) -> list[int]:
    """Process ids of all that a process has started, at whatever depth, the nearest first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in brackets may hold anything; state and parent follow it.
            state, parent = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(entry.parent.name))
    found, waiting = [], [process]
    while waiting:
        started = children.get(waiting.pop(0), [])
        found += started
        waiting += started
    return found


def end_below(process: int) -> None:
    """Kill all that a process has started, at whatever depth, and wait for those that are this one's own children."""
    for _ in range(_LOOKS):
        found = below(process)
        for each in found:
            with contextlib.suppress(OSError):
                os.kill(each, signal.SIGKILL)
        if process == os.getpid():
            _reap()
        if not found:
            return
        time.sleep(_PAUSE_S)


def end_marked(mark: str) -> None:
    """Kill every process whose environment had a mark in it when it began, or that of the process it was forked from.

    This finds what has detached itself from a process that is gone. On Linux; elsewhere it finds nothing.

    Parameters
    ----------
    mark : str
        `NAME=value`, the value not to be guessed.
    """
    wanted = b"\0" + mark.encode() + b"\0"
    for _ in range(_LOOKS):
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError, ValueError):
                if int(entry.parent.name) != os.getpid() and wanted in b"\0" + entry.read_bytes():
                    found.append(int(entry.parent.name))
        for each in found:
            with contextlib.suppress(OSError):
                os.kill(each, signal.SIGKILL)
        if not found:
            return
        time.sleep(_PAUSE_S)


def ending(code: int) -> str:
    """How a solver's process ended, from its exit code, negative for a signal."""
    if code >= 0:
        return f"the solver's process ended with exit code {code}"
    name = signal.Signals(-code).name
    cause = ", which is what the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return f"the solver's process died of signal {-code} ({name}){cause}"


def close_all_but(*kept: int) -> None:
    """Close every file of this process but the standard ones and those given."""
    low = 3
    for number in sorted(kept):
        os.closerange(low, number)
        low = number + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _reap() -> None:
    """Let go of the children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
