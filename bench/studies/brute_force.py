"""Fewest GPUs by brute force, with the twin alone: every content at every `max_loras`, and a sample of placements with replicas.

What this finds is a placement that the twin has been asked about, so a bound above it is wrong, whatever the bound rests on. That there
is none with fewer GPUs it can say only of placements without replicas, and only where it came to an end (`BruteForce.complete`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from solvers.base import Solution, Tags
from twin import GpuPlan, GpuResult, Placement, Requests, ServiceLevel, ServingProfile, Workload, simulate_requests

#: Beyond so many adapters not all contents are simulated, but only the one of all adapters.
MOST_ENUMERATED = 16
#: A content that misses the service level's share by so much at every `max_loras` is not served with more adapters either: what
#: chance moves is a tenth of that. Without it most of the time goes to contents of twice and three times what a GPU serves.
HOPELESS = 0.3
#: Placements with replicas that are tried for each number of GPUs, and how often the loads of one are shifted away from GPUs that fail.
SAMPLES, SHIFTS, SHIFTED = 30, 4, 0.97
#: How much GPUs of a sample differ in load (spread of the logarithm), and a share that is too small to be worth a replica.
UNEVEN, LEAST_SHARE = 0.04, 0.01
#: GPUs up to which placements with replicas are looked for where nobody has found any.
MOST_GPUS = 8


class BudgetSpentError(Exception):
    """The seconds of a search are used up."""


class GpuTwin:
    """Whether one GPU serves a content, over all `max_loras`; simulated once, then remembered.

    Parameters
    ----------
    workload, profile, service

    Attributes
    ----------
    simulated : int
        GPUs so far.
    """

    def __init__(self, workload: Workload, profile: ServingProfile, service: ServiceLevel) -> None:
        self.workload = workload
        self.profile = profile
        self.service = service
        self.simulated = 0
        self._source = workload.lengthened(service.tail_s) if service.judges_requests else workload
        self._end_s = math.inf
        self._hint = 8
        self._known: dict[tuple[int, ...], tuple[int, float]] = {}

    def allow(self, seconds: float) -> None:
        """Simulate for so many seconds from now on."""
        self._end_s = time.monotonic() + seconds

    def serves(self, adapters: tuple[int, ...], intervals: NDArray[np.float64] | None = None) -> tuple[int, float]:
        """A `max_loras` with which the GPU keeps the service level, or 0, and the best share found.

        Parameters
        ----------
        adapters : tuple of int
            Ascending.
        intervals : array of shape (n, 2), optional
            Of each adapter's routing draws; all of them by default.
        """
        if intervals is None and adapters in self._known:
            return self._known[adapters]
        content = np.array(adapters)
        requests = self._source.requests_of(content, intervals)
        found = self._search(requests, self.workload.ranks[content])
        if intervals is None:
            self._known[adapters] = found
        return found

    def serves_at(self, shares: Mapping[int, float], slots: Sequence[int]) -> int:
        """The first of some `max_loras` with which the GPU serves so large shares of adapters; 0 if it serves them with none.

        Parameters
        ----------
        shares : mapping of int to float
            Of each adapter.
        slots : sequence of int
            Those that a GPU cannot have are left out.
        """
        content = np.array(sorted(shares))
        intervals = None
        if min(shares.values()) < 1:
            intervals = np.array([[0.0, shares[adapter]] for adapter in content.tolist()])
        requests, ranks = self._source.requests_of(content, intervals), self.workload.ranks[content]
        most = self._most(ranks)
        return next(
            (value for value in slots if 1 <= value <= most and not self._simulate(requests, ranks, value).fails), 0
        )

    def _most(self, ranks: NDArray[np.int64]) -> int:
        return min(len(ranks), self.profile.largest_max_loras(int(ranks.max())))

    def _search(self, requests: Requests, ranks: NDArray[np.int64]) -> tuple[int, float]:
        most = self._most(ranks)
        best = -1.0
        for value in sorted(range(1, most + 1), key=lambda slots: abs(np.log(slots / min(self._hint, most)))):
            result = self._simulate(requests, ranks, value)
            if not result.fails:
                self._hint = value
                return value, 1.0
            if not result.memory_error:
                share = result.throughput / max(result.offered_throughput, 1e-12)
                best = max(best, share if result.judgement is None else result.judgement.goodput)
        return 0, best

    def _simulate(self, requests: Requests, ranks: NDArray[np.int64], max_loras: int) -> GpuResult:
        if time.monotonic() > self._end_s:
            raise BudgetSpentError
        self.simulated += 1
        return simulate_requests(
            requests, ranks, self.profile, max_loras,
            duration_s=self.workload.duration_s, service=self.service, latencies=False,
        )  # fmt: skip


class Partitions:
    """Placements without replicas, all of them.

    Parameters
    ----------
    twin : GpuTwin
    """

    def __init__(self, twin: GpuTwin) -> None:
        self.twin = twin
        requests = twin.workload.requests
        tokens = requests.prompt_tokens + requests.requested_tokens
        load = np.bincount(requests.adapter, tokens, twin.workload.n_adapters)
        # The busiest first: the lowest bit of what is left is what is placed next.
        self._order = np.argsort(-load, kind="stable")
        self._count = len(load)
        self._load = np.zeros(1)
        for adapter in self._order:
            self._load = np.concatenate([self._load, self._load + load[adapter]])
        self._all = np.arange(len(self._load))
        self._hopeless: list[int] = []
        self._failed: set[tuple[int, int]] = set()

    def on(self, gpus: int) -> Placement | None:
        """A placement on at most so many GPUs; None if there is none.

        Raises
        ------
        BudgetSpentError
        """
        found = self._split(len(self._load) - 1, gpus)
        return (
            None
            if found is None
            else Placement(tuple(GpuPlan(self._adapters(mask), self._slots(mask)) for mask in found))
        )

    def _split(self, mask: int, gpus: int) -> list[int] | None:
        if self._slots(mask):
            return [mask]
        if gpus == 1 or (mask, gpus) in self._failed:
            return None
        lowest = mask & -mask
        parts = self._all[((self._all & ~mask) == 0) & ((self._all & lowest) > 0)]
        for part in parts[np.argsort(np.abs(self._load[parts] - self._load[mask] / gpus), kind="stable")].tolist():
            if part == mask or not self._slots(part):
                continue
            rest = self._split(mask & ~part, gpus - 1)
            if rest is not None:
                return [part, *rest]
        self._failed.add((mask, gpus))
        return None

    def _slots(self, mask: int) -> int:
        if any(mask & bad == bad for bad in self._hopeless):
            return 0
        slots, share = self.twin.serves(self._adapters(mask))
        if not slots and share < self.twin.service.share - HOPELESS:
            self._hopeless = [bad for bad in self._hopeless if bad & mask != mask] + [mask]
        return slots

    def _adapters(self, mask: int) -> tuple[int, ...]:
        return tuple(sorted(int(self._order[bit]) for bit in range(self._count) if mask >> bit & 1))


class Divided:
    """Placements with replicas, a sample of them.

    Parameters
    ----------
    twin : GpuTwin
    seed : int
    """

    def __init__(self, twin: GpuTwin, seed: int) -> None:
        self.twin = twin
        self._generator = np.random.default_rng(seed)
        workload = twin.workload
        self._load = workload.rates * workload.mean_request_tokens

    def on(self, gpus: int) -> Placement | None:
        """A placement on so many GPUs, if one is found.

        Raises
        ------
        BudgetSpentError
        """
        for sample in range(SAMPLES):
            order = self._an_order(sample)
            whole = sample % 3 == 2
            room = np.exp(UNEVEN * self._generator.standard_normal(gpus)) if sample > 2 else np.ones(gpus)
            for _ in range(SHIFTS):
                plans, fails = self._judged(self._hot_apart(gpus) if whole else self._in_turn(order, room))
                if not fails:
                    return Placement(tuple(plans))
                if whole or len(fails) == gpus:
                    break
                room[fails] *= SHIFTED
        return None

    def evenly(self, gpus: int, *, whole: bool) -> bool:
        """Whether an even spread on so many GPUs is feasible: the busiest adapter first, each to the idlest GPU, or in turn with replicas.

        Raises
        ------
        BudgetSpentError
        """
        if not whole:
            return not self._judged(self._in_turn(np.argsort(-self._load, kind="stable"), np.ones(gpus)))[1]
        level, homes = np.zeros(gpus), np.zeros(len(self._load), dtype=np.int64)
        for adapter in np.argsort(-self._load, kind="stable"):
            homes[adapter] = level.argmin()
            level[homes[adapter]] += self._load[adapter]
        contents = [tuple(np.flatnonzero(homes == gpu).tolist()) for gpu in range(gpus)]
        return all(self.twin.serves(content)[0] for content in contents if content)

    def _an_order(self, sample: int) -> NDArray[np.int64]:
        chance = self._generator.permutation(len(self._load))
        ranks = self.twin.workload.ranks
        # Ranks apart, then the busiest first, then by chance.
        return (chance[np.argsort(-ranks[chance], kind="stable")], np.argsort(-self._load, kind="stable"), chance)[
            min(sample % 4, 2)
        ]

    def _in_turn(self, order: NDArray[np.int64], room: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares, shape (gpus, adapters), with GPUs filled one after the other; an adapter goes on where one is full."""
        shares = np.zeros((len(room), len(self._load)))
        total = self._load.sum()
        ends = np.cumsum(room / room.sum())
        at = 0.0
        for adapter in order:
            size = self._load[adapter] / total
            low = np.concatenate([[0.0], ends[:-1]])
            part = np.clip(np.minimum(ends, at + size) - np.maximum(low, at), 0.0, None)
            if size <= 0.0 or part.sum() <= 0.0:
                part = np.eye(len(room))[min(int(np.searchsorted(ends, at, side="right")), len(room) - 1)]
            shares[:, adapter] = part / part.sum()
            at += size
        return shares

    def _hot_apart(self, gpus: int) -> NDArray[np.float64]:
        """What is busier than a GPU's part of the load goes to several in equal shares; the others each to the idlest GPU."""
        shares = np.zeros((gpus, len(self._load)))
        level = np.zeros(gpus)
        part = self._load.sum() / gpus
        for adapter in np.argsort(-self._load, kind="stable"):
            wanted = int(min(gpus, max(1, np.ceil(self._load[adapter] / part * self._generator.uniform(0.8, 1.3)))))
            homes = np.argsort(level, kind="stable")[:wanted]
            shares[homes, adapter] = 1 / wanted
            level[homes] += self._load[adapter] / wanted
        return shares

    def _judged(self, shares: NDArray[np.float64]) -> tuple[list[GpuPlan], list[int]]:
        """Plans of the GPUs in use, and which of them fail."""
        shares = np.where(shares < LEAST_SHARE, 0.0, shares)
        shares /= shares.sum(axis=0)
        rows = [row for row in shares if row.any()]
        plans = [GpuPlan(tuple(np.flatnonzero(row).tolist()), 1, tuple(row[row > 0].tolist())) for row in rows]
        fails = []
        for number, (plan, intervals) in enumerate(
            zip(plans, Placement(tuple(plans)).routing_intervals(len(self._load)), strict=True)
        ):
            slots, _ = self.twin.serves(plan.adapters, intervals)
            if slots:
                plans[number] = replace(plan, max_loras=slots)
            else:
                fails.append(number)
        return plans, fails


@dataclass
class BruteForce:
    """The search as something that a comparison can ask (`bench.comparison.asked.Asked`).

    Parameters
    ----------
    twin : GpuTwin
    below : int, optional
        Fewer GPUs than that are looked for; None where nobody has found a placement yet.
    seconds : float
        For each of the two searches.
    seed : int
        Of the sampled placements.

    Attributes
    ----------
    complete : bool
        No placement without replicas has fewer GPUs than what was found, or than `below`.
    """

    twin: GpuTwin
    below: int | None
    seconds: float = math.inf
    seed: int = 0
    complete: bool = False
    tags = Tags(uses_replicas=True)

    def warm_up(self) -> None:
        """See `Asked`."""

    def solve(self, gpus: int | None) -> Solution:
        """See `Asked`; `gpus` is not looked at."""
        del gpus
        found: Placement | None = None
        self.twin.allow(self.seconds)
        with contextlib.suppress(BudgetSpentError):
            found = self._whole()
            few = self.twin.workload.n_adapters <= MOST_ENUMERATED
            self.complete = few or found is not None or self.below in (1, 2)
        whole = None if found is None else found.n_gpus
        self.twin.allow(self.seconds)
        for fewer in self._divided(found):
            found = fewer
        details = {"oracle": "twin", "complete": self.complete, "whole": whole, "simulated": self.twin.simulated}
        if found is None:
            return Solution("time_limit", message="no placement with fewer GPUs was found", details=details)
        return Solution("feasible", found, oracle_calls=self.twin.simulated, details=details)

    def _whole(self) -> Placement | None:
        """The fewest GPUs without replicas, if fewer than `below`."""
        count = self.twin.workload.n_adapters
        if count > MOST_ENUMERATED:
            slots, _ = self.twin.serves(tuple(range(count)))
            return Placement((GpuPlan(tuple(range(count)), slots),)) if slots else None
        partitions = Partitions(self.twin)
        for gpus in range(1, min(count, (self.below or count + 1) - 1) + 1):
            if (found := partitions.on(gpus)) is not None:
                return found
        return None

    def _divided(self, found: Placement | None) -> Iterator[Placement]:
        """Fewer GPUs than what was found, with replicas, one less each time; where nothing was, from one GPU on."""
        divided = Divided(self.twin, self.seed)
        least = self.below if found is None else found.n_gpus
        with contextlib.suppress(BudgetSpentError):
            if least is None:
                found = next((each for gpus in range(1, MOST_GPUS + 1) if (each := divided.on(gpus)) is not None), None)
                if found is not None:
                    yield found
                return
            while least > 1 and (fewer := divided.on(least - 1)) is not None:
                yield fewer
                least = fewer.n_gpus
