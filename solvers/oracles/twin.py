"""The digital twin as an oracle: milliseconds a content, and what it accepts is feasible when scored."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from solvers.contents.adapter_types import AdapterTypes
from solvers.contents.demands import Demands, presence
from solvers.oracles.base import MadeUp, Oracle, nearest_first
from twin import GpuResult, Requests, ServingProfile, Workload, simulate_requests
from twin.service import PUBLISHED, STARVATION_SHARE, ServiceLevel

#: Contents are compared by the adapters active in these multiples of the mean time in service on an overloaded GPU; the
#: times on GPUs near their limit scatter around it. Three
#: times are by hand: more make tighter comparisons, and zones that take longer.
SERVICE_TIMES = np.array([0.5, 1.0, 2.0])
#: A GPU that misses the threshold by so much, with as many requests unfinished, is asked whether it did so already when
#: the window had lasted this share of itself: then it is no matter of the window's end.
#: By hand, and put to the test with the constants below (docs/suite.md).
CONGESTED_MARGIN, LEAST_UNFINISHED, EARLIER = 0.035, 30, 0.85
#: How often a content's requests are moved in time to see what its shortfall owes to chance, how many standard deviations
#: of that it must have, and what one is at least.
#: Three deviations are the usual bar for "no chance", five values tell a deviation badly, hence its least value. Put to the test by
#: `python -m bench.bound_check`: of 4,471 contents that the twin accepts, chosen to be lucky, one is dearer than the bounds allow, by .6 %,
#: and no bound in whole GPUs would be lower for it (results/bounds/check.csv). Less margin gives higher bounds that more contents refute.
TURNS, SIGMAS, LEAST_DEVIATION = 4, 3.0, 0.004
#: A GPU this far below the threshold is hopeless: whether with so much less load as well is then worth a question. By hand:
#: a lighter content that is known to starve saves questions, one that does not costs two simulations.
HOPELESS, MUCH_LESS = 0.1, 0.6
#: Offered load at which the search for an overloaded GPU starts, and the share of it that such a GPU serves at most. By hand: a
#: low start costs a few short simulations, and at a half the queue never empties.
FIRST_LOAD_TOKENS_PER_S, HALF = 1000.0, 0.5


class TwinOracle(Oracle):
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
        super().__init__(workload, profile)
        self.service = service
        self.margin = margin
        # With what goes on arriving while the last judged requests are served.
        self._source = workload.lengthened(service.tail_s) if service.judges_requests else workload
        #: What is compared with the service level's share, of the worst part of a content and of the whole.
        self._shares: dict[tuple[tuple[int, ...], int], tuple[float, float]] = {}
        self._drawn: tuple[tuple[int, ...], Requests] | None = None
        #: For each `max_loras` the made-up contents known to starve at it.
        self._starving: dict[int, list[MadeUp]] = {}
        #: For each (largest rank, `max_loras`) the sums of contents that starve beyond doubt at it.
        self._congesting: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
        self._congested_hint = 64

    # --- real contents

    def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether the GPU keeps the service level and has no memory error; simulated once, then remembered."""
        return self.share(adapters, max_loras) >= self.service.share

    def share(self, adapters: tuple[int, ...], max_loras: int) -> float:
        """What the service level compares with its share; below 0 for a memory error, 1 where nothing is offered.

        Throughput over offered throughput under the published rule, otherwise the least goodput among the GPU and its adapters.
        """
        return self.both_shares(adapters, max_loras)[0]

    def both_shares(self, adapters: tuple[int, ...], max_loras: int) -> tuple[float, float]:
        """`share`, and the same of the GPU as a whole, which chance moves less."""
        key = (adapters, max_loras)
        if key not in self._shares:
            self.calls += 1
            result = self._simulate(adapters, max_loras, self.workload.duration_s)
            whole = _share(result)
            worst = whole if result.judgement is None or result.memory_error else result.judgement.worst
            self._shares[key] = worst, whole
        return self._shares[key]

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
        return _drains(self._simulate(adapters, max_loras, self._longer_s))

    def starves(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:
        """Whether the content misses the threshold by the margin at every `max_loras`, and is not cut off.

        It is no less beyond doubt if it misses the threshold by more, and missed it as well when the window was shorter.
        """
        worst = self.service.share - self.margin
        best, best_slots = -1.0, 0
        for value in nearest_first(self.slots(adapters), hint or min(len(adapters), 64)):
            share = self.both_shares(adapters, value)[1]
            if share >= worst:
                return False
            if share > best:
                best, best_slots = share, value
        if best < 0:
            return True
        if self.service.judges_requests:
            content = np.asarray(adapters)
            requests = self._source.requests_of(content)
            return self._falls_short(best, requests, self.workload.ranks[content], best_slots)

        def simulate(duration_s: float) -> GpuResult:
            return self._simulate(adapters, best_slots, duration_s)

        if best < self.service.share - CONGESTED_MARGIN and self._is_congested(simulate):
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
        best, best_slots = -1.0, 0
        asked = []
        for value in nearest_first(self.slots_for(len(adapters), rank), self._congested_hint):
            known = self._congesting.setdefault((rank, value), [])
            if known and (np.array(known) <= sums).all(axis=1).any():
                continue
            share = _share(self._simulate_ranks(requests, ranks, value))
            if share >= self.service.share - self.margin:
                self._congested_hint = value
                return False
            asked.append(value)
            if share > best:
                best, best_slots = share, value
        if best >= 0 and not self._falls_short(best, requests, ranks, best_slots):
            self._congested_hint = best_slots
            return False
        for value in asked:
            self._congesting[rank, value].append(sums)
        return True

    def _falls_short(self, share: float, requests: Requests, ranks: NDArray[np.int64], max_loras: int) -> bool:
        """Whether a shortfall is more than chance: `SIGMAS` times what it varies by when each adapter's requests move in time."""
        shares = [share]
        for turn in range(TURNS):
            turned = _turned(requests, turn, len(ranks), self._source.duration_s)
            result = self._simulate_ranks(turned, ranks, max_loras)
            shares.append(_share(result))
            if _missed(result) < LEAST_UNFINISHED or shares[-1] >= self.service.share - self.margin:
                return False
        deviation = max(float(np.std(shares, ddof=1)), LEAST_DEVIATION)
        return float(np.mean(shares)) + SIGMAS * deviation < self.service.share

    def _simulate_ranks(self, requests: Requests, ranks: NDArray[np.int64], max_loras: int) -> GpuResult:
        self.calls += 1
        return self._asked(requests, ranks, max_loras, self.workload.duration_s)

    def _asked(self, requests: Requests, ranks: NDArray[np.int64], max_loras: int, duration_s: float) -> GpuResult:
        if self.deadline is not None:
            self.deadline.check()
        return simulate_requests(
            requests, ranks, self.profile, max_loras, duration_s=duration_s, service=self.service, latencies=False
        )

    def _is_congested(self, simulate: Callable[[float], GpuResult]) -> bool:
        """Whether as much was left undone before the window's end as at it, by many requests both times.

        Chance is small then: a burst at the end, which other adapters beside it would make up for, is seen at the end only.
        """
        window_s = self.workload.duration_s
        at_end, earlier = simulate(window_s), simulate(EARLIER * window_s)
        left = min(at_end.arrived - at_end.finished, earlier.arrived - earlier.finished)
        return left >= LEAST_UNFINISHED and _share(earlier) < STARVATION_SHARE

    @property
    def _longer_s(self) -> float:
        """A window in which a GPU at 90 % of the offered throughput catches up, and any single request ends."""
        window_s = self.workload.duration_s
        return max(window_s / STARVATION_SHARE, window_s + 60.0)

    def _simulate(self, adapters: tuple[int, ...], max_loras: int, duration_s: float) -> GpuResult:
        if self._drawn is None or self._drawn[0] != adapters:
            # A content is asked about at several `max_loras` in a row.
            self._drawn = (adapters, self._source.requests_of(np.asarray(adapters)))
        requests = self._drawn[1]
        if not self.service.judges_requests:
            requests = _until(requests, duration_s)
        return self._asked(requests, self.workload.ranks[list(adapters)], max_loras, duration_s)

    # --- what bounds rest on

    def demands(self, types: AdapterTypes) -> Demands:
        """Adapters of each rank or above, offered tokens per second, expected active adapters.

        Load and activity come from the requests that are replayed, averaged over the members of a type.
        """
        mean = np.array([self.asks[members].mean(axis=0) for members in types.members])
        above = presence(types.ranks)
        return Demands(np.vstack([above, mean.reshape(len(types), -1).T]), len(above))

    @cached_property
    def asks(self) -> NDArray[np.float64]:
        """What each adapter asks for, shape (n_adapters, n): offered tokens per second, and its activity at each time in service."""
        requests, count, window_s = self.workload.requests, self.workload.n_adapters, self.workload.duration_s
        return np.column_stack([self.loads, _activity(requests, count, self._service_times_s, window_s).T])

    @cached_property
    def loads(self) -> NDArray[np.float64]:
        """Offered tokens per second of each adapter, by the requests that are replayed, shape (n_adapters,)."""
        requests = self.workload.requests
        return np.bincount(requests.adapter, _tokens(requests), self.workload.n_adapters) / self.workload.duration_s

    def made_up_sums(self, content: MadeUp) -> NDArray[np.float64]:
        """As `Oracle.made_up_sums`, of the requests that `made_up_starves` replays."""
        window_s = self.workload.duration_s
        kept = _until(self._thinned(content), window_s)
        above = (np.unique(self.workload.ranks)[1:] <= content.rank).astype(np.float64)
        active = _activity(kept, content.n_adapters, self._service_times_s, window_s).sum(axis=1)
        return np.concatenate([above, [_tokens(kept).sum() / window_s], active])

    def made_up_starves(self, content: MadeUp) -> bool:
        """Simulates the workload's own requests, thinned to the load and dealt at random to the adapters.

        What asks for more than a made-up content that is known to starve at a `max_loras` is not simulated at it again.
        """
        slots = nearest_first(self.slots_for(content.n_adapters, content.rank), min(content.n_adapters, 64))
        return all(self._made_up_starves_at(content, max_loras) for max_loras in slots)

    def _made_up_starves_at(self, content: MadeUp, max_loras: int) -> bool:
        known = self._starving.setdefault(max_loras, [])
        if any(
            content.n_adapters >= other.n_adapters and content.rank >= other.rank and content.load >= other.load
            for other in known
        ):
            return True
        missing = self.service.share - self.margin - self._made_up_share(content, max_loras)
        if missing <= 0 or self._made_up_drains(content, max_loras):
            return False
        lighter = replace(content, load=MUCH_LESS * content.load)
        if missing > HOPELESS and (
            self._made_up_share(lighter, max_loras) < self.service.share - self.margin
            and not self._made_up_drains(lighter, max_loras)
        ):
            known.append(lighter)
        else:
            known.append(content)
        return True

    def _made_up_share(self, content: MadeUp, max_loras: int) -> float:
        self.calls += 1
        return _share(self._simulate_made_up(content, max_loras, self.workload.duration_s))

    def _made_up_drains(self, content: MadeUp, max_loras: int) -> bool:
        if self.service.judges_requests:
            return False
        return _drains(self._simulate_made_up(content, max_loras, self._longer_s))

    def _simulate_made_up(self, content: MadeUp, max_loras: int, duration_s: float) -> GpuResult:
        ranks = np.full(content.n_adapters, self.workload.ranks.min())
        ranks[0] = content.rank
        return self._asked(self._thinned(content), ranks, max_loras, duration_s)

    @cached_property
    def _draws(self) -> NDArray[np.float64]:
        """For each request a draw that thins and one that deals, shape (2, n_requests)."""
        generator = np.random.Generator(np.random.PCG64(self.workload.seed))
        return generator.random((2, len(self._source.requests)))

    @cached_property
    def _service_times_s(self) -> NDArray[np.float64]:
        """Times in service at which the activity of contents is compared, from Little's law on an overloaded GPU."""
        total = float(_tokens(self.workload.requests).sum()) / self.workload.duration_s
        rank = int(self.workload.ranks.min())
        # Doubled until half of it is not served: simulating all of a large fleet's load on one GPU takes long.
        load = total / 2.0 ** math.ceil(math.log2(max(1.0, total / FIRST_LOAD_TOKENS_PER_S)))
        while True:
            result = self._simulate_made_up(MadeUp(8, rank, load), 8, self.workload.duration_s)
            if load > total or not load or _served(result) < HALF:
                break
            load *= 2.0
        rate = result.finished / max(result.busy_s, 1e-9)
        return SERVICE_TIMES * (result.mean_running / rate if rate else 10.0)

    def _thinned(self, content: MadeUp) -> Requests:
        requests = self._source.requests
        total = _tokens(self.workload.requests).sum() / self.workload.duration_s
        rows = np.flatnonzero(self._draws[0] < (content.load / total if total else 0.0))
        return replace(requests.take(rows), adapter=(self._draws[1, rows] * content.n_adapters).astype(np.int64))


def _activity(
    requests: Requests, n_adapters: int, times_s: NDArray[np.float64], window_s: float
) -> NDArray[np.float64]:
    """Share of the window in which an adapter has a request in service, if each takes a given time; shape (n_times, n_adapters).

    For Poisson requests it is 1 - exp(-rate * time) (`solvers.contents.demands`); requests that come in bursts keep an adapter
    active for less of the time, and leave its slot to others.
    """
    order = np.lexsort((requests.arrival_s, requests.adapter))
    adapter, arrival_s = requests.adapter[order], requests.arrival_s[order]
    until_s = np.full(len(order), window_s)
    same = adapter[1:] == adapter[:-1]
    until_s[:-1][same] = arrival_s[1:][same]
    gap_s = np.maximum(until_s - arrival_s, 0.0)
    return np.array([np.bincount(adapter, np.minimum(gap_s, time_s), n_adapters) for time_s in times_s]) / window_s


def _turned(requests: Requests, turn: int, n_adapters: int, window_s: float) -> Requests:
    """The same requests with each adapter's moved in time by a draw of its own; what leaves the window comes in at its start."""
    offset_s = np.random.default_rng(turn).uniform(0.0, window_s, n_adapters)
    arrival_s = (requests.arrival_s + offset_s[requests.adapter]) % window_s
    return replace(requests, arrival_s=arrival_s).take(np.argsort(arrival_s, kind="stable"))


def _until(requests: Requests, duration_s: float) -> Requests:
    """The requests that arrive before a time."""
    if not len(requests) or requests.arrival_s[-1] < duration_s:
        return requests
    return requests.take(np.flatnonzero(requests.arrival_s < duration_s))


def _drains(result: GpuResult) -> bool:
    """Whether all that arrived was served."""
    return not result.memory_error and result.finished == result.arrived


def _tokens(requests: Requests) -> NDArray[np.int64]:
    return requests.prompt_tokens + requests.requested_tokens


def _missed(result: GpuResult) -> int:
    """Requests that were not served as they should."""
    if result.judgement is None:
        return result.arrived - result.finished
    return int((result.judgement.judged - result.judgement.met).sum())


def _share(result: GpuResult) -> float:
    """What is compared with the service level's share, of the whole GPU; below 0 for a memory error."""
    if result.memory_error:
        return -1.0
    return _served(result) if result.judgement is None else result.judgement.goodput


def _served(result: GpuResult) -> float:
    return result.throughput / result.offered_throughput if result.offered_throughput else 1.0
