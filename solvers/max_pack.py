"""Fill each GPU up to its Max_pack, found on the twin."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from solvers.base import Problem, Solution, Solver, Tags
from solvers.contents.orders import decreasing_order, zigzag_order
from solvers.filling.one_by_one import fill_gpus
from solvers.limits import Deadline, NoPlacementError, OutOfTimeError
from solvers.mending.best_service import best_service
from solvers.oracles.twin import TwinOracle
from twin import UserError

ORDERS = {"zigzag": zigzag_order, "decreasing": decreasing_order}


class MaxPack(Solver):
    """Takes the adapters in order and puts as many on each GPU as the twin serves without starvation.

    Max_pack (arXiv 2508.08343) is the largest adapter count such that it and every smaller count do
    not starve, over all `max_loras`.

    Parameters
    ----------
    order : {"zigzag", "decreasing"}
        Ranks descend; inside a rank the rates zigzag, so that GPUs get a mix, or descend too.
    best_service : bool
        In the end, choose `max_loras` and exchange adapters between the GPUs for the service of the worst one
        (`solvers.mending.best_service`).
    """

    name: ClassVar[str] = "max_pack"
    tags = Tags(replays_requests=True)

    def __init__(self, order: str = "zigzag", *, best_service: bool = True) -> None:
        if order not in ORDERS:
            raise UserError(f"solver.order={order} of solver max_pack: must be one of {sorted(ORDERS)}")
        self.order = order
        self.best_service = best_service

    def solve(self, problem: Problem) -> Solution:
        """Fill GPU after GPU."""
        oracle = TwinOracle(problem.workload, problem.profile, service=problem.service)
        deadline = oracle.deadline = Deadline.after(problem.time_limit_s)
        order = ORDERS[self.order](problem.workload)
        try:
            placement = fill_gpus(order, problem, oracle, deadline)
        except NoPlacementError as why:
            return Solution("infeasible", oracle_calls=oracle.calls, message=str(why))
        except OutOfTimeError:
            return Solution("time_limit", oracle_calls=oracle.calls, message="no placement within the time limit")
        sizes = np.array([len(plan.adapters) for plan in placement.gpus])
        calls = oracle.calls
        if self.best_service:
            placement, more = best_service(problem, placement, deadline)
            calls += more
        return Solution(
            "feasible",
            placement,
            oracle_calls=calls,
            details={"oracle": oracle.name, "adapters_per_gpu": sizes.tolist()},
        )
