"""The contents that a certificate rests on, simulated again: each falls short at every `max_loras`, by more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.certificates.adding_up import RefusedError
from twin import GpuResult, Requests, ServiceLevel, ServingProfile, Workload, simulate_requests
from twin.shares import asked_tokens, missed, others_make_up, whole_share

#: A content falls short by this margin, and by more than so many standard deviations of what it varies by when each adapter's requests are
#: moved in time (the fourth at least), each time with so many requests missed. A certificate may ask for more, not for less.
MARGINS = {"margin": 0.01, "turns": 4, "sigmas": 3.0, "least_deviation": 0.004, "least_missed": 30}


class Content(NamedTuple):
    """Adapters, one of them taken to be of a rank and the others of the workload's smallest; or `made_up` equally busy ones.

    To those the workload's own requests are dealt, thinned to a `load` in tokens/s. It falls short on the servers of `spans`: KV cache
    and steps of the first `max_loras`, slots of the last. A `cut` rules out all that asks for as much as its `sums`.
    """

    rank: int
    adapters: Sequence[int]
    made_up: int
    load: float
    spans: Sequence[Sequence[int]]
    sums: Sequence[float]
    cut: bool


class Shortfalls:
    """Simulates contents of one workload; `simulated` counts.

    `sums`, shape (n_adapters, 1 + n_times), is what each adapter asks for: offered tokens per second, and the share of the window in
    which it has a request in service, if each takes one of `times_s`.
    """

    def __init__(
        self, workload: Workload, profile: ServingProfile, service: ServiceLevel, times_s: Sequence[float]
    ) -> None:
        self.workload, self.profile, self.service, self.times_s = workload, profile, service, tuple(times_s)
        self.simulated = 0
        self.source = workload.lengthened(service.tail_s) if service.judges_requests else workload
        self.sums = self._sums(workload.requests, workload.n_adapters)
        self._total = asked_tokens(workload.requests).sum() / workload.duration_s
        self._draws = np.random.Generator(np.random.PCG64(workload.seed)).random((2, len(self.source.requests)))
        self._short = service.share - MARGINS["margin"]
        self._beside = len(self.source.requests) if others_make_up(workload, service) else 0

    def check_times(self) -> None:
        """Raise `RefusedError` unless adapters are compared at half, once and twice the time in service on an overloaded GPU."""
        load, ranks = self._total / 2 ** math.ceil(math.log2(max(1.0, self._total / 1000.0))), self.workload.ranks
        while True:
            result = self.simulate(self._dealt(load, 8), np.full(8, ranks.min()), (8, 8), self.workload.duration_s)
            if load > self._total or not load or result.throughput < 0.5 * result.offered_throughput:
                break
            load *= 2
        service_s = result.mean_running * max(result.busy_s, 1e-9) / result.finished if result.finished else 10.0
        if len(self.times_s) != 3 or not np.allclose(self.times_s, np.array([0.5, 1, 2]) * service_s, rtol=1e-6):
            raise RefusedError("it compares adapters at other times in service than those of this workload and profile")

    def check(self, content: Content, others: Sequence[Content]) -> None:
        """Raise `RefusedError` unless a content falls short at every `max_loras`, some of them by those of `others`."""
        ids, count = content.adapters, content.made_up or len(content.adapters)
        whole = len(set(ids)) == len(ids) and all(0 <= adapter < self.workload.n_adapters for adapter in ids)
        if not whole or content.made_up < 0 or (content.made_up > 0) == bool(ids):
            raise RefusedError("a content is neither a set of adapters nor made up")
        ranks, requests = np.full(count, self.workload.ranks.min()), self._requests(content)
        ranks[0] = content.rank
        in_window = requests.take(np.flatnonzero(requests.arrival_s < self.workload.duration_s))
        if not np.allclose(self._sums(in_window, count).sum(axis=0), content.sums, rtol=1e-9, atol=1e-9):
            raise RefusedError("a content asks for other sums than it says")
        if content.cut:
            self._check_values(content, count, others)
        shares = [(self._falls_short(content, requests, ranks, span), span) for span in content.spans]
        if not content.made_up:
            self._check_chance(requests, ranks, *max(shares))

    def _check_values(self, content: Content, count: int, others: Sequence[Content]) -> None:
        """Every `max_loras` is spoken of: by the content's own spans, or by those of made-up ones that ask for less."""
        if not self.spans_hold(content.rank):
            raise RefusedError("on this profile a slot more may cost less: a span says nothing of what is in it")
        slots = range(1, self.profile.largest_max_loras(content.rank) + 1)
        made_up = [other for other in others if 0 < other.made_up <= content.made_up]
        less = [other for other in made_up if other.rank <= content.rank and other.load <= content.load]
        known = {value for each in (content, *less) for low, high in each.spans for value in range(low, high + 1)}
        if missing := set(slots[:count]) - known:
            raise RefusedError(f"nothing is said of a content at max_loras={min(missing)}")

    def spans_hold(self, rank: int) -> bool:
        """Whether every slot more costs KV cache and step time, or nothing: only then does a span stand for the values in it."""
        largest = self.profile.largest_max_loras(rank)
        capacities = [self.profile.kv_tokens(value, rank) for value in range(1, largest + 1)]
        steps = [self.profile.step_coefficients(value, rank) for value in (1, 2)]
        return all(later <= earlier for earlier, later in pairwise(capacities)) and bool((steps[1] >= steps[0]).all())

    def all_fail(self, low: int, high: int) -> None:
        """Raise `RefusedError` if a GPU serves all adapters at a `max_loras` of a span; halves are asked where the whole is not short."""
        requests, ranks = self.source.requests_of(np.arange(self.workload.n_adapters)), self.workload.ranks
        waiting = [(low, high)]
        while waiting:
            result = self.simulate(requests, ranks, span := waiting.pop(), self.workload.duration_s)
            if span[0] == span[1] and not result.fails:
                raise RefusedError(f"one GPU serves all adapters at max_loras={span[0]}")
            if span[0] < span[1] and whole_share(result, self._beside) >= self._short:
                middle = sum(span) // 2
                waiting += [(span[0], middle), (middle + 1, span[1])]

    def _falls_short(
        self, content: Content, requests: Requests, ranks: NDArray[np.int64], span: Sequence[int]
    ) -> float:
        window_s = self.workload.duration_s
        share = whole_share(self.simulate(requests, ranks, span, window_s), self._beside)
        if share >= self._short:
            raise RefusedError(f"a content keeps {share:.4f} at max_loras={list(span)}: not short by the margin")
        if content.made_up and not self.service.judges_requests:
            # A window in which a GPU at 90 % of the offered throughput catches up, and any single request ends.
            later = self.simulate(requests, ranks, span, max(window_s / 0.9, window_s + 60.0))
            if not later.memory_error and later.finished == later.arrived:
                raise RefusedError("a made-up content falls short for the window's end alone")
        return share

    def _check_chance(self, requests: Requests, ranks: NDArray[np.int64], share: float, span: Sequence[int]) -> None:
        """The shortfall where it is least is more than what it varies by when each adapter's requests are moved in time."""
        shares, length_s = [share], self.source.duration_s
        for turn in range(int(MARGINS["turns"]) if share >= 0 else 0):
            offset_s = np.random.default_rng(turn).uniform(0.0, length_s, len(ranks))
            arrival_s = (requests.arrival_s + offset_s[requests.adapter]) % length_s
            moved = replace(requests, arrival_s=arrival_s).take(np.argsort(arrival_s, kind="stable"))
            result = self.simulate(moved, ranks, span, self.workload.duration_s)
            shares.append(whole_share(result, self._beside))
            if missed(result) < MARGINS["least_missed"] or shares[-1] >= self._short:
                raise RefusedError("a content falls short for the moments at which its requests come")
        deviation = max(float(np.std(shares, ddof=1)) if share >= 0 else 0.0, MARGINS["least_deviation"])
        if float(np.mean(shares)) + MARGINS["sigmas"] * deviation >= self.service.share:
            raise RefusedError("a content falls short by no more than chance")

    def simulate(
        self, requests: Requests, ranks: NDArray[np.int64], span: Sequence[int], duration_s: float
    ) -> GpuResult:
        """One GPU; a `span` of two values is a server that is no worse than any between them."""
        if not 1 <= span[0] <= span[1]:
            raise RefusedError(f"{list(span)} is no span of max_loras")
        self.simulated += 1
        return simulate_requests(
            requests, ranks, self.profile, span[0], slots=span[1], duration_s=duration_s, service=self.service,
            latencies=False,
        )  # fmt: skip

    def _requests(self, content: Content) -> Requests:
        if not content.made_up:
            return self.source.requests_of(np.array(content.adapters))
        if self.profile.prefix_caching and self.source.requests.shared_tokens is not None:
            raise RefusedError("a made-up content says nothing of prefix caching, and requests share prompts")
        return self._dealt(content.load, content.made_up)

    def _dealt(self, load: float, count: int) -> Requests:
        rows = np.flatnonzero(self._draws[0] < (load / self._total if self._total else 0.0))
        dealt = (self._draws[1, rows] * count).astype(np.int64)
        return replace(self.source.requests.take(rows), adapter=dealt, shared_tokens=None)

    def _sums(self, requests: Requests, count: int) -> NDArray[np.float64]:
        window_s, order = self.workload.duration_s, np.lexsort((requests.arrival_s, requests.adapter))
        adapter, arrival_s = requests.adapter[order], requests.arrival_s[order]
        gap_s, same = window_s - arrival_s, adapter[1:] == adapter[:-1]
        gap_s[:-1][same] = np.diff(arrival_s)[same]
        busy = [np.bincount(adapter, np.clip(gap_s, 0.0, time_s), count) for time_s in self.times_s]
        return np.column_stack([np.bincount(requests.adapter, asked_tokens(requests), count), *busy]) / window_s
