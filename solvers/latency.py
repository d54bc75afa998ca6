"""The published latency variant: spread over the whole fleet, least load first."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from predictors import content_features
from predictors.features import PROMPT, REQUESTED
from solvers.base import Problem, Solution, Solver, Tags
from solvers.contents.orders import sorted_plan
from solvers.limits import Deadline, OutOfTimeError
from solvers.oracles.choice import check_oracle_option
from solvers.oracles.twin import TwinOracle
from solvers.spreading.dealing import least_loaded
from twin import GpuPlan, Placement, UserError

ORDERS = ("given", "decreasing")

#: What the published acceptance test allows: tokens per second added to the prediction, and the largest
#: symmetric relative shortfall (ProposedLat of arXiv 2602.24044).
ALLOWANCE, LARGEST_SHORTFALL = 400.0, 0.1


class Latency(Solver):
    """ProposedLat of arXiv 2602.24044: each adapter to the GPU with the least summed rate.

    All GPUs of the fleet are used and `max_loras` is the adapter count of each, so that no request waits
    for a slot. The answer is accepted if every GPU's memory holds and the predicted throughput of all GPUs comes
    near the offered one.

    Parameters
    ----------
    oracle : {"predictor", "twin"}
        What accepts the answer: the published test on the predictors, or the twin, GPU by GPU.
    order : {"given", "decreasing"}
        Adapters as they come, or those with the highest rates first, which balances better.
    """

    name: ClassVar[str] = "latency"

    def __init__(self, oracle: str = "predictor", order: str = "given") -> None:
        check_oracle_option(oracle, self.name, ("predictor", "twin"))
        if order not in ORDERS:
            raise UserError(f"solver.order={order} of solver latency: must be one of {list(ORDERS)}")
        self.oracle = oracle
        self.order = order
        self.tags = Tags(needs_fleet=True, needs_predictor=oracle == "predictor", replays_requests=oracle == "twin")

    def solve(self, problem: Problem) -> Solution:
        """Spread, then accept or not."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run has checked it
        workload = problem.workload
        adapters = np.arange(workload.n_adapters)
        if self.order == "decreasing":
            adapters = np.argsort(-workload.rates, kind="stable")
        groups = least_loaded(workload.rates, adapters, problem.max_gpus)
        plans = tuple(sorted_plan(group, len(group)) for group in groups if group)
        for number, plan in enumerate(plans):
            rank = int(workload.ranks[list(plan.adapters)].max())
            if not problem.profile.kv_tokens(plan.max_loras, rank):
                return Solution(
                    "none_found",
                    message=f"GPU {number} does not start: max_loras={plan.max_loras} at rank {rank}, "
                    f"at most {problem.profile.largest_max_loras(rank)} do (memory error)",
                )
        if self.oracle == "twin":
            return self._judged_by_twin(problem, plans)
        return self._judged_by_predictor(problem, plans)

    def _judged_by_twin(self, problem: Problem, plans: tuple[GpuPlan, ...]) -> Solution:
        oracle = TwinOracle(problem.workload, problem.profile, service=problem.service)
        oracle.deadline = Deadline.after(problem.time_limit_s)
        try:
            starved = [n for n, plan in enumerate(plans) if not oracle.accepts(plan.adapters, plan.max_loras)]
        except OutOfTimeError:
            message = f"the twin had no time to check all of {len(plans)} GPUs"
            return Solution("time_limit", oracle_calls=oracle.calls, message=message)
        if starved:
            message = f"{len(starved)} of {len(plans)} GPUs starve in the twin, the first is GPU {starved[0]}"
            return Solution("none_found", oracle_calls=oracle.calls, message=message)
        return Solution("feasible", Placement(plans), oracle_calls=oracle.calls)

    def _judged_by_predictor(self, problem: Problem, plans: tuple[GpuPlan, ...]) -> Solution:
        assert problem.predictor is not None  # noqa: S101  # Solver.run has checked it
        workload = problem.workload
        if not plans:
            return Solution("feasible", Placement(()))
        lengths = workload.lengths_asked
        contents = np.array(
            [
                content_features(
                    workload.ranks[list(plan.adapters)],
                    workload.rates[list(plan.adapters)],
                    plan.max_loras,
                    lengths,
                    workload.duration_s,
                )
                for plan in plans
            ]
        )
        predicted = float(problem.predictor.predict_throughput(contents).sum()) + ALLOWANCE
        offered = workload.total_rate * float(contents[0, PROMPT] + contents[0, REQUESTED])
        shortfall = 2 * (offered - predicted) / (offered + predicted)
        details = {"predicted_shortfall": shortfall}
        if shortfall > LARGEST_SHORTFALL:
            message = f"predicted throughput {predicted:.0f} tokens/s falls short of the offered {offered:.0f}"
            return Solution("none_found", oracle_calls=len(plans), message=message, details=details)
        return Solution("feasible", Placement(plans), oracle_calls=len(plans), details=details)
