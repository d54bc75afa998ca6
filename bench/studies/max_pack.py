"""Max_pack: the most identical adapters that one GPU serves without starvation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.comparison.build import build_workload
from solvers.oracles.twin import TwinOracle
from twin import ServingProfile, UserError, Workload, load_profile
from twin.service import STARVATION_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable


#: The curves go on up to this many times Max_pack, by eye: past their bend.
BEYOND = 1.6

#: Points of a curve, by eye.
POINTS = 36


@dataclass
class MaxPackOptions:
    """The identical adapters and the slots tried.

    `conf/max_pack.yaml` says what each option is for.
    """

    profile: str = "llama-3.1-8b"
    most_adapters: int = 1024
    max_loras: list[int] | None = None
    duration_s: float = 1800.0
    lengths: dict[str, Any] = field(default_factory=dict)
    arrivals: dict[str, Any] = field(default_factory=dict)
    ignore_eos: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Point:
    """One GPU of identical adapters.

    Attributes
    ----------
    rank, rate : int, float
    n_adapters, max_loras : int
    throughput, offered_throughput : float
        Tokens per second; the throughput of a GPU that does not start is 0.
    starved, memory_error : bool
    frontier : bool
        No other `max_loras` has more throughput with as many adapters.
    """

    rank: int
    rate: float
    n_adapters: int
    max_loras: int
    throughput: float
    offered_throughput: float
    starved: bool
    memory_error: bool
    frontier: bool = False


@dataclass(frozen=True)
class LargestContent:
    """The most adapters that a GPU serves.

    Attributes
    ----------
    rank, rate : int, float
    n_adapters : int
        0 if even one starves; `capped` if the search ended before any count starved.
    max_loras : int
        The one with the most throughput there.
    throughput, offered_throughput : float
        Tokens per second at that point.
    capped : bool
    """

    rank: int
    rate: float
    n_adapters: int
    max_loras: int
    throughput: float
    offered_throughput: float
    capped: bool


class IdenticalAdapters:
    """The twin asked about GPUs of 1, 2, ... identical adapters, each with requests of its own.

    Parameters
    ----------
    workload : Workload
        Of identical adapters, as many as will ever be asked about.
    profile : ServingProfile
    slots : sequence of int, optional
        `max_loras` to try; by default those that solvers try.
    """

    def __init__(self, workload: Workload, profile: ServingProfile, slots: Sequence[int] | None = None) -> None:
        self.workload = workload
        self.oracle = TwinOracle(workload, profile)
        self._slots = slots
        requests = workload.requests
        tokens = np.bincount(requests.adapter, requests.prompt_tokens + requests.requested_tokens, workload.n_adapters)
        self._offered = np.cumsum(tokens) / workload.duration_s

    def slots(self, count: int) -> tuple[int, ...]:
        """The `max_loras` to try for so many adapters."""
        return tuple(self._slots) if self._slots is not None else self.oracle.slots(range(count))

    def serves(self, count: int, hint: int | None = None) -> int | None:
        """A `max_loras` with which so many adapters do not starve, or None."""
        adapters = tuple(range(count))
        slots = sorted(self.slots(count), key=lambda value: abs(np.log2(value / (hint or min(count, 64)))))
        for value in slots:
            if self.oracle.accepts(adapters, value):
                return value
        return None

    def max_pack(self) -> tuple[int, bool]:
        """The largest count such that it and every smaller one are served, and whether the search ended before one was not.

        Every count is asked about, from 1 on: the curve may dip before it falls for good. A smaller count that falls short
        only because the window ends (few requests, one of them late) does not end the search.
        """
        hint: int | None = None
        most = 0
        for count in range(1, self.workload.n_adapters + 1):
            found = self.serves(count, hint)
            if found is not None:
                most, hint = count, found
            elif not self.oracle.is_cut_off(tuple(range(count)), hint):
                return most, False
        return most, True

    def point(self, count: int, max_loras: int) -> Point:
        """Throughput of so many adapters at one `max_loras`."""
        share = self.oracle.share(tuple(range(count)), max_loras)
        offered = float(self._offered[count - 1])
        return Point(
            rank=int(self.workload.ranks[0]),
            rate=float(self.workload.rates[0]),
            n_adapters=count,
            max_loras=max_loras,
            throughput=max(share, 0.0) * offered,
            offered_throughput=offered,
            starved=share < STARVATION_SHARE,
            memory_error=share < 0,
        )

    def curve(self, counts: Sequence[int]) -> Iterator[Point]:
        """Yield the points of every `max_loras` for these adapter counts; those on the frontier are marked."""
        for count in counts:
            points = [self.point(count, value) for value in self.slots(count)]
            most = max((point.throughput for point in points), default=0.0)
            marked = False
            for point in points:
                # Of equal ones the fewest slots.
                on = not marked and point.throughput == most and not point.memory_error
                marked = marked or on
                yield Point(**{**asdict(point), "frontier": on})


def measure(
    identical: IdenticalAdapters, advance: Callable[[], None] | None = None
) -> tuple[LargestContent, list[Point]]:
    """Max_pack and the curves around it.

    Parameters
    ----------
    identical : IdenticalAdapters
    advance : callable, optional
        Called when done.
    """
    count, capped = identical.max_pack()
    workload = identical.workload
    most = min(workload.n_adapters, max(8, int(BEYOND * count) + 2))
    points = list(identical.curve(sorted({*np.linspace(1, most, POINTS).astype(int).tolist(), max(count, 1)})))
    best = next((point for point in points if point.n_adapters == count and point.frontier), None)
    if advance is not None:
        advance()
    return (
        LargestContent(
            rank=int(workload.ranks[0]),
            rate=float(workload.rates[0]),
            n_adapters=count,
            max_loras=best.max_loras if best else 0,
            throughput=best.throughput if best else 0.0,
            offered_throughput=best.offered_throughput if best else 0.0,
            capped=capped,
        ),
        points,
    )


def identical_adapters(options: MaxPackOptions, rank: int, rate: float) -> IdenticalAdapters:
    """What the options describe, for one rank and rate.

    Raises
    ------
    UserError
        For a value out of range, or a rank that the profile does not know.
    """
    if not rate > 0:
        raise UserError(f"rates: {rate:g} must be above 0 requests per second")
    if options.most_adapters < 1:
        raise UserError(f"most_adapters={options.most_adapters} must be 1 or more")
    if options.max_loras is not None and (not options.max_loras or min(options.max_loras) < 1):
        raise UserError(f"max_loras={options.max_loras} must list numbers of slots, 1 or more, or be null")
    profile = load_profile(options.profile)
    description = {
        "_target_": "twin.builders.groups",
        "name": f"rank {rank}, {rate:g} req/s",
        "groups": [{"count": options.most_adapters, "rank": rank, "rate": rate}],
        "duration_s": options.duration_s,
        "lengths": options.lengths,
        "arrivals": options.arrivals,
        "ignore_eos": options.ignore_eos,
        "seed": options.seed,
    }
    return IdenticalAdapters(build_workload(description, profile), profile, options.max_loras)
