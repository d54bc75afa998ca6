"""How wrong an estimate is: each measured model, estimated from what the other one says, beside its published runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from bench.estimating.constants import MEASURED, measured_constants
from bench.estimating.estimate import ServerShape, estimate_profile
from bench.estimating.gpus import MEASURED_CARD
from bench.estimating.shape import load_shape
from bench.measured.profile_from_runs import CalibrationOptions, match_all, measured_step_ms
from bench.measured.published import PROFILE_OF_MODEL, read_runs
from twin.profile import ServingProfile
from twin.profile_files import load_profile

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Transfer:
    """One model estimated from another.

    Attributes
    ----------
    source, target : str
        Profiles: what the constants were taken from, and what was estimated.
    runs : int
        Published runs of the target.
    step_error_pct, step_bias_pct : float
        Mean absolute and mean error of their step times.
    one_point_error_pct : float
        The same if the estimate is scaled to one of the runs: mean over which one it is.
    kv_error_pct, kv_worst_pct : float
        Mean absolute and largest error of the KV capacity over all measured `max_loras` and ranks.
    """

    source: str
    target: str
    runs: int
    step_error_pct: float
    step_bias_pct: float
    one_point_error_pct: float
    kv_error_pct: float
    kv_worst_pct: float


def transfers(folder: str, window_s: float, seed: int, console: Console) -> tuple[list[Transfer], pd.DataFrame]:
    """Both directions, and one row for each run: measured and estimated step time.

    Parameters
    ----------
    folder : str
        With the published runs.
    window_s : float
        How much of each run is simulated to see what its steps looked like.
    """
    found, rows = [], []
    for source, target in (MEASURED, MEASURED[::-1]):
        known, shape = load_profile(target), load_shape(target)
        version, context = known.engine_version, known.max_model_len
        server = ServerShape(
            MEASURED_CARD, 1, "bf16", version, known.max_num_seqs, known.max_num_batched_tokens, context
        )
        constants = measured_constants([source])
        guess = estimate_profile(f"{target}/estimated", shape, server, constants, seed=seed).profile
        table = _steps(folder, target, known, guess, CalibrationOptions(window_s=window_s, seed=seed), console)
        measured, estimated = table.measured_ms.to_numpy(), table.estimated_ms.to_numpy()
        kv = _kv_errors(known, guess)
        error = estimated / measured - 1
        found.append(
            Transfer(
                source, target, len(table), float(np.abs(error).mean() * 100), float(error.mean() * 100),
                _one_point(measured, estimated), float(np.abs(kv).mean() * 100), float(np.abs(kv).max() * 100),
            )
        )  # fmt: skip
        rows.append(table.assign(source=source, target=target))
    return found, pd.concat(rows, ignore_index=True)


def _steps(  # noqa: PLR0913  # two profiles of one model, and how its runs are matched
    folder: str,
    target: str,
    known: ServingProfile,
    guess: ServingProfile,
    options: CalibrationOptions,
    console: Console,
) -> pd.DataFrame:
    """Measured and estimated step time of each published run of a model, at the run's own operating point."""
    runs = read_runs(folder)
    named = {profile: model for model, profile in PROFILE_OF_MODEL.items()}
    runs = runs[(runs.model == named[target]) & ~runs.memory_error & (runs.series_mean_running > 0.5)]  # as the fit's
    runs = runs.reset_index(drop=True)
    measured = measured_step_ms(runs)
    points = match_all(runs, measured, known, np.ones(len(runs)), options, console, target)
    terms = np.array([point.terms for point in points])
    other = np.array([point.other_ms for point in points])
    estimated = terms @ np.array(guess.step_ms) + other
    return pd.DataFrame(
        {
            "run": runs.run_id if "run_id" in runs else runs.index,
            "max_loras": runs.max_loras.astype(int),
            "n_adapters": runs.n_adapters.astype(int),
            "running": runs.series_mean_running.round(2),
            "measured_ms": measured.round(4),
            "estimated_ms": estimated.round(4),
        }
    )


def _one_point(measured: Floats, estimated: Floats) -> float:
    """Mean absolute error in per cent after scaling to one run, over all choices of this run; it does not count itself."""
    ratio = estimated / measured
    error = np.abs(ratio[None, :] / ratio[:, None] - 1)
    count = len(ratio)
    return float(error.sum() / (count * (count - 1)) * 100) if count > 1 else float("nan")


def _kv_errors(known: ServingProfile, guess: ServingProfile) -> Floats:
    """Estimated over measured KV capacity, less 1, wherever the measured server starts."""
    return np.array([
        guess.kv.lookup(slots, rank) / tokens - 1
        for rank, row in zip(known.kv.max_lora_rank, known.kv.tokens, strict=True)
        for slots, tokens in zip(known.kv.max_loras, row, strict=True)
        if tokens
    ])  # fmt: skip
