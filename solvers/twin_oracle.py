"""The digital twin as an oracle: milliseconds a content, and what it accepts is feasible when scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from solvers.adapter_types import AdapterTypes
from solvers.demands import SERVICE_TIMES_S, Demands, expected_active, presence
from solvers.oracle import MadeUp, Oracle, nearest_first
from twin import GpuResult, Requests, ServingProfile, Workload, simulate_requests
from twin.simulate import STARVATION_SHARE


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
        requests = workload.requests
        self._rows = np.argsort(requests.adapter, kind="stable")
        self._starts = np.searchsorted(requests.adapter[self._rows], np.arange(workload.n_adapters + 1))
        self._shares: dict[tuple[tuple[int, ...], int], float] = {}
        self._thinning, self._dealing = np.random.Generator(np.random.PCG64(workload.seed)).random((2, len(requests)))

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
        parts = [self._rows[self._starts[a] : self._starts[a + 1]] for a in adapters]
        mine = self.workload.requests.take(np.sort(np.concatenate(parts)))
        local = np.searchsorted(np.asarray(adapters), mine.adapter)
        return simulate_requests(
            replace(mine, adapter=local),
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
        return Demands(np.vstack([above, load, expected_active(rate, SERVICE_TIMES_S)]), len(above))

    def made_up_sums(self, content: MadeUp) -> NDArray[np.float64]:
        """As `Oracle.made_up_sums`, of the requests that `made_up_starves` replays."""
        kept = self._thinned(content)
        window_s = self.workload.duration_s
        above = (np.unique(self.workload.ranks)[1:] <= content.rank).astype(np.float64)
        rate = np.array([len(kept) / window_s / content.n_adapters])
        active = content.n_adapters * expected_active(rate, SERVICE_TIMES_S)[:, 0]
        return np.concatenate([above, [_tokens(kept).sum() / window_s], active])

    def made_up_starves(self, content: MadeUp) -> bool:
        """Simulates the workload's own requests, thinned to the load and dealt at random to the adapters."""
        kept = self._thinned(content)
        ranks = np.full(content.n_adapters, self.workload.ranks.min())
        ranks[0] = content.rank
        worst = STARVATION_SHARE - self.margin
        slots = nearest_first(self.slots_for(content.n_adapters, content.rank), min(content.n_adapters, 64))
        for max_loras in slots:
            self.calls += 1
            result = simulate_requests(kept, ranks, self.profile, max_loras, duration_s=self.workload.duration_s)
            if _share(result) >= worst:
                return False
        if not slots:
            return True
        drained = simulate_requests(kept, ranks, self.profile, slots[0], duration_s=self._longer_s)
        return drained.finished < drained.arrived

    def _thinned(self, content: MadeUp) -> Requests:
        requests = self.workload.requests
        total = _tokens(requests).sum() / self.workload.duration_s
        rows = np.flatnonzero(self._thinning < content.load / total)
        return replace(
            requests.take(rows), adapter=(self._dealing[rows] * content.n_adapters).astype(np.int64)
        )


def _tokens(requests: Requests) -> NDArray[np.int64]:
    return requests.prompt_tokens + requests.requested_tokens


def _share(result: GpuResult) -> float:
    if result.memory_error:
        return -1.0
    return result.throughput / result.offered_throughput if result.offered_throughput else 1.0
