"""Bounds put to the test: contents that cuts rule out, simulated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.comparison.build import build_workload
from bench.comparison.cell import Cell
from bench.comparison.rows import Row
from bench.statistics.instances import Case
from solvers.base import Problem
from solvers.exact_search.bounds import Bounds
from solvers.exact_search.state import SearchState
from solvers.limits import Deadline
from solvers.objectives.min_gpus import MinGpus
from solvers.oracles.twin import TwinOracle
from twin import Placement, load_profile

#: Rounding of prices that are sums of hundreds; by hand, far above it and below any price.
ROUNDING = 1e-6


@dataclass
class BoundCheckOptions:
    """How bounds are put to the test.

    `conf/bound_check.yaml` says what each option is for.
    """

    seconds: float = 15.0
    gpus: int = 8
    exchanges: int = 150
    seed: int = 0
    trust: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CheckedBound:
    """What accepted contents say of one bound.

    Attributes
    ----------
    instance : str
    bound : float
        Before it is rounded up to whole GPUs.
    fewest : int
        GPUs of the best placement in the rows.
    cuts : int
        Contents that the bound holds for too much, each with all that ask for more.
    accepted, lucky : int
        Contents of the rows that the twin accepts, and those found by exchanges.
    ruled_out : int
        Accepted ones that ask for as much as some cut; they would not matter if they cost less than 1.
    dearest : float
        Highest price of an accepted content.
    refuting : int
        Accepted ones that cost more than 1.
    workload_seed : int
        Of the instance's requests.
    seconds, gpus, exchanges, seed
        The options that the line was made with.
    """

    instance: str
    bound: float
    fewest: int
    cuts: int
    accepted: int
    lucky: int
    ruled_out: int
    dearest: float
    refuting: int
    workload_seed: int
    seconds: float
    gpus: int
    exchanges: int
    seed: int

    @property
    def is_lower(self) -> bool:
        """Whether the bound in whole GPUs is too high with prices that no accepted content refutes."""
        return math.ceil(self.bound - ROUNDING) > math.ceil(self.bound / max(self.dearest, 1.0) - ROUNDING)


def check(case: Case, options: BoundCheckOptions) -> CheckedBound:
    """Bound one instance and compare.

    Parameters
    ----------
    case : Case
        With a feasible placement.
    options : BoundCheckOptions
    """
    rows = served(case)
    cell = Cell.from_json(rows[0].cell, f"rows of {case.key[0]}", trust=options.trust, makes=["workload"])
    profile = load_profile(cell.profile)
    workload = build_workload(cell.workload, profile)
    problem = Problem(workload, profile, MinGpus(), time_limit_s=options.seconds)
    state = SearchState(problem, TwinOracle(workload, profile), Deadline.after(options.seconds), workers=1)
    bounds = Bounds(state)
    bounds.first()
    zones = bounds.zones
    assert zones is not None  # noqa: S101  # made by that call
    # On beyond the GPUs of the placements: the higher the prices, the stricter the test.
    zones.run(state.deadline)

    placements = [Placement.from_json(row.placement) for row in rows if row.placement is not None]
    accepted = {tuple(sorted(plan.adapters)) for placement in placements for plan in placement.gpus}
    # The oracle that bounded remembers contents; luck is looked for with one that was asked nothing.
    lucky = (
        busier_contents(min(placements, key=lambda each: each.n_gpus), TwinOracle(workload, profile), options)
        - accepted
    )
    ruled_out = refuting = 0
    dearest = 0.0
    for content in accepted | lucky:
        members = list(content)
        asked, rank = zones.sums[members].sum(axis=0), int(workload.ranks[members].max())
        ruled_out += any(rank >= least and (asked >= sums).all() for least, sums in zones.cuts)
        price = float(zones.prices[members].sum())
        refuting += price > 1 + ROUNDING
        dearest = max(dearest, price)
    fewest = min(placement.n_gpus for placement in placements)
    return CheckedBound(
        case.key[0], zones.value, fewest, len(zones.cuts), len(accepted), len(lucky), ruled_out, dearest, refuting,
        case.key[-1], **settings_of(options),
    )  # fmt: skip


def busier_contents(placement: Placement, oracle: TwinOracle, options: BoundCheckOptions) -> set[tuple[int, ...]]:
    """Contents that the twin accepts after adapters were added, or exchanged for busier ones, time and again.

    Parameters
    ----------
    placement : Placement
        Accepted by the oracle.
    oracle : TwinOracle
    options : BoundCheckOptions
    """
    generator = np.random.default_rng(options.seed)
    load = oracle.loads
    found: set[tuple[int, ...]] = set()
    for plan in placement.gpus[: options.gpus]:
        content, slots = set(plan.adapters), plan.max_loras
        for _ in range(options.exchanges):
            outside = np.setdiff1d(np.arange(len(load)), list(content))
            if not len(outside):
                break
            coming = int(generator.choice(outside))
            leaving = int(generator.choice(sorted(content)))
            trial = content | {coming}
            if generator.random() < 0.6:
                if load[coming] <= load[leaving]:
                    continue
                trial -= {leaving}
            adapters = tuple(sorted(trial))
            near = [slots, *(value for value in oracle.slots(adapters) if slots / 2 <= value <= 2 * slots)]
            accepting = next((value for value in near if oracle.accepts(adapters, value)), None)
            if accepting is not None:
                content, slots = trial, accepting
                found.add(adapters)
    return found


def served(case: Case) -> list[Row]:
    """Rows whose placements the twin calls feasible, each adapter on one GPU."""
    return [
        row
        for row in case.rows
        if row.feasible
        and row.gpus
        and row.placement
        and row.cell
        and not Placement.from_json(row.placement).has_replicas
    ]


def key_of(case: Case) -> tuple[str, int]:
    """Workload and seed: what tells the instances of a table apart."""
    return case.key[0], case.key[-1]


def settings_of(options: BoundCheckOptions) -> dict[str, Any]:
    """The options that a line of the table was made with."""
    return {name: getattr(options, name) for name in ("seconds", "gpus", "exchanges", "seed")}
