"""What the packages log, as notes for whoever called the command: what was read of a file, and what was not used."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator

_PACKAGES = ("twin", "bench")


# A command that is refused says its one line alone; one that runs for longer shows its notes meanwhile.
# Chosen by hand.
_WAIT_S = 3.0


class _Notes(logging.Handler):
    """Keeps each message once, and writes it to stderr when told to."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._said: dict[str, bool] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self._said.setdefault(" ".join(record.getMessage().split()), False)

    def show(self) -> None:
        """Write what has not been written yet."""
        for message, written in list(self._said.items()):
            if not written:
                self._said[message] = True
                sys.stderr.write(f"note: {message}\n")


@contextlib.contextmanager
def notes_on_stderr() -> Iterator[None]:
    """Show notes, each as one line on stderr: after a few seconds and at the end, but not beside a user's mistake."""
    handler = _Notes()
    before = {}
    for name in _PACKAGES:
        log = logging.getLogger(name)
        before[name] = log.level
        log.setLevel(logging.INFO)
        log.addHandler(handler)
    timer = threading.Timer(_WAIT_S, handler.show)
    timer.daemon = True
    timer.start()
    try:
        yield
        handler.show()
    finally:
        timer.cancel()
        for name, level in before.items():
            log = logging.getLogger(name)
            log.removeHandler(handler)
            log.setLevel(level)
