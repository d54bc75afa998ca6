"""Local search on latency over a given fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem, Solution, Tags
from solvers.fleet import FleetSolver
from solvers.latency_oracle import GpuLatency, LatencyOracle, TwinLatency
from solvers.packing import Deadline
from solvers.spread import least_loaded, rank_by_rank
from twin import GpuPlan, Placement, UserError

#: Adapters of a giving GPU, and GPUs to take them, that are tried before the search gives up.
GIVEN, TAKERS = 3, 3


@dataclass
class _State:
    contents: list[tuple[int, ...]]
    answers: list[GpuLatency]

    def cost(self) -> tuple[int, float]:
        """(starved GPUs, mean latency)."""
        return _cost(self.answers)


def _cost(answers: list[GpuLatency]) -> tuple[int, float]:
    weight = sum(answer.weight for answer in answers)
    total = sum(answer.weight * answer.latency_ms for answer in answers if answer.weight)
    return (sum(answer.starved for answer in answers), total / weight if weight else 0.0)


class LatencySearch(FleetSolver):
    """Starts from even spreads and moves or swaps adapters as long as the twin's mean latency falls.

    The starts: least load first over all GPUs, by rate and by tokens times rank, and ranks kept together so that few GPUs
    pay for large ones. Then the GPU that adds most to the mean gives an adapter to one of those with the lowest
    latency, or swaps two, whenever that starves fewer GPUs or lowers the mean.

    Parameters
    ----------
    most_calls : int
        GPU contents asked about before the search ends; the time limit ends it too.
    search : bool
        As in `FleetSolver`.
    """

    name: ClassVar[str] = "latency_search"
    spread_tags: ClassVar[Tags] = Tags(needs_fleet=True, replays_requests=True)

    def __init__(self, most_calls: int = 1000, *, search: bool = False) -> None:
        super().__init__(search=search)
        if most_calls < 1:
            raise UserError(f"solver.most_calls={most_calls} of solver latency_search: must be 1 or more")
        self.most_calls = most_calls

    def spread(self, problem: Problem) -> Solution:
        """Start, move, swap."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        if not problem.workload.n_adapters:
            return Solution("feasible", Placement(()))
        deadline = Deadline.after(problem.time_limit_s)
        oracle = self.oracle(problem)
        states = []
        for groups in _starts(problem):
            states.append(_state(groups, oracle))
            if not deadline.left_s:
                break
        state = min(states, key=_State.cost)
        first = state.cost()
        improved = 0
        # Moves do not help a fleet that is too small altogether.
        hopeless = first[0] > len(state.contents) / 2
        while (
            not hopeless
            and deadline.left_s
            and oracle.calls < self.most_calls
            and _improved(state, oracle, problem, deadline)
        ):
            improved += 1
        starved, latency = state.cost()
        details = {"latency_ms": latency, "first_latency_ms": first[1], "improvements": improved}
        if starved:
            message = f"{starved} of {len(state.contents)} GPUs starve in the twin, on the best placement found"
            return Solution("infeasible", oracle_calls=oracle.calls, message=message, details=details)
        plans = tuple(GpuPlan(content, oracle.slots(content)) for content in state.contents if content)
        return Solution("feasible", Placement(plans), oracle_calls=oracle.calls, details=details)

    def oracle(self, problem: Problem) -> LatencyOracle:
        """What the search asks; a subclass may ask something else."""
        return TwinLatency(problem)


def _starts(problem: Problem) -> list[list[list[int]]]:
    workload, n_gpus = problem.workload, problem.max_gpus or 1
    by_rank = workload.rates * (1.0 + workload.ranks / 64.0)
    return [
        *(least_loaded(w, np.argsort(-w, kind="stable"), n_gpus) for w in (workload.rates, by_rank)),
        rank_by_rank(by_rank, workload.ranks, n_gpus),
    ]


def _state(groups: list[list[int]], oracle: LatencyOracle) -> _State:
    contents = [tuple(sorted(group)) for group in groups]
    return _State(contents, [oracle.ask(content, oracle.slots(content)) for content in contents])


def _improved(state: _State, oracle: LatencyOracle, problem: Problem, deadline: Deadline) -> bool:
    """Make the first change found that lowers the cost."""
    rates: NDArray[np.float64] = problem.workload.rates
    before = state.cost()

    def burden(gpu: int) -> tuple[bool, float]:
        answer = state.answers[gpu]
        return (answer.starved, answer.weight * answer.latency_ms if answer.weight else 0.0)

    ascending = sorted(range(len(state.contents)), key=lambda gpu: (*burden(gpu), gpu))
    giver = ascending[-1]
    for taker in ascending[:TAKERS]:
        if taker == giver:
            continue
        for leaving, coming in _exchanges(state.contents[giver], state.contents[taker], rates):
            if not deadline.left_s:
                return False
            contents = (
                tuple(sorted({*state.contents[giver], *coming} - {*leaving})),
                tuple(sorted({*state.contents[taker], *leaving} - {*coming})),
            )
            answers = list(state.answers)
            for gpu, content in zip((giver, taker), contents, strict=True):
                answers[gpu] = oracle.ask(content, oracle.slots(content))
            if _cost(answers) < before:
                state.contents[giver], state.contents[taker] = contents
                state.answers = answers
                return True
    return False


def _exchanges(
    giver: tuple[int, ...], taker: tuple[int, ...], rates: NDArray[np.float64]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(leaving, coming) pairs whose rate is nearest to half the difference between the GPUs, moves and swaps."""
    mine, theirs = np.array(giver, dtype=np.int64), np.array(taker, dtype=np.int64)
    half = (rates[mine].sum() - rates[theirs].sum()) / 2
    moves = mine[np.argsort(np.abs(rates[mine] - half), kind="stable")[:GIVEN]]
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((int(a),), ()) for a in moves]
    if len(theirs):
        off = np.abs(rates[mine][:, None] - rates[theirs][None, :] - half)
        for flat in np.argsort(off, axis=None, kind="stable")[:GIVEN]:
            a, b = np.unravel_index(int(flat), off.shape)
            found.append(((int(mine[a]),), (int(theirs[b]),)))
    return found
