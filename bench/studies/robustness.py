"""Placements scored again under moved serving profiles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from omegaconf import MISSING

from bench.comparison.build import build_workload, service_of
from bench.comparison.cell import Cell
from bench.comparison.rows import Row
from bench.statistics.instances import Case
from bench.studies.moved_profiles import fit_error_pct, moved_profiles
from twin import PUBLISHED, Placement, Score, ServingProfile, UserError, Workload, load_profile, score_placement
from twin.moved import drawn

#: What the file is called beside a folder of rows.
FILE_NAME = "robustness.parquet"


@dataclass
class RobustnessOptions:
    """How profiles are moved.

    `conf/robustness.yaml` says what each option is for.
    """

    rows: str = MISSING
    samples: int = 10
    seed: int = 0
    error_pct: float | None = None
    threads: int = 2
    trust: list[str] = field(default_factory=list)


def target_beside(rows: Path) -> Path:
    """Where the scores of rows are, by default."""
    return rows / FILE_NAME if rows.is_dir() else rows.with_name(f"{rows.stem}-{FILE_NAME}")


def moved(name: str, chosen: Sequence[Case], options: RobustnessOptions) -> list[ServingProfile]:
    """The profile itself and its moved versions."""
    rows = [row for case in chosen if case.key[1] == name for row in case.rows]
    cell = next((row.cell for row in rows if row.cell), None)
    if cell is None:
        raise UserError(f"rows={options.rows}: were made by a release that did not store how to make them again")
    profile = load_profile(_cell(cell, options).profile)
    if options.error_pct is None and profile.uncertainty is not None and profile.uncertainty.all_steps > 0:
        # What is off as a whole is not off by the sum of independent terms.
        return [profile, *drawn(profile, options.samples, options.seed)]
    error_pct = options.error_pct if options.error_pct is not None else fit_error_pct(profile)
    return [profile, *moved_profiles(profile, rows, error_pct, options.samples, options.seed)]


def scores_of(
    case: Case, profiles: Sequence[ServingProfile], options: RobustnessOptions
) -> Iterator[dict[str, object]]:
    """One record for each candidate and each profile; number 0 is the profile itself.

    No placement is not feasible under any profile.
    """
    texts = list(dict.fromkeys(row.placement for row in case.rows if row.placement is not None))
    workload, service = None, PUBLISHED
    if texts:
        cell = _cell(next(row.cell for row in case.rows if row.placement is not None), options)
        workload, service = build_workload(cell.workload, profiles[0]), service_of(cell)
        _check(workload, case)
    for sample, profile in enumerate(profiles):
        scores: dict[str, Score] = {}
        if workload is not None:
            # Solvers often give the same placement.
            for text in texts:
                placement = Placement.from_json(text)
                scores[text] = score_placement(workload, placement, profile, threads=options.threads, service=service)
        for row in case.rows:
            score = None if row.placement is None else scores[row.placement]
            yield {
                "instance": json.dumps(case.key),
                "objective": row.objective,
                "service": row.service,
                "solver": row.solver_label,
                "sample": sample,
                "feasible": score is not None and score.feasible,
                "cost": np.inf if score is None else _cost(row, score),
                "headroom": np.nan if score is None else score.headroom,
                **_settings(options),
            }


def _cell(text: str, options: RobustnessOptions) -> Cell:
    return Cell.from_json(text, f"rows={options.rows}", trust=options.trust, makes=["workload"])


def _cost(row: Row, score: Score) -> float:
    """What the objective compares: GPUs, or the one of three latencies that its key holds."""
    if row.objective != "min_latency" or row.objective_key is None:
        return float(score.gpus)
    key = row.objective_key[1]
    values = {name: getattr(row, name) for name in ("e2e_ms", "itl_ms", "ttft_ms")}
    metric = min(values, key=lambda name: abs((values[name] or np.inf) - key))
    return float(getattr(score, metric))


def _check(workload: Workload, case: Case) -> None:
    row = case.rows[0]
    if workload.ranks.tolist() != row.adapter_ranks or not np.allclose(workload.rates, row.adapter_rates or []):
        raise UserError(f"workload {row.workload_label}: what its row says no longer makes the same adapters")


def _settings(options: RobustnessOptions) -> dict[str, float]:
    return {
        "samples": options.samples,
        "seed": options.seed,
        "error_pct": -1.0 if options.error_pct is None else options.error_pct,
    }


def finished(out: Path, options: RobustnessOptions) -> dict[str, pd.DataFrame]:
    """Instances that an earlier, interrupted run has finished."""
    if not out.exists():
        return {}
    try:
        table = pd.read_parquet(out)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"out={out}: no Parquet file of scores ({reason}); remove it or name another file") from None
    for name, value in _settings(options).items():
        if name not in table or not np.isclose(table[name], value).all():
            raise UserError(f"out={out}: holds scores made with another {name}; remove it or name another file")
    return {str(key): frame for key, frame in table.groupby("instance", sort=False)}
