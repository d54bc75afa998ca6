"""The requests of a day, drawn once: each adapter's in order, and how many come in every tick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin import Requests, ServiceLevel, ServingProfile, UserError, Workload

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Requests that are drawn at once: putting them in order takes some 120 bytes for each.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Day:
    """What every controller meets.

    Attributes
    ----------
    workload : Workload
        Its window is the day.
    profile : ServingProfile
    service : ServiceLevel
        Judges single requests, and all of the day: there is no warm-up.
    starts : array of shape (n_adapters + 1,)
        The requests of adapter i are those from starts[i] to starts[i + 1].
    arrival_s : array of shape (n_requests,)
        Ascending for each adapter; they go on after the day for the tail of the service level.
    tokens : array of shape (3, n_requests), int32
        Prompt, output and requested tokens.
    """

    workload: Workload
    profile: ServingProfile
    service: ServiceLevel
    starts: Ints
    arrival_s: Floats
    tokens: NDArray[np.int32]

    @property
    def end_s(self) -> float:
        """When the last requests come."""
        return self.workload.duration_s + self.service.tail_s

    @property
    def requests(self) -> int:
        """Requests of the day itself."""
        return int(np.count_nonzero(self.arrival_s < self.workload.duration_s))

    def of(self, adapter: int, start_s: float, end_s: float) -> slice:
        """Places of the requests of an adapter in [start_s, end_s)."""
        first, last = self.starts[adapter], self.starts[adapter + 1]
        low, high = np.searchsorted(self.arrival_s[first:last], [start_s, end_s])
        return slice(int(first + low), int(first + high))

    def routing_draws(self, adapter: int) -> Floats:
        """For each request of an adapter, a draw that says which replica serves it."""
        count = self.starts[adapter + 1] - self.starts[adapter]
        return self.workload.routing_draws(np.array([adapter]), np.array([count]))

    def counts(self, tick_s: float) -> Ints:
        """Requests of each adapter in each tick of the day, shape (n_ticks, n_adapters)."""
        n_ticks = int(np.ceil(self.workload.duration_s / tick_s))
        found = np.empty((n_ticks, self.workload.n_adapters), dtype=np.int64)
        for adapter in range(self.workload.n_adapters):
            mine = self.of(adapter, 0.0, self.workload.duration_s)
            ticks = (self.arrival_s[mine] / tick_s).astype(np.int64)
            found[:, adapter] = np.bincount(ticks, minlength=n_ticks)[:n_ticks]
        return found


def day_of(workload: Workload, profile: ServingProfile, service: ServiceLevel) -> Day:
    """Draw a day.

    Parameters
    ----------
    workload : Workload
        Whose arrivals are drawn, not recorded.
    profile : ServingProfile
    service : ServiceLevel

    Raises
    ------
    UserError
        For a recorded trace, or a service level that judges no requests.
    """
    if workload.trace is not None:
        raise UserError(
            f"workload {workload.name}: a recorded trace cannot be served online; draw its arrivals instead"
        )
    if not service.judges_requests:
        raise UserError(f"service={service.name}: controllers need limits on latency, such as service=interactive")
    source = workload.lengthened(service.tail_s)
    counts, times, tokens = [], [], []
    for block in _blocks(source):
        drawn = source.requests_of(block)
        order = np.argsort(drawn.adapter.astype(np.int32), kind="stable")
        counts.append(np.bincount(drawn.adapter, minlength=len(block)))
        times.append(drawn.arrival_s[order])
        tokens.append(_tokens(drawn)[:, order])
    return Day(
        workload, profile, service,
        np.concatenate([[0], *counts]).cumsum(),
        np.concatenate([np.empty(0), *times]),
        np.concatenate([np.empty((3, 0), np.int32), *tokens], axis=1),
    )  # fmt: skip


def _blocks(workload: Workload) -> Iterator[Ints]:
    """Adapters in blocks whose requests are drawn at once."""
    expected = np.cumsum(workload.rates) * workload.duration_s
    block = (expected // _AT_ONCE).astype(np.int64)
    for number in np.unique(block):
        yield np.flatnonzero(block == number)


def _tokens(requests: Requests) -> NDArray[np.int32]:
    return np.array([requests.prompt_tokens, requests.output_tokens, requests.requested_tokens], dtype=np.int32)
