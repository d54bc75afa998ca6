"""Balance by a learned model: each adapter weighs the share of a GPU that it takes, not its request rate."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from predictors.features import N_FEATURES, N_SUMS
from predictors.meanfield import N_INPUTS
from solvers.base import Problem, Solution, Tags
from solvers.fill_kernel import accepted_slots
from solvers.fill_model import FillModel
from solvers.fleet import FleetSolver
from solvers.spread import least_loaded
from twin import GpuPlan, Placement


class Balance(FleetSolver):
    """The heaviest adapter first, each to the GPU of the fleet with the least weight so far.

    The weight of an adapter is one over the number of adapters like it that the starvation predictor lets one GPU take, so
    that large ranks and rare adapters count for what they cost. Each GPU gets the `max_loras` nearest to its adapter
    count that the predictor accepts.
    """

    name: ClassVar[str] = "balance"
    spread_tags: ClassVar[Tags] = Tags(needs_fleet=True, needs_predictor=True)

    def spread(self, problem: Problem) -> Solution:
        """Weigh, deal, choose the slots."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        if not problem.workload.n_adapters:
            return Solution("feasible", Placement(()))
        model = FillModel(problem, distilled=False)
        order = np.argsort(-model.weights, kind="stable")
        groups = [sorted(group) for group in least_loaded(model.weights, order, problem.max_gpus) if group]
        content, inputs = np.empty(N_FEATURES), np.empty(N_INPUTS, np.float32)
        plans = []
        for number, group in enumerate(groups):
            content[:N_SUMS] = model.rows[group].sum(axis=0)
            content[N_SUMS:] = model.tail
            place = accepted_slots(
                content, len(group), len(model.grid) - 1, model.grid, model.arrays, model.threshold, inputs
            )
            if place < 0:
                message = f"GPU {number} of {len(groups)} is predicted to starve"
                return Solution("infeasible", oracle_calls=model.calls + len(groups), message=message)
            plans.append(GpuPlan(tuple(group), int(min(model.grid[place], len(group)))))
        loads = [float(model.weights[group].sum()) for group in groups]
        details = {"largest_load": max(loads), "mean_load": sum(loads) / len(loads)}
        return Solution("feasible", Placement(tuple(plans)), oracle_calls=model.calls + len(groups), details=details)
