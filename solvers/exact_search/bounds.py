"""Bounds from below of an exact search: search zones, and the frontier of made-up contents."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from solvers.contents.adapter_types import single_types
from solvers.contents.published_figures import backbone_tokens_per_s
from solvers.exact_search.frontier import Boxes, FrontierBound, frontier_bound
from solvers.exact_search.load_limits import FAST_GRAIN, GRAINS, LoadLimits
from solvers.exact_search.state import SearchState
from solvers.limits import Deadline, OutOfTimeError
from solvers.zones.bound import ZoneBound

#: Up to so many adapters the bound is proven on each adapter's own requests, not on the average of its type. By hand, for
#: time: pricing takes as many steps as there are adapters for every box.
MOST_SINGLE_ADAPTERS = 3000
#: Rounds of questions before the first answer, by hand: a bound in seconds, whose prices the first spreads go by.
FIRST_ROUNDS = 3
#: Shares of the time left for the first made-up contents, and for the first rounds of questions. By hand: an answer must follow soon.
FIRST_CONTENTS, FIRST_QUESTIONS = 1 / 8, 1 / 10
#: The last grain is asked about where a bound so much higher would be a GPU more. By hand: finer grains raise bounds by a few per cent.
WITHIN_REACH = 1.03
#: How much of an adapter's worth goes by its load, tried one after the other, and rounds of pricing where none of that proves the bound.
BY_LOAD, SINGLE_ROUNDS = (1.0, 0.75, 0.5), 20


class Bounds:
    """Lower bounds; what they prove goes into the progress of the search, and their prices into its state.

    Parameters
    ----------
    state : SearchState

    Attributes
    ----------
    zones : ZoneBound or None
    by_frontier : FrontierBound or None
        The finest so far.
    boxes : Boxes or None
        Those that it rests on: they hold every content that can be accepted.
    needs : set of str
        What the best bound rests on.
    """

    def __init__(self, state: SearchState) -> None:
        self.state = state
        self.zones: ZoneBound | None = None
        self.by_frontier: FrontierBound | None = None
        self.boxes: Boxes | None = None
        self.needs: set[str] = set()
        self._limits: LoadLimits | None = None
        self._fine = False

    # --- search zones

    def first(self) -> None:
        """With the twin, a bound in seconds, from made-up contents and a few rounds of questions about real ones."""
        limits, zones = self._load_limits(), self._search_zones()
        self.state.deadline.check()
        deadline = Deadline.after(FIRST_CONTENTS * self.state.deadline.left_s)
        with contextlib.suppress(OutOfTimeError):
            self.boxes = limits.boxes(FAST_GRAIN if self.state.many_types else GRAINS[0], deadline)
        for rank, sums in limits.points():
            zones.rule_out(rank, sums[len(limits.ranks) - 1 :])
        zones.run(Deadline.after(FIRST_QUESTIONS * self.state.deadline.left_s), rounds=FIRST_ROUNDS)
        self._learn_zones(zones)

    def by_zones(self, share: float) -> None:
        """Ask about the contents that the cheapest cover uses, for a share of the time that is left."""
        zones = self._search_zones()
        if zones.exhausted and not self.state.replays and not self._fine:
            self._fine = True
            self.zones = zones = ZoneBound(self.state.oracle, fine=True)
        target = None if self.state.progress.best is None else self.state.progress.gpus
        zones.run(Deadline.after(share * self.state.deadline.left_s), target)
        self._learn_zones(zones)

    def _search_zones(self) -> ZoneBound:
        if self.zones is None:
            self.zones = ZoneBound(self.state.oracle)
        return self.zones

    def _learn_zones(self, zones: ZoneBound) -> None:
        progress = self.state.progress
        if zones.value > progress.fractional_bound:
            progress.fractional_bound = zones.value
            self.state.weights = zones.prices
        if zones.gpus > progress.lower_bound:
            self.needs = {"monotonicity"}
        progress.raise_bound(zones.gpus, by="zones")

    # --- the frontier of made-up contents

    def by_grains(self, deadline: Deadline) -> Iterator[None]:
        """Bounds from made-up contents, from coarse to fine; after each the caller may use its prices.

        Raises
        ------
        OutOfTimeError
        """
        state, limits = self.state, self._load_limits()
        for grain in GRAINS:
            known = self.by_frontier
            # The last grain is for bounds a little below a whole number.
            if known is not None and grain is GRAINS[-1] and math.ceil(known.value * WITHIN_REACH) == known.gpus:
                return
            self.boxes = limits.boxes(grain, deadline)
            self.by_frontier = frontier_bound(
                state.demands, state.types.counts, state.types.ranks, self.boxes,
                target=state.progress.gpus, deadline=deadline,
            )  # fmt: skip
            self._learn_bound(self.by_frontier, self.boxes)
            yield

    def _load_limits(self) -> LoadLimits:
        if self._limits is None:
            state = self.state
            self._limits = LoadLimits(state.oracle, state.demands, state.types.counts, guess=self._largest_load())
        return self._limits

    def _learn_bound(self, bound: FrontierBound, boxes: Boxes) -> None:
        """Take note of a bound for the types; if it is news, prove it on single adapters where these differ."""
        state, progress = self.state, self.state.progress
        if state.weights is None or bound.value > progress.fractional_bound:
            state.weights = self._price_of_adapters(bound)
        if bound.gpus <= progress.lower_bound:
            progress.fractional_bound = max(progress.fractional_bound, bound.value)
            return
        exchanged = not state.oracle.interchangeable
        if exchanged and state.problem.workload.n_adapters <= MOST_SINGLE_ADAPTERS:
            bound, exchanged = self._on_single_adapters(bound, boxes), False
            self._hand_over(bound.prices)
        progress.fractional_bound = max(progress.fractional_bound, bound.value)
        if bound.gpus > progress.lower_bound:
            self.needs = {"monotonicity"} | ({"interchangeability"} if exchanged else set())
        progress.raise_bound(bound.gpus, by="the frontier")

    def _hand_over(self, prices: NDArray[np.float64]) -> None:
        """Let the zones prove what the frontier's prices do: those have a certificate, and know no less once they know its contents."""
        zones, limits = self._search_zones(), self._load_limits()
        for rank, sums in limits.points():
            zones.rule_out(rank, sums[len(limits.ranks) - 1 :])
        zones.learn_prices(prices)

    def _on_single_adapters(self, by_type: FrontierBound, boxes: Boxes) -> FrontierBound:
        """The bound with each adapter's own load and activity, from the prices of its type."""
        singles = single_types(self.state.problem.workload)
        demands = self.state.oracle.demands(singles)
        kind = np.empty(len(singles), dtype=np.int64)
        for number, members in enumerate(self.state.types.members):
            kind[members] = number
        typical = np.maximum(self.state.demands.load[kind], 1e-12)
        # An adapter busier than its type is worth more, by its load or half of it (the rest being its activity).
        starts = [by_type.prices[kind] * (1 - part + part * demands.load / typical) for part in BY_LOAD]
        bounds = [
            frontier_bound(demands, singles.counts, singles.ranks, boxes, start=start, max_rounds=1) for start in starts
        ]
        best = max(bounds, key=lambda bound: bound.value)
        if best.gpus >= by_type.gpus:
            return best
        more = frontier_bound(
            demands, singles.counts, singles.ranks, boxes, start=best.prices, target=by_type.gpus,
            max_rounds=SINGLE_ROUNDS, deadline=self.state.deadline,
        )  # fmt: skip
        return max(best, more, key=lambda bound: bound.value)

    def _price_of_adapters(self, bound: FrontierBound) -> NDArray[np.float64]:
        weights = np.empty(self.state.problem.workload.n_adapters)
        for members, price in zip(self.state.types.members, bound.prices, strict=True):
            weights[members] = price
        return weights

    def _largest_load(self) -> float:
        """A load that a GPU takes, or what is not far from it."""
        if self.state.progress.best is None:
            return 0.5 * backbone_tokens_per_s(self.state.problem.profile, self.state.problem.workload.lengths)
        load = np.empty(self.state.problem.workload.n_adapters)
        for members, value in zip(self.state.types.members, self.state.demands.load, strict=True):
            load[members] = value
        return max(float(load[list(plan.adapters)].sum()) for plan in self.state.progress.best.gpus)
