"""Cuts and columns over real contents: what closes the last gap, when it can be closed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.contents.adapter_types import AdapterTypes
from solvers.contents.demands import Demands
from solvers.contents.patterns import PRICE_SCALE, Counts, cover_prices, maximal, whole_cover
from solvers.exact_search.cuts import Cuts
from solvers.exact_search.frontier import Boxes, price_boxes
from solvers.exact_search.progress import Progress
from solvers.exact_search.realise import realise
from solvers.limits import Deadline
from solvers.oracles.base import Oracle

#: A cover by whole patterns is tried when there are so many times as many patterns as at the last try, for so many seconds at most or half
#: of the time left. By hand: a try takes as long as many rounds, and a few patterns more rarely change its answer.
MORE_PATTERNS, MOST_COVER_S = 1.3, 10.0


class CutLoop:
    """Logic-based Benders cuts and pattern columns in one loop.

    A linear programme covers all adapters with contents that the oracle accepted, and prices the types. CP-SAT
    looks for the dearest content that no cut rules out; the oracle accepts it (a column) or rejects it, and
    with it everything that asks at least as much (a cut). The prices over the dearest content left are a
    lower bound (Farley, 1990) for placements that give each adapter one GPU. CP-SAT covers the adapters with whole contents of those
    accepted.

    Parameters
    ----------
    oracle : Oracle
    types : AdapterTypes
    demands : Demands
    progress : Progress
        Holds a placement already.
    deadline : Deadline
    workers : int
        Search threads of CP-SAT.
    """

    def __init__(  # noqa: PLR0913  # what a search is about, and its limits
        self,
        oracle: Oracle,
        types: AdapterTypes,
        demands: Demands,
        progress: Progress,
        deadline: Deadline,
        workers: int,
    ) -> None:
        self.oracle = oracle
        self.types = types
        self.demands = demands
        self.progress = progress
        self.deadline = deadline
        self.workers = workers
        self.cuts = Cuts(demands, types.counts)
        self.patterns: list[Counts] = []
        self.needs: set[str] = set()
        self._unreliable: set[bytes] = set()
        self._slots: dict[bytes, int] = {}
        self._hint: int | None = None
        self._covered_with = 0

    def run(self, boxes: Boxes, prices: NDArray[np.float64]) -> str:
        """Price, cut and cover until the bounds meet; otherwise says what it stopped for.

        Parameters
        ----------
        boxes : Boxes
            They hold every content that can be accepted, and are the first cuts.
        prices : array of shape (n_types,)
            Prices of the best bound so far.
        """
        self._start_patterns()
        self._box_columns(boxes, prices)
        centre = np.rint(prices * PRICE_SCALE).astype(np.int64)
        demand = self.types.counts
        while not self.progress.proven_whole:
            self.deadline.check()
            value, duals = cover_prices(self.patterns, demand)
            self._try_cover(value)
            if self.progress.proven_whole:
                break
            # Prices half-way to the best so far swing less from one round to the next (Wentges, 1997).
            for trial in ((centre + duals) // 2, duals):
                content, bound = self._priced(trial, boxes)
                if bound > max(self.progress.lower_bound, self.progress.whole_bound):
                    centre = trial
                    self._needs_assumptions()
                self.progress.raise_whole_bound(bound, by="counting adapters by type")
                # mypy takes the property for a constant; `raise_whole_bound` may just have changed it.
                if self.progress.proven_whole or self._is_dear(content, duals):  # type: ignore[redundant-expr]
                    break
            else:
                self._try_cover(value, final=True)
                return "the pattern relaxation is solved, and its bound is below the best placement"
            if not self.progress.proven_whole and not self._learn(content):  # type: ignore[redundant-expr]
                return "a content was neither accepted nor rejected beyond doubt"
        return ""

    def _is_dear(self, content: Counts, duals: NDArray[np.int64]) -> bool:
        """Whether a content would make the cover cheaper; what a column holds costs more than one by rounding alone, every time."""
        dear = content @ duals > PRICE_SCALE * (1 + 1e-6)
        return bool(dear) and not any((content <= pattern).all() for pattern in self.patterns)

    def _start_patterns(self) -> None:
        best = self.progress.best
        assert best is not None  # noqa: S101  # the search has placed before
        kind = np.empty(self.types.counts.sum(), dtype=np.int64)
        for number, members in enumerate(self.types.members):
            kind[members] = number
        for plan in best.gpus:
            self.patterns.append(np.bincount(kind[list(plan.adapters)], minlength=len(self.types)))
            self._hint = max(self._hint or 0, plan.max_loras)
        self.patterns = maximal(self.patterns)

    def _box_columns(self, boxes: Boxes, prices: NDArray[np.float64]) -> None:
        """Columns from the dearest contents of the boxes, scaled down until the oracle accepts them."""
        contents = np.empty((len(boxes), len(self.types)))
        bounds = price_boxes(
            prices, self.types.ranks, self.types.counts.astype(np.float64), self.demands.values,
            self.demands.load_row, boxes.rank, boxes.load, boxes.sum_row, boxes.limit, contents,
        )  # fmt: skip
        for box in np.argsort(-bounds, kind="stable")[:: max(1, len(boxes) // 5)]:
            content = np.floor(contents[box] + 1e-9).astype(np.int64)
            if content.any():
                accepted, _ = self._frontier_of(content)
                if accepted.any():
                    self.patterns = maximal([*self.patterns, self._extended(accepted)])

    def _priced(self, prices: NDArray[np.int64], boxes: Boxes) -> tuple[Counts, int]:
        """The dearest content left, and the lower bound that follows."""
        content, dearest = self.cuts.dearest(prices, boxes, self.types.ranks, self.deadline, self.workers)
        return content, -(-int(prices @ self.types.counts) // max(dearest, 1))

    def _needs_assumptions(self) -> None:
        self.needs.add("monotonicity")
        if not self.oracle.interchangeable:
            self.needs.add("interchangeability")

    def _try_cover(self, value: float, *, final: bool = False) -> None:
        """Cover with whole patterns, when that could save a GPU and there are enough new ones."""
        if np.ceil(value - 1e-6) >= self.progress.gpus:
            return
        if not final and len(self.patterns) < MORE_PATTERNS * self._covered_with:
            return
        self._covered_with = len(self.patterns)
        usable = [p for p in self.patterns if p.tobytes() not in self._unreliable]
        uses = whole_cover(usable, self.types.counts, min(MOST_COVER_S, self.deadline.left_s / 2), self.workers)
        if uses is None or sum(uses) >= self.progress.gpus:
            return
        chosen = [p for p, use in zip(usable, uses, strict=True) for _ in range(use)]
        placement, failed = realise(chosen, self.types, self.oracle, self._hint)
        if placement is not None:
            self.progress.keep(placement)
        self._unreliable.update(p.tobytes() for p in failed)

    def _learn(self, content: Counts) -> bool:
        """Ask about a content and make columns or a cut of the answer; False if nothing can be made of it."""
        if self._accepts(content):
            self.patterns = maximal([*self.patterns, self._extended(content)])
            return True
        if not self._starves(content):
            return False
        accepted, rejected = self._frontier_of(content)
        self.cuts.add(rejected)
        if accepted.any():
            self.patterns = maximal([*self.patterns, self._extended(accepted)])
        return True

    # --- the oracle, asked about the typical members of a content given as counts

    def _accepts(self, counts: Counts) -> bool:
        key = counts.tobytes()
        if key not in self._slots:
            self.deadline.check()
            self._slots[key] = self.oracle.find_max_loras(self.types.contents(counts), self._hint) or 0
            self._hint = self._slots[key] or self._hint
        return self._slots[key] > 0

    def _starves(self, counts: Counts) -> bool:
        self.deadline.check()
        return not self._accepts(counts) and self.oracle.starves(self.types.contents(counts), self._hint)

    def _frontier_of(self, content: Counts) -> tuple[Counts, Counts]:
        """Scale a content down: the largest found that is accepted and the smallest that starves."""
        total = int(content.sum())
        low, high = 0, total + 1
        accepted, rejected = np.zeros_like(content), content
        middle = total
        while low + 1 < high:
            scaled = _scaled(content, middle / total)
            if self._accepts(scaled):
                low, accepted = middle, scaled
            else:
                high = middle
                if self._starves(scaled):
                    rejected = scaled
            middle = (low + high) // 2
        return accepted, rejected

    def _extended(self, content: Counts) -> Counts:
        """Add adapters while the content stays accepted, the busiest types first."""
        content = content.copy()
        for kind in np.argsort(-self.demands.load, kind="stable"):
            step = int(self.types.counts[kind] - content[kind])
            while step:
                more = content.copy()
                more[kind] += step
                if more[kind] <= self.types.counts[kind] and not self.cuts.rules_out(more) and self._accepts(more):
                    content = more
                else:
                    step //= 2
        return content


def _scaled(content: Counts, share: float) -> Counts:
    """About the share of a content: whole counts, the total rounded, each count near its share."""
    exact = content * share
    whole: Counts = np.floor(exact + 1e-9).astype(np.int64)
    missing = round(float(exact.sum())) - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole
