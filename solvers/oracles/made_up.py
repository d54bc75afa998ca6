"""What bounds ask of the twin: contents made up of the workload's own requests, and what adapters ask for."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from solvers.contents.adapter_types import AdapterTypes
from solvers.contents.demands import Demands, presence
from solvers.oracles.base import MadeUp, Oracle
from solvers.oracles.grounds import Grounds
from solvers.oracles.served import activity, drains, until
from solvers.oracles.spans import SlotSpan, costs_grow, octaves, shortfall, singles
from twin import GpuResult, Requests, ServingProfile, Workload, simulate_requests
from twin.service import PUBLISHED, STARVATION_SHARE, ServiceLevel
from twin.shares import asked_tokens, others_make_up, served_share, whole_share

#: Contents are compared by the adapters active in these multiples of the mean time in service on an overloaded GPU; the
#: times on GPUs near their limit scatter around it. Three
#: times are by hand: more make tighter comparisons, and zones that take longer.
SERVICE_TIMES = np.array([0.5, 1.0, 2.0])
#: A GPU this far below the threshold is hopeless: whether with so much less load as well is then worth a question. By hand:
#: a lighter content that is known to starve saves questions, one that does not costs two simulations.
HOPELESS, MUCH_LESS = 0.1, 0.6
#: Offered load at which the search for an overloaded GPU starts, and the share of it that such a GPU serves at most. By hand: a
#: low start costs a few short simulations, and at a half the queue never empties.
FIRST_LOAD_TOKENS_PER_S, HALF = 1000.0, 0.5


class MadeUpContents(Oracle):
    """The twin's side of made-up contents (`solvers.contents.demands`); real ones are those of `solvers.oracles.twin`.

    Parameters
    ----------
    workload, profile, service, margin
        As of `solvers.oracles.twin.TwinOracle`.
    """

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
        self._made_up_shares: dict[tuple[MadeUp, SlotSpan], float] = {}
        #: What bounds rest on, for a certificate.
        self.grounds = Grounds()
        #: For each span the made-up contents known to starve on its server.
        self._starving: dict[SlotSpan, list[MadeUp]] = {}
        #: For each largest rank whether spans stand for their values.
        self._by_span: dict[int, bool] = {}

    def _asked(self, requests: Requests, ranks: NDArray[np.int64], span: SlotSpan, duration_s: float) -> GpuResult:
        if self.deadline is not None:
            self.deadline.check()
        return simulate_requests(
            requests, ranks, self.profile, span.low, slots=span.high, duration_s=duration_s, service=self.service,
            latencies=False,
        )  # fmt: skip

    def _most_slots(self, count: int, rank: int) -> int:
        """The largest `max_loras` that is of use to so many adapters, and starts beside a rank."""
        return min(count, self.profile.largest_max_loras(rank))

    def _spans_for(self, count: int, rank: int) -> list[SlotSpan]:
        """Spans of all values of `max_loras` that a content of so many adapters and this largest rank can have."""
        most = self._most_slots(count, rank)
        if rank not in self._by_span:
            self._by_span[rank] = costs_grow(self.profile, rank)
        return octaves(most, self.profile.largest_max_loras(rank)) if self._by_span[rank] else singles(most)

    @property
    def _longer_s(self) -> float:
        """A window in which a GPU at 90 % of the offered throughput catches up, and any single request ends."""
        window_s = self.workload.duration_s
        return max(window_s / STARVATION_SHARE, window_s + 60.0)

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
        return np.column_stack([self.loads, activity(requests, count, self._service_times_s, window_s).T])

    @property
    def service_times_s(self) -> NDArray[np.float64]:
        """Times in service at which activity is compared."""
        return self._service_times_s

    @cached_property
    def loads(self) -> NDArray[np.float64]:
        """Offered tokens per second of each adapter, by the requests that are replayed, shape (n_adapters,)."""
        requests = self.workload.requests
        return (
            np.bincount(requests.adapter, asked_tokens(requests), self.workload.n_adapters) / self.workload.duration_s
        )

    def made_up_sums(self, content: MadeUp) -> NDArray[np.float64]:
        """As `Oracle.made_up_sums`, of the requests that `made_up_starves` replays."""
        window_s = self.workload.duration_s
        kept = until(self._thinned(content), window_s)
        above = (np.unique(self.workload.ranks)[1:] <= content.rank).astype(np.float64)
        active = activity(kept, content.n_adapters, self._service_times_s, window_s).sum(axis=1)
        return np.concatenate([above, [asked_tokens(kept).sum() / window_s], active])

    def made_up_starves(self, content: MadeUp) -> bool:
        """Simulates the workload's own requests, thinned to the load and dealt at random to the adapters.

        What asks for more than a made-up content that is known to starve on a span's server is not simulated on it again.
        """

        def ask(span: SlotSpan) -> float | None:
            if self._is_known(content, span):
                return None
            # What drains is not beyond doubt, whatever the window's end leaves of it.
            share = self._made_up_share(content, span)
            return 1.0 if share < least and self._made_up_drains(content, span) else share

        if self.profile.prefix_caching and self._source.requests.shared_tokens is not None:
            # Requests dealt to other adapters share no prompts; what they would be spared is not known.
            return False
        least = self.service.share - self.margin
        count, rank = content.n_adapters, content.rank
        spans, most = self._spans_for(count, rank), self._most_slots(count, rank)
        found = shortfall(ask, spans, least, min(count, 64), most=most)
        if found is None:
            return False
        self.grounds.made_up(content, found.asked, most)
        for span in found.asked:
            lightest = self._lightest(content, span)
            self._starving.setdefault(span, []).append(lightest)
            self.grounds.made_up(lightest, [span], most)
        return True

    def _is_known(self, content: MadeUp, span: SlotSpan) -> bool:
        """Whether a content asks for as much as one that starves on the server of a span, or of one that holds it."""
        return any(
            content.n_adapters >= other.n_adapters and content.rank >= other.rank and content.load >= other.load
            for holding, others in self._starving.items()
            if holding.holds(span)
            for other in others
        )

    def _lightest(self, content: MadeUp, span: SlotSpan) -> MadeUp:
        """A content that starves on a span's server, or a much lighter one that does as well."""
        least = self.service.share - self.margin
        if self._made_up_share(content, span) >= least - HOPELESS:
            return content
        lighter = replace(content, load=MUCH_LESS * content.load)
        starves = self._made_up_share(lighter, span) < least and not self._made_up_drains(lighter, span)
        return lighter if starves else content

    def _made_up_share(self, content: MadeUp, span: SlotSpan) -> float:
        key = (content, span)
        if key not in self._made_up_shares:
            self.calls += 1
            self._made_up_shares[key] = whole_share(
                self._simulate_made_up(content, span, self.workload.duration_s), self._beside
            )
        return self._made_up_shares[key]

    def _made_up_drains(self, content: MadeUp, span: SlotSpan) -> bool:
        if self.service.judges_requests:
            return False
        return drains(self._simulate_made_up(content, span, self._longer_s))

    def _simulate_made_up(self, content: MadeUp, span: SlotSpan, duration_s: float) -> GpuResult:
        ranks = np.full(content.n_adapters, self.workload.ranks.min())
        ranks[0] = content.rank
        return self._asked(self._thinned(content), ranks, span, duration_s)

    @cached_property
    def _beside(self) -> int:
        return len(self._source.requests) if others_make_up(self.workload, self.service) else 0

    @cached_property
    def _draws(self) -> NDArray[np.float64]:
        """For each request a draw that thins and one that deals, shape (2, n_requests)."""
        generator = np.random.Generator(np.random.PCG64(self.workload.seed))
        return generator.random((2, len(self._source.requests)))

    @cached_property
    def _service_times_s(self) -> NDArray[np.float64]:
        """Times in service at which the activity of contents is compared, from Little's law on an overloaded GPU."""
        total = float(asked_tokens(self.workload.requests).sum()) / self.workload.duration_s
        rank = int(self.workload.ranks.min())
        # Doubled until half of it is not served: simulating all of a large fleet's load on one GPU takes long.
        load = total / 2.0 ** math.ceil(math.log2(max(1.0, total / FIRST_LOAD_TOKENS_PER_S)))
        while True:
            result = self._simulate_made_up(MadeUp(8, rank, load), SlotSpan(8, 8), self.workload.duration_s)
            if load > total or not load or served_share(result) < HALF:
                break
            load *= 2.0
        rate = result.finished / max(result.busy_s, 1e-9)
        return SERVICE_TIMES * (result.mean_running / rate if rate else 10.0)

    def _thinned(self, content: MadeUp) -> Requests:
        requests = self._source.requests
        total = asked_tokens(self.workload.requests).sum() / self.workload.duration_s
        rows = np.flatnonzero(self._draws[0] < (content.load / total if total else 0.0))
        dealt = (self._draws[1, rows] * content.n_adapters).astype(np.int64)
        return replace(requests.take(rows), adapter=dealt, shared_tokens=None)
