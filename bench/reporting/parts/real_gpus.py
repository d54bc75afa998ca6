"""How many GPUs of each solver's placements a real GPU has served in published runs, or come near."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from itertools import islice

import numpy as np
import pandas as pd

from bench.comparison.build import build_workload
from bench.comparison.cell import Cell
from bench.comparison.rows import Row
from bench.evidence.runs import Evidence, evidence_of
from bench.reporting.content import Column, Part, Table, number, words
from bench.reporting.study import Study
from bench.statistics.instances import Case
from twin import Placement, ServingProfile, UserError, Workload, load_profile


def real_gpus(study: Study, runs: pd.DataFrame) -> Part | None:
    """One line for each solver; None where no run of `bench.evidence.runs.known_runs` counts for any GPU."""
    kinds: dict[str, Counter[str]] = {}
    errors: dict[str, list[float]] = {}
    for case in study.cases:
        known = _workload(case)
        if known is None:
            continue
        feasible = [row for row in case.rows if row.feasible and row.placement is not None]
        plans = {str(row.placement): Placement.from_json(str(row.placement)).gpus for row in feasible}
        # Asked about at once: the runs that count are the same for all placements of an instance.
        found = iter(evidence_of([plan for gpus in plans.values() for plan in gpus], *known, runs))
        evidence = {placement: tuple(islice(found, len(gpus))) for placement, gpus in plans.items()}
        for row in feasible:
            of_row = evidence[str(row.placement)]
            kinds.setdefault(row.solver_label, Counter()).update(one.kind for one in of_row)
            errors.setdefault(row.solver_label, []).extend(_near(of_row))
    if not any(count["served"] or count["near"] for count in kinds.values()):
        return None
    solvers = [solver for solver in study.solvers if solver in kinds]
    lines = tuple(
        (
            words(solver, solver=solver),
            number(kinds[solver].total(), 0),
            *(number(kinds[solver][kind] / kinds[solver].total(), 1, scale=100) for kind in ("served", "near", "none")),
            number(float(np.mean(errors[solver])) if errors[solver] else None, 1),
        )
        for solver in solvers
    )
    return Part(
        "real-gpus",
        "What real GPUs have served",
        (
            (
                "For each GPU of the feasible placements: was a real GPU, in a published run of real vLLM or one of evidence=, asked for "
                "at least as much of everything (adapters, summed rate, largest and mean rank, adapters active at a time), and did it not "
                "starve, with a max_loras of its own? Or are runs within 1.5 times of everything known? Runs count for the profile of "
                "their servers, and for their request lengths and arrivals only. The fuller a GPU, the fewer runs carried as much."
            ),
        ),
        (Table("real-gpus", "GPUs by what published runs say of them", _COLUMNS, lines),),
    )


_COLUMNS = (
    Column("Solver", numeric=False),
    Column("GPUs", "of all feasible placements"),
    Column("Served, %", "a real GPU served at least as much"),
    Column("Near, %", "runs within 1.5 times are known, whether they starved or not"),
    Column("None, %", "neither, or other lengths, arrivals or profile"),
    Column("Twin off, %", "its throughput from that of the nearest three runs, mean over the GPUs that are near"),
)


def _near(found: tuple[Evidence, ...]) -> list[float]:
    return [one.error_pct for one in found if one.kind == "near" and one.error_pct is not None]


def _workload(case: Case) -> tuple[Workload, ServingProfile] | None:
    """Workload and profile of an instance; None where its rows name what is not in the registry, or no longer there."""
    row: Row | None = next((row for row in case.rows if row.cell and row.placement is not None), None)
    # Of several types each GPU has another profile; its row says what is known of it.
    if row is None or len(row.types) > 1:
        return None
    try:
        cell = Cell.from_json(row.cell, "rows", makes=["workload"])
        return _built(json.dumps(cell.workload, sort_keys=True), cell.profile)
    except UserError:
        return None


@lru_cache(maxsize=256)
def _built(options: str, profile_name: str) -> tuple[Workload, ServingProfile]:
    """Instances that differ in their solvers' seed alone have one workload."""
    profile = load_profile(profile_name)
    return build_workload(json.loads(options), profile), profile
