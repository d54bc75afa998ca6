"""What the twin says of one GPU."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from twin import engine
from twin.service import PUBLISHED, STARVATION_SHARE, Judgement, ServiceLevel
from twin.tally import tallied, waited

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twin.profile import ServingProfile
    from twin.requests import Requests


PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class LatencyFigures:
    """Mean and percentiles in milliseconds; NaN where nothing was observed."""

    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class EngineRun:
    """What the engine left behind, as arrays; `twin.engine` names the entries of `totals` and the columns of the rest.

    Attributes
    ----------
    totals : array of shape (engine.N_TOTALS,)
    first_token_s, finish_s : arrays of shape (n_requests,)
        NaN where a request did not come that far.
    itl_counts : array of shape (engine.ITL_BINS,)
        Gaps between tokens by length.
    samples : array of shape (n_samples, engine.N_SAMPLE_COLUMNS)
    events : array of shape (n_events, 4)
    """

    totals: NDArray[np.float64]
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    itl_counts: NDArray[np.int64]
    samples: NDArray[np.float64]
    events: NDArray[np.int64]

    @classmethod
    def blank(cls, n_requests: int, n_samples: int, n_events: int, n_bins: int = engine.ITL_BINS) -> EngineRun:
        """What the engine fills in, with room for so many samples and events, and bins of inter-token latencies."""
        return cls(
            totals=np.zeros(engine.N_TOTALS),
            first_token_s=np.full(n_requests, np.nan),
            finish_s=np.full(n_requests, np.nan),
            itl_counts=np.zeros(n_bins, dtype=np.int64),
            samples=np.zeros((n_samples, engine.N_SAMPLE_COLUMNS)),
            events=np.zeros((n_events, 4), dtype=np.int64),
        )

    def ended(self, totals: NDArray[np.float64]) -> EngineRun:
        """The run with the totals that the engine returned, without the room that it left over."""
        return replace(
            self,
            totals=totals,
            samples=self.samples[: int(totals[engine.N_SAMPLES])],
            events=self.events[: int(totals[engine.N_EVENTS])],
        )


@dataclass(frozen=True)
class GpuResult:
    """What the twin says of one GPU.

    Attributes
    ----------
    throughput, offered_throughput : float
        Tokens per second: prompt + output of the requests finished inside the window; prompt +
        requested output of all that arrived.
    starved : bool
        throughput < 0.9 x offered, or a memory error.
    memory_error : bool
        The engine would not start with these flags; nothing was served then.
    stalled : bool
        A request came whose prompt can never fit; the engine is stuck behind it.
    adapter_ids : array of shape (n_adapters,)
        Workload indices of the adapters on this GPU.
    adapter_throughput, adapter_offered : arrays of shape (n_adapters,)
        Per adapter, tokens per second.
    ttft, tpot, itl, e2e : LatencyFigures
        Time to first token, time per later output token, inter-token latency and end-to-end latency of requests finished
        inside the window (ITL percentiles are over the tokens of all requests).
    first_wait_ms, wait_ms : float
        Mean times from arrival to the first and to the last token of all requests that arrive in the window, those that do not
        have it at its end waiting until then; 0 where none arrive. Other than `ttft` and `e2e` they do not look better when
        fewer are served.
    service : ServiceLevel
        What is promised.
    judgement : Judgement, optional
        The requests judged by their latency: by the promise, or, where that is the published rule, by another level that
        was asked for beside it.
    mean_running, mean_waiting, mean_adapters, mean_kv_tokens : float
        Time averages while the engine was busy.
    samples : array of shape (n_samples, engine.N_SAMPLE_COLUMNS)
        On demand: the engine's state at sampled steps; `twin.engine` names the columns.
    events : array of shape (n_events, 4)
        On demand: the decisions (step, kind, request, tokens), kinds as in `twin.engine`.
    """

    throughput: float
    offered_throughput: float
    memory_error: bool
    stalled: bool
    max_loras: int
    max_lora_rank: int
    kv_capacity_tokens: int
    arrived: int
    finished: int
    dropped: int
    adapter_ids: NDArray[np.int64]
    adapter_throughput: NDArray[np.float64]
    adapter_offered: NDArray[np.float64]
    ttft: LatencyFigures
    tpot: LatencyFigures
    itl: LatencyFigures
    e2e: LatencyFigures
    output_tokens: int
    steps: int
    preemptions: int
    loads: int
    disk_loads: int
    load_s: float
    scheduler_s: float
    busy_s: float
    mean_running: float
    mean_waiting: float
    max_waiting: int
    mean_adapters: float
    mean_kv_tokens: float
    samples: NDArray[np.float64] = field(repr=False)
    events: NDArray[np.int64] = field(repr=False)
    first_token_s: NDArray[np.float64] = field(repr=False)
    finish_s: NDArray[np.float64] = field(repr=False)
    first_wait_ms: float = 0.0
    wait_ms: float = 0.0
    service: ServiceLevel = PUBLISHED
    judgement: Judgement | None = None

    @classmethod
    def of_run(  # noqa: PLR0913  # everything that a result rests on; past 60 lines by its docstring
        cls,
        run: EngineRun,
        requests: Requests,
        profile: ServingProfile,
        duration_s: float,
        n_adapters: int,
        server: tuple[int, int, int],
        service: ServiceLevel = PUBLISHED,
        shown: ServiceLevel | None = None,
        *,
        latencies: bool = True,
    ) -> GpuResult:
        """The figures of one run of the engine.

        Parameters
        ----------
        run : EngineRun
        requests : Requests
            With `adapter` counted in 0..n_adapters-1.
        profile : ServingProfile
        duration_s : float
            The window in seconds.
        n_adapters : int
        server : tuple of int
            `max_loras`, `max_lora_rank` and KV-cache size in tokens; 0 of them means that the engine would not start.
        service : ServiceLevel
        shown : ServiceLevel, optional
            What requests are judged by where `service` judges none.
        latencies : bool
            Without them, which a verdict does not need, their figures are NaN.
        """
        max_loras, rank, kv_tokens = server
        judge = service if service.judges_requests else shown
        arrived = len(requests) if judge is None else int(np.searchsorted(requests.arrival_s, duration_s))
        served, offered, finished, output_tokens = tallied(
            run.finish_s, requests.adapter, requests.prompt_tokens, requests.output_tokens, requests.requested_tokens,
            arrived, duration_s, n_adapters,
        )  # fmt: skip
        figures = _latencies(run, requests, profile, duration_s) if latencies else (UNKNOWN,) * 4
        return cls(
            throughput=float(served.sum() / duration_s),
            offered_throughput=float(offered.sum() / duration_s),
            memory_error=kv_tokens == 0,
            max_loras=max_loras,
            max_lora_rank=rank,
            kv_capacity_tokens=kv_tokens,
            arrived=arrived,
            finished=finished,
            adapter_ids=np.arange(n_adapters),
            adapter_throughput=served / duration_s,
            adapter_offered=offered / duration_s,
            ttft=figures[0],
            tpot=figures[1],
            itl=figures[2],
            e2e=figures[3],
            output_tokens=output_tokens,
            samples=run.samples,
            events=run.events,
            first_token_s=run.first_token_s,
            finish_s=run.finish_s,
            **_counted(run.totals),
            first_wait_ms=_wait_ms(run.first_token_s[:arrived], requests.arrival_s[:arrived], duration_s),
            wait_ms=_wait_ms(run.finish_s[:arrived], requests.arrival_s[:arrived], duration_s),
            service=service,
            judgement=None if judge is None else _judgement(judge, run, requests, profile, duration_s, n_adapters),
        )

    @property
    def starved(self) -> bool:
        """Whether the GPU falls short of 90 % of its offered throughput."""
        return self.memory_error or self.throughput < STARVATION_SHARE * self.offered_throughput

    @property
    def starved_adapters(self) -> NDArray[np.int64]:
        """Workload indices of the adapters that get less than 90 % of what they ask for."""
        if self.memory_error:
            return self.adapter_ids
        return self.adapter_ids[self.adapter_throughput < STARVATION_SHARE * self.adapter_offered]

    @property
    def fails(self) -> bool:
        """Whether the GPU fails its service level; a memory error always does."""
        if self.memory_error or not self.service.judges_requests or self.judgement is None:
            return self.starved
        return self.judgement.worst < self.service.share

    @property
    def failing_adapters(self) -> NDArray[np.int64]:
        """Workload indices of the adapters that the service level is not kept for."""
        if self.memory_error or not self.service.judges_requests or self.judgement is None:
            return self.starved_adapters
        return self.adapter_ids[self.judgement.failing]

    @property
    def headroom(self) -> float:
        """How far the figure that the service level looks at is above the least it must be; negative where it fails."""
        if self.memory_error:
            return -self.service.share
        if not self.service.judges_requests or self.judgement is None:
            served = self.throughput / self.offered_throughput if self.offered_throughput else 1.0
            return served - self.service.share
        return self.judgement.worst - self.service.share

    @property
    def feasible(self) -> bool:
        """The service level is kept, and there is no memory error."""
        return not self.fails


#: Nothing was observed, or nobody asked.
UNKNOWN = LatencyFigures(*[np.nan] * (1 + len(PERCENTILES)))


def _counted(totals: NDArray[np.float64]) -> dict[str, Any]:
    """The figures that the engine counts itself, by their names in `GpuResult`."""
    busy_s = max(totals[engine.BUSY_S], 1e-12)
    return {
        "stalled": bool(totals[engine.STALLED]),
        "dropped": int(totals[engine.DROPPED]),
        "steps": int(totals[engine.STEPS]),
        "preemptions": int(totals[engine.PREEMPTIONS]),
        "loads": int(totals[engine.LOADS]),
        "disk_loads": int(totals[engine.DISK_LOADS]),
        "load_s": float(totals[engine.LOAD_S]),
        "scheduler_s": float(totals[engine.SCHEDULER_S]),
        "busy_s": float(totals[engine.BUSY_S]),
        "mean_running": float(totals[engine.RUNNING_S] / busy_s),
        "mean_waiting": float(totals[engine.WAITING_S] / busy_s),
        "max_waiting": int(totals[engine.MAX_WAITING]),
        "mean_adapters": float(totals[engine.ADAPTERS_S] / busy_s),
        "mean_kv_tokens": float(totals[engine.KV_TOKENS_S] / busy_s),
    }


def _latencies(
    run: EngineRun, requests: Requests, profile: ServingProfile, duration_s: float
) -> tuple[LatencyFigures, LatencyFigures, LatencyFigures, LatencyFigures]:
    """TTFT, TPOT, ITL and end-to-end latency of the requests that finished in the window."""
    done = np.flatnonzero((run.finish_s >= 0) & (run.finish_s <= duration_s))
    first, last = run.first_token_s[done], run.finish_s[done]
    arrival = requests.arrival_s[done]
    overhead_s = profile.request_overhead_ms / 1000
    gaps = requests.output_tokens[done] - 1
    itl_mean = float((last - first).sum() / gaps.sum() * 1000) if gaps.sum() else np.nan
    return (
        _latency(first - arrival + overhead_s),
        _latency((last - first)[gaps > 0] / gaps[gaps > 0]),
        LatencyFigures(itl_mean, *_percentiles_of_counts(run.itl_counts)),
        _latency(last - arrival + overhead_s),
    )


def _latency(seconds: NDArray[np.float64]) -> LatencyFigures:
    if not len(seconds):
        return UNKNOWN
    return LatencyFigures(float(seconds.mean() * 1000), *(np.percentile(seconds, PERCENTILES) * 1000).tolist())


def _percentiles_of_counts(counts: NDArray[np.int64]) -> list[float]:
    if not counts.sum():
        return [np.nan] * len(PERCENTILES)
    share = np.cumsum(counts) / counts.sum()
    bins = np.searchsorted(share, np.array(PERCENTILES) / 100)
    found: list[float] = (engine.ITL_FIRST_S * np.exp((bins + 0.5) * engine.ITL_LOG_WIDTH) * 1000).tolist()
    return found


def _wait_ms(token_s: NDArray[np.float64], arrival_s: NDArray[np.float64], duration_s: float) -> float:
    if not len(arrival_s):
        return 0.0
    return float(waited(token_s, arrival_s, duration_s).mean() * 1000)


def _judgement(  # noqa: PLR0913  # what a judgement is made of
    level: ServiceLevel,
    run: EngineRun,
    requests: Requests,
    profile: ServingProfile,
    duration_s: float,
    n_adapters: int,
) -> Judgement:
    judged = level.judged(requests, duration_s)
    met = level.met(requests, run.first_token_s, run.finish_s, profile.request_overhead_ms / 1000)[judged]
    adapter = requests.adapter[judged]
    return Judgement(level, np.bincount(adapter, minlength=n_adapters), np.bincount(adapter[met], minlength=n_adapters))
