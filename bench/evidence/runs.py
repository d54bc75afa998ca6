"""Real runs, published and one's own, as evidence of whether a real GPU was asked for as much, and served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.evidence.demand import DEMANDS, LENGTHS, demand_of_gpu, lengths_of
from bench.shared.files import write_text
from twin import GpuPlan, ServingProfile, UserError, Workload

Floats = NDArray[np.float64]
Kind = Literal["served", "near", "none"]

#: The file in the package; `python -m bench.fidelity runs=DIR evidence=bench/evidence/published.csv` makes it.
FILE = "published.csv"
#: Runs of one's own in a folder of `python -m bench.validate`, in the same columns.
OWN = "evidence.csv"
RATIOS = ("throughput_ratio", "itl_ratio", "ttft_ratio")
VERDICTS = ("starved", "memory_error")
COLUMNS = ("run", "profile", "window_s", "max_loras", "max_lora_rank", *DEMANDS, *LENGTHS, *VERDICTS, *RATIOS)
#: Runs of about the same: no figure of theirs is more than so many times that of the GPU, or less than a part of it.
NEAR, NEAREST = 1.5, 3
#: Request lengths count as those of the runs within so much: what the pool of prompts moves from run to run.
SAME_LENGTHS = 0.05


@dataclass(frozen=True)
class Evidence:
    """What real runs say of one GPU.

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


def evidence_of(
    plans: Sequence[GpuPlan], workload: Workload, profile: ServingProfile, runs: pd.DataFrame | None = None
) -> tuple[Evidence, ...]:
    """What real runs say of each GPU of a placement.

    Runs count for the profile of their servers, and for their request lengths and arrivals; elsewhere there is none.

    Parameters
    ----------
    plans : sequence of GpuPlan
    workload : Workload
    profile : ServingProfile
    runs : DataFrame, optional
        As `known_runs` gives them; the published ones by default.
    """
    lengths = lengths_of(workload)
    known = published_runs() if runs is None else runs
    mine = known[known.profile == profile.name]
    if lengths is None or mine.empty or not workload.n_adapters:
        return (NONE,) * len(plans)
    alike = (np.abs(mine[list(LENGTHS)].to_numpy() / lengths - 1) <= SAME_LENGTHS).all(axis=1)
    mine = mine[alike & (mine.window_s >= workload.duration_s).to_numpy()]
    if mine.empty:
        return (NONE,) * len(plans)
    alike_runs = _Runs.of(mine)
    return tuple(_judged(demand_of_gpu(plan, workload), plan.max_loras, alike_runs) for plan in plans)


class _Runs(NamedTuple):
    """Runs that count, a row for each, as arrays: a page of results asks about a hundred thousand GPUs."""

    names: tuple[str, ...]
    asked: Floats
    max_loras: NDArray[np.int64]
    failed: NDArray[np.bool_]
    error_pct: Floats

    @classmethod
    def of(cls, table: pd.DataFrame) -> _Runs:
        """Those in a table as `known_runs` gives it."""
        return cls(
            tuple(map(str, table.run)),
            table[list(DEMANDS)].to_numpy(dtype=float),
            table.max_loras.to_numpy(),
            (table.starved | table.memory_error).to_numpy(),
            np.abs(table.throughput_ratio.to_numpy() - 1) * 100,
        )


@cache
def published_runs() -> pd.DataFrame:
    """The runs in the package, one row for each."""
    with resources.as_file(resources.files("bench") / "evidence" / FILE) as path:
        return pd.read_csv(path)


def record(
    demand: Floats, lengths: Floats, verdicts: tuple[bool, bool], ratios: Sequence[float], **about: object
) -> dict[str, Any]:
    """One run in the columns of `COLUMNS`.

    Parameters
    ----------
    demand, lengths : arrays
        Of `bench.evidence.demand`.
    verdicts : tuple of bool
        Whether it starved, and whether it had a memory error.
    ratios : sequence of float
        Simulated over measured throughput, ITL and TTFT.
    **about
        The first five columns.
    """
    return {
        **about,
        **dict(zip(DEMANDS, demand, strict=True)),
        **dict(zip(LENGTHS, lengths, strict=True)),
        **dict(zip(VERDICTS, verdicts, strict=True)),
        **dict(zip(RATIOS, ratios, strict=True)),
    }


def write_own(records: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Keep runs of one's own in a folder, where `evidence=FOLDER` finds them."""
    write_text(folder / OWN, pd.DataFrame(records, columns=list(COLUMNS)).to_csv(index=False, float_format="%.6g"))
    return folder / OWN


def known_runs(folders: Sequence[str]) -> pd.DataFrame:
    """The published runs and those that `python -m bench.validate` left in folders, at any depth.

    Raises
    ------
    UserError
        If a folder is none or has no such runs, or a file is not what this version writes.
    """
    tables = [published_runs()]
    for folder in folders:
        files = sorted(Path(folder).rglob(OWN)) if Path(folder).is_dir() else []
        if not files:
            raise UserError(
                f"evidence={folder}: no folder with an {OWN} in it; python -m bench.validate out={folder} makes one"
            )
        tables += [_own_runs(path) for path in files]
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def _own_runs(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={"run": str, "profile": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as CSV ({' '.join(str(error).split())[:200]})") from None
    if missing := [column for column in COLUMNS if column not in table]:
        raise UserError(f"{path}: column {missing[0]} is missing; python -m bench.validate writes all of them")
    table = table[list(COLUMNS)]
    for column in COLUMNS[2:]:
        if column in RATIOS:
            continue  # A run that served nothing has none.
        known = (True, False) if column in VERDICTS else None
        values = pd.to_numeric(table[column], errors="coerce") if known is None else table[column]
        wrong = ~(np.isfinite(values) & (values >= 0)) if known is None else ~values.isin(known)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            must = "a number, 0 or more" if known is None else "True or False"
            raise UserError(f"{path}: row {row + 1}: {column}={table[column].iloc[row]} must be {must}")
    return table.astype(dict.fromkeys(VERDICTS, bool)).assign(run=str(path.parent) + "/" + table.run)


def _judged(demand: Floats, max_loras: int, runs: _Runs) -> Evidence:
    asked, failed, error = runs.asked, runs.failed, runs.error_pct
    as_much = (asked >= demand * (1 - 1e-9)).all(axis=1) & ~failed
    no_more = (asked <= demand * (1 + 1e-9)).all(axis=1) & failed
    slots = np.abs(np.log(runs.max_loras / max_loras))
    # A run that was asked for no more and starved speaks against it, if its slots are at least as near to the planned ones.
    if as_much.any() and slots[as_much].min() < (slots[no_more].min() if no_more.any() else np.inf):
        nearest = np.flatnonzero(as_much & (slots == slots[as_much].min()))
        place = int(nearest[np.argmin(_distance(asked[nearest], demand))])
        return Evidence("served", runs.names[place], int(runs.max_loras[place]), error_pct=_known(error[[place]]))
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
