"""Few adapters: CP-SAT assigns each to one of the GPUs, the oracle rejects, cuts follow (logic-based Benders)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from solvers.contents.patterns import cp_solver
from solvers.exact_search.progress import Progress
from solvers.limits import Deadline, OutOfTimeError
from solvers.oracles.base import Oracle
from twin import GpuPlan, Placement

#: Prices are whole multiples of this share of a GPU, rounded down: a limit then lets too much through, never too little. A hundred
#: adapters lose a thousandth of a GPU at most, and CP-SAT's sums stay small.
SCALE = 10**5
#: Most adapters and GPUs with which single adapters are assigned. By hand: beyond, there are too many candidates to be ruled
#: out in time.
MOST_ASSIGNED, MOST_GPUS = 128, 10


class AssignmentLoop:
    """Asks whether one GPU less than the best placement will do, until the answer is no.

    A candidate gives each GPU a content. What the oracle accepts everywhere is a better placement. A content that starves
    beyond doubt is shrunk while it does, and no GPU may hold what is left, nor that with an adapter replaced by one that
    asks for more. A content that is rejected without being beyond doubt is only ruled out as it is. When no candidate is
    left, one GPU more is a lower bound for placements that give each adapter one GPU.

    Parameters
    ----------
    oracle : Oracle
    progress : Progress
        Holds a placement already.
    deadline : Deadline
    workers : int
        Search threads of CP-SAT.
    prices : sequence of arrays of shape (n_adapters,)
        For each, no accepted content costs more than 1.
    """

    def __init__(
        self,
        oracle: Oracle,
        progress: Progress,
        deadline: Deadline,
        workers: int,
        prices: Sequence[NDArray[np.float64]],
    ) -> None:
        self.oracle = oracle
        self.progress = progress
        self.deadline = deadline
        self.workers = workers
        self.prices = list(prices)
        self.covers: set[tuple[tuple[int, ...], int]] = set()
        self.excluded: set[tuple[int, ...]] = set()
        self.needs: set[str] = set()
        self.rounds = 0
        workload = oracle.workload
        requests = workload.requests if not oracle.interchangeable else None
        # What an adapter asks for: its rank, its tokens and its requests, those that are replayed where they matter.
        count = workload.n_adapters
        if requests is None:
            self._asks = np.array([workload.ranks, workload.rates, workload.rates])
        else:
            tokens = np.bincount(requests.adapter, requests.prompt_tokens + requests.requested_tokens, count)
            self._asks = np.array([workload.ranks, tokens, np.bincount(requests.adapter, minlength=count)])
        self._order = np.argsort(-self.prices[0], kind="stable")

    def run(self) -> None:
        """Raise the bound or find better placements until both meet.

        Raises
        ------
        OutOfTimeError
        """
        while not self.progress.proven_whole:
            n_gpus = self.progress.gpus - 1
            candidate = self._candidate(n_gpus)
            self.rounds += 1
            if candidate is None:
                # The prices rest on the order of contents, even where no cut was needed.
                self.needs.add("monotonicity")
                self.progress.raise_whole_bound(n_gpus + 1, by="assigning single adapters")
                return
            self._judge(candidate)

    def _candidate(self, n_gpus: int) -> list[tuple[int, ...]] | None:
        """Contents of all GPUs that nothing rules out yet, or None if there are none."""
        self.deadline.check()
        n_adapters = self.oracle.workload.n_adapters
        model = cp_model.CpModel()
        on = [[model.new_bool_var("") for _ in range(n_adapters)] for _ in range(n_gpus)]
        for adapter in range(n_adapters):
            model.add_exactly_one(row[adapter] for row in on)
        # GPUs are alike: the i-th dearest adapter needs only the first i + 1 of them.
        for place, adapter in enumerate(self._order[:n_gpus].tolist()):
            for row in on[place + 1 :]:
                model.add(row[adapter] == 0)
        for row in on:
            self._add_limits(model, row)
        solver = cp_solver(self.deadline.left_s, self.workers)
        status = solver.solve(model)
        if status == cp_model.INFEASIBLE:
            return None
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            raise OutOfTimeError
        return [tuple(a for a, v in enumerate(row) if solver.value(v)) for row in on]

    def _add_limits(self, model: cp_model.CpModel, row: list[cp_model.IntVar]) -> None:
        """What is known of the content of any GPU."""
        for prices in self.prices:
            whole = np.floor(prices * SCALE).astype(np.int64).tolist()
            model.add(cp_model.LinearExpr.weighted_sum(row, whole) <= SCALE)
        for members, most in sorted(self.covers):
            model.add(cp_model.LinearExpr.sum([row[a] for a in members]) <= most)
        for content in sorted(self.excluded):
            inside = set(content)
            model.add_bool_or([v.negated() if a in inside else v for a, v in enumerate(row)])

    def _judge(self, contents: list[tuple[int, ...]]) -> None:
        """Keep the contents as a placement, or learn from each that is rejected."""
        plans: list[GpuPlan] = []
        rejected = False
        for content in contents:
            if not content:
                continue
            self.deadline.check()
            slots = self.oracle.find_max_loras(content)
            if slots is None:
                slots = self._learn(content)
            if slots is not None:
                plans.append(GpuPlan(content, slots))
            else:
                rejected = True
        if not rejected:
            self.progress.keep(Placement(tuple(plans)))

    def _learn(self, content: tuple[int, ...]) -> int | None:
        """Rule out a content, or say at which `max_loras` it is accepted after all."""
        if not self.oracle.starves(content):
            verdict = self.oracle.verdict(content)
            if not verdict.settled:
                # Nothing is proven without it, and it would come up again and again.
                raise OutOfTimeError
            if verdict.max_loras is None:
                self.excluded.add(content)
            return verdict.max_loras
        dearest = sorted(content, key=lambda a: -float(self.prices[0][a]))
        low, high = 0, len(dearest)
        while low + 1 < high:
            self.deadline.check()
            middle = (low + high) // 2
            if self.oracle.starves(tuple(sorted(dearest[:middle]))):
                high = middle
            else:
                low = middle
        least = dearest[:high]
        asks = self._asks[:, least].max(axis=1)
        more = np.flatnonzero((self._asks >= asks[:, None]).all(axis=0))
        members = tuple(sorted({*least, *more.tolist()}))
        self.covers.add((members, len(least) - 1))
        return None


def worth_trying(n_adapters: int, n_gpus: int, fractional_bound: float) -> bool:
    """Whether so few adapters are to be assigned that the loop can come to an end in time."""
    return n_adapters <= MOST_ASSIGNED and n_gpus <= MOST_GPUS and math.ceil(fractional_bound - 1e-6) < n_gpus
