"""Local search on latency over a given fleet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem, Solution, Tags
from solvers.fleet import FleetSolver
from solvers.limits import Deadline, OutOfTimeError
from solvers.spreading.dealing import least_loaded, rank_by_rank
from solvers.spreading.latency_model import LatencyModel
from solvers.spreading.latency_oracle import GpuLatency, LatencyOracle, TwinLatency, cost_of, known_ms
from twin import GpuPlan, Placement, UserError

#: Adapters of a giving GPU, and GPUs to take them, that are tried before the search gives up. By hand: each change
#: that helps starts anew, and more candidates cost two simulations each.
GIVEN, TAKERS = 3, 3


@dataclass
class _State:
    """Contents of the GPUs, their `max_loras`, and what the twin says of each."""

    contents: list[tuple[int, ...]]
    slots: list[int]
    answers: list[GpuLatency]

    @staticmethod
    def of(groups: list[list[int]], oracle: LatencyOracle) -> _State:
        contents = [tuple(sorted(group)) for group in groups]
        found = [oracle.best(content) for content in contents]
        return _State(contents, [slots for slots, _ in found], [answer for _, answer in found])

    def cost(self) -> tuple[int, float]:
        """(starved GPUs, mean latency)."""
        return cost_of(self.answers)

    def tune(self, oracle: LatencyOracle) -> None:
        """Give each GPU the `max_loras` with the least latency of those around."""
        for gpu, content in enumerate(self.contents):
            try:
                slots = oracle.tuned(content, self.slots[gpu])
                self.slots[gpu], self.answers[gpu] = slots, oracle.ask(content, slots)
            except OutOfTimeError:
                return


class LatencySearch(FleetSolver):
    """Starts from spreads of little predicted latency and moves or swaps adapters as long as the twin's mean falls.

    The starts: least load first over all GPUs, by rate in the order given, the busiest first, and by rate times rank; ranks
    kept together so that few GPUs pay for large ones; and what local search on the latency predictor makes of some of these,
    thousands of moves for each that the twin could judge. Then the GPU that adds most to the mean gives an adapter to one of
    those with the lowest latency, or swaps two, whenever that starves fewer GPUs or lowers the mean. In the end each GPU's
    `max_loras` is tuned.

    Parameters
    ----------
    most_calls : int
        GPU contents asked about before the search ends; the time limit ends it too.
    predictor : bool
        Without it the starts are the plain ones, and `max_loras` is the adapter count.
    search : bool
        As in `FleetSolver`.
    """

    name: ClassVar[str] = "latency_search"
    spread_tags: ClassVar[Tags] = Tags(needs_fleet=True, replays_requests=True)

    def __init__(self, most_calls: int = 1000, *, predictor: bool = True, search: bool = False) -> None:
        super().__init__(search=search)
        self.tags = replace(self.tags, needs_predictor=predictor)
        if most_calls < 1:
            raise UserError(f"solver.most_calls={most_calls} of solver latency_search: must be 1 or more")
        self.most_calls = most_calls
        self.predictor = predictor

    def spread(self, problem: Problem) -> Solution:
        """Start, move, swap, tune."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        if not problem.workload.n_adapters:
            return Solution("feasible", Placement(()))
        deadline = Deadline.after(problem.time_limit_s)
        oracle = self.oracle(problem)
        oracle.deadline = deadline
        state = _best([], _even_spreads(problem), oracle, deadline)
        # Moves do not help a fleet that is too small altogether.
        hopeless = state.cost()[0] > len(state.contents) / 2
        if oracle.model is not None and not hopeless:
            state = _best([state], _predicted_spreads(problem, oracle.model, deadline), oracle, deadline)
        first = state.cost()
        improved = 0
        while (
            not hopeless
            and deadline.left_s
            and oracle.calls < self.most_calls
            and _improved(state, oracle, problem, deadline)
        ):
            improved += 1
        state.tune(oracle)
        starved, latency = state.cost()
        details = {
            "latency_ms": known_ms(latency),
            "first_latency_ms": known_ms(first[1]),
            "improvements": improved,
        }
        calls = oracle.calls + (oracle.model.calls if oracle.model is not None else 0)
        if starved:
            message = f"{starved} of {len(state.contents)} GPUs starve in the twin, on the best placement found"
            return Solution("none_found", oracle_calls=calls, message=message, details=details)
        plans = [GpuPlan(c, slots) for c, slots in zip(state.contents, state.slots, strict=True) if c]
        return Solution("feasible", Placement(tuple(plans)), oracle_calls=calls, details=details)

    def oracle(self, problem: Problem) -> LatencyOracle:
        """What the search asks; a subclass may ask something else."""
        return TwinLatency(problem, LatencyModel(problem) if self.predictor else None)


def _best(
    states: list[_State], spreads: Iterable[list[list[int]]], oracle: LatencyOracle, deadline: Deadline
) -> _State:
    """The best of some states and of the spreads that there is time for.

    Raises
    ------
    OutOfTimeError
        If there is none.
    """
    states = list(states)
    for groups in spreads:
        try:
            states.append(_State.of(groups, oracle))
        except OutOfTimeError:
            if not states:
                raise
        if not deadline.left_s:
            break
    return min(states, key=_State.cost)


def _even_spreads(problem: Problem) -> list[list[list[int]]]:
    """Adapters of each GPU, spread by spread."""
    workload, n_gpus = problem.workload, problem.max_gpus or 1
    by_rank = workload.rates * (1.0 + workload.ranks / 64.0)
    return [
        least_loaded(workload.rates, np.arange(workload.n_adapters), n_gpus),
        *(least_loaded(w, np.argsort(-w, kind="stable"), n_gpus) for w in (workload.rates, by_rank)),
        rank_by_rank(by_rank, workload.ranks, n_gpus),
    ]


def _predicted_spreads(problem: Problem, model: LatencyModel, deadline: Deadline) -> Iterator[list[list[int]]]:
    """As `_even_spreads`, those of little predicted latency."""
    workload, n_gpus = problem.workload, problem.max_gpus or 1
    try:
        dealt = model.spread(np.argsort(-workload.rates, kind="stable"), n_gpus, deadline)
    except OutOfTimeError:
        return
    yield dealt
    for start in (dealt, rank_by_rank(workload.rates, workload.ranks, n_gpus)):
        yield model.improved(start, Deadline.after(deadline.left_s / 4))[0]


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
            changed = {
                giver: tuple(sorted({*state.contents[giver], *coming} - {*leaving})),
                taker: tuple(sorted({*state.contents[taker], *leaving} - {*coming})),
            }
            try:
                found = {gpu: oracle.best(content) for gpu, content in changed.items()}
            except OutOfTimeError:
                return False
            answers = [found[gpu][1] if gpu in found else answer for gpu, answer in enumerate(state.answers)]
            if cost_of(answers) < before:
                state.answers = answers
                for gpu, content in changed.items():
                    state.contents[gpu], state.slots[gpu] = content, found[gpu][0]
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
