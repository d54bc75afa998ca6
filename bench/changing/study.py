"""One day, drawn once, and the rows of the controllers that serve it and of the bound."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.changing.bound import fewest_gpus_of, means_of
from bench.changing.day import Day, day_of
from bench.changing.rows import BOUND, PICTURED_S, DayRow
from bench.changing.serving import served
from bench.changing.timeline import gpus_over_time
from bench.comparison.build import build_workload, level_of, made
from predictors import Predictor, load_predictor, shipped_predictors
from solvers.base import Problem
from solvers.controllers.base import Controller, Knowledge, Task, planning_task
from solvers.controllers.capacity import Capacity
from solvers.controllers.static_peak import StaticPeak
from solvers.objectives.min_gpus import MinGpus
from twin import ServingProfile, UserError, load_profile, rates_over_time
from twin.curves import STEP_S

Floats = NDArray[np.float64]


@dataclass
class OnlineOptions:
    """What a day and its controllers are; `conf/online.yaml` says what each is for.

    Attributes
    ----------
    workload, controller, service : dict
        What they are made of.
    profile : str
    seed : int
    tick_s, start_up_s : float
    gpus : int, optional
    price : float
    interval_s, bound_s : float
    threads : int
    """

    workload: dict[str, Any] = field(default_factory=dict)
    controller: dict[str, Any] = field(default_factory=dict)
    service: dict[str, Any] = field(default_factory=dict)
    profile: str = "llama-3.1-8b"
    seed: int = 0
    tick_s: float = 60.0
    start_up_s: float = 120.0
    gpus: int | None = None
    price: float = 1.0
    interval_s: float = 3600.0
    bound_s: float = 5.0
    threads: int = 2


def controller_of(name: str, options: dict[str, Any]) -> Controller:
    """A fresh controller.

    Raises
    ------
    UserError
        For options that it refuses, or what is none.
    """
    controller = made(options, f"controller.{name}")
    if not isinstance(controller, Controller):
        raise UserError(f"controller.{name}: {options.get('_target_')} is no solvers.controllers.base.Controller")
    return controller


class DayStudy:
    """One day, drawn once for all controllers."""

    def __init__(self, config: OnlineOptions, seed: int) -> None:
        self.config, self.seed = config, seed
        self.profile = load_profile(config.profile)
        workload = build_workload({**config.workload, "seed": seed}, self.profile)
        level = level_of({**config.service, "warm_up": 0.0})
        self.day: Day = day_of(workload, self.profile, level)
        self.truth = rates_over_time(workload)
        predictor = predictor_for(self.profile)
        self.plan_for = Problem(
            workload, self.profile, MinGpus(), predictor=predictor, seed=seed, service=level_of(config.service)
        )
        self._gpus: int | None = config.gpus

    def task(self, knows: Knowledge) -> Task:
        """What a controller is told."""
        return planning_task(
            self.day.workload, self.truth, self.plan_for, knows=knows, tick_s=self.config.tick_s,
            start_up_s=self.config.start_up_s, gpus=self.gpus if knows == "start" else 1, truth_step_s=STEP_S,
        )  # fmt: skip

    @property
    def gpus(self) -> int:
        """Fleet of fixed size: as asked, or what `static_peak` needs."""
        if self._gpus is None:
            self._gpus = len(StaticPeak().begin(self.task("peaks")))
        return self._gpus

    def row(self, name: str, question: str, bound: DayRow | None) -> DayRow:
        """The row of a controller, or of the bound."""
        if name == BOUND:
            return self._row(name, question, self._bound())
        controller = controller_of(name, self.config.controller[name])
        outcome = served(controller, self.task(controller.knows), self.day, threads=self.config.threads)
        over_time = gpus_over_time(outcome.paid, self.day.workload.duration_s, PICTURED_S)
        days = self.day.workload.duration_s / 86_400
        n_adapters = max(self.day.workload.n_adapters, 1)
        return self._row(
            name,
            question,
            over_time,
            gpu_hours=outcome.gpu_hours,
            over_bound=outcome.gpu_hours / bound.gpu_hours if bound else float("nan"),
            goodput=outcome.goodput,
            starved_minutes=outcome.starved_minutes(self.day.service.share),
            moves_per_adapter=outcome.moves / n_adapters / days,
            memory_errors=outcome.memory_errors,
            deciding_cpu_s=outcome.deciding_cpu_s,
            simulating_cpu_s=outcome.simulating_cpu_s,
        )

    def _bound(self) -> Floats:
        """GPUs of the bound, every `PICTURED_S`."""
        config, duration_s = self.config, self.day.workload.duration_s
        task = self.task("curves")
        capacity = Capacity(task)
        means = means_of(self.truth, STEP_S, config.interval_s)
        gpus = np.array([fewest_gpus_of(task, capacity, rates, config.bound_s) for rates in means.T])
        times = np.arange(0.0, duration_s, PICTURED_S)
        return np.asarray(gpus[np.minimum((times / config.interval_s).astype(int), len(gpus) - 1)], dtype=np.float64)

    def _row(self, name: str, question: str, over_time: Floats, **figures: Any) -> DayRow:  # noqa: ANN401  # fields of a row
        workload = self.day.workload
        each = max(1, round(PICTURED_S / STEP_S))
        load = self.truth.sum(axis=0)[::each]
        nothing: dict[str, Any] = {
            "gpu_hours": float(over_time.sum() * PICTURED_S / 3600), "over_bound": 1.0, "goodput": float("nan"),
            "starved_minutes": 0, "moves_per_adapter": 0.0, "memory_errors": 0, "deciding_cpu_s": 0.0, "simulating_cpu_s": 0.0,
        }  # fmt: skip
        values = {**nothing, **figures}
        return DayRow(
            question=question, controller=name, workload=workload.name, service=self.day.service.name, profile=self.profile.name,
            seed=self.seed, adapters=workload.n_adapters, requests=self.day.requests, cost=values["gpu_hours"] * self.config.price,
            most_gpus=float(over_time.max(initial=0.0)), gpus_over_time=over_time.tolist(), load_over_time=load.tolist(), **values,
        )  # fmt: skip


def predictor_for(profile: ServingProfile) -> Predictor | None:
    """The shipped predictor of a profile, if it was trained for what the profile says."""
    if profile.name not in shipped_predictors():
        return None
    predictor = load_predictor(profile.name)
    return predictor if predictor.made_for(profile) else None
