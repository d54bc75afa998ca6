"""What the packages log, as notes for whoever called the command: what was read of a file, and what was not used."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

_PACKAGES = ("twin", "bench")


class _Notes(logging.Handler):
    """Writes each message once, to what stderr is at that moment."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        message = " ".join(record.getMessage().split())
        if message not in self._said:
            self._said.add(message)
            sys.stderr.write(f"note: {message}\n")


@contextlib.contextmanager
def notes_on_stderr() -> Iterator[None]:
    """Show notes, each as one line on stderr."""
    handler = _Notes()
    before = {}
    for name in _PACKAGES:
        log = logging.getLogger(name)
        before[name] = log.level
        log.setLevel(logging.INFO)
        log.addHandler(handler)
    try:
        yield
    finally:
        for name, level in before.items():
            log = logging.getLogger(name)
            log.removeHandler(handler)
            log.setLevel(level)
