"""Exact balance for small fleets: the least largest load of any GPU, with a bound."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from solvers.base import Problem, Solution, Tags
from solvers.contents.adapter_types import AdapterTypes, adapter_types
from solvers.contents.patterns import cp_solver
from solvers.filling.model import FillModel
from solvers.fleet import FleetSolver
from solvers.limits import Deadline
from solvers.objectives.min_latency import MinLatency
from solvers.spreading.dealing import least_loaded
from solvers.spreading.latency_model import LatencyModel
from solvers.spreading.latency_oracle import TwinLatency, known_ms
from twin import Placement, UserError

#: Loads are whole multiples of this share of a GPU, rounded up; a GPU of a hundred adapters is off by a thousandth at most.
LOAD_SCALE = 10**5
#: Share of the time limit that CP-SAT may take; the last thousandths of a load are not worth a minute. By hand.
CP_SAT_SHARE = 1 / 6
#: Count variables beyond which the model would be too large to be worth building, by hand: its time is spent on building then.
MOST_VARIABLES = 50_000


class MinMaxLoad(FleetSolver):
    """CP-SAT deals counted adapter types to the GPUs so that the largest predicted load is as small as can be.

    An adapter's load is the share of a GPU that the starvation predictor says it takes, as for `balance`; latency
    grows with it, the faster the nearer a GPU is to its limit, so the fullest GPU matters most. The least-loaded
    placement is the hint and the first answer. `max_loras` is what the latency predictor proposes or the adapter count,
    whichever has the lower latency in the twin, which also says whether anyone starves.

    A sum of loads does not tell that a GPU pays for its slots and for the largest rank on it; under the objective `min_latency`
    the spread of `least_loaded` therefore competes, and the twin takes the better.

    Parameters
    ----------
    workers : int
        Search threads of CP-SAT.
    search : bool
        As in `FleetSolver`.
    """

    name: ClassVar[str] = "min_max_load"
    spread_tags: ClassVar[Tags] = Tags(needs_fleet=True, needs_predictor=True, replays_requests=True)

    def __init__(self, workers: int = 2, *, search: bool = False) -> None:
        super().__init__(search=search)
        if workers < 1:
            raise UserError(f"solver.workers={workers} of solver min_max_load: must be 1 or more")
        self.workers = workers

    def spread(self, problem: Problem) -> Solution:
        """Deal, then ask the twin."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        if not problem.workload.n_adapters:
            return Solution("feasible", Placement(()))
        deadline = Deadline.after(problem.time_limit_s)
        model = FillModel(problem, distilled=False)
        types = adapter_types(problem.workload)
        loads = np.array([model.weights[members[0]] for members in types.members])
        groups = least_loaded(model.weights, np.argsort(-model.weights, kind="stable"), problem.max_gpus)
        units = np.ceil(loads * LOAD_SCALE).astype(np.int64)
        dealt = _Dealt.of(groups, types)
        bound = 0
        if len(groups) * len(types) <= MOST_VARIABLES:
            counts, bound = _balanced(types, units, dealt.counts(), problem.time_limit_s * CP_SAT_SHARE, self.workers)
            largest, contents = int((counts @ units).max()), _contents(counts, types)
        else:
            largest, contents = dealt.largest(units), dealt.contents()
        latency = LatencyModel(problem)
        oracle = TwinLatency(problem, latency)
        oracle.deadline = deadline
        spreads = [[list(content) for content in contents]]
        if isinstance(problem.objective, MinLatency):
            rates = problem.workload.rates
            spreads.append(least_loaded(rates, np.arange(len(rates)), problem.max_gpus))
        fleet = oracle.best_fleet(spreads)
        details = {
            "largest_load": largest / LOAD_SCALE,
            "largest_load_bound": bound / LOAD_SCALE,
            "largest_load_proven": bound >= largest,
            "latency_ms": known_ms(fleet.latency_ms),
        }
        calls = model.calls + latency.calls + oracle.calls
        if fleet.starved:
            message = f"{fleet.starved} of {len(fleet.plans)} GPUs starve in the twin, at the least largest load found"
            return Solution("none_found", oracle_calls=calls, message=message, details=details)
        return Solution("feasible", Placement(fleet.plans), oracle_calls=calls, details=details)


@dataclass(frozen=True)
class _Dealt:
    """Adapters on GPUs, of each type the first on the first GPU: which of a type goes where is all the same.

    Attributes
    ----------
    gpu_of, kind_of : arrays of shape (n_adapters,)
    n_gpus, n_types : int
    """

    gpu_of: NDArray[np.int64]
    kind_of: NDArray[np.int64]
    n_gpus: int
    n_types: int

    @staticmethod
    def of(groups: list[list[int]], types: AdapterTypes) -> _Dealt:
        members = np.concatenate(types.members)
        kind_of, given = np.empty((2, len(members)), dtype=np.int64)
        kind_of[members] = np.repeat(np.arange(len(types)), [len(each) for each in types.members])
        for gpu, group in enumerate(groups):
            given[group] = gpu
        gpu_of = np.empty_like(given)
        gpu_of[members] = given[np.lexsort((given, kind_of))]
        return _Dealt(gpu_of, kind_of, len(groups), len(types))

    def counts(self) -> NDArray[np.int64]:
        """Adapters by GPU and type, shape (n_gpus, n_types)."""
        flat = np.bincount(self.gpu_of * self.n_types + self.kind_of, minlength=self.n_gpus * self.n_types)
        return flat.reshape(self.n_gpus, self.n_types).astype(np.int64)

    def largest(self, units: NDArray[np.int64]) -> int:
        """The largest load of a GPU."""
        loads = np.zeros(self.n_gpus, dtype=np.int64)
        np.add.at(loads, self.gpu_of, units[self.kind_of])
        return int(loads.max())

    def contents(self) -> list[tuple[int, ...]]:
        """Adapters of each GPU that has any, ascending."""
        ends = np.cumsum(np.bincount(self.gpu_of, minlength=self.n_gpus))
        parts = np.split(np.argsort(self.gpu_of, kind="stable"), ends[:-1])
        return [tuple(part.tolist()) for part in parts if len(part)]


def _balanced(
    types: AdapterTypes, units: NDArray[np.int64], hint: NDArray[np.int64], time_limit_s: float, workers: int
) -> tuple[NDArray[np.int64], int]:
    """Counts per GPU and type, shape (n_gpus, n_types), with the least largest load found, and a bound on it."""
    n_gpus, n_types = hint.shape
    start = int((hint @ units).max())
    model = cp_model.CpModel()
    counts = [[model.new_int_var(0, int(count), "") for count in types.counts] for _ in range(n_gpus)]
    least = max(-(-int(types.counts @ units) // n_gpus), int(units.max()))
    largest = model.new_int_var(least, start, "")
    loads = [cp_model.LinearExpr.weighted_sum(row, units.tolist()) for row in counts]
    for load in loads:
        model.add(load <= largest)
    for kind in range(n_types):
        model.add(sum(row[kind] for row in counts) == int(types.counts[kind]))
    # GPUs are alike: the order of their loads is free to choose.
    for first, second in pairwise(loads):
        model.add(first >= second)
    order = np.argsort(-(hint @ units), kind="stable")
    for row, given in zip(counts, hint[order], strict=True):
        for variable, value in zip(row, given, strict=True):
            model.add_hint(variable, int(value))
    model.minimize(largest)
    solver = cp_solver(time_limit_s, workers)
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return hint, least
    dealt = np.array([[solver.value(variable) for variable in row] for row in counts], dtype=np.int64)
    return dealt, int(np.ceil(solver.best_objective_bound - 1e-6))


def _contents(counts: NDArray[np.int64], types: AdapterTypes) -> list[tuple[int, ...]]:
    contents: list[list[int]] = [[] for _ in counts]
    for kind, members in enumerate(types.members):
        ends = np.cumsum(counts[:, kind])
        for gpu, part in enumerate(np.split(members, ends[:-1])):
            contents[gpu].extend(part.tolist())
    return [tuple(sorted(content)) for content in contents if content]
