"""What a simulation says of a GPU, and changes of the requests that it is asked about."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from twin import GpuResult, Requests


def activity(requests: Requests, n_adapters: int, times_s: NDArray[np.float64], window_s: float) -> NDArray[np.float64]:
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


def turned(requests: Requests, turn: int, n_adapters: int, window_s: float) -> Requests:
    """The same requests with each adapter's moved in time by a draw of its own; what leaves the window comes in at its start."""
    offset_s = np.random.default_rng(turn).uniform(0.0, window_s, n_adapters)
    arrival_s = (requests.arrival_s + offset_s[requests.adapter]) % window_s
    return replace(requests, arrival_s=arrival_s).take(np.argsort(arrival_s, kind="stable"))


def until(requests: Requests, duration_s: float) -> Requests:
    """The requests that arrive before a time."""
    if not len(requests) or requests.arrival_s[-1] < duration_s:
        return requests
    return requests.take(np.flatnonzero(requests.arrival_s < duration_s))


def drains(result: GpuResult) -> bool:
    """Whether all that arrived was served."""
    return not result.memory_error and result.finished == result.arrived
