"""The search behind the exact solver: answers from above and bounds from below, until they meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from solvers.base import CERTIFICATE, Solution, Status
from solvers.contents.adapter_types import single_types
from solvers.exact_search.answers import Answers
from solvers.exact_search.assignment_loop import AssignmentLoop, worth_trying
from solvers.exact_search.bounds import Bounds
from solvers.exact_search.certificate import certificate
from solvers.exact_search.cut_loop import CutLoop
from solvers.exact_search.frontier import frontier_bound
from solvers.exact_search.monotone_check import MonotoneSample, sample_monotonicity
from solvers.exact_search.state import SearchState
from solvers.limits import Deadline, NoPlacementError, OutOfTimeError, no_placement_status
from solvers.oracles.twin import TwinOracle

#: Shares of the time left, by hand: for finer made-up contents with the twin; for search zones, at first with a learned oracle, with many
#: types, and with few; for assigning single adapters; for cuts over counts, with the twin; for zones in the turns of the end.
FRONTIER, FIRST_ZONES, ZONES, ASSIGNED, CUTS, MORE_ZONES = 1 / 2, 1 / 20, (1 / 2, 1 / 3), 1 / 2, 1 / 2, 1 / 2
#: Turns of bounds and answers in the end.
MOST_ROUNDS = 8
#: Steps that can be left out (`solver.exact.without`), to see what they add.
STEPS = ("greedy", "zones", "frontier", "replicas", "exchanges", "spreads", "annealing", "assignment", "cuts")

#: Its name, if it can be left out, and the step.
Step = tuple[str, Callable[[], None]]
#: Rounds of pricing for the prices that assigning rests on: from those of the bound, and from loads, whose prices differ.
PRICE_ROUNDS = 20, 1


class ExactSearch:
    """One solve, step by step.

    Parameters
    ----------
    state : SearchState
        As it is at first.
    """

    def __init__(self, state: SearchState) -> None:
        self.state = state
        self.answers = Answers(self.state)
        self.bounds = Bounds(self.state)
        self.loop: CutLoop | None = None
        self.assignment: AssignmentLoop | None = None
        self.stopped = ""
        self.monotone = MonotoneSample(0, 0)

    def run(self) -> None:
        """Place, bound, and close the gap, until the bounds meet or the time is up.

        Raises
        ------
        NoPlacementError
            When there is none within the GPU limit.
        OutOfTimeError
        """
        for name, step in self._by_simulation() if self.state.replays else self._by_model():
            if name in self.state.without:
                continue
            step()
            if self.state.progress.proven:
                return

    def _by_simulation(self) -> Iterator[Step]:
        """Steps where the oracle is the twin; in the end bounds and answers by turns."""
        answers, progress = self.answers, self.state.progress
        yield "", answers.look_for_hot
        yield "", answers.at_once
        yield "", answers.one_gpu
        yield "", self.bounds.first
        yield "greedy", answers.first_answer
        yield "zones", self._zones
        yield "frontier", self._frontier
        yield "greedy", answers.second_answer
        yield "replicas", answers.replicated
        yield "exchanges", answers.searched
        yield "spreads", answers.spread_otherwise
        yield "assignment", self._assign
        yield "cuts", self._cut_loop
        for _ in range(MOST_ROUNDS):
            self.state.deadline.check()
            before = self.state.oracle.calls, progress.fractional_bound
            yield "zones", self._more_zones
            if progress.fractional_bound > before[1]:
                yield "replicas", answers.replicated
            yield "exchanges", answers.searched
            if self.state.oracle.calls == before[0]:
                break
        self.stopped = (
            self.stopped or "nothing is left to ask that would raise the bound, and no better placement was found"
        )

    def _by_model(self) -> Iterator[Step]:
        """Steps where the oracle is a learned model."""
        answers = self.answers
        yield "", answers.one_gpu
        yield "", answers.greedily
        # Zones take less time than a fine frontier where there are many types, but now and then they stop short of it.
        yield "zones", self._first_zones
        yield "zones", self._zones
        yield "annealing", answers.annealed
        yield "zones", self._zones
        yield "frontier", self._frontier
        yield "spreads", answers.spread_otherwise
        yield "assignment", self._assign
        yield "cuts", self._cut_loop

    def _frontier(self) -> None:
        """Raise the bound by made-up contents; with the twin, for half of the time, and where the cover is solved fast."""
        deadline = self.state.deadline
        if self.state.replays:
            if self.state.many_types:
                return
            deadline = Deadline.after(FRONTIER * deadline.left_s)
        try:
            for _ in self.bounds.by_grains(deadline):
                self.answers.spread(afresh=True)
                if self.state.progress.proven:
                    return
        except OutOfTimeError:
            self.state.deadline.check()

    def _first_zones(self) -> None:
        """Little is to be gained by more where a spread is as good as the bound already."""
        self._zones(share=FIRST_ZONES)

    def _zones(self, *, share: float | None = None) -> None:
        """Raise the bound by search zones, and spread by what the adapters turn out to cost."""
        if share is None:
            share = ZONES[0 if self.state.many_types else 1]
        self.bounds.by_zones(share)
        if not self.state.progress.proven:
            self.answers.spread(afresh=True)

    def _more_zones(self) -> None:
        """Half of the time that is left, while there is something to ask."""
        if self.bounds.zones is None or not self.bounds.zones.exhausted:
            self._zones(share=MORE_ZONES)

    def _assign(self) -> None:
        """With few adapters, ask whether one GPU less will do, for half of the time that is left."""
        state, boxes = self.state, self.bounds.boxes
        workload = state.problem.workload
        if boxes is None or state.weights is None or state.has_hot or state.progress.proven_whole:
            return
        if not worth_trying(workload.n_adapters, state.progress.gpus, state.progress.fractional_bound):
            return
        singles = single_types(workload)
        demands = state.oracle.demands(singles)
        prices = [
            frontier_bound(
                demands, singles.counts, singles.ranks, boxes, start=start, max_rounds=rounds, deadline=state.deadline
            ).prices
            for start, rounds in zip((state.weights, demands.load / demands.load.sum()), PRICE_ROUNDS, strict=True)
        ]
        if self.bounds.zones is not None:
            prices.append(self.bounds.zones.prices)
        deadline = Deadline.after(ASSIGNED * state.deadline.left_s)
        self.assignment = AssignmentLoop(state.oracle, state.progress, deadline, state.workers, prices)
        try:
            self.assignment.run()
        except OutOfTimeError:
            self.stopped = "the time for assigning single adapters was used up"

    def _cut_loop(self) -> None:
        """Cuts and columns over adapters counted by type, as long as there are few types."""
        if self.bounds.by_frontier is None or self.bounds.boxes is None:
            self.stopped = "what the cover by fractions of contents uses is accepted, or the time was used up"
            return
        state = self.state
        if state.has_hot or state.progress.proven_whole:
            return
        deadline = Deadline.after(CUTS * state.deadline.left_s) if state.replays else state.deadline
        self.loop = CutLoop(state.oracle, state.types, state.demands, state.progress, deadline, state.workers)
        try:
            self.stopped = self.loop.run(self.bounds.boxes, self.bounds.by_frontier.prices)
        except OutOfTimeError:
            state.deadline.check()

    # --- the answer

    @property
    def _needs(self) -> set[str]:
        """What the bound rests on."""
        loops = (self.loop, self.assignment)
        return self.bounds.needs.union(*(loop.needs for loop in loops if loop is not None))

    def sample_monotonicity(self) -> None:
        """Test what the bound rests on, on the oracle in use, if it rests on it; a second of extra time at most."""
        needs = self._needs
        best = self.state.progress.best
        if needs and best is not None and not best.has_replicas:
            oracle = self.state.oracle
            oracle.deadline = Deadline.after(min(1.0, self.state.problem.time_limit_s))
            self.monotone = sample_monotonicity(oracle, best, self.state.problem.seed, oracle.deadline)

    def details(self) -> dict[str, Any]:
        """What the result says about its proof."""
        needs = set() if self.state.progress.refuted else self._needs
        loop: dict[str, Any] = {"cuts": len(self.loop.cuts), "patterns": len(self.loop.patterns)} if self.loop else {}
        if self.assignment:
            loop |= {"assignments": self.assignment.rounds, "covers": len(self.assignment.covers)}
        if self.bounds.zones:
            loop |= {"zones": len(self.bounds.zones.table), "zone_cuts": len(self.bounds.zones.cuts)}
        oracle = self.state.oracle
        if isinstance(oracle, TwinOracle):
            loop[CERTIFICATE] = certificate(oracle, self.bounds.zones, self.state.progress)
        return {
            "oracle": oracle.name,
            "replicas": self.state.replicas,
            "types": len(self.state.types),
            **self.state.progress.details(),
            **loop,
            "monotonicity_refuted": self.state.progress.refuted,
            "monotonicity_needed": "monotonicity" in needs,
            "monotonicity_pairs": self.monotone.pairs,
            "monotonicity_violations": self.monotone.violations,
            "interchangeability_needed": "interchangeability" in needs,
            "stopped": "the bounds met" if self.state.progress.proven else self.stopped,
        }

    def without_placement(self, why: NoPlacementError) -> Solution:
        """That there is no placement, or that none was found, with the bound that is proven."""
        state = self.state
        return Solution(
            no_placement_status(why),
            lower_bound=state.progress.lower_bound,
            oracle_calls=state.oracle.calls + state.other_calls,
            message=str(why),
            details=self.details(),
        )

    def solution(self) -> Solution:
        """The best placement with its bound; what no GPU of was simulated, where there was no time for more."""
        progress, limit = self.state.progress, self.state.problem.max_gpus
        best, message = progress.best, ""
        status: Status = "optimal"
        if (
            best is None
            and self.answers.unchecked is not None
            and self.answers.unchecked.n_gpus >= progress.lower_bound
        ):
            best, status, message = self.answers.unchecked, "unchecked", "the twin had no time to check the placement"
        elif not progress.proven:
            status, message = "feasible", f"not proven: {self.stopped}"
        if best is None or (limit is not None and best.n_gpus > limit):
            found = "" if best is None else f"; the best found needs {best.n_gpus} GPUs"
            best, status, message = None, "time_limit", f"no placement within the limits{found}"
        return Solution(
            status,
            best,
            lower_bound=progress.lower_bound,
            oracle_calls=self.state.oracle.calls + self.state.other_calls,
            message=message,
            details=self.details(),
        )
