"""What the best service within the GPUs found does to placements: latency, goodput and starvation before and after."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.comparison.build import build_workload, service_of
from bench.comparison.cell import Cell
from bench.comparison.rows import Row
from solvers.base import Problem
from solvers.limits import Deadline
from solvers.mending.best_service import BestService
from solvers.objectives.min_gpus import MinGpus
from twin import INTERACTIVE, Placement, Score, load_profile, score_placement

#: Columns of a line that say what it is about, and those with options that all lines of a table share.
KEY, SETTINGS = ("instance", "solver", "workload_seed"), ("seconds",)


@dataclass
class BestServiceOptions:
    """How placements are improved.

    `conf/best_service.yaml` says what each option is for.
    """

    candidate: str = "exact"
    adapters: int = 200
    seconds: float = 60.0
    trust: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Improved:
    """One placement before and after.

    Attributes
    ----------
    instance, solver, service : str
    n_adapters, gpus : int
    ttft_ms_before, ttft_ms_after, itl_ms_before, itl_ms_after : float
        Means over the finished requests of all GPUs.
    goodput_before, goodput_after : float
        Of all judged requests, by the level's limits or those of `interactive`.
    worst_goodput_before, worst_goodput_after : float
        Of the worst GPU.
    starved_before, starved_after : int
        Adapters that get less than 90 % of what they ask for.
    headroom_before, headroom_after : float
        The least of the GPUs.
    slots_above_before, slots_above_after : int
        GPUs with more slots than adapters.
    calls : int
        Simulations.
    solve_s : float
    workload_seed : int
        Of the instance's requests.
    seconds : float
        That the search was given.
    """

    instance: str
    solver: str
    service: str
    n_adapters: int
    gpus: int
    ttft_ms_before: float
    ttft_ms_after: float
    itl_ms_before: float
    itl_ms_after: float
    goodput_before: float
    goodput_after: float
    worst_goodput_before: float
    worst_goodput_after: float
    starved_before: int
    starved_after: int
    headroom_before: float
    headroom_after: float
    slots_above_before: int
    slots_above_after: int
    calls: int
    solve_s: float
    workload_seed: int
    seconds: float


#: Figures that are there before and after, and what a score calls them.
_FIGURES = {
    "ttft_ms": "ttft_ms", "itl_ms": "itl_ms", "goodput": "goodput", "worst_goodput": "worst_gpu_goodput",
    "starved": "starved_adapters", "headroom": "headroom",
}  # fmt: skip


def chosen(rows: list[Row], options: BestServiceOptions) -> list[Row]:
    """The first feasible placement of the solver for each instance of at most so many adapters, each adapter on one GPU."""
    found: dict[tuple[str, int], Row] = {}
    for row in rows:
        if (
            options.candidate in (row.solver, row.solver_label)
            and row.feasible
            and row.placement
            and row.cell
            and (row.n_adapters or 0) <= options.adapters
            and not Placement.from_json(row.placement).has_replicas
        ):
            found.setdefault((row.workload_label, row.seed), row)
    return [found[key] for key in sorted(found)]


def about(row: Row) -> tuple[str, str, int]:
    """What the line of a row is about: the values of `KEY`."""
    return row.workload_label, row.solver_label, row.seed


def improve(row: Row, options: BestServiceOptions) -> Improved:
    """Improve the placement of a row, and score it before and after.

    Parameters
    ----------
    row : Row
        With a feasible placement.
    options : BestServiceOptions
    """
    cell = Cell.from_json(row.cell, f"rows of {row.workload_label}", trust=options.trust, makes=["workload"])
    profile, service = load_profile(cell.profile), service_of(cell)
    workload = build_workload(cell.workload, profile)
    problem = Problem(workload, profile, MinGpus(), time_limit_s=options.seconds, service=service)
    before = Placement.from_json(row.placement or "")
    search, start = BestService(problem, Deadline.after(options.seconds)), time.perf_counter()
    after = search.improved(before)
    solve_s = time.perf_counter() - start

    def scored(placement: Placement) -> Score:
        return score_placement(workload, placement, profile, service=service, shown=INTERACTIVE)

    pairs: dict[str, Any] = {}
    for when, placement in (("before", before), ("after", after)):
        score = scored(placement)
        pairs |= {f"{name}_{when}": getattr(score, ours) for name, ours in _FIGURES.items()}
        pairs[f"slots_above_{when}"] = sum(plan.max_loras > len(plan.adapters) for plan in placement.gpus)
    return Improved(
        instance=row.workload_label, solver=row.solver_label, service=row.service, n_adapters=workload.n_adapters,
        gpus=after.n_gpus, calls=search.calls, solve_s=solve_s, workload_seed=row.seed, seconds=options.seconds, **pairs,
    )  # fmt: skip


def summary_lines(found: list[Improved]) -> list[str]:
    """What all instances say together, in lines for people."""
    if not found:
        return ["no placements"]
    known = [each for each in found if each.ttft_ms_before > 0 and each.ttft_ms_after > 0]
    ratios = np.array([each.ttft_ms_before / each.ttft_ms_after for each in known])
    shorter, longest = np.exp(np.log(ratios).mean()), 100 * (1 / ratios.min() - 1)
    longer = f"longer on {(ratios < 1).sum()} of {len(known)} (by {longest:.0f} % at most)"
    lines = [f"mean TTFT {shorter:.1f} times lower in the geometric mean, {longer}"]
    for name, digits, text in (
        ("goodput", 3, "mean goodput"), ("worst_goodput", 3, "mean goodput of the worst GPU"),
        ("starved", 1, "mean starved adapters"), ("headroom", 3, "mean least head-room"),
    ):  # fmt: skip
        pairs = np.array([[getattr(each, f"{name}_{when}") for when in ("before", "after")] for each in found], float)
        worse = pairs[:, 1] > pairs[:, 0] if name == "starved" else pairs[:, 1] < pairs[:, 0]
        lines.append(
            f"{text} {pairs[:, 0].mean():.{digits}f} -> {pairs[:, 1].mean():.{digits}f}, worse on {worse.sum()} of {len(found)}"
        )
    return lines
