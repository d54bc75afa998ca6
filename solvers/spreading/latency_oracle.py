"""What solvers that minimise latency ask: how long the requests of a GPU content take, and at which `max_loras`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from solvers.base import Problem
from solvers.limits import Deadline
from solvers.spreading.latency_model import LatencyModel, metric_of
from twin import GpuPlan, simulate_requests


@dataclass(frozen=True)
class GpuLatency:
    """What an oracle says of one GPU.

    Attributes
    ----------
    starved : bool
        Or a memory error.
    latency_ms : float
        Mean of the metric; infinity when nothing is served.
    weight : float
        What the mean is over: requests, or tokens.
    """

    starved: bool
    latency_ms: float
    weight: float

    @property
    def key(self) -> tuple[bool, float]:
        """Sort key: what does not starve first, then the lower latency."""
        return (self.starved, self.latency_ms)


def cost_of(answers: Sequence[GpuLatency]) -> tuple[int, float]:
    """(starved GPUs, mean latency) of a fleet."""
    weight = sum(answer.weight for answer in answers)
    total = sum(answer.weight * answer.latency_ms for answer in answers if answer.weight)
    return (sum(answer.starved for answer in answers), total / weight if weight else 0.0)


def known_ms(latency_ms: float) -> float | None:
    """A latency for the details of a solution: None where it is infinite, because a GPU serves nothing."""
    return latency_ms if math.isfinite(latency_ms) else None


@dataclass(frozen=True)
class SpreadPlans:
    """A spread with the `max_loras` of each GPU, and its cost.

    Attributes
    ----------
    plans : tuple of GpuPlan
        Of the GPUs that hold adapters.
    starved : int
        GPUs that starve.
    latency_ms : float
        Mean of the metric.
    """

    plans: tuple[GpuPlan, ...]
    starved: int
    latency_ms: float


class LatencyOracle(ABC):
    """Answers for GPU contents: a sorted tuple of workload indices, at a `max_loras`.

    Parameters
    ----------
    problem : Problem
    model : LatencyModel, optional
        Proposes a `max_loras` for each content.

    Attributes
    ----------
    calls : int
        (content, `max_loras`) pairs asked about so far.
    deadline : Deadline, optional
        From then on nothing is simulated any more: a question ends in `OutOfTimeError`.
    """

    def __init__(self, problem: Problem, model: LatencyModel | None = None) -> None:
        self.workload = problem.workload
        self.profile = problem.profile
        self.model = model
        self.calls = 0
        self.deadline: Deadline | None = None
        self._known: dict[tuple[tuple[int, ...], int], GpuLatency] = {}

    def ask(self, adapters: tuple[int, ...], max_loras: int) -> GpuLatency:
        """Latency of a GPU; an empty one weighs nothing."""
        if not adapters:
            return GpuLatency(starved=False, latency_ms=0.0, weight=0.0)
        key = (adapters, max_loras)
        if key not in self._known:
            if self.deadline is not None:
                self.deadline.check()
            self.calls += 1
            self._known[key] = self._ask(adapters, max_loras)
        return self._known[key]

    def best(self, adapters: tuple[int, ...]) -> tuple[int, GpuLatency]:
        """The better of two `max_loras`, with its answer: what the model proposes, and one that no request waits for.

        Slots cost memory and step time whether they are used or not, so that fewer of them make each token faster; which
        is why neither is always better.
        """
        proposals = {self.slots(adapters)}
        if self.model is not None and adapters:
            proposals.add(min(self.model.slots(adapters), self.slots(adapters)))
        return min(((slots, self.ask(adapters, slots)) for slots in sorted(proposals)), key=lambda pair: pair[1].key)

    def best_fleet(self, spreads: Iterable[list[list[int]]]) -> SpreadPlans:
        """The spread, of some, on which fewest GPUs starve and the mean latency is least; each GPU as `best` has it."""
        fleets = []
        for groups in spreads:
            contents = [tuple(sorted(group)) for group in groups if group]
            found = [self.best(content) for content in contents]
            plans = tuple(GpuPlan(content, slots) for content, (slots, _) in zip(contents, found, strict=True))
            fleets.append(SpreadPlans(plans, *cost_of([answer for _, answer in found])))
        return min(fleets, key=lambda fleet: (fleet.starved, fleet.latency_ms))

    def tuned(self, adapters: tuple[int, ...], max_loras: int) -> int:
        """The `max_loras` from which no step up or down, of a grid of values, lowers the latency."""
        if self.model is None or not adapters:
            return max_loras
        values = sorted(
            {int(value) for value in self.model.grid if value < self.slots(adapters)} | {self.slots(adapters)}
        )
        place = int(np.searchsorted(values, max_loras))
        while True:
            near = values[max(0, place - 1) : place + 2]
            best = min(near, key=lambda value: self.ask(adapters, value).key)
            if best == values[place] or self.ask(adapters, best).key >= self.ask(adapters, values[place]).key:
                return values[place]
            place = values.index(best)

    def slots(self, adapters: tuple[int, ...]) -> int:
        """A slot for each adapter, as far as the engine starts with so many: then no request waits for one."""
        if not adapters:
            return 1
        most = self.profile.largest_max_loras(int(self.workload.ranks[list(adapters)].max()))
        return max(1, min(len(adapters), most))

    @abstractmethod
    def _ask(self, adapters: tuple[int, ...], max_loras: int) -> GpuLatency: ...


class TwinLatency(LatencyOracle):
    """The twin with the workload's own requests, the ones that placements are scored with.

    Parameters
    ----------
    problem : Problem
        Its objective says which latency counts, if it is `MinLatency`; otherwise the end-to-end latency does.
    model : LatencyModel, optional
    """

    def __init__(self, problem: Problem, model: LatencyModel | None = None) -> None:
        super().__init__(problem, model)
        self.metric = metric_of(problem)

    def _ask(self, adapters: tuple[int, ...], max_loras: int) -> GpuLatency:
        mine = np.asarray(adapters)
        result = simulate_requests(
            self.workload.requests_of(mine),
            self.workload.ranks[mine],
            self.profile,
            max_loras,
            duration_s=self.workload.duration_s,
        )
        latency = getattr(result, self.metric.removesuffix("_ms")).mean_ms
        weight = result.output_tokens - result.finished if self.metric == "itl_ms" else result.finished
        if result.memory_error or not math.isfinite(latency):
            return GpuLatency(bool(result.starved), math.inf if result.arrived else 0.0, float(result.arrived))
        return GpuLatency(bool(result.starved), float(latency), float(weight))
