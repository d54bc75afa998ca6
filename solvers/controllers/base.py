"""What a controller gets at every tick, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem
from solvers.objectives.min_gpus import MinGpus
from twin import GpuPlan, PoissonArrivals, ServiceLevel, ServingProfile, UserError, Workload

#: GPUs by a number that the controller gives them: what each serves. A number that is left out is a GPU that is given back.
Fleet = Mapping[int, GpuPlan]

#: What a controller is told of the truth: nothing but the rates at the start, each adapter's highest rate, or all rates of the day.
Knowledge = Literal["start", "peaks", "curves"]

#: Window that a placement is planned for, in seconds: the middle of those that predictors are trained on. By hand.
PLANNED_S = 1800.0
#: No adapter is planned for as if it sent nothing, in requests per second: one request in three hours.
LEAST_RATE = 1e-4


@dataclass(frozen=True)
class Task:
    """What a controller has to do, told once before the day begins.

    Attributes
    ----------
    workload : Workload
        The adapters with the rates measured before the start; no request of the day can be drawn from it.
    plan_for : Problem
        The planning problem at these rates: profile, predictor under the service level, seed.
    tick_s, start_up_s : float
        Time between two ticks, and until a GPU that was asked for serves.
    gpus : int
        GPUs of a controller that spreads over a fleet of fixed size.
    truth : array of shape (n_adapters, n_steps), optional
        Requests per second of each adapter over the day, for a controller that is allowed to know (`Controller.knows`);
        a single column of highest rates for one that knows these.
    truth_step_s : float
        Length of a step of it.
    """

    plan_for: Problem
    tick_s: float
    start_up_s: float
    gpus: int
    truth: NDArray[np.float64] | None = None
    truth_step_s: float = 60.0

    @property
    def workload(self) -> Workload:
        """The adapters, with the rates measured before the start."""
        return self.plan_for.workload

    @property
    def profile(self) -> ServingProfile:
        """Of every GPU."""
        return self.plan_for.profile

    @property
    def service(self) -> ServiceLevel:
        """What is promised."""
        return self.plan_for.service

    def problem(self, rates: NDArray[np.float64], max_gpus: int | None = None, seed: int | None = None) -> Problem:
        """The placement problem at other rates, for any solver.

        Parameters
        ----------
        rates : array of shape (n_adapters,)
            Requests per second.
        max_gpus, seed : int, optional
        """
        workload = replace(self.workload, rates=np.maximum(rates, LEAST_RATE))
        return replace(
            self.plan_for, workload=workload, max_gpus=max_gpus, seed=self.plan_for.seed if seed is None else seed
        )


@dataclass(frozen=True)
class Seen:
    """What a controller sees at a tick.

    Attributes
    ----------
    time_s : float
        Since the start of the day.
    arrivals : array of shape (n_adapters,)
        Requests that came since the tick before; the controller's own to change.
    fleet : mapping of int to GpuPlan
        What it asked for last, by GPU number.
    starting : frozenset of int
        GPUs of it that do not serve yet; their adapters are served where they were until then.
    """

    time_s: float
    arrivals: NDArray[np.int64]
    fleet: Fleet
    starting: frozenset[int]


class Controller(ABC):
    """Base of all controllers: set `name`, write `begin` and `tick`.

    One object serves one day. A GPU keeps its `max_loras` and its largest rank for as long as it runs: asking for others
    starts a new server under the same number, and the old one serves until that is ready.
    """

    name: ClassVar[str]
    knows: ClassVar[Knowledge] = "start"

    @abstractmethod
    def begin(self, task: Task) -> Fleet:
        """The placement at the start of the day, which stands before the first request comes."""

    @abstractmethod
    def tick(self, seen: Seen) -> Fleet | None:
        """The placement from now on; None leaves everything as it is."""


def planning_task(  # noqa: PLR0913  # everything that a task is made of
    workload: Workload,
    truth: NDArray[np.float64],
    plan_for: Problem,
    *,
    knows: Knowledge,
    tick_s: float,
    start_up_s: float,
    gpus: int,
    truth_step_s: float,
) -> Task:
    """A task with no more of the truth than a controller may know.

    Parameters
    ----------
    workload : Workload
        Of the day.
    truth : array of shape (n_adapters, n_steps)
        Its rates.
    plan_for : Problem
        With the profile, the predictor, the service level and the seed.
    knows, tick_s, start_up_s, gpus, truth_step_s
        As in `Controller` and `Task`.

    Raises
    ------
    UserError
        Without a predictor that knows the service level.
    """
    if plan_for.predictor is None or not plan_for.predictor.knows(plan_for.service):
        raise UserError(
            f"service={plan_for.service.name}: controllers ask a predictor that has learned it, and there is none for profile "
            f"{plan_for.profile.name}: train one with `python -m bench.train profile={plan_for.profile.name}`"
        )
    # Another seed and other arrivals: the day's requests cannot be drawn from what a controller holds.
    known = replace(
        workload,
        rates=np.maximum(truth[:, 0], LEAST_RATE),
        duration_s=PLANNED_S,
        arrivals=PoissonArrivals(),
        seed=(workload.seed + 1) % 2**32,
        trace=None,
    )
    told = {"start": None, "peaks": truth.max(axis=1, keepdims=True), "curves": truth}[knows]
    problem = replace(plan_for, workload=known, objective=MinGpus())
    return Task(problem, tick_s, start_up_s, gpus, told, truth_step_s)
