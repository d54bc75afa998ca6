"""Published S-LoRA runs: read, replayed on the twin, and a profile fitted to three quarters of them.

The runs are those of the workshop paper's Figure 5 (repository FerranAgulloLopez/GPULLMAdapterOptimizationSLoRA, Apache-2.0):
Llama-2-7B, rank 32, prompts of 250 and outputs of 230 tokens.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import least_squares

from bench.measured.published import read_table
from bench.measured.tables import check_columns
from bench.shared.terminal import in_threads
from twin import GpuResult, Requests, ServingProfile, UserError, engine, simulate_requests
from twin.numbers import LONGEST_S, MOST_ADAPTERS
from twin.profile import SLORA, STEP_TERMS, KvCapacity
from twin.service import STARVATION_SHARE

#: Shipped profile of these runs.
PROFILE = "llama-2-7b/slora-h100-64gb"
#: Step terms that the runs tell, and where the fit begins, in ms; `running` is not told apart from `tokens`.
FITTED = {
    "constant": 14.5, "tokens": 0.165, "adapters": 0.02, "kv_tokens": 1.2e-4, "eager_step": 2.0, "eager_tokens": 0.045, "loads": 3.0,
}  # fmt: skip
#: Measured column, the simulated one beside it, and its weight in the fit.
COMPARED = {
    "throughput": ("request_throughput", 3.0),
    "itl_ms": ("mean_itl_ms", 1.0),
    "median_itl_ms": ("median_itl_ms", 1.0),
    "batch": ("mean_batch", 1.5),
}
#: Beside these, in the table of errors.
SHOWN = ("throughput", "itl_ms", "client_itl_ms", "median_itl_ms", "batch", "adapters", "loads")
_COLUMNS = (
    "run_id", "engine", "status", "n_adapters", "rate_per_adapter", "rank", "kv_cache_tokens", "total_time_s", "aggregate_rate",
    "duration_s", "request_throughput", "mean_itl_ms", "median_itl_ms", "mean_batch", "mean_unique_adapters", "adapter_loads",
)  # fmt: skip
_PROMPT, _OUTPUT = 250, 230
# The load generator made so many requests for each second of `total_time_s` at the nominal rate and was done with the last of them:
# 2,304 at 1.6 per second, of which 2,299 finished, and likewise at every rate that was served.
_MADE = 1.2
# Runs that were stopped before the generator was done have the nominal rate.
_CUT = 0.995
#: Requests of one mini batch may have a sixth of the pool in prompts together, `running_max_req_size` run at most; S-LoRA's defaults.
_BATCH_SHARE, _MOST_RUNNING, _MOST_TOTAL = 6, 1000, 3072
# No more steps in half an hour: the shortest takes 14 ms.
_MOST_STEPS = 200_000


def is_slora(folder: str) -> bool:
    """Whether the folder has S-LoRA runs."""
    table = read_table(folder, "runs.csv")
    return "engine" in table and len(table) > 0 and bool((table.engine == "S-LoRA").all())


def read_slora_runs(folder: str) -> pd.DataFrame:
    """The finished runs, with `kept_back`: whether no figure is fitted to them.

    Raises
    ------
    UserError
        If a column is missing or holds no number, or no run is finished.
    """
    table = read_table(folder, "runs.csv", _COLUMNS)
    runs = table[(table.status == "ok") & (table.engine == "S-LoRA")].reset_index(drop=True)
    path = Path(folder) / "runs.csv"
    if runs.empty:
        raise UserError(f"{path}: no run in it is finished (status ok) and of engine S-LoRA")
    numbers = tuple(name for name in _COLUMNS if name not in ("run_id", "engine", "status"))
    check_columns(runs, path, numbers)
    wrong = runs[(runs.n_adapters < 1) | (runs.n_adapters > MOST_ADAPTERS) | (runs.duration_s > LONGEST_S)]
    if len(wrong):
        raise UserError(f"{path}: run {wrong.run_id.iloc[0]} has n_adapters or duration_s out of range")
    back = [kept_back(int(n), float(rate)) for n, rate in zip(runs.n_adapters, runs.rate_per_adapter, strict=True)]
    return runs.assign(kept_back=back)


def kept_back(n_adapters: int, rate: float) -> bool:
    """Whether runs of a configuration are kept back from the fit: a quarter of all, by a hash of the configuration."""
    return int(hashlib.sha256(f"{n_adapters} adapters at {rate:g}".encode()).hexdigest(), 16) % 4 == 0


def blank_profile(runs: pd.DataFrame) -> ServingProfile:
    """A profile with what needs no fit: the pool of the runs, S-LoRA's limits."""
    pool, rank = int(runs.kv_cache_tokens.iloc[0]), int(runs["rank"].max())
    most = int(runs.n_adapters.max())
    return ServingProfile(
        name=PROFILE,
        model="meta-llama/Llama-2-7b-hf",
        gpu="h100-64gb",
        engine=SLORA,
        engine_version="1.0",
        kv=KvCapacity((1, most), (rank,), ((pool, pool),), pool),
        step_ms=_steps(FITTED),
        scheduler_ms=(0.0, 0.0, 0.0, 0.0),
        # What a load takes in serving is a term of the step.
        load_ms=((rank, rank, 0.0),),
        disk_load_ms=((rank, 0.0),),
        max_num_seqs=_MOST_RUNNING,
        max_num_batched_tokens=max(pool // _BATCH_SHARE, _MOST_TOTAL),
        max_model_len=_MOST_TOTAL,
        block_size=1,
    )


def _steps(terms: dict[str, float]) -> tuple[float, ...]:
    return tuple(float(f"{terms.get(term, 0.0):.6g}") for term in STEP_TERMS)


def requests_of(row: Any, seed: int) -> Requests:  # noqa: ANN401  # a row of any columns
    """Requests like those of a run: its own count and duration, moments and adapters drawn.

    Moments are uniform over the run, which is a Poisson process of which the count is known.
    """
    count = round(row.aggregate_rate * row.duration_s)
    if row.duration_s > row.total_time_s * _MADE * _CUT * _CUT:
        count = round(row.aggregate_rate * row.total_time_s * _MADE)
    generator = np.random.default_rng([seed, int(row.n_adapters), round(row.rate_per_adapter * 1e6)])
    arrival_s = np.sort(generator.uniform(0.0, row.duration_s, count))
    adapter = generator.integers(0, int(row.n_adapters), count)
    prompt, output = np.full(count, _PROMPT), np.full(count, _OUTPUT)
    return Requests(arrival_s, adapter, prompt, output, output)


@dataclass(frozen=True)
class SloraFigures:
    """What is compared of one run: requests per second, milliseconds, and means over decode steps, as the server counts them."""

    throughput: float
    itl_ms: float
    median_itl_ms: float
    batch: float
    adapters: float
    loads: float
    starved: bool
    waiting: float


def simulated(row: Any, profile: ServingProfile, seed: int) -> SloraFigures:  # noqa: ANN401  # a row of any columns
    """One run on the twin."""
    requests = requests_of(row, seed)
    ranks = np.full(int(row.n_adapters), int(row["rank"]))
    result = simulate_requests(
        requests,
        ranks,
        profile,
        max_loras=1,
        duration_s=float(row.duration_s),
        sample_every_s=0.0,
        max_samples=_MOST_STEPS,
    )
    decodes = _decodes(result)
    return SloraFigures(
        throughput=result.finished / row.duration_s,
        itl_ms=result.itl.mean_ms,
        median_itl_ms=result.itl.p50_ms,
        batch=float(decodes[:, engine.SAMPLE_RUNNING].mean()),
        adapters=float(decodes[:, engine.SAMPLE_ADAPTERS].mean()),
        loads=float(result.loads),
        starved=result.starved,
        waiting=result.mean_waiting,
    )


def _decodes(result: GpuResult) -> NDArray[np.float64]:
    samples = result.samples
    decodes: NDArray[np.float64] = samples[samples[:, engine.SAMPLE_TOKENS] == samples[:, engine.SAMPLE_RUNNING]]
    return decodes


def replay_slora(runs: pd.DataFrame, profile: ServingProfile, seed: int, threads: int) -> pd.DataFrame:
    """Measured and simulated figures of each run, a row each."""
    figures = in_threads(lambda row: simulated(row, profile, seed), [row for _, row in runs.iterrows()], threads)
    offered = np.array([len(requests_of(row, seed)) / row.duration_s for _, row in runs.iterrows()])
    columns = {name: measured for name, (measured, _) in COMPARED.items()}
    columns |= {"adapters": "mean_unique_adapters", "loads": "adapter_loads", "client_itl_ms": "mean_itl_ms"}
    client = profile.provenance.get("client_model") or {"most_ms": 0.0, "waiting_half": 1.0}
    waiting = np.array([each.waiting for each in figures])
    seen = [each.itl_ms for each in figures] + seen_late(waiting, **client)
    rows = {
        "run_id": runs.run_id,
        "n_adapters": runs.n_adapters,
        "rate_per_adapter": runs.rate_per_adapter,
        "kept_back": runs.kept_back,
    }
    for name, measured in columns.items():
        rows[f"measured_{name}"] = runs[measured]
        rows[f"simulated_{name}"] = pd.Series(
            seen if name == "client_itl_ms" else [getattr(each, name) for each in figures]
        )
    frame = pd.DataFrame(rows)
    served = (runs.request_throughput / offered).round(4)
    return frame.assign(
        simulated_waiting=waiting,
        measured_served=served,
        measured_starved=served < STARVATION_SHARE,
        simulated_starved=[each.starved for each in figures],
    )


def fit_slora(folder: str, seed: int, threads: int, console: Console) -> ServingProfile:
    """Step terms by least squares over the runs that are not kept back, each simulated."""
    runs = read_slora_runs(folder)
    mine = runs[~runs.kept_back].reset_index(drop=True)
    blank = blank_profile(runs)
    scale = np.array(list(FITTED.values()))
    console.print(
        f"fitting {len(scale)} step terms to {len(mine)} of {len(runs)} runs of S-LoRA, seed {seed}; the others are kept back"
    )

    def profile_of(values: NDArray[np.float64]) -> ServingProfile:
        return replace(blank, step_ms=_steps(dict(zip(FITTED, (values * scale).tolist(), strict=True))))

    def residuals(values: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = replay_slora(mine, profile_of(values), seed, threads)
        return np.concatenate([
            weight * np.log(rows[f"simulated_{name}"] / rows[f"measured_{name}"]) for name, (_, weight) in COMPARED.items()
        ])  # fmt: skip

    found = least_squares(residuals, np.ones(len(scale)), bounds=(0.0, np.inf), diff_step=0.03, max_nfev=10)
    profile = profile_of(found.x)
    rows = replay_slora(mine, profile, seed, threads)
    errors = slora_errors(rows)
    return replace(
        profile,
        provenance={
            "source": (
                "S-LoRA runs published with the workshop paper of arXiv 2508.08343's authors (repository "
                "FerranAgulloLopez/GPULLMAdapterOptimizationSLoRA, Apache-2.0, commit c5feb1f)"
            ),
            "command": f"python -m bench.calibrate runs=DIR seed={seed}",
            "fitted_runs": len(mine),
            "left_out_runs": len(runs) - len(mine),
            "left_out": "a quarter of the configurations, by a hash of adapters and rate (bench/measured/slora_runs.py)",
            "step_time_error_pct_fitted": round(errors["median_itl_ms"], 2),
            "ranks": "32 alone was measured",
            # What the published client saw on top of the engine; only `bench.fidelity` uses it.
            "client_model": client_model(rows),
        },
    )


def seen_late(waiting: NDArray[np.float64], most_ms: float, waiting_half: float) -> NDArray[np.float64]:
    """What the client's mean ITL has on top of the engine's, in ms, while so many requests wait with an open connection each.

    Half of the most at `waiting_half`. The form is by hand: median ITL, batch and throughput stand still meanwhile, so that it is no
    time of the engine's.
    """
    return most_ms * waiting / (waiting + waiting_half)


def client_model(rows: pd.DataFrame) -> dict[str, float]:
    """`seen_late` fitted to runs, least squares in relative error."""
    late = (rows.measured_itl_ms - rows.simulated_itl_ms).to_numpy()
    fits = []
    for half in np.geomspace(100.0, 30_000.0, 40):
        shape = seen_late(rows.simulated_waiting.to_numpy(), 1.0, float(half)) / rows.measured_itl_ms.to_numpy()
        target = late / rows.measured_itl_ms.to_numpy()
        most = max(0.0, float(shape @ target / (shape @ shape)))
        fits.append((float(((target - most * shape) ** 2).sum()), most, float(half)))
    _, most, half = min(fits)
    return {"most_ms": float(f"{most:.3g}"), "waiting_half": float(f"{half:.3g}")}


def slora_errors(rows: pd.DataFrame) -> dict[str, float]:
    """Mean absolute error in per cent of each figure."""
    return {
        name: float(np.abs(rows[f"simulated_{name}"] / rows[f"measured_{name}"] - 1).mean() * 100) for name in SHOWN
    }


def slora_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors over the runs that were fitted to and over those kept back; verdicts, and those within 2 % of the limit.

    A verdict within 2 % of the limit is chance: the arrivals of the runs are not known.
    """
    lines = []
    for part, mine in (("fitted", rows[~rows.kept_back]), ("kept back", rows[rows.kept_back])):
        if mine.empty:
            continue
        wrong = mine.measured_starved != mine.simulated_starved
        near = (mine.measured_served / STARVATION_SHARE - 1).abs() <= 0.02
        lines.append({
            "runs": part, "count": len(mine), **{f"{name}_error_pct": error for name, error in slora_errors(mine).items()},
            "verdicts_wrong": int(wrong.sum()), "verdicts_wrong_far_from_limit": int((wrong & ~near).sum()), "near_limit": int(near.sum()),
        })  # fmt: skip
    return pd.DataFrame(lines)


def slora_table(summary: pd.DataFrame) -> Table:
    """The errors for a terminal."""
    table = Table(title="S-LoRA: mean absolute error in %")
    for name in summary.columns:
        table.add_column(
            name.removesuffix("_error_pct").replace("_", " "), justify="left" if name == "runs" else "right"
        )
    for row in summary.itertuples(index=False):
        table.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row))
    return table
