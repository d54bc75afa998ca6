"""The typed face of the twin: one GPU, or all GPUs of a placement."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from twin import engine
from twin.errors import UserError
from twin.stepwise import run_step_by_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twin.placement import GpuPlan, Placement
    from twin.profile import ServingProfile
    from twin.workload import Requests, Workload

#: A GPU starves when its throughput is below this share of the offered throughput
#: (arXiv 2602.24044 and arXiv 2508.08343).
STARVATION_SHARE = 0.9

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Latency:
    """Mean and percentiles in milliseconds; NaN where nothing was observed."""

    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


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
    ttft, itl, e2e : Latency
        Time to first token, inter-token latency and end-to-end latency of requests finished inside
        the window (ITL percentiles are over the tokens of all requests).
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
    ttft: Latency
    itl: Latency
    e2e: Latency
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
    def feasible(self) -> bool:
        """Neither starvation nor a memory error."""
        return not self.starved


def simulate_requests(  # noqa: PLR0913  # flags of one server, all optional but the first four
    requests: Requests,
    ranks: NDArray[np.int64],
    profile: ServingProfile,
    max_loras: int,
    *,
    duration_s: float,
    max_lora_rank: int | None = None,
    max_cpu_loras: int | None = None,
    kv_tokens: int | None = None,
    open_cap: int = 0,
    sample_every_s: float | None = None,
    max_samples: int | None = None,
    record_events: int = 0,
    step_by_step: bool = False,
) -> GpuResult:
    """Simulate one GPU that serves `requests`.

    Parameters
    ----------
    requests : Requests
        With `adapter` counted in 0..len(ranks)-1.
    ranks : array of shape (n_adapters,)
        Ranks of the adapters that this GPU serves.
    profile : ServingProfile
    max_loras : int
        Adapter slots; more than there are adapters is allowed (and costs KV cache).
    duration_s : float
        The window in seconds.
    max_lora_rank : int, optional
        The server's flag; by default the largest rank served.
    max_cpu_loras : int, optional
        Host slots; by default one for each adapter. Never fewer than `max_loras`.
    kv_tokens : int, optional
        KV-cache size in place of the profile's measured one.
    open_cap : int
        Requests beyond this many open ones are turned away on arrival, as a client out of
        connections does; 0 for no cap.
    sample_every_s : float, optional
        Keep samples of the engine's state at this interval (0: every step, up to `max_samples`).
    record_events : int
        Keep a log of up to this many decisions.
    step_by_step : bool
        Visit every running request in every step: the same result, later. It is how the fast engine
        is checked, and what a profile with a `long_prefill_token_threshold` needs.

    Returns
    -------
    GpuResult

    Raises
    ------
    UserError
        For `max_loras` below 1, a rank that the profile does not know, or a request longer than
        the model's `max_model_len`.
    """
    if max_loras < 1:
        msg = f"max_loras={max_loras} must be 1 or more"
        raise UserError(msg)
    n_adapters = len(ranks)
    top_rank = max_lora_rank or (int(np.max(ranks)) if n_adapters else profile.ranks[0])
    rank = profile.server_rank(top_rank)
    offered = requests.prompt_tokens + requests.requested_tokens
    offered_by_adapter = np.bincount(requests.adapter, offered, n_adapters) / duration_s
    if len(requests) and int(np.max(requests.prompt_tokens + requests.output_tokens)) > (profile.max_model_len):
        msg = (
            f"lengths: a request of {int(np.max(requests.prompt_tokens + requests.output_tokens))} tokens "
            f"exceeds max_model_len={profile.max_model_len} of profile {profile.name}"
        )
        raise UserError(msg)
    capacity = profile.kv_tokens(max_loras, rank) if kv_tokens is None else kv_tokens
    n_requests = len(requests)
    first_token_s = np.full(n_requests, np.nan)
    finish_s = np.full(n_requests, np.nan)
    itl_counts = np.zeros(engine.ITL_BINS, dtype=np.int64)
    events = np.zeros((record_events, 4), dtype=np.int64)
    n_samples = _room_for_samples(duration_s, sample_every_s, max_samples)
    samples = np.zeros((n_samples, engine.N_SAMPLE_COLUMNS))
    totals = np.zeros(engine.N_TOTALS)
    if capacity > 0:
        limits = _limits(profile, capacity, max_loras, max(max_cpu_loras or n_adapters, max_loras), open_cap)
        unique, inverse = np.unique(ranks, return_inverse=True)
        load_s = np.array([profile.load_time_ms(rank, int(r)) / 1000 for r in unique])[inverse]
        disk_s = np.array([profile.disk_time_ms(int(r)) / 1000 for r in unique])[inverse]
        # Only the step-by-step engine can cut several prompts at once.
        long_way = step_by_step or profile.long_prefill_token_threshold > 0
        run = run_step_by_step if long_way else engine.run_engine
        totals = run(
            requests.arrival_s,
            requests.adapter,
            requests.prompt_tokens,
            requests.output_tokens,
            n_adapters,
            load_s,
            disk_s,
            profile.step_coefficients(max_loras, rank) / 1000,
            profile.min_step_ms / 1000,
            np.array(profile.scheduler_ms) / 1000,
            limits,
            duration_s,
            first_token_s,
            finish_s,
            itl_counts,
            events,
            samples,
            sample_every_s or 0.0,
        )
    done = np.flatnonzero((finish_s >= 0) & (finish_s <= duration_s))
    served = requests.prompt_tokens[done] + requests.output_tokens[done]
    first, last = first_token_s[done], finish_s[done]
    arrival = requests.arrival_s[done]
    overhead_s = profile.request_overhead_ms / 1000
    gaps = requests.output_tokens[done] - 1
    itl_mean = float((last - first).sum() / gaps.sum() * 1000) if gaps.sum() else np.nan
    busy_s = max(totals[engine.BUSY_S], 1e-12)
    return GpuResult(
        throughput=float(served.sum() / duration_s),
        offered_throughput=float(offered.sum() / duration_s),
        memory_error=capacity == 0,
        stalled=bool(totals[engine.STALLED]),
        max_loras=max_loras,
        max_lora_rank=rank,
        kv_capacity_tokens=capacity,
        arrived=n_requests,
        finished=len(done),
        dropped=int(totals[engine.DROPPED]),
        adapter_ids=np.arange(n_adapters),
        adapter_throughput=np.bincount(requests.adapter[done], served, n_adapters) / duration_s,
        adapter_offered=offered_by_adapter,
        ttft=_latency(first - arrival + overhead_s),
        itl=Latency(itl_mean, *_percentiles_of_counts(itl_counts)),
        e2e=_latency(last - arrival + overhead_s),
        output_tokens=int(requests.output_tokens[done].sum()),
        steps=int(totals[engine.STEPS]),
        preemptions=int(totals[engine.PREEMPTIONS]),
        loads=int(totals[engine.LOADS]),
        disk_loads=int(totals[engine.DISK_LOADS]),
        load_s=float(totals[engine.LOAD_S]),
        scheduler_s=float(totals[engine.SCHEDULER_S]),
        busy_s=float(totals[engine.BUSY_S]),
        mean_running=float(totals[engine.RUNNING_S] / busy_s),
        mean_waiting=float(totals[engine.WAITING_S] / busy_s),
        max_waiting=int(totals[engine.MAX_WAITING]),
        mean_adapters=float(totals[engine.ADAPTERS_S] / busy_s),
        mean_kv_tokens=float(totals[engine.KV_TOKENS_S] / busy_s),
        samples=samples[: int(totals[engine.N_SAMPLES])],
        events=events[: min(record_events, int(totals[engine.N_EVENTS]))],
        first_token_s=first_token_s,
        finish_s=finish_s,
    )


def _limits(
    profile: ServingProfile, kv_tokens: int, max_loras: int, host_slots: int, open_cap: int
) -> NDArray[np.int64]:
    """The `limits` array of the engine."""
    limits = np.zeros(engine.N_LIMITS, dtype=np.int64)
    limits[engine.BLOCK_SIZE] = profile.block_size
    # vLLM keeps block 0 as the null block.
    limits[engine.BLOCKS] = kv_tokens // profile.block_size - 1
    limits[engine.MAX_SEQS] = profile.max_num_seqs
    limits[engine.TOKEN_BUDGET] = profile.max_num_batched_tokens
    limits[engine.MAX_LORAS] = max_loras
    limits[engine.HOST_SLOTS] = host_slots
    limits[engine.OPEN_CAP] = open_cap
    limits[engine.RESERVE_FULL] = profile.reserve_full_prompt
    limits[engine.WATERMARK] = profile.watermark_blocks
    limits[engine.EAGER_ABOVE] = profile.eager_above_tokens
    limits[engine.ASYNCHRONOUS] = profile.async_scheduling
    limits[engine.LONG_PREFILL] = profile.long_prefill_token_threshold
    return limits


def _room_for_samples(duration_s: float, sample_every_s: float | None, max_samples: int | None) -> int:
    if sample_every_s is None:
        return 0
    return int(duration_s / sample_every_s) + 2 if sample_every_s > 0 else max_samples or 100_000


def _latency(seconds: NDArray[np.float64]) -> Latency:
    if not len(seconds):
        return Latency(np.nan, np.nan, np.nan, np.nan)
    p50, p90, p99 = np.percentile(seconds, PERCENTILES) * 1000
    return Latency(float(seconds.mean() * 1000), float(p50), float(p90), float(p99))


def _percentiles_of_counts(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    if not counts.sum():
        return np.nan, np.nan, np.nan
    share = np.cumsum(counts) / counts.sum()
    bins = np.searchsorted(share, np.array(PERCENTILES) / 100)
    p50, p90, p99 = engine.ITL_FIRST_S * np.exp((bins + 0.5) * engine.ITL_LOG_WIDTH) * 1000
    return float(p50), float(p90), float(p99)


def simulate_gpu(  # noqa: PLR0913  # one GPU of a placement, and what to keep of it
    workload: Workload,
    adapters: tuple[int, ...] | NDArray[np.int64],
    profile: ServingProfile,
    max_loras: int,
    *,
    intervals: NDArray[np.float64] | None = None,
    max_cpu_loras: int | None = None,
    sample_every_s: float | None = None,
    keep_requests: bool = False,
) -> GpuResult:
    """Simulate one GPU of a placement: some adapters of a workload.

    Parameters
    ----------
    workload : Workload
    adapters : sequence of int, shape (n,)
        Indices of the adapters on this GPU.
    profile : ServingProfile
    max_loras : int
    intervals : array of shape (n, 2), optional
        For each adapter, the requests whose routing draw falls into [low, high) come here
        (replicas); all of them by default.
    max_cpu_loras : int, optional
        Host slots; by default one for each adapter.
    sample_every_s : float, optional
    keep_requests : bool
        Keep the times of the single requests, `first_token_s` and `finish_s`; otherwise they come back empty, because
        those of a fleet fill the memory.

    Returns
    -------
    GpuResult
        With `adapter_ids` in terms of the workload.
    """
    local = np.asarray(adapters, dtype=np.int64)
    result = simulate_requests(
        workload.requests_of(local, intervals),
        workload.ranks[local],
        profile,
        max_loras,
        duration_s=workload.duration_s,
        max_cpu_loras=max_cpu_loras,
        sample_every_s=sample_every_s,
    )
    if keep_requests:
        return replace(result, adapter_ids=local)
    nothing = np.empty(0)
    return replace(result, adapter_ids=local, first_token_s=nothing, finish_s=nothing)


def _routing_intervals(workload: Workload, placement: Placement) -> list[NDArray[np.float64] | None]:
    """For each GPU, the part of [0, 1) of each adapter's routing draws that it serves."""
    if not placement.has_replicas:
        return [None] * placement.n_gpus
    used = np.zeros(workload.n_adapters)
    intervals: list[NDArray[np.float64] | None] = []
    for plan in placement.gpus:
        ids = list(plan.adapters)
        share = np.ones(len(ids)) if plan.shares is None else np.asarray(plan.shares)
        low, high = used[ids], used[ids] + share
        used[ids] = high
        # Shares that sum to 1 within rounding must not lose the last draws.
        intervals.append(np.column_stack([low, np.where(high > 1 - 1e-9, 1.0, high)]))
    return intervals


def simulate_placement(  # noqa: PLR0913  # what to keep of a run is optional
    workload: Workload,
    placement: Placement,
    profile: ServingProfile,
    *,
    threads: int = 2,
    sample_every_s: float | None = None,
    keep_requests: bool = False,
) -> list[GpuResult]:
    """Simulate every GPU of a placement, in parallel threads (the event loop releases the GIL)."""

    def one(plan: GpuPlan, intervals: NDArray[np.float64] | None) -> GpuResult:
        return simulate_gpu(
            workload,
            plan.adapters,
            profile,
            plan.max_loras,
            intervals=intervals,
            max_cpu_loras=plan.max_cpu_loras,
            sample_every_s=sample_every_s,
            keep_requests=keep_requests,
        )

    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(one, placement.gpus, _routing_intervals(workload, placement)))
