"""Published runs as evidence of whether a real GPU was asked for as much, and served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.evidence.demand import DEMANDS, LENGTHS, demand_of_gpu, lengths_of
from twin import GpuPlan, ServingProfile, Workload

Floats = NDArray[np.float64]
Kind = Literal["served", "near", "none"]

#: The file in the package; `python -m bench.fidelity runs=DIR evidence=bench/evidence/published.csv` makes it.
FILE = "published.csv"
#: Runs of about the same: no figure of theirs is more than so many times that of the GPU, or less than a part of it.
NEAR, NEAREST = 1.5, 3
#: Request lengths count as those of the runs within so much: what the pool of prompts moves from run to run.
SAME_LENGTHS = 0.05


@dataclass(frozen=True)
class Evidence:
    """What the runs say of one GPU.

    Attributes
    ----------
    kind : {"served", "near", "none"}
        A real GPU was asked for at least as much of everything and did not starve, and none that was asked for no more did
        with `max_loras` as near to the planned one; runs within a factor of 1.5 in everything are known; or neither.
    run : str
        The run that served; of several that with `max_loras` nearest to the planned one, then the one asked for least.
    max_loras : int, optional
        Of that run's server, which may be another than the plan's.
    starved : int
        Of the nearest runs, those that starved (`near`).
    error_pct : float, optional
        Mean error of the simulated throughput of that run, or of the nearest ones.
    """

    kind: Kind
    run: str = ""
    max_loras: int | None = None
    starved: int = 0
    error_pct: float | None = None


NONE = Evidence("none")


def evidence_of(plans: Sequence[GpuPlan], workload: Workload, profile: ServingProfile) -> tuple[Evidence, ...]:
    """What published runs say of each GPU of a placement.

    Runs count for the profile that was fitted to their servers, and for their request lengths and arrivals; elsewhere there is none.
    """
    lengths = lengths_of(workload)
    known = published_runs()
    mine = known[known.profile == profile.name]
    if lengths is None or mine.empty or not workload.n_adapters:
        return (NONE,) * len(plans)
    alike = (np.abs(mine[list(LENGTHS)].to_numpy() / lengths - 1) <= SAME_LENGTHS).all(axis=1)
    mine = mine[alike & (mine.window_s >= workload.duration_s).to_numpy()]
    if mine.empty:
        return (NONE,) * len(plans)
    asked = mine[list(DEMANDS)].to_numpy()
    return tuple(_judged(demand_of_gpu(plan, workload), plan.max_loras, mine, asked) for plan in plans)


@cache
def published_runs() -> pd.DataFrame:
    """The runs in the package, one row for each."""
    with resources.as_file(resources.files("bench") / "evidence" / FILE) as path:
        return pd.read_csv(path)


def _judged(demand: Floats, max_loras: int, runs: pd.DataFrame, asked: Floats) -> Evidence:
    failed = (runs.starved | runs.memory_error).to_numpy()
    as_much = (asked >= demand * (1 - 1e-9)).all(axis=1) & ~failed
    no_more = (asked <= demand * (1 + 1e-9)).all(axis=1) & failed
    error = np.abs(runs.throughput_ratio.to_numpy() - 1) * 100
    slots = np.abs(np.log(runs.max_loras.to_numpy() / max_loras))
    # A run that was asked for no more and starved speaks against it, if its slots are at least as near to the planned ones.
    if as_much.any() and slots[as_much].min() < (slots[no_more].min() if no_more.any() else np.inf):
        nearest = np.flatnonzero(as_much & (slots == slots[as_much].min()))
        place = int(nearest[np.argmin(_distance(asked[nearest], demand))])
        run = runs.iloc[place]
        return Evidence("served", str(run.run), int(run.max_loras), error_pct=_known(error[[place]]))
    ratio = asked / np.maximum(demand, 1e-12)
    close = np.flatnonzero(((ratio <= NEAR) & (ratio >= 1 / NEAR)).all(axis=1))
    if not len(close):
        return NONE
    nearest = close[np.argsort(_distance(asked[close], demand), kind="stable")[:NEAREST]]
    return Evidence("near", starved=int(failed[nearest].sum()), error_pct=_known(error[nearest]))


def _distance(asked: Floats, demand: Floats) -> Floats:
    distance: Floats = np.abs(np.log(np.maximum(asked, 1e-12) / np.maximum(demand, 1e-12))).max(axis=1)
    return distance


def _known(errors: Floats) -> float | None:
    """The mean of what is known: a run with a memory error has no throughput."""
    known = errors[np.isfinite(errors)]
    return float(known.mean()) if len(known) else None
