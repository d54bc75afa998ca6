"""With what probability a plan holds, its profile being as uncertain as it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.planning.adapters import Adapter, Traffic, workload_of
from bench.shared.terminal import in_threads
from twin import GpuPlan, Placement, ServiceLevel, ServingProfile, simulate_requests
from twin.moved import drawn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twin import Requests

#: Profiles that a plan is simulated under: as many as so many requests in all allow, within these limits; powers of two. By hand: half a
#: minute of one core.
MOST_REQUESTS, FEWEST, MOST = 4e7, 32, 256
#: The stream of a plan's draws; a check of it draws others.
_SEED = 17


@dataclass(frozen=True)
class Chance:
    """In what share of the profiles drawn a plan holds.

    Attributes
    ----------
    share : float
    samples : int
    source : str
        What the profile says of where its uncertainty comes from.
    """

    share: float
    samples: int
    source: str

    def in_words(self, profile: str) -> str:
        """A line for the answer."""
        return f"holds with a probability of {self.share:.1%} ({self.samples} servers drawn of what {profile} leaves open: {self.source})"


@dataclass(frozen=True)
class Load:
    """What a placement is asked to serve, and how it is judged."""

    adapters: Sequence[Adapter]
    traffic: Traffic
    profile: ServingProfile
    service: ServiceLevel
    threads: int = 2

    def requests(self) -> float:
        """About how many are simulated for one profile."""
        return sum(adapter.rate for adapter in self.adapters) * (self.traffic.duration_s + self.service.tail_s)

    def samples(self) -> int:
        """Profiles that there is time for."""
        wanted = MOST_REQUESTS / max(self.requests(), 1.0)
        return int(2 ** np.clip(np.floor(np.log2(wanted)), np.log2(FEWEST), np.log2(MOST)))


def chance_of(placement: Placement, load: Load, *, samples: int | None = None, seed: int = _SEED) -> Chance | None:
    """Simulate a placement under profiles drawn from its profile's distribution.

    Parameters
    ----------
    placement : Placement
    load : Load
    samples : int, optional
        By default as many as there is time for.
    seed : int
        Of the draws.

    Returns
    -------
    Chance or None
        None if the profile does not say how far it may be off.
    """
    if load.profile.uncertainty is None:
        return None
    profiles = drawn(load.profile, samples or load.samples(), seed)
    gpus = list(_questions(placement, load))
    # A GPU that failed is asked first from then on: one that fails is enough.
    failures = [0] * len(gpus)

    def holds(profile: ServingProfile) -> bool:
        for k in sorted(range(len(gpus)), key=lambda gpu: -failures[gpu]):
            if gpus[k].fails(profile):
                failures[k] += 1
                return False
        return True

    held = in_threads(holds, profiles, load.threads)
    return Chance(sum(held) / len(held), len(held), load.profile.uncertainty.source)


@dataclass(frozen=True)
class _Question:
    """One GPU of a placement with its requests, which no profile changes."""

    plan: GpuPlan
    requests: Requests
    ranks: NDArray[np.int64]
    duration_s: float
    service: ServiceLevel

    def fails(self, profile: ServingProfile) -> bool:
        return simulate_requests(
            self.requests, self.ranks, profile, self.plan.max_loras, duration_s=self.duration_s,
            max_cpu_loras=self.plan.max_cpu_loras, service=self.service, latencies=False,
        ).fails  # fmt: skip


def _questions(placement: Placement, load: Load) -> Iterator[_Question]:
    for plan, intervals in zip(placement.gpus, placement.routing_intervals(len(load.adapters)), strict=True):
        mine = [load.adapters[index] for index in plan.adapters]
        part = workload_of(mine, load.traffic, load.profile, ids=plan.adapters)
        source = part.lengthened(load.service.tail_s) if load.service.judges_requests else part
        requests = source.requests_of(np.arange(len(mine)), intervals)
        yield _Question(plan, requests.writeable(), part.ranks, part.duration_s, load.service)
