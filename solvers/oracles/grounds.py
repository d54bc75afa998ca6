"""What the twin was asked about contents that fall short, for whoever wants to see it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.oracles.base import MadeUp
from solvers.oracles.spans import SlotSpan


@dataclass(frozen=True)
class RealContent:
    """Adapters of the workload, one of them taken to be of a rank and the others of the smallest.

    Attributes
    ----------
    adapters : tuple of int
    rank : int
    """

    adapters: tuple[int, ...]
    rank: int

    @property
    def n_adapters(self) -> int:
        """How many there are."""
        return len(self.adapters)


class Grounds:
    """Contents that fall short, with the values of `max_loras` that were simulated of each.

    What asks for more than one of them was not simulated at the same values: such contents rest on others.
    """

    def __init__(self) -> None:
        self._spans: dict[MadeUp | RealContent, set[SlotSpan]] = {}
        self._most: dict[MadeUp | RealContent, int] = {}
        self._sums: dict[RealContent, NDArray[np.float64]] = {}

    def __iter__(self) -> Iterator[MadeUp | RealContent]:
        return iter(self._spans)

    def made_up(self, content: MadeUp, spans: Iterable[SlotSpan], most: int) -> None:
        """Note that a made-up content falls short at all values up to `most`, and what was simulated of it."""
        self._spans.setdefault(content, set()).update(spans)
        self._most[content] = most

    def real(self, content: RealContent, sums: NDArray[np.float64], spans: Iterable[SlotSpan], most: int) -> None:
        """Note the same of adapters, and what they ask for."""
        self._spans.setdefault(content, set()).update(spans)
        self._most[content], self._sums[content] = most, sums

    def spans(self, content: MadeUp | RealContent) -> list[SlotSpan]:
        """What was simulated of a content."""
        return sorted(self._spans[content])

    def others(self, content: MadeUp | RealContent) -> list[MadeUp | RealContent]:
        """Contents that ask for no more and were simulated at the values at which this one was not."""
        missing = np.ones(self._most[content] + 1, dtype=np.bool_)
        missing[0] = False
        for span in self._spans[content]:
            missing[span.low : span.high + 1] = False
        found = []
        for other, spans in self._spans.items():
            if not missing.any():
                break
            if other == content or not self._is_less(other, content):
                continue
            before = int(missing.sum())
            for span in spans:
                missing[span.low : span.high + 1] = False
            if missing.sum() < before:
                found.append(other)
        return found

    def _is_less(self, other: MadeUp | RealContent, content: MadeUp | RealContent) -> bool:
        if isinstance(other, MadeUp) and isinstance(content, MadeUp):
            return other.n_adapters <= content.n_adapters and other.rank <= content.rank and other.load <= content.load
        if isinstance(other, RealContent) and isinstance(content, RealContent):
            return other.rank == content.rank and bool((self._sums[other] <= self._sums[content]).all())
        return False
