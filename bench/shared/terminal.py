"""What commands show on a terminal: consoles that take every text as it is, and progress bars."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

# Where there is no terminal to ask (a file, a pipe, a CI log).
WIDTH_WITHOUT_TERMINAL = 120

# Control characters but tab and line feed, marks that turn the direction of writing (Unicode's bidirectional algorithm, UAX 9),
# separators of lines and paragraphs, and surrogates, which cannot be written at all.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""A text with what a terminal would obey rather than show written as escapes.

    Parameters
    ----------
    text : str
        Such as the name of an adapter in somebody's file.

    Examples
    --------
    >>> plain("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return _UNSEEN.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


class _Console(Console):
    """Shows texts letter by letter: names and paths with [brackets] or :colons: are no markup, nothing in them is obeyed."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401  # Rich's options as they are
        """Escape before widths are taken."""
        return super().render_str(plain(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Escape what came as a `Text` of its own."""
        for segment in super().render(renderable, options):
            if segment.control or not _UNSEEN.search(segment.text):
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)


def console(*, stderr: bool = False, width: int = WIDTH_WITHOUT_TERMINAL) -> Console:
    """A console on stdout or stderr.

    Parameters
    ----------
    stderr : bool
    width : int
        Where it is no terminal: enough for the widest table of the command.
    """
    stream = sys.stderr if stderr else sys.stdout
    return _Console(stderr=stderr, width=None if stream.isatty() else width, highlight=False, markup=False, emoji=False)


@contextlib.contextmanager
def at_work(terminal: Console, text: str = "") -> Iterator[Callable[[str], None]]:
    """Show a text with a spinner while the block runs, on a terminal alone.

    Yields
    ------
    callable
        Changes the text.
    """
    with terminal.status(Text(plain(text))) as status:
        yield lambda line: status.update(Text(plain(line)))


def progress_bar(terminal: Console) -> Progress:
    """The progress bar of long commands; it draws nothing where the output is no terminal."""
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,
    )


def tracked(items: Collection[Item], description: str) -> Iterator[Item]:
    """The items, with a progress bar on stderr."""
    with progress_bar(console(stderr=True)) as progress:
        yield from progress.track(items, description=description)


def in_threads(function: Callable[[Item], Result], items: list[Item], threads: int) -> list[Result]:
    """`function` of every item, in order, in threads."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(function, items))
