"""Load balanced over the fleet by minimum-cost flows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import min_cost_flow as flow

from solvers.base import Problem, Solution
from solvers.contents.orders import sorted_plan
from solvers.fleet import FleetSolver
from solvers.limits import Deadline, OutOfTimeError
from twin import Placement, UserError

#: Costs are whole numbers up to this, as the flow wants them; finer than any difference that matters.
COST_SCALE = 10**6
#: Seconds that a round takes for each arc: a million took 3 s. OR-Tools does not stop it half-way, so one is begun only when there is time.
S_PER_ARC = 3e-6


class BalancedFlow(FleetSolver):
    """Assigns adapters to slots at the least load imbalance plus moves: a method of our own.

    NVIDIA Dynamo's controller solves a flow too, of other costs and without load: `solvers.min_cost_flow`.

    Adapters are assigned in rounds of one slot on each GPU, the busiest first. In a round the cost of a GPU for an
    adapter is how much the sum of squared loads grows, plus a penalty if the adapter was elsewhere; the cheapest
    assignment of the round is a minimum-cost flow.

    Parameters
    ----------
    previous : sequence of int, optional
        GPU of each adapter so far (-1: none); by default there is no earlier placement.
    move_penalty : float
        Cost of a move, in units of a mean GPU load squared.
    search : bool
        As in `FleetSolver`.
    """

    name: ClassVar[str] = "balanced_flow"

    def __init__(self, previous: list[int] | None = None, move_penalty: float = 0.01, *, search: bool = False) -> None:
        super().__init__(search=search)
        if move_penalty < 0:
            raise UserError(f"solver.move_penalty={move_penalty} of solver balanced_flow: must not be negative")
        self.previous = previous
        self.move_penalty = move_penalty

    def spread(self, problem: Problem) -> Solution:
        """Assign round by round."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        workload, n_gpus = problem.workload, problem.max_gpus
        deadline = Deadline.after(problem.time_limit_s)
        before = np.full(workload.n_adapters, -1)
        if self.previous is not None:
            if len(self.previous) != workload.n_adapters:
                raise UserError(
                    f"solver.previous of solver balanced_flow: {len(self.previous)} GPUs for "
                    f"{workload.n_adapters} adapters; one each is needed"
                )
            before = np.asarray(self.previous)
        mean_load = max(workload.total_rate / n_gpus, 1e-12)
        load = np.zeros(n_gpus)
        groups: list[list[int]] = [[] for _ in range(n_gpus)]
        order = np.argsort(-workload.rates, kind="stable")
        round_s = S_PER_ARC * n_gpus**2
        for start in range(0, len(order), n_gpus):
            before_s = deadline.left_s
            if before_s <= round_s:
                raise OutOfTimeError
            adapters = order[start : start + n_gpus]
            rates = workload.rates[adapters] / mean_load
            growth = rates[:, None] * (2 * load / mean_load + rates[:, None])
            moved = (before[adapters, None] >= 0) & (before[adapters, None] != np.arange(n_gpus))
            for adapter, gpu in zip(adapters, assign(growth + self.move_penalty * moved), strict=True):
                groups[gpu].append(int(adapter))
                load[gpu] += workload.rates[adapter]
            round_s = max(round_s, before_s - deadline.left_s)
        moves = int(sum(before[a] not in (-1, gpu) for gpu, group in enumerate(groups) for a in group))
        plans = tuple(sorted_plan(group, len(group)) for group in groups if group)
        return Solution("unchecked", Placement(plans), details={"moves": moves})


def assign(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """A GPU of its own for each adapter at the least total cost.

    Parameters
    ----------
    costs : array of shape (n, n_gpus), n <= n_gpus

    Returns
    -------
    array of shape (n,)
    """
    n_adapters, n_gpus = costs.shape
    whole = np.rint(costs / max(float(costs.max()), 1e-300) * COST_SCALE).astype(np.int64)
    network = flow.SimpleMinCostFlow()
    tails = np.repeat(np.arange(n_adapters), n_gpus)
    heads = n_adapters + np.tile(np.arange(n_gpus), n_adapters)
    arcs = network.add_arcs_with_capacity_and_unit_cost(tails, heads, np.ones(len(tails), np.int64), whole.ravel())
    sink = n_adapters + n_gpus
    network.add_arcs_with_capacity_and_unit_cost(
        n_adapters + np.arange(n_gpus), np.full(n_gpus, sink), np.ones(n_gpus, np.int64), np.zeros(n_gpus, np.int64)
    )
    network.set_nodes_supplies(
        np.append(np.arange(n_adapters), sink), np.append(np.ones(n_adapters, np.int64), -n_adapters)
    )
    if network.solve() != network.OPTIMAL:
        raise ArithmeticError("the assignment has no solution")
    gpus: NDArray[np.int64] = np.argmax(network.flows(arcs).reshape(n_adapters, n_gpus), axis=1)
    return gpus
