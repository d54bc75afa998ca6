"""The digital twin as an oracle: milliseconds a content, and what it accepts is feasible when scored."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from solvers.adapter_types import AdapterTypes
from solvers.demands import Demands, expected_active, presence
from solvers.oracle import MadeUp, Oracle, nearest_first
from twin import GpuResult, Requests, ServingProfile, Workload, simulate_requests
from twin.simulate import STARVATION_SHARE

#: Contents are compared by the adapters active in these multiples of the mean time in service on an overloaded GPU; the
#: times on GPUs near their limit scatter around it (tests/solvers/test_demands.py).
SERVICE_TIMES = np.array([0.5, 1.0, 2.0])
#: A GPU this far below the threshold is hopeless: whether with much less load as well is then worth a question.
HOPELESS = 0.1
#: Offered load at which the search for an overloaded GPU starts, and the share of it that such a GPU serves at most.
FIRST_LOAD_TOKENS_PER_S, HALF = 1000.0, 0.5


class TwinOracle(Oracle):
    """The twin with the workload's own requests and window, the ones that placements are scored with.

    Parameters
    ----------
    workload, profile : Workload, ServingProfile
    margin : float
        A content starves beyond doubt (`starves`) when its throughput misses the threshold by this share of the
        offered throughput. The twin is monotone up to the chance of single requests; the margin is for that chance.
    """

    name = "twin"
    interchangeable = False
    monotone = False

    def __init__(self, workload: Workload, profile: ServingProfile, *, margin: float = 0.01) -> None:
        super().__init__(workload, profile)
        self.margin = margin
        self._shares: dict[tuple[tuple[int, ...], int], float] = {}
        self._drawn: tuple[tuple[int, ...], Requests] | None = None
        #: For each `max_loras` the made-up contents known to starve at it.
        self._starving: dict[int, list[MadeUp]] = {}

    # --- real contents

    def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether the GPU neither starves nor has a memory error; simulated once, then remembered."""
        return self.share(adapters, max_loras) >= STARVATION_SHARE

    def share(self, adapters: tuple[int, ...], max_loras: int) -> float:
        """Throughput over offered throughput; below 0 for a memory error, 1 where nothing is offered."""
        key = (adapters, max_loras)
        if key not in self._shares:
            self.calls += 1
            self._shares[key] = _share(self._simulate(adapters, max_loras, self.workload.duration_s))
        return self._shares[key]

    def is_cut_off(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:
        """Whether everything a rejected content is asked would be served a little later.

        A short window cuts off the requests that arrive near its end; with few requests that alone
        makes a lone adapter fall short, and more adapters beside it can mend it. So the same requests
        are simulated on past the window (`_longer_s`).
        """
        candidates = self.slots(adapters)
        if not candidates:
            return False
        max_loras = nearest_first(candidates, hint or min(len(adapters), 64))[0]
        result = self._simulate(adapters, max_loras, self._longer_s)
        return not result.memory_error and result.finished == result.arrived

    def starves(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:
        """Whether the content misses the threshold by the margin at every `max_loras`, and is not cut off."""
        worst = STARVATION_SHARE - self.margin
        candidates = nearest_first(self.slots(adapters), hint or min(len(adapters), 64))
        if any(self.share(adapters, value) >= worst for value in candidates):
            return False
        return not self.is_cut_off(adapters, hint)

    @property
    def _longer_s(self) -> float:
        """A window in which a GPU at 90 % of the offered throughput catches up, and any single request ends."""
        window_s = self.workload.duration_s
        return max(window_s / STARVATION_SHARE, window_s + 60.0)

    def _simulate(self, adapters: tuple[int, ...], max_loras: int, duration_s: float) -> GpuResult:
        if self._drawn is None or self._drawn[0] != adapters:
            # A content is asked about at several `max_loras` in a row.
            self._drawn = (adapters, self.workload.requests_of(np.asarray(adapters)))
        return simulate_requests(
            self._drawn[1],
            self.workload.ranks[list(adapters)],
            self.profile,
            max_loras,
            duration_s=duration_s,
        )

    # --- what bounds rest on

    def demands(self, types: AdapterTypes) -> Demands:
        """Adapters of each rank or above, offered tokens per second, expected active adapters.

        Load and activity come from the requests that are replayed, averaged over the members of a type.
        """
        requests, count = self.workload.requests, self.workload.n_adapters
        tokens = np.bincount(requests.adapter, _tokens(requests), count)
        rates = np.bincount(requests.adapter, minlength=count) / self.workload.duration_s
        load = np.array([tokens[members].mean() for members in types.members]) / self.workload.duration_s
        rate = np.array([rates[members].mean() for members in types.members])
        above = presence(types.ranks)
        return Demands(np.vstack([above, load, expected_active(rate, self._service_times_s)]), len(above))

    def made_up_sums(self, content: MadeUp) -> NDArray[np.float64]:
        """As `Oracle.made_up_sums`, of the requests that `made_up_starves` replays."""
        kept = self._thinned(content)
        window_s = self.workload.duration_s
        above = (np.unique(self.workload.ranks)[1:] <= content.rank).astype(np.float64)
        rate = np.array([len(kept) / window_s / content.n_adapters])
        active = content.n_adapters * expected_active(rate, self._service_times_s)[:, 0]
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
        missing = STARVATION_SHARE - self.margin - self._made_up_share(content, max_loras)
        if missing <= 0 or self._made_up_drains(content, max_loras):
            return False
        lighter = replace(content, load=0.6 * content.load)
        if missing > HOPELESS and (
            self._made_up_share(lighter, max_loras) < STARVATION_SHARE - self.margin
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
        result = self._simulate_made_up(content, max_loras, self._longer_s)
        return not result.memory_error and result.finished == result.arrived

    def _simulate_made_up(self, content: MadeUp, max_loras: int, duration_s: float) -> GpuResult:
        ranks = np.full(content.n_adapters, self.workload.ranks.min())
        ranks[0] = content.rank
        return simulate_requests(self._thinned(content), ranks, self.profile, max_loras, duration_s=duration_s)

    @cached_property
    def _draws(self) -> NDArray[np.float64]:
        """For each request a draw that thins and one that deals, shape (2, n_requests)."""
        generator = np.random.Generator(np.random.PCG64(self.workload.seed))
        return generator.random((2, len(self.workload.requests)))

    @cached_property
    def _service_times_s(self) -> NDArray[np.float64]:
        """Times in service at which the activity of contents is compared, from Little's law on an overloaded GPU."""
        total = float(_tokens(self.workload.requests).sum()) / self.workload.duration_s
        rank = int(self.workload.ranks.min())
        # Doubled until half of it is not served: simulating all of a large fleet's load on one GPU takes long.
        load = total / 2.0 ** math.ceil(math.log2(max(1.0, total / FIRST_LOAD_TOKENS_PER_S)))
        while True:
            result = self._simulate_made_up(MadeUp(8, rank, load), 8, self.workload.duration_s)
            if load > total or not load or _share(result) < HALF:
                break
            load *= 2.0
        rate = result.finished / max(result.busy_s, 1e-9)
        return SERVICE_TIMES * (result.mean_running / rate if rate else 10.0)

    def _thinned(self, content: MadeUp) -> Requests:
        requests = self.workload.requests
        total = _tokens(requests).sum() / self.workload.duration_s
        rows = np.flatnonzero(self._draws[0] < (content.load / total if total else 0.0))
        return replace(requests.take(rows), adapter=(self._draws[1, rows] * content.n_adapters).astype(np.int64))


def _tokens(requests: Requests) -> NDArray[np.int64]:
    return requests.prompt_tokens + requests.requested_tokens


def _share(result: GpuResult) -> float:
    if result.memory_error:
        return -1.0
    return result.throughput / result.offered_throughput if result.offered_throughput else 1.0
