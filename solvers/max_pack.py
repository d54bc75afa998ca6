"""Fill each GPU up to its Max_pack, found on the twin."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import ClassVar

import numpy as np

from solvers.base import Problem, Solution, Solver, Tags
from solvers.contents.orders import decreasing_order, zigzag_order
from solvers.filling.one_by_one import fill_gpus
from solvers.limits import Deadline, NoPlacementError, OutOfTimeError, check_gpu_limit, no_placement_status
from solvers.mending.best_service import best_service
from solvers.mending.hot import divided_if_hot
from solvers.mending.replicas import with_replicas
from solvers.mixes.answers import MixOptions, mixed_answer
from solvers.oracles.twin import TwinOracle
from twin import Placement, UserError

ORDERS = {"zigzag": zigzag_order, "decreasing": decreasing_order}


class MaxPack(Solver):
    """Takes the adapters in order and puts as many on each GPU as the twin serves without starvation.

    Max_pack (arXiv 2508.08343) is the largest adapter count such that it and every smaller count do
    not starve, over all `max_loras`.

    Parameters
    ----------
    order : {"zigzag", "decreasing"}
        Ranks descend; inside a rank the rates zigzag, so that GPUs get a mix, or descend too.
    replicas : bool
        Divide adapters that are too much for a GPU each, and try one GPU less with busy ones divided (`solvers.mending.replicas`).
    best_service : bool
        In the end, choose `max_loras` and exchange adapters between the GPUs for the service of the worst one
        (`solvers.mending.best_service`).
    """

    name: ClassVar[str] = "max_pack"

    def __init__(self, order: str = "zigzag", *, replicas: bool = True, best_service: bool = True) -> None:
        if order not in ORDERS:
            raise UserError(f"solver.order={order} of solver max_pack: must be one of {sorted(ORDERS)}")
        self.order = order
        self.replicas = replicas
        self.best_service = best_service
        self.tags = Tags(replays_requests=True, uses_replicas=replicas, mixed_fleets=True)

    def solve(self, problem: Problem) -> Solution:
        """Fill GPU after GPU; on a mixed fleet each of the type that serves most for its price."""
        if problem.mixed_fleet is not None:
            orders = (ORDERS[self.order],)
            return mixed_answer(
                problem,
                MixOptions(orders=orders, search=False, replicas=self.replicas, best_service=self.best_service),
            )
        deadline = Deadline.after(problem.time_limit_s)
        oracle = TwinOracle(problem.workload, problem.profile, service=problem.service)
        calls = 0
        try:
            placing, parts = divided_if_hot(problem, deadline) if self.replicas else (problem, None)
            if parts is not None:
                oracle = TwinOracle(parts, problem.profile, service=problem.service)
            oracle.deadline = deadline
            placement: Placement | None = None
            # What cannot be filled in may still be shared evenly.
            with contextlib.suppress(*([NoPlacementError] if parts is not None else [])):
                fleet = replace(placing, max_gpus=None) if self.replicas else placing
                placement = fill_gpus(ORDERS[self.order](placing.workload), fleet, oracle, deadline)
            calls = oracle.calls
            if self.replicas:
                placement, more = with_replicas(problem, placement, parts, deadline)
                calls += more
            assert placement is not None  # noqa: S101  # for the type checker
            check_gpu_limit(placement.n_gpus, problem)
        except NoPlacementError as why:
            return Solution(no_placement_status(why), oracle_calls=oracle.calls, message=str(why))
        except OutOfTimeError:
            return Solution("time_limit", oracle_calls=oracle.calls, message="no placement within the time limit")
        sizes = np.array([len(plan.adapters) for plan in placement.gpus])
        if self.best_service:
            placement, more = best_service(problem, placement, deadline)
            calls += more
        return Solution(
            "feasible",
            placement,
            oracle_calls=calls,
            details={"oracle": oracle.name, "adapters_per_gpu": sizes.tolist()},
        )
