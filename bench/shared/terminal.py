"""What commands show on a terminal: consoles of one width, and progress bars."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: list[Item], threads: int) -> list[Result]:
    """`function` of every item, in order, in threads."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(function, items))


def progress_bar(console: Console) -> Progress:
    """The progress bar of long commands; it draws nothing where the output is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


# Where there is no terminal to ask (a file, a pipe, a CI log).
WIDTH_WITHOUT_TERMINAL = 120


def console() -> Console:
    """A console on stdout, wide enough for the tables."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)
