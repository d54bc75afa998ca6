"""What solvers claim of small instances, against the placements that are found for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from bench.comparison.cell import Cell, described
from bench.comparison.compare import candidate
from bench.comparison.execution import Execution, run_cells
from bench.comparison.rows import Row
from bench.comparison.run import comparison_of
from bench.statistics.instances import TWIN, fewest_gpus, oracle_of
from bench.studies.brute_force import BruteForce, GpuTwin
from bench.studies.small_instances import SmallInstance, arrivals_of, draw_instance
from twin import Placement

#: What the rows of the search by the twin alone are called.
BRUTE_FORCE = "brute_force"


@dataclass(frozen=True)
class ClaimAgainstTwin:
    """What one solver says of one instance, and whether a placement refutes it.

    Attributes
    ----------
    instance, kind, profile, service, arrivals : str
    n_adapters : int
    duration_s : float
        The window.
    fewest, fewest_whole : int, optional
        Fewest GPUs of all placements that the twin calls feasible; of those without replicas.
    found_by : str
        Whose placement that is.
    complete : bool
        No placement without replicas has fewer GPUs than `fewest_whole`: all contents were simulated.
    solver, status : str
    gpus, lower_bound : int, optional
    feasible : bool
        The solver's placement, by the twin.
    refuted : str
        What is wrong with the claim; empty where nothing is.
    """

    instance: str
    kind: str
    profile: str
    service: str
    arrivals: str
    n_adapters: int
    duration_s: float
    fewest: int | None
    fewest_whole: int | None
    found_by: str
    complete: bool
    solver: str
    status: str
    gpus: int | None
    lower_bound: int | None
    feasible: bool
    refuted: str


def cells_of_instance(instance: SmallInstance, cells: Sequence[Cell]) -> list[Cell]:
    """The solvers' cells with the instance as their question."""
    return [
        replace(
            cell,
            workload=instance.workload,
            service=instance.service_options,
            profile=instance.profile,
            seed=instance.workload["seed"],
            instance=instance.name,
        )
        for cell in cells
    ]


def answers(instance: SmallInstance, cells: Sequence[Cell], execution: Execution, seconds: float) -> list[Row]:
    """What each solver says of an instance, and what is found by the twin alone.

    Parameters
    ----------
    instance : SmallInstance
    cells : sequence of Cell
        One for each solver.
    execution : Execution
    seconds : float
        For each of the two searches of `BruteForce`.

    Returns
    -------
    list of Row
        The last one is that of `BRUTE_FORCE`.
    """
    asked = cells_of_instance(instance, cells)
    rows = run_cells(asked, execution)
    comparison = comparison_of(asked[0])
    twin = GpuTwin(comparison.workload, comparison.profile, comparison.service)
    search = BruteForce(twin, fewest_gpus(rows), seconds, asked[0].seed)
    row = candidate(comparison, BRUTE_FORCE, lambda: search)
    return [*rows, described(row, replace(asked[0], solver=BRUTE_FORCE, solver_options={}, overrides=()))]


def claims(rows: Sequence[Row]) -> list[ClaimAgainstTwin]:
    """One claim for each solver of an instance.

    Parameters
    ----------
    rows : sequence of Row
        Of one instance, as `answers` gives them.
    """
    *solvers, found = rows
    instance = drawn(found.instance)
    details = json.loads(found.details)
    fewest = fewest_gpus(rows)
    by = next((row.solver for row in rows if row.feasible and row.gpus == fewest), "")
    whole = fewest_gpus(row for row in rows if not _has_replicas(row))
    whole = min((gpus for gpus in (whole, details.get("whole")) if gpus is not None), default=None)
    return [
        ClaimAgainstTwin(
            instance.name, instance.kind, found.profile, found.service, arrivals_of(instance), found.n_adapters or 0,
            found.duration_s or 0.0, fewest, whole, by, bool(details.get("complete")), row.solver_label, row.status,
            row.gpus, row.lower_bound, row.feasible, refuted(row, fewest, whole),
        )
        for row in solvers
    ]  # fmt: skip


def refuted(row: Row, fewest: int | None, fewest_whole: int | None) -> str:
    """What feasible placements say against a solver's claims; empty where they say nothing.

    A solver whose details say `replicas` speaks of all placements, and may say more of those without
    (`lower_bound_without_replicas`); any other of placements that give each adapter one GPU.

    Parameters
    ----------
    row : Row
    fewest, fewest_whole : int, optional
        GPUs of the best placement, and of the best without replicas.
    """
    details = json.loads(row.details)
    least = fewest if details.get("replicas") is True else fewest_whole
    wrong = []
    # A bound for a learned model says nothing of the twin.
    of_twin = oracle_of(row) in ("", TWIN)
    if of_twin and least is not None:
        if row.lower_bound is not None and row.lower_bound > least:
            wrong.append(f"bound {row.lower_bound} > {least}")
        if row.status == "optimal" and row.gpus is not None and row.gpus > least:
            wrong.append(f"optimal {row.gpus} > {least}")
    whole_bound = details.get("lower_bound_without_replicas")
    if of_twin and fewest_whole is not None and whole_bound is not None and whole_bound > fewest_whole:
        wrong.append(f"bound without replicas {whole_bound} > {fewest_whole}")
    if row.status == "infeasible" and least is not None:
        wrong.append(f"infeasible, but {least}")
    return "; ".join(wrong)


@cache
def drawn(name: str) -> SmallInstance:
    """The instance of a name."""
    _, seed, number = name.rsplit("-", 2)
    return draw_instance(int(seed), int(number))


def _has_replicas(row: Row) -> bool:
    return row.placement is not None and Placement.from_json(row.placement).has_replicas
