"""Ours: GPUs are kept just below what the predictor says they can carry, with as few loads of adapters as that takes.

Growing splits the hottest adapters: one more home for one of them takes a large part of a GPU's load away with a single load of an
adapter, and giving that home up again later costs none. So GPUs that come by day and go by night hold hot adapters, and the
long tail stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.controllers.base import Controller, Fleet, Seen, Task
from solvers.controllers.capacity import Capacity, planned
from solvers.controllers.rates import SmoothedRates
from twin import GpuPlan, UserError

Floats = NDArray[np.float64]

# By hand, on one day of 200 adapters (workload=day, 120 requests/s, seed 0), as are the defaults below: with a memory of 600 s and a
# reserve of a tenth goodput was 98.8 %, with 180 s 99.6 %, at equal GPU-hours; with three tenths 99.99 % for 13 % more.

#: A copy of an adapter that takes at least this share of a GPU is split rather than moved.
SPLIT_SHARE = 0.04
#: Heaviest adapters of a GPU that are looked at before another GPU is started.
LOOKED_AT = 12
#: GPUs looked at to be given back, at most so many at a tick.
VICTIMS = 3
#: Homes given to the adapters of one GPU at one tick, at most.
MOST_RELIEFS = 64


class Headroom(Controller):
    """Every GPU keeps the service level at rates that are a reserve and some deviations above what is measured.

    Parameters
    ----------
    reserve : float
        Share above the measured rates that every GPU must stand.
    slack : float
        A GPU is given back only if the others stand this share more than that.
    deviations : float
        Of an adapter's counted arrivals, added to its rate.
    memory_s : float
        Of the smoothed rates.
    rest_s : float
        Between a change of the number of GPUs and the next GPU that is given back.
    """

    name: ClassVar[str] = "headroom"

    def __init__(
        self,
        reserve: float = 0.15,
        slack: float = 0.05,
        deviations: float = 0.5,
        memory_s: float = 180.0,
        rest_s: float = 300.0,
    ) -> None:
        if not (reserve > -1 and slack >= 0 and deviations >= 0 and memory_s > 0 and rest_s >= 0):
            raise UserError(
                f"controller.headroom: reserve={reserve} must be above -1, memory_s={memory_s} above 0, slack={slack}, "
                f"deviations={deviations} and rest_s={rest_s} 0 or more"
            )
        self.reserve, self.slack, self.deviations = reserve, slack, deviations
        self.memory_s, self.rest_s = memory_s, rest_s

    def begin(self, task: Task) -> Fleet:
        """Plan for the rates at the start."""
        self._task, self._capacity = task, Capacity(task)
        self._measured = SmoothedRates(task.workload.rates, self.memory_s, task.tick_s)
        self._rest_until_s = 0.0
        fleet = planned(task, self._capacity, self._upper())
        self._slots = int(np.median([plan.max_loras for plan in fleet.values()])) if fleet else 1
        # One home each with its share: copies that fell on one GPU are one.
        return _Homes(fleet, self._capacity, self._upper()).fleet()

    def _upper(self) -> Floats:
        return (1 + self.reserve) * self._measured.upper(self.deviations)

    def tick(self, seen: Seen) -> Fleet | None:
        """Relieve what would fail; give back what is not needed."""
        self._measured.count(seen.arrivals)
        rates = self._upper()
        homes = _Homes(seen.fleet, self._capacity, rates)
        changed = False
        for gpu in homes.failing():
            changed |= self._relieve(homes, gpu)
        if homes.n_gpus > len(seen.fleet):
            self._rest_until_s = seen.time_s + self.rest_s
        elif not changed and seen.time_s >= self._rest_until_s and not seen.starting:
            spared = _Homes(seen.fleet, self._capacity, (1 + self.slack) * rates)
            if self._give_back(spared):
                self._rest_until_s = seen.time_s + self.rest_s
                return spared.fleet()
        return homes.fleet() if changed else None

    def _relieve(self, homes: _Homes, gpu: int) -> bool:
        """Take load from a GPU until it keeps the service level; whether anything was done."""
        done = False
        for _ in range(MOST_RELIEFS):
            if homes.keep([gpu])[0]:
                break
            heaviest = homes.heaviest(gpu)
            if any(homes.dropped(adapter, gpu) for adapter in heaviest):
                done = True
                continue
            found = next(((a, home) for a in heaviest if (home := self._home(homes, a, gpu)) is not None), None)
            if found is None and len(homes.held(gpu)) == 1 and not homes.splits(heaviest[0]):
                break
            adapter, home = found or (heaviest[0], homes.open(self._slots))
            leaves = not homes.splits(adapter)
            homes.add(adapter, home)
            if leaves:
                homes.remove(adapter, gpu)
            done = True
        return done

    @staticmethod
    def _home(homes: _Homes, adapter: int, gpu: int) -> int | None:
        return homes.best_home(adapter, gpu, leave=not homes.splits(adapter))

    def _give_back(self, homes: _Homes) -> bool:
        """Empty the GPU that costs fewest loads; whether one could be."""
        for gpu in homes.by_loads()[:VICTIMS]:
            trial = homes.copy()
            if trial.emptied(gpu):
                homes.become(trial)
                return True
        return False


class _Homes:
    """Who is where, and what each GPU holds at some rates; every home of an adapter serves an equal share.

    Parameters
    ----------
    fleet : mapping of int to GpuPlan
    capacity : Capacity
    rates : array of shape (n_adapters,)
    """

    def __init__(self, fleet: Fleet, capacity: Capacity, rates: Floats) -> None:
        self._capacity, self._rates = capacity, rates
        self._slots = {gpu: plan.max_loras for gpu, plan in fleet.items()}
        self._held = {gpu: set(plan.adapters) for gpu, plan in fleet.items()}
        self._of: dict[int, list[int]] = {}
        for gpu, plan in fleet.items():
            for adapter in plan.adapters:
                self._of.setdefault(adapter, []).append(gpu)
        self._ranks = {gpu: int(capacity.ranks[list(plan.adapters)].max()) for gpu, plan in fleet.items()}
        self._next = max(fleet, default=-1) + 1
        self._count()

    def _count(self) -> None:
        self._weights = self._capacity.weights(self._rates)
        even = self._even()
        self._sums = dict(zip(even, self._capacity.sums(even, self._rates), strict=True))

    def _even(self) -> dict[int, GpuPlan]:
        found = {}
        for gpu, held in self._held.items():
            adapters = tuple(sorted(held))
            shares = tuple(1.0 / len(self._of[adapter]) for adapter in adapters)
            found[gpu] = GpuPlan(adapters, self._slots[gpu], None if set(shares) <= {1.0} else shares)
        return found

    def fleet(self) -> Fleet:
        """The placement."""
        return {gpu: plan for gpu, plan in self._even().items() if plan.adapters}

    def copy(self) -> _Homes:
        """Another one to try things on."""
        found = object.__new__(_Homes)
        found._capacity, found._rates, found._weights = self._capacity, self._rates, self._weights
        found._slots, found._ranks, found._next = dict(self._slots), dict(self._ranks), self._next
        found._held = {gpu: set(held) for gpu, held in self._held.items()}
        found._of = {adapter: list(gpus) for adapter, gpus in self._of.items()}
        found._sums = {gpu: sums.copy() for gpu, sums in self._sums.items()}
        return found

    def become(self, other: _Homes) -> None:
        """Take over what was tried."""
        self.__dict__.update(other.__dict__)

    @property
    def n_gpus(self) -> int:
        """GPUs that hold anything."""
        return sum(bool(held) for held in self._held.values())

    def held(self, gpu: int) -> set[int]:
        """Adapters of a GPU."""
        return self._held[gpu]

    def keep(self, gpus: list[int]) -> NDArray[np.bool_]:
        """Whether GPUs keep the service level."""
        return self._capacity.keeps(
            np.array([self._sums[gpu] for gpu in gpus]), np.array([self._slots[gpu] for gpu in gpus])
        )

    def failing(self) -> list[int]:
        """GPUs that do not."""
        gpus = list(self._held)
        return [gpu for gpu, keeps in zip(gpus, self.keep(gpus), strict=True) if not keeps] if gpus else []

    def _row(self, adapter: int, homes: int) -> Floats:
        rows = self._capacity.rows(np.array([adapter]), self._rates[[adapter]] / homes)
        row: Floats = rows[0]
        return row

    def heaviest(self, gpu: int) -> list[int]:
        """The adapters that take most of a GPU, first the one that takes most."""
        ordered = sorted(self._held[gpu], key=lambda a: (-self._weights[a] / len(self._of[a]), a))
        return ordered[:LOOKED_AT]

    def splits(self, adapter: int) -> bool:
        """Whether a copy of an adapter takes so much that it is split rather than moved."""
        return bool(self._weights[adapter] / len(self._of[adapter]) >= SPLIT_SHARE)

    def dropped(self, adapter: int, gpu: int) -> bool:
        """Give up a home if the adapter's other homes keep the service level without it; whether that was done."""
        left = [home for home in self._of[adapter] if home != gpu]
        if not left:
            return False
        extra = self._row(adapter, len(left)) - self._row(adapter, len(left) + 1)
        sums = np.array([self._sums[home] for home in left]) + extra
        if not self._capacity.keeps(sums, np.array([self._slots[home] for home in left])).all():
            return False
        self.remove(adapter, gpu)
        return True

    def load(self, gpu: int) -> float:
        """Summed weights of what a GPU holds."""
        return float(sum(self._weights[a] / len(self._of[a]) for a in self._held[gpu]))

    def best_home(self, adapter: int, but: int, *, leave: bool) -> int | None:
        """The fullest other GPU that takes one more home of an adapter, or the adapter's home elsewhere."""
        homes = self._of[adapter]
        row = self._row(adapter, len(homes) if leave else len(homes) + 1)
        rank = int(self._capacity.ranks[adapter])
        open_to = [g for g in self._held if g != but and adapter not in self._held[g] and rank <= self._ranks[g]]
        if not open_to:
            return None
        sums = np.array([self._sums[gpu] for gpu in open_to]) + row
        keeps = self._capacity.keeps(sums, np.array([self._slots[gpu] for gpu in open_to]))
        return max((gpu for gpu, good in zip(open_to, keeps, strict=True) if good), key=self.load, default=None)

    def open(self, slots: int) -> int:
        """A new GPU without adapters, for the largest rank that there is."""
        gpu, self._next = self._next, self._next + 1
        self._slots[gpu], self._held[gpu], self._ranks[gpu] = slots, set(), int(self._capacity.ranks.max())
        self._sums[gpu] = np.zeros_like(next(iter(self._sums.values())))
        return gpu

    def _change(self, adapter: int, homes: Iterable[int]) -> None:
        before, after = self._of[adapter], list(homes)
        for gpu in before:
            self._sums[gpu] = self._sums[gpu] - self._row(adapter, len(before))
            self._held[gpu].discard(adapter)
        for gpu in after:
            self._sums[gpu] = self._sums[gpu] + self._row(adapter, len(after))
            self._held[gpu].add(adapter)
        self._of[adapter] = after

    def add(self, adapter: int, gpu: int) -> None:
        """One more home."""
        self._change(adapter, [*self._of[adapter], gpu])

    def remove(self, adapter: int, gpu: int) -> None:
        """One home less."""
        self._change(adapter, [home for home in self._of[adapter] if home != gpu])

    def by_loads(self) -> list[int]:
        """GPUs by how many adapters would have to be loaded elsewhere if they went; of as many, the emptiest first."""
        alone = {gpu: sum(len(self._of[a]) == 1 for a in held) for gpu, held in self._held.items()}
        return sorted(self._held, key=lambda gpu: (alone[gpu] + 20 * self.load(gpu), gpu))

    def emptied(self, gpu: int) -> bool:
        """Move everything off a GPU; False, half way, where somebody does not find a home that keeps the service level."""
        others = [other for other in self._held if other != gpu]
        if not others:
            return False
        for adapter in sorted(self._held[gpu], key=lambda a: -self._weights[a] / len(self._of[a])):
            if self.dropped(adapter, gpu):
                continue
            target = self.best_home(adapter, gpu, leave=True)
            if target is None:
                return False
            self.add(adapter, target)
            self.remove(adapter, gpu)
        del self._held[gpu], self._sums[gpu], self._slots[gpu], self._ranks[gpu]
        return True
