"""Servers and routes: what becomes of the placements that a controller asks for, one after the other.

A GPU that is asked for begins to cost at once and serves after its start-up. A server keeps its `max_loras` and the largest rank that it
started with; a placement that asks for others under the same number starts a new one, and the old one goes when nobody is routed to
it any more. An adapter is routed as the newest placement says as soon as all its homes in it serve; until then it stays where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from solvers.controllers.base import Fleet
from twin import Placement, UserError, Workload

Floats = NDArray[np.float64]

#: (server, low, high): requests of an adapter with routing draws in [low, high) go to the server.
Home = tuple[int, float, float]


@dataclass
class OnlineServer:
    """One server process on a GPU.

    Attributes
    ----------
    number : int
        What the controller calls the GPU.
    max_loras, max_lora_rank : int
        Fixed while it runs.
    asked_s, ready_s, stop_s : float
        Paid from the first to the last, serving from the second.
    """

    number: int
    max_loras: int
    max_lora_rank: int
    asked_s: float
    ready_s: float
    stop_s: float = float("inf")


@dataclass(frozen=True)
class Stretch:
    """An adapter on a server for some time: requests in [start_s, end_s) with routing draws in [low, high)."""

    adapter: int
    start_s: float
    end_s: float
    low: float
    high: float


@dataclass
class _Route:
    """Where an adapter goes now, since when, and where it will go once those serve."""

    since_s: float
    homes: tuple[Home, ...]
    at_s: float = float("inf")
    next_homes: tuple[Home, ...] = ()

    @property
    def wished(self) -> tuple[Home, ...]:
        return self.next_homes or self.homes

    @property
    def servers(self) -> set[int]:
        return {home[0] for home in (*self.homes, *self.next_homes)}


@dataclass
class Timeline:
    """The servers and routes of a day.

    Parameters
    ----------
    workload : Workload
    start_up_s : float
    name : str
        Of the controller, for messages.

    Attributes
    ----------
    servers : list of OnlineServer
    moves : int
        Loads of adapters onto servers where they were not, after the start.
    """

    workload: Workload
    start_up_s: float
    name: str
    servers: list[OnlineServer] = field(default_factory=list)
    moves: int = 0
    _serving: dict[int, int] = field(default_factory=dict)
    _routes: dict[int, _Route] = field(default_factory=dict)
    _stretches: dict[int, list[Stretch]] = field(default_factory=dict)

    def ask(self, time_s: float, fleet: Fleet, *, first: bool = False) -> None:
        """A placement from a controller.

        Raises
        ------
        UserError
            For one that does not place every adapter.
        """
        self._check(fleet)
        self.settle(time_s)
        ready_s = time_s if first else time_s + self.start_up_s
        for number, plan in fleet.items():
            rank = int(self.workload.ranks[list(plan.adapters)].max())
            standing = self.servers[self._serving[number]] if number in self._serving else None
            if standing and standing.max_loras == plan.max_loras and rank <= standing.max_lora_rank:
                continue
            self._serving[number] = len(self.servers)
            self.servers.append(OnlineServer(number, plan.max_loras, rank, time_s, ready_s))
        self._serving = {number: server for number, server in self._serving.items() if number in fleet}
        for adapter, homes in self._homes(fleet).items():
            self._reroute(adapter, homes, time_s)
        self._stop_unused(time_s)

    def _check(self, fleet: Fleet) -> None:
        try:
            Placement(tuple(fleet.values())).check(self.workload)
        except ValueError as error:
            raise UserError(f"controller {self.name}: {error}") from None

    def _homes(self, fleet: Fleet) -> dict[int, tuple[Home, ...]]:
        intervals = Placement(tuple(fleet.values())).routing_intervals(self.workload.n_adapters)
        found: dict[int, list[Home]] = {}
        for (number, plan), parts in zip(fleet.items(), intervals, strict=True):
            server = self._serving[number]
            for place, adapter in enumerate(plan.adapters):
                low, high = (0.0, 1.0) if parts is None else (float(parts[place, 0]), float(parts[place, 1]))
                found.setdefault(adapter, []).append((server, low, high))
        return {adapter: tuple(homes) for adapter, homes in found.items()}

    def _reroute(self, adapter: int, homes: tuple[Home, ...], time_s: float) -> None:
        route = self._routes.get(adapter)
        if route is None:
            self._routes[adapter] = _Route(time_s, homes)
        elif route.wished != homes:
            at_s = max(time_s, *(self.servers[home[0]].ready_s for home in homes))
            route.at_s, route.next_homes = at_s, homes
            if homes == route.homes:
                route.at_s, route.next_homes = float("inf"), ()
            elif at_s <= time_s:
                self._switch(adapter, route)

    def _switch(self, adapter: int, route: _Route) -> None:
        self.moves += len({home[0] for home in route.next_homes} - {home[0] for home in route.homes})
        self._keep(adapter, route, route.at_s)
        route.since_s, route.homes = route.at_s, route.next_homes
        route.at_s, route.next_homes = float("inf"), ()

    def _keep(self, adapter: int, route: _Route, end_s: float) -> None:
        if end_s > route.since_s:
            for server, low, high in route.homes:
                self._stretches.setdefault(server, []).append(Stretch(adapter, route.since_s, end_s, low, high))

    def settle(self, time_s: float) -> None:
        """Let adapters go where they wait to go, as far as that serves by now."""
        due = sorted((route.at_s, adapter) for adapter, route in self._routes.items() if route.at_s <= time_s)
        for at_s, adapter in due:
            self._switch(adapter, self._routes[adapter])
            self._stop_unused(at_s)

    def _stop_unused(self, time_s: float) -> None:
        used = {server for route in self._routes.values() for server in route.servers} | set(self._serving.values())
        for number, server in enumerate(self.servers):
            if number not in used and server.stop_s == float("inf"):
                server.stop_s = time_s

    def starting(self, time_s: float) -> frozenset[int]:
        """GPUs of the newest placement that do not serve yet."""
        return frozenset(number for number, server in self._serving.items() if self.servers[server].ready_s > time_s)

    def finished(self, end_s: float) -> Iterator[tuple[OnlineServer, list[Stretch]]]:
        """Each server with the adapters that it served and when, once the day is over."""
        self.settle(end_s)
        for adapter, route in self._routes.items():
            self._keep(adapter, route, end_s)
        for number, server in enumerate(self.servers):
            yield server, self._stretches.get(number, [])


def gpus_over_time(paid: list[tuple[float, float]], duration_s: float, step_s: float) -> Floats:
    """GPUs that are paid for, as the mean of each step of a day.

    Parameters
    ----------
    paid : list of (start, end)
        In seconds, of each server.
    duration_s, step_s : float
    """
    edges = np.append(np.arange(0.0, duration_s, step_s), duration_s)
    found = np.zeros(len(edges) - 1)
    for start, end in paid:
        found += np.clip(np.minimum(end, edges[1:]) - np.maximum(start, edges[:-1]), 0.0, None)
    means: Floats = found / np.diff(edges)
    return means
