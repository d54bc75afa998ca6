"""Small days for the tests of the online track."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from bench.changing.day import Day, day_of
from predictors import load_predictor
from solvers.base import Problem
from solvers.controllers.base import Controller, Fleet, Knowledge, Seen, Task, planning_task
from solvers.objectives.min_gpus import MinGpus
from twin import INTERACTIVE, DailyArrivals, ServiceLevel, Workload, load_profile, rates_over_time
from twin.curves import STEP_S

PROFILE = load_profile("llama-3.1-8b")
LEVEL = ServiceLevel("interactive", ttft_ms=2000.0, tpot_ms=100.0, share=0.95)
HOURS_S = 5400.0
CHANGING = DailyArrivals(day_s=HOURS_S, swing=0.7, visitors=0.2, unrest=0.2)
FLAT = DailyArrivals(swing=0.0)


@cache
def day(*, flat: bool) -> Day:
    """An hour and a half of 24 adapters, for about two GPUs."""
    rates = np.geomspace(6.0, 0.1, 24)
    ranks = np.tile([8, 16, 32], 8)
    arrivals = FLAT if flat else CHANGING
    return day_of(Workload(ranks, rates, duration_s=HOURS_S, seed=3, arrivals=arrivals), PROFILE, LEVEL)


def task(of: Day, knows: Knowledge, **options: float) -> Task:
    """What a controller is told of a day."""
    predictor = load_predictor(PROFILE.name)
    plan_for = Problem(of.workload, PROFILE, MinGpus(), predictor=predictor, seed=1, service=INTERACTIVE)
    timing = {"tick_s": 60.0, "start_up_s": 120.0} | options
    return planning_task(
        of.workload, rates_over_time(of.workload), plan_for, knows=knows, gpus=3, truth_step_s=STEP_S, **timing
    )


def shuffled_after(counts: NDArray[np.int64], tick: int) -> NDArray[np.int64]:
    """The same arrivals up to a tick, others after it."""
    found = counts.copy()
    found[tick:] = np.random.default_rng(0).permutation(counts[tick:].ravel()).reshape(counts[tick:].shape)
    return found


class Recorded(Controller):
    """Asks another controller, and keeps what it answered."""

    name = "recorded"

    def __init__(self, inner: Controller) -> None:
        self.inner = inner
        self.answers: list[Fleet | None] = []

    def begin(self, task: Task) -> Fleet:
        """Ask."""
        fleet = self.inner.begin(task)
        self.answers.append(fleet)
        return fleet

    def tick(self, seen: Seen) -> Fleet | None:
        """Ask."""
        answer = self.inner.tick(seen)
        self.answers.append(answer)
        return answer
