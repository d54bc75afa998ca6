"""The typed face of the twin: one GPU, or all GPUs of a placement."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from twin import engine
from twin.errors import UserError
from twin.memory import keep_freed_memory
from twin.profile import SLORA
from twin.results import EngineRun, GpuResult
from twin.service import PUBLISHED, ServiceLevel
from twin.slora import TOKENS_PER_RANK, run_slora
from twin.stepwise import run_step_by_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twin.fleet import Fleet
    from twin.placement import GpuPlan, Placement
    from twin.profile import ServingProfile
    from twin.requests import Requests
    from twin.workload import Workload

keep_freed_memory()


def simulate_requests(  # noqa: PLR0913  # flags of one server, by keyword; past 60 lines by their docstring
    requests: Requests,
    ranks: NDArray[np.int64],
    profile: ServingProfile,
    max_loras: int,
    *,
    duration_s: float,
    max_lora_rank: int | None = None,
    max_cpu_loras: int | None = None,
    slots: int | None = None,
    kv_tokens: int | None = None,
    open_cap: int = 0,
    sample_every_s: float | None = None,
    max_samples: int | None = None,
    record_events: int = 0,
    step_by_step: bool = False,
    service: ServiceLevel = PUBLISHED,
    shown: ServiceLevel | None = None,
    latencies: bool = True,
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
    slots : int, optional
        Adapter slots that the scheduler fills, where they are more than `max_loras`, which then says what KV cache and steps
        cost, of that many adapters at most. There is no such server: it is at least as fast as any with between `max_loras`
        and `slots`, which is what bounds ask for (`solvers.oracles.twin`).
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
    service : ServiceLevel
        What is promised. Where it judges requests, `requests` should go on after the window (`Workload.lengthened`), and
        the simulation does until the last judged one has met its limits or missed them; every other figure is of the window.
    shown : ServiceLevel, optional
        What requests are judged by where the promise is the published rule.
    latencies : bool
        Without them, which a verdict does not need, figures of latency are NaN.

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
        raise UserError(f"max_loras={max_loras} must be 1 or more")
    slots = max(max_loras, slots or 0)
    _check_lengths(requests, profile)
    requests = requests.writeable()
    n_adapters = len(ranks)
    rank = profile.server_rank(max_lora_rank or (int(np.max(ranks)) if n_adapters else profile.ranks[0]))
    capacity = profile.kv_tokens(max_loras, rank) if kv_tokens is None else kv_tokens
    # Only the step-by-step engine can cut several prompts at once.
    long_way = step_by_step or profile.long_prefill_token_threshold > 0
    n_bins = engine.ITL_BINS if latencies or long_way else 0
    room = _room_for_samples(duration_s, sample_every_s, max_samples)
    run = EngineRun.blank(len(requests), room, record_events, n_bins)
    totals = run.totals
    if capacity > 0:
        limits = _limits(profile, capacity, slots, max(max_cpu_loras or n_adapters, slots), open_cap)
        limits[engine.PRICED] = max_loras
        horizon_s = duration_s
        if (judge := service if service.judges_requests else shown) is not None:
            horizon_s = judge.horizon_s(requests, duration_s)
            limits[engine.JUDGED] = judge.judged(requests, duration_s).stop
        simulate = run_step_by_step if long_way else engine.run_engine
        if profile.engine == SLORA:
            totals = _slora(requests, ranks, profile, rank, limits, (duration_s, horizon_s), run, sample_every_s)
        else:
            totals = simulate(
                requests.arrival_s,
                requests.adapter,
                requests.prompt_tokens,
                requests.output_tokens,
                n_adapters,
                *_load_times_s(profile, rank, ranks),
                profile.step_coefficients(max_loras, rank) / 1000,
                profile.min_step_ms / 1000,
                np.array(profile.scheduler_ms) / 1000,
                limits,
                duration_s,
                horizon_s,
                run.first_token_s,
                run.finish_s,
                run.itl_counts,
                run.events,
                run.samples,
                sample_every_s or 0.0,
                requests.shared() if profile.prefix_caching else None,
            )
    run, server = run.ended(totals), (max_loras, rank, capacity)
    return GpuResult.of_run(run, requests, profile, duration_s, n_adapters, server, service, shown, latencies=latencies)


def _slora(  # noqa: PLR0913  # what a kernel takes
    requests: Requests,
    ranks: NDArray[np.int64],
    profile: ServingProfile,
    rank: int,
    limits: NDArray[np.int64],
    until_s: tuple[float, float],
    run: EngineRun,
    sample_every_s: float | None,
) -> NDArray[np.float64]:
    """S-LoRA's loop, which knows no `max_loras`; its totals."""
    return run_slora(
        requests.arrival_s,
        requests.adapter,
        requests.prompt_tokens,
        requests.output_tokens,
        len(ranks),
        _load_times_s(profile, rank, ranks)[0],
        TOKENS_PER_RANK * np.asarray(ranks, dtype=np.int64),
        profile.step_coefficients(1, rank) / 1000,
        profile.min_step_ms / 1000,
        limits,
        *until_s,
        run.first_token_s,
        run.finish_s,
        run.itl_counts,
        run.samples,
        sample_every_s or 0.0,
    )


def _check_lengths(requests: Requests, profile: ServingProfile) -> None:
    longest = int(np.max(requests.prompt_tokens + requests.output_tokens, initial=0))
    if longest > profile.max_model_len:
        raise UserError(
            f"lengths: a request of {longest} tokens exceeds max_model_len={profile.max_model_len} of profile {profile.name}"
        )


def _load_times_s(
    profile: ServingProfile, rank: int, ranks: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Host-to-GPU and disk-to-host load time of each adapter, shape (n_adapters,)."""
    unique, inverse = np.unique(ranks, return_inverse=True)
    load_s = np.array([profile.load_time_ms(rank, int(r)) / 1000 for r in unique])[inverse]
    disk_s = np.array([profile.disk_time_ms(int(r)) / 1000 for r in unique])[inverse]
    return load_s, disk_s


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
    limits[engine.COUNT_RUNNING] = profile.count_running_adapters
    return limits


def _room_for_samples(duration_s: float, sample_every_s: float | None, max_samples: int | None) -> int:
    if sample_every_s is None:
        return 0
    return int(duration_s / sample_every_s) + 2 if sample_every_s > 0 else max_samples or 100_000


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
    service: ServiceLevel = PUBLISHED,
    shown: ServiceLevel | None = None,
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
    service, shown : ServiceLevel
        As in `simulate_requests`.

    Returns
    -------
    GpuResult
        With `adapter_ids` in terms of the workload.
    """
    local = np.asarray(adapters, dtype=np.int64)
    judge = service if service.judges_requests else shown
    source = workload if judge is None else workload.lengthened(judge.tail_s)
    result = simulate_requests(
        source.requests_of(local, intervals),
        workload.ranks[local],
        profile,
        max_loras,
        duration_s=workload.duration_s,
        max_cpu_loras=max_cpu_loras,
        sample_every_s=sample_every_s,
        service=service,
        shown=shown,
    )
    if keep_requests:
        return replace(result, adapter_ids=local)
    nothing = np.empty(0)
    return replace(result, adapter_ids=local, first_token_s=nothing, finish_s=nothing)


def simulate_placement(  # noqa: PLR0913  # what to keep of a run is optional
    workload: Workload,
    placement: Placement,
    profile: ServingProfile,
    *,
    threads: int = 2,
    sample_every_s: float | None = None,
    keep_requests: bool = False,
    service: ServiceLevel = PUBLISHED,
    shown: ServiceLevel | None = None,
    fleet: Fleet | None = None,
) -> list[GpuResult]:
    """Simulate every GPU of a placement, in parallel threads (the event loop releases the GIL).

    With a fleet each GPU is simulated with the profile of its type, and `profile` is not looked at.

    Raises
    ------
    UserError
        For GPUs of several types without their fleet.
    """
    if fleet is None and (named := next((plan.gpu_type for plan in placement.gpus if plan.gpu_type), None)):
        raise UserError(
            f"the placement is of a fleet of several types ({named}, ...), and here one profile is known: {profile.name}"
        )

    def one(plan: GpuPlan, intervals: NDArray[np.float64] | None) -> GpuResult:
        return simulate_gpu(
            workload,
            plan.adapters,
            profile if fleet is None else fleet.type_of(plan).profile,
            plan.max_loras,
            intervals=intervals,
            max_cpu_loras=plan.max_cpu_loras,
            sample_every_s=sample_every_s,
            keep_requests=keep_requests,
            service=service,
            shown=shown,
        )

    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(one, placement.gpus, placement.routing_intervals(workload.n_adapters)))
