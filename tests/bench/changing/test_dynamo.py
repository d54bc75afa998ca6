"""Dynamo's controller over time begins where the solvers of its first tick end, and waits before it shrinks."""

import numpy as np

from solvers.controllers.base import Seen
from solvers.controllers.dynamo import COOLDOWN_TICKS, DynamoHrw, DynamoMinCostFlow
from solvers.hrw import RendezvousHashing
from solvers.min_cost_flow import ControllerFlow
from tests.bench.changing.days import day, task
from twin import GpuPlan


def homes(plans: list[GpuPlan]) -> set[tuple[int, ...]]:
    return {tuple(sorted(plan.adapters)) for plan in plans}


def test_the_first_tick_is_that_of_the_solvers() -> None:
    told = task(day(flat=True), "start")
    problem = told.problem(told.workload.rates, max_gpus=told.gpus)
    for controller, solver in ((DynamoHrw(), RendezvousHashing()), (DynamoMinCostFlow(), ControllerFlow())):
        placement = solver.run(problem).placement
        assert placement is not None
        assert homes(list(controller.begin(told).values())) == homes(list(placement.gpus))


def test_growing_is_immediate_and_shrinking_waits() -> None:
    told = task(day(flat=True), "start")
    controller = DynamoHrw(window_s=60.0)
    fleet = controller.begin(told)
    one = int(np.argmin(told.workload.rates))
    sole = np.ones(told.workload.n_adapters, dtype=np.int64)
    sole[one] = 100_000
    before = sum(one in plan.adapters for plan in fleet.values())
    counts = []
    for tick, arrivals in enumerate([sole, *[np.ones_like(sole)] * 40]):
        fleet = controller.tick(Seen(60.0 * (tick + 1), arrivals.copy(), fleet, frozenset())) or fleet
        counts.append(sum(one in plan.adapters for plan in fleet.values()))
    assert before == 1
    # Others give up their slots after the cooldown, this one grows as soon as there is one.
    assert max(counts) == told.gpus
    assert counts.index(told.gpus) <= COOLDOWN_TICKS + 1
    falls = np.flatnonzero(np.diff(counts) < 0)
    assert len(falls)
    assert falls[0] - counts.index(told.gpus) >= COOLDOWN_TICKS
    assert counts[-1] == 1
