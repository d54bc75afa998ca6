"""The best service within the GPUs of a placement: `max_loras` of each, and adapters moved for the sake of the worst GPU.

How few GPUs there are is settled by then. What is left to choose is free: slots cost KV cache and step time, so that there is a
best number of them for what a GPU holds, and a placement with the fewest GPUs is often so uneven that requests wait for a minute
on one GPU while another has room. The key of a GPU is by how much it fails its service level, then its discomfort: the mean
time to the first token and the mean time of each later one, each in terms of its limit (2 s and 100 ms where the level has none),
and what its goodput by these limits is short of their share: every tenth counts as much as one of these times at its limit.
The worse of two GPUs must become better for an exchange between them to stand, and all requests together must not be worse off
than before the first exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.contents.divided import n_adapters_of, parts_of, sent_to
from solvers.limits import Deadline
from solvers.mending.replicas import settled
from solvers.oracles.base import MAX_LORAS_GRID
from solvers.oracles.draws import twin_of
from twin import INTERACTIVE, GpuPlan, Placement, Requests, ServingProfile, Workload, simulate_requests

# All of these are by hand; none was tuned.

#: Steps between values of `max_loras` that are tried beside a good one, as factors: first far, then near.
FACTORS = (1.5, 1.2, 1.08)
#: Proposals for each GPU of the placement, the most of all, and after how many in a row without success a GPU is left as it is.
PROPOSALS_PER_GPU, MOST_PROPOSALS, PATIENCE = 80, 4000, 40
#: Exchanges drawn for each that is simulated: the one whose load is nearest to what is wanted.
DRAWN = 32
#: Share of the difference in load between two GPUs that an exchange is meant to level, at most.
LARGEST_SHIFT = 0.7
#: Largest share of a GPU's adapters that is exchanged, and how often none comes back.
LARGEST_EXCHANGE, ONE_WAY = 0.1, 0.3
#: What a goodput of nothing would add to the discomfort. Means hide who waits, and goodput alone does not see how long; by hand.
GOODPUT_WEIGHT = 10.0
#: A GPU that is so many times worse than it may be with the `max_loras` it had is not asked about at others.
HOPELESS = 3.0

#: Share of a solver's time that it may take, and that a search which would use all of it leaves for this.
TIME_SHARE = 0.2

Key = tuple[float, float]


@dataclass(frozen=True)
class _Gpu:
    """What a GPU holds, its key (by how much it fails, and its discomfort), and the discomfort of its requests in sum."""

    content: tuple[int, ...]
    slots: int
    key: Key
    total: float


class BestService:
    """Local search over `max_loras` and contents, every step simulated.

    Parameters
    ----------
    problem : Problem
    deadline : Deadline

    Attributes
    ----------
    calls : int
        Simulations so far.
    """

    def __init__(self, problem: Problem, deadline: Deadline) -> None:
        self.workload: Workload = problem.workload
        self.profile: ServingProfile = problem.profile
        self.service = problem.service
        self.ttft_ms = self.service.ttft_ms or INTERACTIVE.limits["ttft_ms"]
        self.tpot_ms = self.service.tpot_ms or INTERACTIVE.limits["tpot_ms"]
        self.deadline = deadline
        # Not the problem's seed: solvers that end with this are deterministic.
        self.generator = np.random.default_rng(0)
        self.calls = 0
        self.shown = self.service if self.service.judges_requests else INTERACTIVE
        draws = (self.workload, *(self.workload.with_seed(seed) for seed in problem.other_seeds))
        self.sources = [draw.lengthened(self.shown.tail_s) for draw in draws]
        self._drawn: tuple[tuple[int, ...], list[tuple[Requests, NDArray[np.int64]]]] | None = None
        self._asked: dict[tuple[tuple[int, ...], int], tuple[Key, float]] = {}

    def improved(self, placement: Placement) -> Placement:
        """The placement with better service on the same GPUs or fewer; as it is where there is no time.

        Parameters
        ----------
        placement : Placement
        """
        if any(plan.max_cpu_loras is not None for plan in placement.gpus):
            return placement
        gpus = []
        for plan in placement.gpus:
            if not self.deadline.left_s:
                break
            content = tuple(sorted(plan.adapters))
            slots = min(plan.max_loras, n_adapters_of(self.workload, content))
            gpus.append(self._with_best_slots(content, slots, coarse=True))
        if len(gpus) == placement.n_gpus:
            self._exchange(gpus)
        plans = [GpuPlan(gpu.content, gpu.slots) for gpu in gpus]
        return Placement((*plans, *placement.gpus[len(gpus) :]))

    # --- max_loras

    def _with_best_slots(self, content: tuple[int, ...], slots: int, *, coarse: bool = False) -> _Gpu:
        """The content with the `max_loras` that serves it best, near to one or among all."""
        most = self._most_slots(content)
        best = self._gpu(content, slots)
        if coarse:
            for value in [*(value for value in MAX_LORAS_GRID if value < most), most]:
                best = self._better(best, value)
        for factor in FACTORS if coarse else FACTORS[1:2]:
            for value in (max(best.slots + 1, round(best.slots * factor)), round(best.slots / factor)):
                best = self._better(best, min(max(1, value), most))
        return best

    def _better(self, gpu: _Gpu, slots: int) -> _Gpu:
        if slots == gpu.slots or not self.deadline.left_s:
            return gpu
        other = self._gpu(gpu.content, slots)
        return other if other.key < gpu.key else gpu

    def _gpu(self, content: tuple[int, ...], slots: int) -> _Gpu:
        return _Gpu(content, slots, *self._key(content, slots))

    def _most_slots(self, content: Sequence[int]) -> int:
        """More slots than adapters only cost KV cache."""
        most = self.profile.largest_max_loras(int(self.workload.ranks[list(content)].max()))
        return min(n_adapters_of(self.workload, tuple(content)), most)

    def _key(self, content: tuple[int, ...], slots: int) -> tuple[Key, float]:
        """The key of a GPU, and the discomfort of its requests in sum; of the worst draw each."""
        asked = (content, slots)
        if asked not in self._asked:
            if self._drawn is None or self._drawn[0] != content:
                self._drawn = (content, [sent_to(self.workload, source, content) for source in self.sources])
            found = [self._simulated(requests, ranks, slots) for requests, ranks in self._drawn[1]]
            fails, discomforts, totals = (max(values) for values in zip(*found, strict=True))
            self._asked[asked] = (fails, discomforts), totals
        return self._asked[asked]

    def _simulated(self, requests: Requests, ranks: NDArray[np.int64], slots: int) -> tuple[float, float, float]:
        """By how much a GPU fails on one draw, its discomfort, and that of its requests in sum."""
        self.calls += 1
        result = simulate_requests(
            requests, ranks, self.profile, slots,
            duration_s=self.workload.duration_s, service=self.service, shown=self.shown, latencies=False,
        )  # fmt: skip
        tokens_each = result.output_tokens / result.finished if result.finished else 1.0
        later_ms = (result.wait_ms - result.first_wait_ms) / tokens_each
        discomfort = result.first_wait_ms / self.ttft_ms + later_ms / self.tpot_ms
        if result.judgement is not None:
            discomfort += GOODPUT_WEIGHT * max(0.0, self.shown.share - result.judgement.goodput)
        return max(0.0, -result.headroom), discomfort, discomfort * result.arrived

    # --- contents

    def _exchange(self, gpus: list[_Gpu]) -> None:
        """Move and exchange adapters between the worst GPU and others, as long as the worse of two becomes better."""
        most = sum(gpu.total for gpu in gpus)
        failures = [0] * len(gpus)
        for _ in range(min(MOST_PROPOSALS, PROPOSALS_PER_GPU * len(gpus)) if len(gpus) > 1 else 0):
            open_ones = [number for number in range(len(gpus)) if failures[number] < PATIENCE]
            if not open_ones or not self.deadline.left_s:
                return
            giver = max(open_ones, key=lambda number: gpus[number].key)
            taker = self._taker(gpus, giver)
            failures[giver] += 1
            if gpus[taker].key >= gpus[giver].key:
                continue
            others = sum(gpu.total for gpu in gpus) - gpus[giver].total - gpus[taker].total
            found = self._exchanged(gpus[giver], gpus[taker])
            if found is not None and found[0].total + found[1].total + others <= most:
                gpus[giver], gpus[taker] = found
                failures[giver] = failures[taker] = 0

    def _taker(self, gpus: Sequence[_Gpu], giver: int) -> int:
        """A GPU other than the giver, the most comfortable ones most often."""
        order = sorted((number for number in range(len(gpus)) if number != giver), key=lambda number: gpus[number].key)
        return order[int(len(order) * self.generator.random() ** 2)]

    def _exchanged(self, giver: _Gpu, taker: _Gpu) -> tuple[_Gpu, _Gpu] | None:
        """Both GPUs after an exchange that makes the worse of them better, or None."""
        leaving, coming = self._chosen(giver, taker)
        grown = tuple(sorted((set(taker.content) - coming) | leaving))
        shrunk = tuple(sorted((set(giver.content) - leaving) | coming))
        if not shrunk:
            return None
        pair = []
        for content, before in ((grown, taker), (shrunk, giver)):
            slots = min(before.slots, self._most_slots(content))
            if not slots:
                return None
            (fails, discomfort), _ = self._key(content, slots)
            if fails > giver.key[0] + 0.05 or discomfort > HOPELESS * giver.key[1]:
                return None
            gpu = self._with_best_slots(content, slots)
            if gpu.key >= giver.key:
                return None
            pair.append(gpu)
        return pair[1], pair[0]

    def _chosen(self, giver: _Gpu, taker: _Gpu) -> tuple[set[int], set[int]]:
        """Adapters that leave the giver and that come to it: of some that are drawn, those that level the loads as wanted."""
        rates = self.workload.rates
        mine, theirs = np.array(giver.content), np.array(taker.content)
        n_leaving = self._several(len(mine))
        n_coming = 0 if self.generator.random() < ONE_WAY else self._several(len(theirs))
        wanted = self.generator.random() * LARGEST_SHIFT * max(0.0, rates[mine].sum() - rates[theirs].sum())
        leaving = mine[np.argsort(self.generator.random((DRAWN, len(mine))), axis=1)[:, :n_leaving]]
        coming = theirs[np.argsort(self.generator.random((DRAWN, len(theirs))), axis=1)[:, :n_coming]]
        shift = rates[leaving].sum(axis=1) - rates[coming].sum(axis=1)
        nearest = int(np.argmin(np.abs(shift - wanted)))
        return set(leaving[nearest].tolist()), set(coming[nearest].tolist())

    def _several(self, count: int) -> int:
        """How many of so many adapters are exchanged: mostly one or two."""
        return min(count, int(max(2.0, LARGEST_EXCHANGE * count) ** self.generator.random() + 0.5))


def best_service(problem: Problem, placement: Placement, deadline: Deadline) -> tuple[Placement, int]:
    """The placement with better service on the same GPUs, and how many contents were asked about.

    Parameters
    ----------
    problem : Problem
    placement : Placement
        Every GPU of which keeps the service level.
    deadline : Deadline
        Of the solver: a share of its time (`TIME_SHARE`) is used at most.
    """
    ours = Deadline.after(min(deadline.left_s, TIME_SHARE * problem.time_limit_s))
    if not placement.has_replicas:
        search = BestService(problem, ours)
        return search.improved(placement), search.calls
    divided = parts_of(problem.workload, placement)
    if divided is None:
        return placement, 0
    workload, parts = divided
    search = BestService(replace(problem, workload=workload), ours)
    improved = search.improved(parts)
    oracle = twin_of(problem, workload)
    found, _ = settled(workload, improved, oracle)
    return found or placement, search.calls + oracle.calls
