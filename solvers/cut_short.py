"""Whether time has cut a search short: what is found then depends on the machine, and whoever compares must know."""

from __future__ import annotations


class _Ledger:
    """How often it has happened in this process."""

    def __init__(self) -> None:
        self.times = 0


_ledger = _Ledger()


def note_cut_short() -> None:
    """Say that a search has ended, or taken another way, because of the time and not by what it found."""
    _ledger.times += 1


def times_cut_short() -> int:
    """How often that has been said so far: larger after a search than before it, if time has cut it short."""
    return _ledger.times
