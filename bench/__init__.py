"""The harness: compares placement solvers on the twin, calibrates, trains, reports."""

import os
import signal
import sys
from types import FrameType


def _end_while_importing(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # a signal handler's signature
    """End a command that has not begun: no rows are lost, and an import that is interrupted says all sorts of things."""
    os.write(2, b"interrupted\n")
    os._exit(128 + signal.SIGINT)


# `python -m` calls itself so until it has found the module: a command's imports are next. `bench.shared.command` takes over.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end_while_importing)
