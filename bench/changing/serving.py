"""A day under a controller: its ticks, then every server simulated over all that it served."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.changing.day import Day
from bench.changing.timeline import OnlineServer, Stretch, Timeline
from solvers.controllers.base import Controller, Seen, Task
from twin import Requests, simulate_requests
from twin.merging import in_order

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MINUTE_S = 60.0


@dataclass(frozen=True)
class Served:
    """What came of a day.

    Attributes
    ----------
    judged, met : arrays of shape (n_adapters, n_minutes)
        Requests that arrived, and those of them that met every limit, by minute of arrival.
    paid : list of (float, float)
        From when to when each server is paid for, in seconds of the day.
    moves : int
        Loads of adapters onto servers where they were not, after the start.
    memory_errors : int
        Servers that would not start.
    deciding_cpu_s, simulating_cpu_s : float
        CPU time of the controller, and of the simulation.
    """

    judged: Ints
    met: Ints
    paid: list[tuple[float, float]]
    moves: int
    memory_errors: int
    deciding_cpu_s: float
    simulating_cpu_s: float

    @property
    def goodput(self) -> float:
        """Requests that met every limit over requests that arrived; 1 where none did."""
        return float(self.met.sum() / self.judged.sum()) if self.judged.sum() else 1.0

    def starved_minutes(self, share: float) -> int:
        """Minutes of an adapter in which fewer than `share` of its requests met every limit."""
        return int(np.count_nonzero(self.met < share * self.judged))

    @property
    def gpu_hours(self) -> float:
        """Paid for."""
        return sum(end - start for start, end in self.paid) / 3600


def decided(controller: Controller, task: Task, counts: Ints) -> Timeline:
    """Let a controller decide through a day.

    Parameters
    ----------
    controller : Controller
    task : Task
    counts : array of shape (n_ticks, n_adapters)
        Arrivals in each tick; the controller sees a tick's once it is over.
    """
    timeline = Timeline(task.workload, task.start_up_s, controller.name)
    fleet = controller.begin(task)
    timeline.ask(0.0, fleet, first=True)
    for tick in range(1, len(counts)):
        time_s = tick * task.tick_s
        timeline.settle(time_s)
        asked = controller.tick(Seen(time_s, counts[tick - 1].copy(), dict(fleet), timeline.starting(time_s)))
        if asked is not None:
            fleet = asked
            timeline.ask(time_s, fleet)
    return timeline


def served(controller: Controller, task: Task, day: Day, *, threads: int = 2) -> Served:
    """Decide and simulate a day.

    Parameters
    ----------
    controller : Controller
        A fresh one.
    task : Task
    day : Day
    threads : int
        Servers that are simulated at the same time.
    """
    begun = time.process_time()
    timeline = decided(controller, task, day.counts(task.tick_s))
    lives = [(server, stretches) for server, stretches in timeline.finished(day.end_s)]
    since = time.process_time()
    n_minutes = int(np.ceil(day.workload.duration_s / MINUTE_S))
    judged = np.zeros((day.workload.n_adapters, n_minutes), dtype=np.int64)
    met = np.zeros_like(judged)
    paid, memory_errors = [], 0
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for server, life in zip(
            lives, pool.map(lambda each: _lived(day, each[0], each[1], n_minutes), lives), strict=True
        ):
            judged[life.adapters] += life.judged
            met[life.adapters] += life.met
            memory_errors += life.memory_error
            # A server that is given back finishes what it has.
            end_s = min(max(server[0].stop_s, life.last_finish_s), day.workload.duration_s)
            paid.append((server[0].asked_s, end_s))
    return Served(judged, met, paid, timeline.moves, memory_errors, since - begun, time.process_time() - since)


@dataclass(frozen=True)
class _Life:
    """What came of one server; `judged` and `met` as in `Served`, of its adapters."""

    adapters: Ints
    judged: Ints
    met: Ints
    last_finish_s: float
    memory_error: bool


def _lived(day: Day, server: OnlineServer, stretches: list[Stretch], n_minutes: int) -> _Life:
    """Simulate one server over all that was ever routed to it."""
    adapters = np.array(list(dict.fromkeys(stretch.adapter for stretch in stretches)), dtype=np.int64)
    requests = _requests(day, stretches, adapters)
    shape = (len(adapters), n_minutes)
    if not len(requests):
        return _Life(adapters, np.zeros(shape, np.int64), np.zeros(shape, np.int64), 0.0, memory_error=False)
    duration_s = day.workload.duration_s
    result = simulate_requests(
        requests,
        day.workload.ranks[adapters],
        day.profile,
        server.max_loras,
        duration_s=day.service.horizon_s(requests, duration_s),
        max_lora_rank=server.max_lora_rank,
        latencies=False,
    )
    judged = day.service.judged(requests, duration_s)
    overhead_s = day.profile.request_overhead_ms / 1000
    met = day.service.met(requests, result.first_token_s, result.finish_s, overhead_s)[judged]
    cell = requests.adapter[judged] * n_minutes + (requests.arrival_s[judged] / MINUTE_S).astype(np.int64)
    return _Life(
        adapters,
        np.bincount(cell, minlength=len(adapters) * n_minutes).reshape(shape),
        np.bincount(cell[met], minlength=len(adapters) * n_minutes).reshape(shape),
        float(np.nanmax(result.finish_s, initial=0.0)),
        result.memory_error,
    )


def _requests(day: Day, stretches: list[Stretch], adapters: Ints) -> Requests:
    """The requests that go to one server, in order of arrival."""
    place_of = {adapter: place for place, adapter in enumerate(adapters.tolist())}
    rows, places = [], []
    draws_of: dict[int, Floats] = {}
    for stretch in stretches:
        mine = day.of(stretch.adapter, stretch.start_s, stretch.end_s)
        found = np.arange(mine.start, mine.stop)
        if (stretch.low, stretch.high) != (0.0, 1.0):
            if stretch.adapter not in draws_of:
                draws_of[stretch.adapter] = day.routing_draws(stretch.adapter)
            draws = draws_of[stretch.adapter][found - day.starts[stretch.adapter]]
            found = found[(stretch.low <= draws) & (draws < stretch.high)]
        rows.append(found)
        places.append(np.full(len(found), place_of[stretch.adapter]))
    row = np.concatenate([np.empty(0, np.int64), *rows])
    place = np.concatenate([np.empty(0, np.int64), *places])
    order = in_order(day.arrival_s[row], np.asarray(day.workload.ids)[adapters][place])
    row, place = row[order], place[order]
    prompt, output, requested = (tokens[row].astype(np.int64) for tokens in day.tokens)
    shared = day.workload.shared_prompt_tokens
    return Requests(day.arrival_s[row], place, prompt, output, requested).sharing(
        None if shared is None else shared[adapters]
    )
