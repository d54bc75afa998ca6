"""What an engine decided, step by step: its event log written out in full.

The log of a simulation holds only what changes (admissions, later chunks, preemptions, finishes). Written out, each
step says who ran and with how many tokens, who waited and who was preempted, as vLLM's scheduler would say it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from twin import engine
from twin.profile import ServingProfile
from twin.requests import Requests
from twin.results import GpuResult
from twin.simulate import simulate_requests


@dataclass(frozen=True)
class Step:
    """The decisions of one engine step; requests are named by their place in the trace.

    Attributes
    ----------
    decided_s : float
        When the step was decided: the arrivals up to here are known.
    start_s, duration_s : float
        When the model starts on it, and how long it takes.
    scheduled : tuple of (request, tokens)
        Running requests in their order, then admissions.
    preempted : tuple of int
        In the order of preemption.
    running, waiting : tuple of int
        Both queues in their order, after the decisions.
    blocks_in_use : int
        KV blocks held.
    finished : tuple of int
        Requests that get their last token at the end of the step.
    """

    decided_s: float
    start_s: float
    duration_s: float
    scheduled: tuple[tuple[int, int], ...]
    preempted: tuple[int, ...]
    running: tuple[int, ...]
    waiting: tuple[int, ...]
    blocks_in_use: int
    finished: tuple[int, ...]


def simulate_decisions(  # noqa: PLR0913  # the flags of `simulate_requests` that decisions depend on
    requests: Requests,
    ranks: np.ndarray,
    profile: ServingProfile,
    max_loras: int,
    *,
    duration_s: float,
    kv_tokens: int | None = None,
    max_steps: int = 100_000,
    max_events: int = 1_000_000,
    step_by_step: bool = False,
) -> tuple[GpuResult, list[Step]]:
    """Simulate one GPU and write its decisions out.

    Parameters
    ----------
    requests, ranks, profile, max_loras, duration_s, kv_tokens, step_by_step
        As in `simulate_requests`.
    max_steps, max_events : int
        Room for so many steps, and for so many admissions, preemptions, finishes and later chunks.

    Returns
    -------
    result : GpuResult
        With the event log and one sample per step.
    steps : list of Step

    Raises
    ------
    ValueError
        If there was too little room.
    """
    result = simulate_requests(
        requests,
        ranks,
        profile,
        max_loras,
        duration_s=duration_s,
        kv_tokens=kv_tokens,
        sample_every_s=0.0,
        max_samples=max_steps,
        record_events=max_events,
        step_by_step=step_by_step,
    )
    if len(result.samples) < result.steps or len(result.events) == max_events:
        raise ValueError(
            f"kept {len(result.samples)} of the {result.steps} steps and {len(result.events)} events: "
            "raise max_steps or max_events"
        )
    return result, expand(requests, result, asynchronous=profile.async_scheduling)


def expand(requests: Requests, result: GpuResult, *, asynchronous: bool) -> list[Step]:
    """Write out the decisions of a simulation that kept its event log and a sample for each step.

    Parameters
    ----------
    requests : Requests
        What was served.
    result : GpuResult
        With all of its events, and samples at `sample_every_s=0`.
    asynchronous : bool
        Whether a step was decided while the one before it ran (`ServingProfile.async_scheduling`).

    Returns
    -------
    list of Step
        One for each sample.
    """
    log: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for step, kind, request, tokens in result.events.tolist():
        log[step].append((kind, request, tokens))
    turned_away = set(np.flatnonzero(result.first_token_s == -1).tolist())
    arrivals = deque(i for i in range(len(requests)) if i not in turned_away)
    queues = _Queues()
    steps: list[Step] = []
    for number, sample in enumerate(result.samples):
        decided_s = float(sample[engine.SAMPLE_DECIDED])
        if queues.draining and decided_s >= steps[-1].start_s + steps[-1].duration_s:
            # There was nothing to run before their tokens came.
            queues.leave(queues.draining)
            queues.draining = set()
        while arrivals and requests.arrival_s[arrivals[0]] <= decided_s:
            queues.waiting.append(arrivals.popleft())
        steps.append(queues.step(sample, log[number]))
        finished = set(steps[-1].finished)
        queues.leave(queues.draining if asynchronous else finished)
        queues.draining = finished if asynchronous else set()
    return steps


@dataclass
class _Queues:
    """Both queues of the scheduler, and the requests whose last token is on its way while a step is decided."""

    running: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    draining: set[int] = field(default_factory=set)

    def leave(self, gone: set[int]) -> None:
        self.running = [i for i in self.running if i not in gone]
        self.waiting = [i for i in self.waiting if i not in gone]

    def step(self, sample: NDArray[np.float64], events: list[tuple[int, int, int]]) -> Step:
        """One step, by its sample and its events (kind, request, tokens); the queues are then as it leaves them."""
        preempted = tuple(request for kind, request, _ in events if kind == engine.PREEMPT)
        for victim in preempted:
            self.running.remove(victim)
            self.waiting.insert(0, victim)
        chunks = {request: tokens for kind, request, tokens in events if kind == engine.CHUNK}
        # The token budget never runs out before the last one: what a request asks for does not grow.
        scheduled = [(i, chunks.get(i, 1)) for i in self.running if i not in self.draining]
        for kind, request, tokens in events:
            if kind == engine.ADMIT:
                self.waiting.remove(request)
                self.running.append(request)
                scheduled.append((request, tokens))
        return Step(
            decided_s=float(sample[engine.SAMPLE_DECIDED]),
            start_s=float(sample[engine.SAMPLE_START]),
            duration_s=float(sample[engine.SAMPLE_SECONDS]),
            scheduled=tuple(scheduled),
            preempted=preempted,
            running=tuple(self.running),
            waiting=tuple(self.waiting),
            blocks_in_use=int(sample[engine.SAMPLE_BLOCKS]),
            finished=tuple(request for kind, request, _ in events if kind == engine.FINISH),
        )
