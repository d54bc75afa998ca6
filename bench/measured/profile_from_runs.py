"""A serving profile fitted to published runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from bench.measured.observation import SAMPLE_EVERY_S, ClientModel, Stalls, fit_client_model, stalls_of
from bench.measured.published import (
    OPEN_REQUESTS_CAP,
    PROFILE_OF_MODEL,
    PublishedRun,
    read_runs,
    read_table,
    replay,
    run_of_row,
)
from bench.shared.terminal import in_threads, progress_bar
from twin import GpuResult, Lengths, UserError
from twin.calibration import (
    OperatingPoint,
    StepObservation,
    fit_scheduler_time,
    fit_step_time,
    kv_capacity_from_rows,
    load_times_from_rows,
    match_operating_point,
    step_term_values,
)
from twin.calibration.scheduler import SchedulerFit
from twin.calibration.step_time import Floats
from twin.moved import measured_uncertainty
from twin.profile import STEP_TERMS, KvCapacity, ServingProfile

SOURCE = (
    "real vLLM 0.8.5 runs published with arXiv 2508.08343 (repository FerranAgulloLopez/GPULLMAdapterOptimization, "
    "Apache-2.0)"
)

# What the tables do not say of these servers: flags and limits of the published set-up.
FLAGS = {
    "llama-3.1-8b-instruct": {"model": "meta-llama/Llama-3.1-8B-Instruct", "max_model_len": 131072},
    "qwen-2.5-7b-instruct": {"model": "Qwen/Qwen2.5-7B-Instruct", "max_model_len": 32768},
}
VERSION = "0.8.5"
MAX_NUM_SEQS = 2048

# CUDA graphs are captured for up to this many tokens, or for max_num_seqs where that is less, in steps of eight (both vLLM's).
GRAPH_TOKENS = 512
GRAPH_STEP = 8

# Steps of the micro-benchmarks in the step table: tokens in the KV cache per running request, between their 4 prompt
# tokens and their 100 to 400 output tokens. By hand, within these.
MICRO_KV_PER_REQUEST = 60.0

# Runs with fewer running requests tell the overhead of a request; those with fewer waiting, what the client adds.
# By hand: few enough that a request does not wait for others.
IDLE_RUNNING = 20
SHORT_QUEUE = 1.0

# First guess of the step model, in ms and by hand, near what the published twin says of an idle and of a full server.
FIRST_GUESS = {"constant": 12.0, "adapters": 0.27, "tokens": 0.03, "max_loras": 0.03, "tokens_x_max_loras": 1e-4}


@dataclass
class CalibrationOptions:
    """How published runs are fitted.

    `conf/calibrate.yaml` says what each option is for.
    """

    left_out: dict[str, list[str]] = field(default_factory=dict)
    rounds: int = 2
    window_s: float = 3600.0
    micro_weight: float = 0.1
    threads: int = 2
    seed: int = 0


@dataclass(frozen=True)
class CalibrationReport:
    """A fitted profile and its errors on mean step times, in percent."""

    profile: ServingProfile
    fitted_runs: int
    left_out_runs: int
    fit_error_pct: float
    left_out_error_pct: float
    micro_error_pct: float


def calibrate(options: CalibrationOptions, folder: str, model: str, console: Console) -> CalibrationReport:
    """Fit one model's profile."""
    runs = read_runs(folder)
    runs = runs[(runs.model == model) & ~runs.memory_error & (runs.series_mean_running > 0.5)].reset_index(drop=True)
    left_out = _left_out(runs, options, model)
    step_ms = measured_step_ms(runs)
    profile = starting_profile(folder, model, runs[~left_out])
    micro_terms, micro_ms, micro_weight = micro_benchmarks(folder, model)
    micro_weight *= options.micro_weight * (~left_out).sum() / micro_weight.sum()
    weight = np.concatenate([np.ones((~left_out).sum()), micro_weight])
    points: list[OperatingPoint] = []
    scales = np.ones(len(runs))
    predicted, terms = step_ms, np.zeros((len(runs), len(STEP_TERMS)))
    micro_predicted = micro_ms
    for number in range(options.rounds):
        points = match_all(runs, step_ms, profile, scales, options, console, f"{model}, round {number + 1}")
        terms = np.array([point.terms for point in points])
        other = np.array([point.other_ms for point in points])
        fit = fit_step_time(
            np.vstack([terms[~left_out], micro_terms]),
            np.concatenate([step_ms[~left_out], micro_ms]),
            np.concatenate([other[~left_out], np.zeros(len(micro_ms))]),
            weight,
        )
        coefficients = np.array(fit.step_ms)
        predicted = terms @ coefficients + other
        micro_predicted = micro_terms @ coefficients
        scales = np.clip((step_ms - other) / (terms @ coefficients), 0.5, 2.0)
        profile = replace(profile, step_ms=tuple(float(f"{c:.6g}") for c in coefficients))
    error = np.abs(predicted / step_ms - 1) * 100
    report = CalibrationReport(
        profile,
        int((~left_out).sum()),
        int(left_out.sum()),
        float(error[~left_out].mean()),
        float(error[left_out].mean()) if left_out.any() else float("nan"),
        float(np.abs(micro_predicted / micro_ms - 1).mean() * 100),
    )
    profile = replace(profile, request_overhead_ms=round(request_overhead_ms(runs[~left_out], profile, options), 2))
    client = client_model(runs[~left_out], profile, options)
    judged = left_out if left_out.any() else ~left_out
    uncertainty = measured_uncertainty(
        terms[judged], profile.step_ms, float(error[judged].mean()),
        f"step times of {int(judged.sum())} published runs {'left out of' if left_out.any() else 'in'} the fit",
    )  # fmt: skip
    provenance = {
        "source": SOURCE,
        "command": f"python -m bench.calibrate runs=DIR seed={options.seed}",
        "left_out_scenarios": options.left_out.get(model, []),
        "fitted_runs": report.fitted_runs,
        "left_out_runs": report.left_out_runs,
        "step_time_error_pct_fitted": round(report.fit_error_pct, 2),
        "step_time_error_pct_left_out": round(report.left_out_error_pct, 2),
        "step_time_error_pct_micro_benchmarks": round(report.micro_error_pct, 2),
        # What the published client saw on top of the engine (bench/measured/observation.py); only `bench.fidelity` uses it.
        "client_model": {name: float(f"{value:.4g}") for name, value in asdict(client).items()},
    }
    return replace(report, profile=replace(profile, uncertainty=uncertainty, provenance=provenance))


def _left_out(runs: pd.DataFrame, options: CalibrationOptions, model: str) -> NDArray[np.bool_]:
    """Which runs are of scenarios that are not fitted."""
    names = options.left_out.get(model, [])
    unknown = sorted(set(names) - set(runs.scenario))
    if unknown:
        raise UserError(
            f"left_out.{model}: no scenario {unknown[0]} in the runs; there are {sorted(set(runs.scenario))}"
        )
    left_out: NDArray[np.bool_] = runs.scenario.isin(names).to_numpy()
    if left_out.all():
        raise UserError(f"left_out.{model}: every scenario is left out; at least one must be fitted")
    return left_out


def measured_step_ms(runs: pd.DataFrame) -> Floats:
    """Mean step time of each run, weighted by running requests: running / generated tokens per second.

    Requests still open at the end made tokens that the client's total leaves out: seen at a random moment, a request
    has made E[output^2] / (2 E[output]) of them.
    """
    _, output, _ = Lengths().draw(np.random.Generator(np.random.Philox(key=[0, 0])), 100_000)
    age = float((output.astype(float) ** 2).mean() / (2 * output.mean()))
    generated = (runs.total_output_tokens + age * runs.series_mean_running) / runs.total_time_s
    step: Floats = (1000 * runs.series_mean_running / generated).to_numpy()
    return step


def starting_profile(folder: str, model: str, fitted: pd.DataFrame) -> ServingProfile:
    """Everything but the step time."""
    unsaturated = fitted[~fitted.port_exhaustion & (fitted.len_source == "prompt_pool")]
    generated = (unsaturated.total_output_tokens / unsaturated.completed / unsaturated.mean_output_len).median()
    load_ms, disk_load_ms = _load_times(folder, model)
    constant, per_running, per_skipped, per_waiting = (float(f"{c:.4g}") for c in _scheduler(folder).scheduler_ms)
    return ServingProfile(
        name=f"{PROFILE_OF_MODEL[model]}/h100-64gb",
        model=str(FLAGS[model]["model"]),
        gpu="h100-64gb",
        engine="vllm",
        engine_version=VERSION,
        kv=_kv_capacity(folder, model),
        step_ms=tuple(FIRST_GUESS.get(term, 0.0) for term in STEP_TERMS),
        scheduler_ms=(constant, per_running, per_skipped, per_waiting),
        load_ms=load_ms,
        disk_load_ms=disk_load_ms,
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=int(str(FLAGS[model]["max_model_len"])),
        eager_above_tokens=GRAPH_TOKENS,
        generated_fraction=round(float(generated), 3),
    )


def _kv_capacity(folder: str, model: str) -> KvCapacity:
    """What the servers reported of their KV cache."""
    capacity = read_table(
        folder, "kv_capacity.csv", ("model", "vllm_version", "max_loras", "max_lora_rank", "max_num_seqs",
                                    "kv_cache_tokens", "memory_error")
    )  # fmt: skip
    own = capacity[(capacity.model == model) & (capacity.vllm_version == VERSION)]
    served = own[own.max_num_seqs == MAX_NUM_SEQS]
    rows = served[served.max_loras > 0]
    without = served[served.max_loras == 0].kv_cache_tokens
    largest = int(rows.kv_cache_tokens.max()) if without.empty else int(without.iloc[0])
    return kv_capacity_from_rows(
        (
            (int(row.max_loras), int(row.max_lora_rank), 0 if row.memory_error else int(row.kv_cache_tokens))
            for _, row in rows.iterrows()
        ),
        largest,
    )


def _load_times(folder: str, model: str) -> tuple[tuple[tuple[int, int, float], ...], tuple[tuple[int, float], ...]]:
    """What loading an adapter took: to the GPU, and from disk."""
    loads = read_table(
        folder, "load_latency.csv", ("model", "vllm_version", "phase", "max_lora_rank", "adapter_rank", "mean_ms")
    )
    loads = loads[(loads.model == model) & (loads.vllm_version == VERSION)]
    to_gpu = loads[loads.phase == "serving_cpu_to_gpu"]
    to_host = loads[loads.phase == "server_start_disk_to_cpu"]
    return load_times_from_rows(
        {
            (int(row.max_lora_rank), int(row.adapter_rank)): float(row.mean_ms)
            for _, row in to_gpu.groupby(["max_lora_rank", "adapter_rank"]).mean_ms.mean().reset_index().iterrows()
        },
        {
            int(row.adapter_rank): float(row.mean_ms)
            for _, row in to_host.groupby("adapter_rank").mean_ms.mean().reset_index().iterrows()
        },
    )


def _scheduler(folder: str) -> SchedulerFit:
    """Scheduling time for each step."""
    overhead = read_table(
        folder, "sched_overhead.csv", ("max_loras", "n_adapters", "avg_batch_size", "avg_waiting_queue",
                                       "sched_ms_per_step")
    )  # fmt: skip
    return fit_scheduler_time(
        overhead.avg_batch_size.to_numpy(),
        overhead.avg_waiting_queue.to_numpy(),
        np.maximum(0.0, 1 - overhead.max_loras.to_numpy() / overhead.n_adapters.to_numpy()),
        overhead.sched_ms_per_step.to_numpy(),
    )


def micro_benchmarks(folder: str, model: str) -> tuple[Floats, Floats, Floats]:
    """Terms, step times without scheduling, and weights of the per-step measurements with LoRA.

    They tell apart what serving runs do not: there, prefill tokens are always in proportion to running requests.
    """
    steps = read_table(
        folder, "step_times_binned.csv", ("model", "lora_enabled", "max_loras", "n_steps", "mean_batched_tokens",
                                          "mean_distinct_adapters", "step_ms_median", "sched_ms_median")
    )  # fmt: skip
    probes = read_table(folder, "lora_overhead.csv", ("model", "max_num_seqs", "vllm_version", "max_lora_rank"))
    probes = probes[(probes.model == model) & (probes.vllm_version == VERSION)]
    steps = steps[(steps.model == model) & steps.lora_enabled]
    max_num_seqs = float(probes.max_num_seqs.max())
    # Bins of a step or two hold the compilation of a kernel at its first use: some hundred milliseconds.
    usual = steps.step_ms_median < 3 * steps.groupby("distinct_adapters_gt").step_ms_median.transform("median")
    steps = steps[usual]
    tokens = steps.mean_batched_tokens.to_numpy()
    running = np.minimum(tokens, max_num_seqs)
    terms = step_term_values(
        running,
        steps.mean_distinct_adapters.to_numpy(),
        tokens,
        running * MICRO_KV_PER_REQUEST,
        np.zeros(len(steps)),
        int(steps.max_loras.iloc[0]),
        int(probes.max_lora_rank.iloc[0]),
        min(GRAPH_TOKENS, int(np.ceil(max_num_seqs / GRAPH_STEP) * GRAPH_STEP)),
    )
    own_ms = (steps.step_ms_median - steps.sched_ms_median).to_numpy()
    return terms, own_ms, np.minimum(steps.n_steps.to_numpy(), 50.0)


def match_all(  # noqa: PLR0913  # what is matched, and how it is shown
    runs: pd.DataFrame,
    step_ms: Floats,
    profile: ServingProfile,
    scales: Floats,
    options: CalibrationOptions,
    console: Console,
    title: str,
) -> list[OperatingPoint]:
    """Operating points of all runs, in threads, with progress.

    The requests of a run are drawn when its turn comes: those of all overloaded runs together do not fit into memory.
    """
    with progress_bar(console) as progress:
        task = progress.add_task(title, total=len(runs))

        def one(number: int) -> OperatingPoint:
            run = run_of_row(runs.iloc[number], profile, seed=options.seed)
            observation = StepObservation(
                run.workload.requests,
                run.workload.ranks,
                run.max_loras,
                run.max_lora_rank,
                float(step_ms[number]),
                OPEN_REQUESTS_CAP,
            )
            point = match_operating_point(
                observation,
                profile,
                window_s=min(options.window_s, run.workload.duration_s),
                start_scale=float(scales[number]),
            )
            progress.advance(task)
            return point

        return in_threads(one, list(range(len(runs))), options.threads)


def request_overhead_ms(fitted: pd.DataFrame, profile: ServingProfile, options: CalibrationOptions) -> float:
    """What the client's time to first token has on top of the engine's: the median over idle fitted runs."""
    idle = fitted[fitted.series_mean_running < IDLE_RUNNING]
    runs = [run_of_row(row, profile, seed=options.seed) for _, row in idle.iterrows()]
    simulated = in_threads(lambda run: replay(run, profile).ttft.p50_ms, runs, options.threads)
    return max(0.0, float(np.median(idle.median_ttft_ms.to_numpy() - np.array(simulated))))


def client_model(fitted: pd.DataFrame, profile: ServingProfile, options: CalibrationOptions) -> ClientModel:
    """The client model of fitted runs without a queue."""
    short = fitted[~fitted.port_exhaustion & (fitted.series_mean_waiting < SHORT_QUEUE)]
    runs = [run_of_row(row, profile, seed=options.seed) for _, row in short.iterrows()]

    def one(run: PublishedRun) -> tuple[GpuResult, Stalls]:
        result = replay(run, profile, sample_every_s=SAMPLE_EVERY_S)
        return result, stalls_of(result, run.workload.requests, run.workload.duration_s)

    pairs = in_threads(one, runs, options.threads)
    kept = [number for number, (result, _) in enumerate(pairs) if result.mean_waiting < SHORT_QUEUE]
    rows = short.iloc[kept]
    return fit_client_model(
        (rows.series_span_s / rows.series_n_raw).to_numpy(),
        rows.mean_ttft_ms.to_numpy(),
        [pairs[number][0] for number in kept],
        [pairs[number][1] for number in kept],
    )
