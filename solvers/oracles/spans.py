"""Every `max_loras` from 1 to what starts, in a few questions: spans of values that are no better than a server that cannot be had.

A span's server has the KV cache and the step times of its lowest value, pays for no more distinct adapters in a step than that, and
fills as many slots as its highest. When even that falls short, so does every value of the span; when it does not, the span is
divided. A question about a single value is about a real server.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from twin import ServingProfile

#: Questions about one content before its verdict is left open: what is not shown to fall short is taken not to. By hand.
MOST_ASKED = 64
#: Parts that a span is divided into at most when it does not fall short. By hand: more parts ask more, fewer ask again.
MOST_PARTS = 8


@dataclass(frozen=True, order=True)
class SlotSpan:
    """Values of `max_loras`.

    Attributes
    ----------
    low, high : int
        Both belong to it.
    """

    low: int
    high: int

    @property
    def is_single(self) -> bool:
        """Whether it is one value, and its server a real one."""
        return self.low == self.high

    def holds(self, other: SlotSpan) -> bool:
        """Whether all values of another span are among its own."""
        return self.low <= other.low and other.high <= self.high

    def parts(self, count: int) -> list[SlotSpan]:
        """About so many spans that make it up, each of them about as many times as wide as high as the others."""
        ratio = (self.high + 1) / self.low
        edges = sorted({round(self.low * ratio ** (k / count)) for k in range(count)} | {self.low, self.high + 1})
        if len(edges) == 2 and not self.is_single:
            edges.insert(1, (self.low + self.high + 1) // 2)
        return [SlotSpan(low, high - 1) for low, high in pairwise(edges)]


def octaves(most: int, limit: int | None = None) -> list[SlotSpan]:
    """Spans of all values from 1 to `most`, each at most twice as high as low.

    Parameters
    ----------
    most : int
    limit : int, optional
        The last span goes on up to here, so that spans for several `most` are the same.
    """
    lows = [2**k for k in range(most.bit_length())]
    return [SlotSpan(low, min(2 * low - 1, limit or most)) for low in lows]


def singles(most: int) -> list[SlotSpan]:
    """Each value from 1 to `most` by itself."""
    return [SlotSpan(value, value) for value in range(1, most + 1)]


def costs_grow(profile: ServingProfile, rank: int) -> bool:
    """Whether every slot more costs KV cache and step time, or nothing: only then does a span's lowest value stand for it."""
    most = profile.largest_max_loras(rank)
    capacities = [profile.kv_tokens(value, rank) for value in range(1, most + 1)]
    falling = all(later <= earlier for earlier, later in pairwise(capacities))
    # Coefficients are linear in `max_loras`.
    return falling and bool((profile.step_coefficients(2, rank) >= profile.step_coefficients(1, rank)).all())


@dataclass(frozen=True)
class Shortfall:
    """What came nearest to being enough.

    Attributes
    ----------
    share : float
        Of the span that has most; -1 where nothing starts, or nothing was asked because it was known.
    span : SlotSpan
    asked : tuple of SlotSpan
        Those that all values were ruled out by.
    """

    share: float
    span: SlotSpan
    asked: tuple[SlotSpan, ...]


def shortfall(  # noqa: PLR0913  # one search and where it stops
    ask: Callable[[SlotSpan], float | None],
    spans: list[SlotSpan],
    enough: float,
    aim: int,
    *,
    most: int,
    really: float | None = None,
    most_asked: int = MOST_ASKED,
) -> Shortfall | None:
    """Whether every value of some spans has less than a share, and how near it comes; None if one may have as much.

    Parameters
    ----------
    ask : callable
        The share of a span's server, or None where it is known to be less than is enough.
    spans : list of SlotSpan
        Ascending.
    enough : float
    aim : int
        A value that is likely to be good: it is asked about first, as it is.
    most : int
        Values above are not asked about by themselves.
    really : float, optional
        The share that is enough of a real server, where more is asked of spans.
    most_asked : int
        Questions after which the answer is None.
    """
    really = enough if really is None else really
    if not spans:
        return Shortfall(-1.0, SlotSpan(1, 1), ())
    aim = min(max(aim, spans[0].low), most)
    best, best_span, nearest = -1.0, SlotSpan(aim, aim), 0.0
    asked: list[SlotSpan] = []
    # Nearest to the aim last, where `pop` takes it.
    waiting = sorted(spans, key=lambda span: -_distance(span, aim))
    waiting.append(SlotSpan(aim, aim))
    for _ in range(most_asked):
        span = waiting.pop()
        share = ask(span)
        if share is not None and share < (really if span.is_single else enough):
            nearest = max(nearest, share if span.is_single else 0.0)
            if share > best:
                best, best_span = share, span
            asked.append(span)
        elif share is not None and span.is_single:
            return None
        elif share is not None:
            # As many times narrower as what the span adds to the best real server must become smaller.
            times = (share - nearest) / max(enough - nearest, 1e-3)
            pieces = span.parts(min(MOST_PARTS, max(2, math.ceil(times))))
            pieces = [piece for piece in pieces if piece.low <= most]
            waiting.extend(sorted(pieces, key=lambda piece: -_distance(piece, aim)))
        if not waiting:
            return Shortfall(best, best_span, tuple(asked))
    return None


def _distance(span: SlotSpan, aim: int) -> float:
    """Doublings from a value to a span."""
    if span.low <= aim <= span.high:
        return 0.0
    return abs(math.log2((span.low if span.low > aim else span.high) / aim))
