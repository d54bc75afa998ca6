"""Bounds put to the test: contents that cuts rule out, simulated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from bench.comparison.build import build_workload, service_of
from bench.comparison.cell import Cell
from bench.comparison.rows import Row
from bench.statistics.instances import Case
from bench.studies.brute_force import GpuTwin
from solvers.base import Problem
from solvers.exact_search.bounds import Bounds
from solvers.exact_search.state import SearchState
from solvers.limits import Deadline, OutOfTimeError
from solvers.objectives.min_gpus import MinGpus
from solvers.oracles.twin import TwinOracle
from twin import GpuPlan, Placement, UserError, load_profile

#: Adapters and the shares of them that a GPU has, 1 without replicas; by adapter.
Portion = tuple[tuple[int, float], ...]

#: How often an adapter comes as a whole, and its share otherwise; how often another one goes for it; numbers of slots that are tried
#: beside the last one. By hand, as luck may be anywhere.
WHOLE, SHARES, EXCHANGED, FREE = 0.7, (0.2, 0.9), 0.6, 6

#: Columns of a line that say what it is about, and those with options that all lines of a table share.
KEY, SETTINGS = ("instance", "service", "workload_seed"), ("seconds", "gpus", "exchanges", "seed")

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
    instance, service : str
        Workload and service level.
    bound : float
        Before it is rounded up to whole GPUs.
    fewest : int
        GPUs of the best placement in the rows.
    cuts : int
        Contents that the bound holds for too much, each with all that ask for more.
    accepted, lucky : int
        Contents of the rows that the twin accepts, and those found by exchanges.
    divided : int
        Of these, contents with shares of adapters.
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
    service: str
    bound: float
    fewest: int
    cuts: int
    accepted: int
    lucky: int
    divided: int
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

    Raises
    ------
    UserError
        If time ends before there is a bound.
    """
    rows = served(case)
    cell = Cell.from_json(rows[0].cell, f"rows of {case.key[0]}", trust=options.trust, makes=["workload"])
    profile, service = load_profile(cell.profile), service_of(cell)
    workload = build_workload(cell.workload, profile)
    problem = Problem(workload, profile, MinGpus(), time_limit_s=options.seconds, service=service)
    oracle = TwinOracle(workload, profile, service=service)
    bounds = Bounds(SearchState(problem, oracle, Deadline.after(options.seconds), workers=1))
    try:
        bounds.first()
    except OutOfTimeError:
        raise UserError(f"seconds={options.seconds:g}: too few for any bound of {name_of(case)}; give more") from None
    zones = bounds.zones
    assert zones is not None  # noqa: S101  # made by that call
    # On beyond the GPUs of the placements: the higher the prices, the stricter the test.
    zones.run(bounds.state.deadline)

    placements = [Placement.from_json(row.placement) for row in rows if row.placement is not None]
    accepted = {portion_of(plan) for placement in placements for plan in placement.gpus}
    # The oracle that bounded remembers contents; luck is looked for with one that was asked nothing.
    fewest = min(placements, key=lambda each: each.n_gpus)
    lucky = busier_contents(fewest, GpuTwin(workload, profile, service), options) - accepted
    ruled_out = refuting = 0
    dearest = 0.0
    for portion in accepted | lucky:
        members, shares = [adapter for adapter, _ in portion], np.array([share for _, share in portion])
        # Of an adapter's share no less is asked than that share of what it asks for.
        asked, rank = shares @ zones.sums[members], int(workload.ranks[members].max())
        ruled_out += any(rank >= least and (asked >= sums).all() for least, sums in zones.cuts)
        price = float(shares @ zones.prices[members])
        refuting += price > 1 + ROUNDING
        dearest = max(dearest, price)
    divided = sum(any(share < 1 for _, share in portion) for portion in accepted | lucky)
    return CheckedBound(
        name_of(case), rows[0].service, zones.value, fewest.n_gpus, len(zones.cuts), len(accepted), len(lucky), divided, ruled_out, dearest,
        refuting, case.key[-1], **{name: getattr(options, name) for name in SETTINGS},
    )  # fmt: skip


def portion_of(plan: GpuPlan) -> Portion:
    """What a GPU of a placement has."""
    shares = (1.0,) * len(plan.adapters) if plan.shares is None else plan.shares
    return tuple(sorted(zip(plan.adapters, shares, strict=True)))


def busier_contents(placement: Placement, twin: GpuTwin, options: BoundCheckOptions) -> set[Portion]:
    """Contents that the twin accepts after adapters, or shares of them, were added or exchanged for busier ones, time and again.

    Parameters
    ----------
    placement : Placement
        Feasible.
    twin : GpuTwin
    options : BoundCheckOptions
    """
    generator = np.random.default_rng(options.seed)
    workload = twin.workload
    load = np.bincount(
        workload.requests.adapter,
        workload.requests.prompt_tokens + workload.requests.requested_tokens,
        workload.n_adapters,
    )
    found: set[Portion] = set()
    for plan in placement.gpus[: options.gpus]:
        content, slots = dict(portion_of(plan)), plan.max_loras
        for _ in range(options.exchanges):
            outside = np.setdiff1d(np.arange(len(load)), list(content))
            if not len(outside):
                break
            coming = int(generator.choice(outside))
            leaving = int(generator.choice(sorted(content)))
            share = 1.0 if generator.random() < WHOLE else float(generator.uniform(*SHARES))
            trial = {**content, coming: share}
            if generator.random() < EXCHANGED:
                if share * load[coming] <= content[leaving] * load[leaving]:
                    continue
                del trial[leaving]
            # Any number of slots, those near the last ones first.
            near = slots * np.exp(generator.uniform(-np.log(2), np.log(2), FREE))
            accepting = twin.serves_at(trial, [slots, *np.rint(near).astype(int).tolist()])
            if accepting:
                content, slots = trial, accepting
                found.add(tuple(sorted(trial.items())))
    return found


def served(case: Case) -> list[Row]:
    """Rows whose placements the twin calls feasible."""
    return [row for row in case.rows if row.feasible and row.gpus and row.placement and row.cell]


def key_of(case: Case) -> tuple[str, str, int]:
    """What the line of an instance is about: the values of `KEY`."""
    return name_of(case), case.rows[0].service, case.key[-1]


def name_of(case: Case) -> str:
    """The workload, and what was changed in it, whatever the service level."""
    return f"{case.rows[0].workload} {case.rows[0].workload_options}".strip()
