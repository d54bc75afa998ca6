"""The search behind the exact solver: bounds from cuts and prices, placements from accepted contents."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.adapter_types import adapter_types
from solvers.base import Problem, Solution
from solvers.demands import Cuts
from solvers.frontier import frontier_bound
from solvers.load_limits import COUNT_GRID, LoadLimits
from solvers.oracle import Oracle
from solvers.packing import (
    Deadline,
    NoPlacementError,
    OutOfTimeError,
    decreasing_order,
    fill_gpus,
    is_cut_off,
    zigzag_order,
)
from solvers.patterns import PRICE_SCALE, Counts, cover_prices, maximal, whole_cover
from solvers.realise import realise
from twin import Placement


class ExactSearch:
    """State of one solve.

    Parameters
    ----------
    problem : Problem
    oracle : Oracle
    deadline : Deadline
    workers : int
    """

    def __init__(self, problem: Problem, oracle: Oracle, deadline: Deadline, workers: int) -> None:
        self.problem = problem
        self.oracle = oracle
        self.deadline = deadline
        self.workers = workers
        self.types = adapter_types(problem.workload)
        self.demands = oracle.demands(self.types)
        self.cuts = Cuts(self.demands, self.types.counts)
        self.type_of = np.empty(problem.workload.n_adapters, dtype=np.int64)
        for kind, members in enumerate(self.types.members):
            self.type_of[members] = kind
        self.patterns: list[Counts] = []
        self.unreliable: set[bytes] = set()
        self.best: Placement | None = None
        self.lower_bound = 1
        self.history: list[tuple[float, int, int | None]] = []
        self.stopped = ""
        self._slots: dict[bytes, int] = {}
        self._hint: int | None = None
        self._covered_with = 0
        self._made_up_cuts = 0
        self._fractional_bound = 0.0
        self._started_s = time.perf_counter()

    # --- what is known

    @property
    def upper_bound(self) -> int | None:
        """GPUs of the best placement."""
        return None if self.best is None else self.best.n_gpus

    @property
    def proven(self) -> bool:
        """Whether the bounds have met."""
        return self.best is not None and self.lower_bound >= self.best.n_gpus

    def _note(self) -> None:
        now = (self.lower_bound, self.upper_bound)
        if not self.history or self.history[-1][1:] != now:
            self.history.append((round(time.perf_counter() - self._started_s, 3), *now))

    def _raise_bound(self, bound: int) -> None:
        if bound > self.lower_bound:
            self.lower_bound = bound
            self._note()
        limit = self.problem.max_gpus
        if limit is not None and bound > limit:
            raise NoPlacementError(
                f"at least {bound} GPUs are needed, more than the limit of {limit} (proven for the {self.oracle.name})"
            )

    def _keep(self, placement: Placement) -> None:
        if self.best is None or placement.n_gpus < self.best.n_gpus:
            self.best = placement
            self._note()

    # --- the oracle, asked about the typical members of a content given as counts

    def _accepts(self, counts: Counts) -> bool:
        key = counts.tobytes()
        if key not in self._slots:
            self.deadline.check()
            self._slots[key] = self.oracle.find_max_loras(self.types.contents(counts), self._hint) or 0
            self._hint = self._slots[key] or self._hint
        return self._slots[key] > 0

    def _starves(self, counts: Counts) -> bool:
        """Whether the content is rejected for lack of capacity, so that more adapters cannot help."""
        return not self._accepts(counts) and not is_cut_off(self.oracle, self.types.contents(counts), self._hint)

    # --- the search

    def first_placement(self) -> None:
        """Greedy fillings: an answer for any time limit, and the first patterns."""
        workload = self.problem.workload
        limitless = Problem(workload, self.problem.profile, self.problem.objective)
        for order in (decreasing_order, zigzag_order):
            placement = fill_gpus(order(workload).tolist(), limitless, self.oracle, self.deadline)
            self._keep(placement)
            for plan in placement.gpus:
                self.patterns.append(np.bincount(self.type_of[list(plan.adapters)], minlength=len(self.types)))
                self._hint = max(self._hint or 0, plan.max_loras)
        self.patterns = maximal(self.patterns)

    def bound_by_frontier(self) -> None:
        """Raise the bound by what made-up contents prove, in two grains."""
        assert self.best is not None  # noqa: S101  # first_placement has run
        guess = max(float(self.demands.load @ pattern) for pattern in self.patterns)
        self._limits = LoadLimits(self.oracle, self.types, self.demands, guess)
        for stride in (4, 1):
            if self.proven:
                return
            boxes = self._limits.boxes(stride, self.deadline)
            bound = frontier_bound(
                self.demands, self.types.counts, self.types.ranks, boxes, target=self.best.n_gpus
            )
            self._fractional_bound = max(self._fractional_bound, bound.value)
            self._raise_bound(bound.gpus)

    def run(self) -> None:
        """Price, cut and cover until the bounds meet or nothing is left to learn."""
        demand = self.types.counts
        self.bound_by_frontier()
        centre = self._load_prices()
        while not self.proven:
            self.deadline.check()
            value, prices = cover_prices(self.patterns, demand)
            self._try_cover(value)
            if self.proven:
                return
            # Prices half-way to the best so far swing less from one round to the next (Wentges, 1997).
            for trial in ((centre + prices) // 2, prices):
                content, bound = self._priced(trial)
                if bound > self.lower_bound or trial is prices:
                    centre = trial
                self._raise_bound(bound)
                if self.proven:
                    return
                if content @ prices > PRICE_SCALE * (1 + 1e-6):
                    break
            else:
                self.stopped = "the pattern relaxation is solved, and its bound is below the best placement"
                self._try_cover(value, final=True)
                return
            if not self._learn(content):
                self.stopped = "a content was cut off by the end of the window, which proves nothing"
                return

    def _load_prices(self) -> NDArray[np.int64]:
        """Prices in proportion to load: the bound that adds up loads (L1) comes from them."""
        assert self.best is not None  # noqa: S101  # first_placement has run
        load = self.demands.load
        return np.rint(load / load.sum() * PRICE_SCALE * self.best.n_gpus).astype(np.int64)

    def _priced(self, prices: NDArray[np.int64]) -> tuple[Counts, int]:
        """The dearest content left, and the lower bound that follows (Farley, 1990)."""
        answer = self.cuts.dearest(prices, self.deadline.left_s, self.workers)
        if answer is None:
            raise OutOfTimeError
        content, dearest = answer
        return content, -(-int(prices @ self.types.counts) // max(dearest, 1))

    def _try_cover(self, value: float, *, final: bool = False) -> None:
        """Cover with whole patterns, when that could save a GPU and there are enough new ones."""
        assert self.best is not None  # noqa: S101  # first_placement has run
        if np.ceil(value - 1e-6) >= self.best.n_gpus:
            return
        if not final and len(self.patterns) < 1.3 * self._covered_with:
            return
        self._covered_with = len(self.patterns)
        usable = [p for p in self.patterns if p.tobytes() not in self.unreliable]
        uses = whole_cover(usable, self.types.counts, min(10.0, self.deadline.left_s / 2), self.workers)
        if uses is None or sum(uses) >= self.best.n_gpus:
            return
        chosen = [p for p, use in zip(usable, uses, strict=True) for _ in range(use)]
        placement, failed = realise(chosen, self.types, self.problem.workload, self.oracle, self._hint)
        if placement is not None:
            self._keep(placement)
        self.unreliable.update(p.tobytes() for p in failed)

    def _learn(self, content: Counts) -> bool:
        """Ask about a content and make columns or a cut of the answer; False if nothing can be made of it."""
        if self._made_up_cut(content):
            return True
        if self._accepts(content):
            self.patterns = maximal([*self.patterns, self._extended(content)])
            return True
        if not self._starves(content):
            return False
        accepted, rejected = self._frontier_of(content)
        self.cuts.add_content(rejected)
        if accepted.any():
            self.patterns = maximal([*self.patterns, self._extended(accepted)])
        return True

    def _made_up_cut(self, content: Counts) -> bool:
        """Cut with every made-up content that is rejected and asks for no more; False if there is none."""
        load = float(self.demands.load @ content)
        known = len(self.cuts)
        for n_adapters in COUNT_GRID:
            if n_adapters > content.sum():
                break
            for rank in np.unique(self.types.ranks[content > 0]):
                self.deadline.check()
                limit = self._limits.limit(n_adapters, int(rank), self.deadline)
                if limit <= load:
                    self.cuts.add(self._limits.asked(n_adapters, int(rank), limit), content)
        self._made_up_cuts += len(self.cuts) - known
        return len(self.cuts) > known

    def _frontier_of(self, content: Counts) -> tuple[Counts, Counts]:
        """Scale a starving content down: the last that is accepted and the first that starves."""
        total = int(content.sum())
        low, high = 0, total
        accepted, rejected = np.zeros_like(content), content
        while low + 1 < high:
            middle = (low + high) // 2
            scaled = _scaled(content, middle / total)
            if self._accepts(scaled):
                low, accepted = middle, scaled
            elif self._starves(scaled):
                high, rejected = middle, scaled
            else:
                low = middle
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

    # --- the answer

    def details(self) -> dict[str, Any]:
        """What the result says about its proof."""
        gap = None
        if self.best is not None:
            gap = round((self.best.n_gpus - self.lower_bound) / self.best.n_gpus, 4)
        return {
            "oracle": self.oracle.name,
            "types": len(self.types),
            "bounds_over_time_s": self.history,
            "gap": gap,
            "fractional_bound": round(self._fractional_bound, 4),
            "cuts": len(self.cuts),
            "made_up_cuts": self._made_up_cuts,
            "patterns": len(self.patterns),
            "monotonicity_needed": self.lower_bound > 1,
            "interchangeability_needed": self.lower_bound > 1 and not self.oracle.interchangeable,
            "stopped": self.stopped or "the bounds met",
        }

    def solution(self) -> Solution:
        """The best placement with its bound."""
        calls, limit = self.oracle.calls, self.problem.max_gpus
        if self.best is None or (limit is not None and self.best.n_gpus > limit):
            found = "" if self.best is None else f"; the best found needs {self.best.n_gpus} GPUs"
            return Solution(
                "time_limit",
                lower_bound=self.lower_bound,
                oracle_calls=calls,
                message=f"no placement within the limits{found}",
                details=self.details(),
            )
        return Solution(
            "optimal" if self.proven else "feasible",
            self.best,
            lower_bound=self.lower_bound,
            oracle_calls=calls,
            message="" if self.proven else f"not proven: {self.stopped}",
            details=self.details(),
        )


def _scaled(content: Counts, share: float) -> Counts:
    """About the share of a content: whole counts, the total rounded, each count near its share."""
    exact = content * share
    whole = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:missing]] += 1
    return whole
