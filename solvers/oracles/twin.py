"""The digital twin as an oracle: milliseconds a content, and what it accepts is feasible when scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from solvers.contents.divided import n_adapters_of, sent_to
from solvers.oracles.base import Verdict, nearest_first
from solvers.oracles.grounds import RealContent
from solvers.oracles.made_up import MadeUpContents
from solvers.oracles.served import drains, turned, until
from solvers.oracles.spans import Shortfall, SlotSpan, shortfall, singles
from twin import GpuResult, Requests, ServingProfile, Workload
from twin.service import PUBLISHED, STARVATION_SHARE, ServiceLevel
from twin.shares import missed, whole_share

#: A GPU that misses the threshold by so much, with as many requests unfinished, is asked whether it did so already when
#: the window had lasted this share of itself: then it is no matter of the window's end.
#: By hand, and put to the test with the constants below (docs/suite.md).
CONGESTED_MARGIN, LEAST_UNFINISHED, EARLIER = 0.035, 30, 0.85
#: How often a content's requests are moved in time to see what its shortfall owes to chance, how many standard deviations
#: of that it must have, and what one is at least.
#: Three deviations are the usual bar for "no chance", five values tell a deviation badly, hence its least value. Put to the test by
#: `python -m bench.bound_check`: of 669 contents that the twin accepts, chosen to be lucky, 9 are dearer than the bounds allow, by 5 % at
#: most, on an instance with log-normal gaps under `interactive`, and no bound in whole GPUs would be lower for it
#: (results/bounds/check.csv). Less margin gives higher bounds that more contents refute.
TURNS, SIGMAS, LEAST_DEVIATION = 4, 3.0, 0.004
#: How often narrower spans are asked about where a shortfall is less than chance. By hand: each costs `TURNS` simulations.
REFINED = 4
#: A content whose best `max_loras` falls short by so much at most is asked about at so many more values. By hand: shares differ by about a
#: hundredth between neighbours of the grid where they are largest.
NARROWLY, TRIES_BETWEEN = 0.02, 6
#: Questions about one content where every value is to be settled: one for each that vLLM can have.
MOST_ASKED_FOR_ALL = 2048


class TwinOracle(MadeUpContents):
    """The twin with the workload's own requests and window, the ones that placements are scored with.

    Parameters
    ----------
    workload, profile : Workload, ServingProfile
    service : ServiceLevel
        What a GPU must keep. Where it judges requests, what is compared with its share is their goodput: the least among the
        GPU and its adapters for `accepts`, that of the whole GPU, which chance moves less, for what is beyond doubt.
    margin : float
        A content starves beyond doubt (`starves`) when its throughput misses the threshold by this share of the
        offered throughput. The twin is monotone up to the chance of single requests; the margin is for that chance, as
        `TURNS` and those beside it are, and was put to the test with them.
    """

    name = "twin"
    interchangeable = False
    monotone = False

    def __init__(
        self,
        workload: Workload,
        profile: ServingProfile,
        *,
        service: ServiceLevel = PUBLISHED,
        margin: float = 0.01,
    ) -> None:
        super().__init__(workload, profile, service=service, margin=margin)
        #: The same for other draws of the requests, all of which must accept what this one accepts (`solvers.oracles.draws`).
        self.others: tuple[TwinOracle, ...] = ()
        #: What is compared with the service level's share, of the worst part of a content and of the whole.
        self._shares: dict[tuple[tuple[int, ...], int], tuple[float, float]] = {}
        self._drawn: tuple[tuple[int, ...], Requests, NDArray[np.int64]] | None = None
        self._span_shares: dict[tuple[tuple[int, ...], SlotSpan], float] = {}
        #: For each largest rank and span the sums of contents that starve beyond doubt on the span's server.
        self._congesting: dict[int, dict[SlotSpan, list[NDArray[np.float64]]]] = {}
        self._congested_hint = 64

    # --- real contents

    def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether the GPU keeps the service level and has no memory error; simulated once, then remembered."""
        return self.share(adapters, max_loras) >= self.service.share

    def share(self, adapters: tuple[int, ...], max_loras: int) -> float:
        """What the service level compares with its share; below 0 for a memory error, 1 where nothing is offered.

        Throughput over offered throughput under the published rule, otherwise the least goodput among the GPU and its adapters. Of
        several draws it is the least, or that of the first which rejects the content.
        """
        share = self.both_shares(adapters, max_loras)[0]
        for other in self.others:
            if share < self.service.share:
                break
            other.deadline, before = self.deadline, other.calls
            share = min(share, other.share(adapters, max_loras))
            self.calls += other.calls - before
        return share

    def both_shares(self, adapters: tuple[int, ...], max_loras: int) -> tuple[float, float]:
        """`share` on the workload's own draw, and the same of the GPU as a whole, which chance moves less."""
        key = (adapters, max_loras)
        if key not in self._shares:
            self.calls += 1
            result = self._simulate(adapters, SlotSpan(max_loras, max_loras), self.workload.duration_s)
            whole = whole_share(result, self._beside)
            worst = whole if result.judgement is None or result.memory_error else result.judgement.worst
            self._shares[key] = worst, whole
        return self._shares[key]

    def _whole_share(self, adapters: tuple[int, ...], span: SlotSpan) -> float:
        """What the service level compares with its share, of the whole GPU, on the server of a span."""
        if span.is_single:
            return self.both_shares(adapters, span.low)[1]
        key = (adapters, span)
        if key not in self._span_shares:
            self.calls += 1
            self._span_shares[key] = whole_share(self._simulate(adapters, span, self.workload.duration_s), self._beside)
        return self._span_shares[key]

    def find_max_loras(self, adapters: tuple[int, ...], hint: int | None = None) -> int | None:
        """As `Oracle.find_max_loras`; where the best value tried falls short by little, values beside it are tried too."""
        shares: dict[int, float] = {}
        for value in nearest_first(self.slots(adapters), hint or min(len(adapters), 64)):
            shares[value] = self.share(adapters, value)
            if shares[value] >= self.service.share:
                return value
        for _ in range(TRIES_BETWEEN):
            best = max(shares, key=lambda value: shares[value], default=0)
            if not best or shares[best] < self.service.share - NARROWLY:
                return None
            middles = [math.isqrt(low * high) for low, high in _gaps(sorted(shares), best)]
            if not middles:
                return None
            shares[middles[0]] = self.share(adapters, middles[0])
            if shares[middles[0]] >= self.service.share:
                return middles[0]
        return None

    def verdict(self, adapters: tuple[int, ...], hint: int | None = None, *, every_value: bool = False) -> Verdict:
        """As `Oracle.verdict`: spans are ruled out by the margin, single values as they are."""
        accepted: list[int] = []

        def ask(span: SlotSpan) -> float:
            if not span.is_single:
                return self._whole_share(adapters, span)
            if self.accepts(adapters, span.low):
                accepted.append(span.low)
            # What only another draw rejects is not settled: bounds are of this one.
            return self.both_shares(adapters, span.low)[0]

        count, rank = n_adapters_of(self.workload, adapters), int(self.workload.ranks[list(adapters)].max())
        most = self._most_slots(count, rank)
        found = shortfall(
            ask,
            singles(most) if every_value else self._spans_for(count, rank),
            self.service.share - self.margin,
            hint or min(count, 64),
            most=most,
            really=self.service.share,
            most_asked=MOST_ASKED_FOR_ALL,
        )
        return Verdict(accepted[0] if accepted else None, settled=bool(accepted) or found is not None)

    def slots(self, adapters: Sequence[int]) -> tuple[int, ...]:
        """As `Oracle.slots`; parts of an adapter are one (`solvers.contents.divided`)."""
        content = tuple(adapters)
        return self.slots_for(n_adapters_of(self.workload, content), int(self.workload.ranks[list(content)].max()))

    def is_cut_off(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:
        """Whether everything a rejected content is asked would be served a little later.

        A short window cuts off the requests that arrive near its end; with few requests that alone
        makes a lone adapter fall short, and more adapters beside it can mend it. So the same requests
        are simulated on past the window (`_longer_s`).
        """
        candidates = self.slots(adapters)
        if not candidates or self.service.judges_requests:
            return False
        max_loras = nearest_first(candidates, hint or min(len(adapters), 64))[0]
        return drains(self._simulate(adapters, SlotSpan(max_loras, max_loras), self._longer_s))

    def starves(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:
        """Whether the content misses the threshold by the margin at every `max_loras`, and is not cut off.

        It is no less beyond doubt if it misses the threshold by more, and missed it as well when the window was shorter.
        """
        requests, ranks = self._sent_to(adapters)
        aim = hint or min(len(ranks), 64)

        def ask(span: SlotSpan) -> float:
            return self._whole_share(adapters, span)

        if self.service.judges_requests:
            return self._beyond_doubt(ask, requests, ranks, aim) is not None
        found = self._falls_short_everywhere(ask, len(ranks), int(ranks.max()), aim)
        if found is None or found.share < 0:
            return found is not None

        def simulate(duration_s: float) -> GpuResult:
            return self._simulate(adapters, found.span, duration_s)

        if found.share < self.service.share - CONGESTED_MARGIN and self._is_congested(simulate):
            return True
        return not self.is_cut_off(adapters, hint)

    def congested(self, adapters: tuple[int, ...], rank: int) -> bool:
        """Whether adapters starve a GPU beyond doubt, were one of them of a given rank and the others of the smallest.

        What asks for at least as much beside an adapter of at least that rank then starves too, whatever its ranks.
        Beyond doubt is a shortfall, at every `max_loras`, that is no matter of which bursts meet, or come at the window's end: the
        requests of each adapter are moved in time, and it must be several times as large as what that changes.

        Parameters
        ----------
        adapters : tuple of int
            Ascending workload indices.
        rank : int
        """
        requests = self._source.requests_of(np.asarray(adapters))
        ranks = np.full(len(adapters), self.workload.ranks.min())
        ranks[0] = rank
        sums = self.asks[list(adapters)].sum(axis=0)
        known = self._congesting.setdefault(rank, {})
        shares: dict[SlotSpan, float | None] = {}

        def ask(span: SlotSpan) -> float | None:
            if span not in shares:
                known_to = any(
                    (np.array(points) <= sums).all(axis=1).any() for other, points in known.items() if other.holds(span)
                )
                shares[span] = None if known_to else self._short_by(requests, ranks, span)
            share = shares[span]
            if span.is_single and share is not None and share >= self.service.share - self.margin:
                self._congested_hint = span.low
            return share

        found = self._beyond_doubt(ask, requests, ranks, self._congested_hint)
        if found is None:
            return False
        self.grounds.real(RealContent(adapters, rank), sums, found.asked, self._most_slots(len(adapters), rank))
        for span in found.asked:
            known.setdefault(span, []).append(sums)
        return True

    def seems_congested(self, adapters: tuple[int, ...], rank: int) -> bool:
        """Whether `congested` is likely: by a single simulation, at a `max_loras` that was good for other contents."""
        requests = self._source.requests_of(np.asarray(adapters))
        ranks = np.full(len(adapters), self.workload.ranks.min())
        ranks[0] = rank
        most = self._most_slots(len(adapters), rank)
        if not most:
            return True
        aim = min(self._congested_hint, most)
        return self._short_by(requests, ranks, SlotSpan(aim, aim)) < self._beyond

    def _beyond_doubt(
        self, ask: Callable[[SlotSpan], float | None], requests: Requests, ranks: NDArray[np.int64], aim: int
    ) -> Shortfall | None:
        """A shortfall at every `max_loras` that is more than chance; None if there is none, or it cannot be told.

        Where chance is more than what a span falls short by, narrower ones are asked about: a span promises more than any server of
        its values does.
        """
        less = 0.0
        for _ in range(REFINED):
            found = self._falls_short_everywhere(ask, len(ranks), int(ranks.max()), aim, less)
            if found is None or found.share < 0:
                return found
            excess = self._chance(found.share, requests, ranks, found.span)
            if excess < 0:
                return found
            if found.span.is_single or math.isinf(excess):
                return None
            less = self._beyond - found.share + max(excess, LEAST_DEVIATION / 4)
        return None

    def _falls_short_everywhere(
        self, ask: Callable[[SlotSpan], float | None], count: int, rank: int, aim: int, less: float = 0.0
    ) -> Shortfall | None:
        """A shortfall by the margin; of spans by as much as is beyond doubt at least, and more."""
        spans, most = self._spans_for(count, rank), self._most_slots(count, rank)
        return shortfall(
            ask, spans, self._beyond - less, aim, most=most, really=self.service.share - self.margin
        )  # fmt: skip

    @property
    def _beyond(self) -> float:
        """A share that falls short by the margin, and by more than the least chance."""
        return self.service.share - max(self.margin, SIGMAS * LEAST_DEVIATION)

    def _chance(self, share: float, requests: Requests, ranks: NDArray[np.int64], span: SlotSpan) -> float:
        """By how much a shortfall is less than `SIGMAS` times what it varies by when each adapter's requests move in time.

        Negative where it is more than chance; infinity where too few requests are missed to tell.
        """
        shares = [share]
        for turn in range(TURNS):
            moved = turned(requests, turn, len(ranks), self._source.duration_s)
            result = self._simulate_ranks(moved, ranks, span)
            shares.append(whole_share(result, self._beside))
            if missed(result) < LEAST_UNFINISHED:
                return math.inf
            if shares[-1] >= self.service.share - self.margin:
                return shares[-1] - self.service.share + self.margin
        deviation = max(float(np.std(shares, ddof=1)), LEAST_DEVIATION)
        return float(np.mean(shares)) + SIGMAS * deviation - self.service.share

    def _short_by(self, requests: Requests, ranks: NDArray[np.int64], span: SlotSpan) -> float:
        return whole_share(self._simulate_ranks(requests, ranks, span), self._beside)

    def _simulate_ranks(self, requests: Requests, ranks: NDArray[np.int64], span: SlotSpan) -> GpuResult:
        self.calls += 1
        return self._asked(requests, ranks, span, self.workload.duration_s)

    def _is_congested(self, simulate: Callable[[float], GpuResult]) -> bool:
        """Whether as much was left undone before the window's end as at it, by many requests both times.

        Chance is small then: a burst at the end, which other adapters beside it would make up for, is seen at the end only.
        """
        window_s = self.workload.duration_s
        at_end, earlier = simulate(window_s), simulate(EARLIER * window_s)
        left = min(at_end.arrived - at_end.finished, earlier.arrived - earlier.finished)
        return left >= LEAST_UNFINISHED and whole_share(earlier) < STARVATION_SHARE

    def _simulate(self, adapters: tuple[int, ...], span: SlotSpan, duration_s: float) -> GpuResult:
        requests, ranks = self._sent_to(adapters)
        if not self.service.judges_requests:
            requests = until(requests, duration_s)
        return self._asked(requests, ranks, span, duration_s)

    def _sent_to(self, adapters: tuple[int, ...]) -> tuple[Requests, NDArray[np.int64]]:
        """Requests of a content, and the ranks of its adapters."""
        if self._drawn is None or self._drawn[0] != adapters:
            # A content is asked about at several `max_loras` in a row.
            self._drawn = (adapters, *sent_to(self.workload, self._source, adapters))
        return self._drawn[1:]


def _gaps(values: list[int], best: int) -> list[tuple[int, int]]:
    """Values on either side of one, with it, where others lie between; the pair with most doublings first."""
    place = values.index(best)
    pairs = [(values[k], values[k + 1]) for k in (place - 1, place) if 0 <= k < len(values) - 1]
    return sorted((pair for pair in pairs if pair[1] - pair[0] > 1), key=lambda pair: pair[0] / pair[1])
