"""Balance by learned models: each adapter goes where it costs least, in shares of a GPU or in latency."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from predictors.features import N_FEATURES, N_SUMS
from predictors.meanfield import N_INPUTS
from solvers.base import Problem, Solution, Tags
from solvers.filling.kernel import accepted_slots
from solvers.filling.model import FillModel
from solvers.fleet import FleetSolver
from solvers.limits import Deadline
from solvers.objectives.min_latency import MinLatency
from solvers.spreading.dealing import least_loaded
from solvers.spreading.latency_model import LatencyModel
from solvers.spreading.latency_oracle import TwinLatency, known_ms
from twin import GpuPlan, Placement


class Balance(FleetSolver):
    """The heaviest adapter first, each to the GPU of the fleet with the least weight so far.

    The weight of an adapter is one over the number of adapters like it that the starvation predictor lets one GPU take, so
    that large ranks and rare adapters count for what they cost. Each GPU gets the `max_loras` nearest to its adapter
    count that the predictor accepts.

    Under the objective `min_latency` two more spreads compete, and the twin takes the best: the busiest adapter first, each
    to the GPU where it adds least to the fleet's predicted mean latency; and the spread of `least_loaded`. For shares of
    what GPUs take at most do not tell latency: far below that, a GPU pays in every step for its slots and for the largest
    rank on it, which no sum of weights expresses.
    """

    name: ClassVar[str] = "balance"
    spread_tags: ClassVar[Tags] = Tags(needs_fleet=True, needs_predictor=True)

    def spread(self, problem: Problem) -> Solution:
        """Weigh, deal, choose the slots."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        if not problem.workload.n_adapters:
            return Solution("feasible", Placement(()))
        deadline = Deadline.after(problem.time_limit_s)
        model = FillModel(problem, distilled=False)
        order = np.argsort(-model.weights, kind="stable")
        groups = [sorted(group) for group in least_loaded(model.weights, order, problem.max_gpus) if group]
        if isinstance(problem.objective, MinLatency):
            return _of_least_latency(problem, model, groups, deadline)
        return _accepted(model, groups)


def _accepted(model: FillModel, groups: list[list[int]]) -> Solution:
    """The groups with the `max_loras` that the starvation predictor accepts, if it accepts any."""
    content, inputs = np.empty(N_FEATURES), np.empty(N_INPUTS, np.float32)
    plans = []
    calls = model.calls + len(groups)
    for number, group in enumerate(groups):
        content[:N_SUMS] = model.rows[group].sum(axis=0)
        content[N_SUMS:] = model.tail
        place = accepted_slots(
            content, len(group), len(model.grid) - 1, model.grid, model.arrays, model.threshold, inputs
        )
        if place < 0:
            message = f"GPU {number} of {len(groups)} is predicted to starve"
            return Solution("none_found", oracle_calls=calls, message=message)
        plans.append(GpuPlan(tuple(group), int(min(model.grid[place], len(group)))))
    return Solution("feasible", Placement(tuple(plans)), oracle_calls=calls, details=_loads(model, groups))


def _of_least_latency(problem: Problem, model: FillModel, groups: list[list[int]], deadline: Deadline) -> Solution:
    """The groups or another spread, with the `max_loras` of each GPU, whatever has the least latency in the twin."""
    latency = LatencyModel(problem)
    oracle = TwinLatency(problem, latency)
    oracle.deadline = deadline
    rates, n_gpus = problem.workload.rates, problem.max_gpus or 1
    dealt = latency.spread(np.argsort(-rates, kind="stable"), n_gpus, deadline)
    fleet = oracle.best_fleet([groups, dealt, least_loaded(rates, np.arange(len(rates)), n_gpus)])
    calls = model.calls + latency.calls + oracle.calls
    details = {**_loads(model, [list(plan.adapters) for plan in fleet.plans]), "latency_ms": known_ms(fleet.latency_ms)}
    if fleet.starved:
        message = f"{fleet.starved} of {len(fleet.plans)} GPUs starve in the twin"
        return Solution("none_found", oracle_calls=calls, message=message, details=details)
    return Solution("feasible", Placement(fleet.plans), oracle_calls=calls, details=details)


def _loads(model: FillModel, groups: list[list[int]]) -> dict[str, float]:
    loads = [float(model.weights[group].sum()) for group in groups]
    return {"largest_load": max(loads), "mean_load": sum(loads) / len(loads)}
