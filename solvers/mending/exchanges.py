"""One GPU less by exchanging adapters between GPUs that fall short and GPUs with room, every exchange simulated.

A learned model or the prices of a bound say how much adapters take on average. Near the threshold that is not enough: which
adapters share a GPU's slots, which bursts meet and what is unfinished at the window's end decide, and only the twin knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.contents.orders import zigzag_order
from solvers.limits import Deadline, OutOfTimeError
from solvers.oracles.base import nearest_first
from solvers.oracles.twin import TwinOracle
from solvers.spreading.dealing import least_loaded, rank_by_rank, slices
from twin import GpuPlan, Placement

# By hand, together: no measurement that chose them one by one is on record. With them `ffd_plus` needs as few GPUs as are known on the 40
# instances of the benchmark tier (results/reference). None can make an answer wrong, as the twin accepts every GPU of it.

#: Largest share of a GPU's adapters that is exchanged, and how often none comes back. Near the goal only swaps
#: shift little enough; before, moves are faster.
LARGEST_EXCHANGE, ONE_WAY = 0.2, 0.2
#: Exchanges drawn for each that is simulated: the one whose weight is nearest to what is missing. Drawing costs
#: microseconds, a simulation milliseconds.
DRAWN = 64
#: An exchange is meant to shift up to so many times what is missing, and at least this share of a GPU so that
#: quiet adapters are exchanged too when nearly nothing is missing.
LARGEST_SHIFT, LEAST_SHIFT = 1.2, 0.004
#: Temperature of the annealing in terms of the mean shortfall of a GPU: it cools by itself as the goal comes nearer.
TEMPERATURE = 0.1
#: The least temperature in shares of a GPU, round by round as long as rounds lower the shortfall by less than a share: what
#: is stuck is heated up, each time more, and then all over again.
HEATS, LITTLE = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1), 0.02
#: A GPU that misses what an exchange may cost by this share of its load is not asked about at other `max_loras`: neighbours on
#: the grid are taken to differ by less.
HOPELESS = 0.02
#: Proposals in a round, and so many more for each GPU: every pair of few GPUs comes up some times.
ROUND, ROUND_PER_GPU = 100, 10
#: The shortfall that a start may have, and that there may be after a round, in shares of the offered load. A
#: fleet with more is given up: less saves time for other steps, more goes on where there is little hope.
MOST_AT_START, MOST_AFTER_ROUND = 0.045, 0.015
#: Simulations after which rounds only go on as long as, at the pace of the last `PACE`, so many more would bring the
#: shortfall to nothing. Time that a hopeless fleet takes is missing for other steps.
SURE_CALLS, PATIENCE, PACE = 1500, 20, 4
#: Rounds in all: an end for small fleets, whose rounds take no time.
MOST_ROUNDS = 80


@dataclass(frozen=True)
class Loaded:
    """What a GPU holds.

    Attributes
    ----------
    content : tuple of int
        Ascending workload indices.
    slots : int
        `max_loras`.
    spare : float
        What is served beyond the service level's share, in tokens per second; negative: what is missing.
    kind : int
        Its type, by place in a fleet.
    """

    content: tuple[int, ...]
    slots: int
    spare: float
    kind: int = 0

    @property
    def missing(self) -> float:
        """What is missing to the threshold, in tokens per second."""
        return max(0.0, -self.spare)


class TwinSearch:
    """Annealing over the contents of a number of GPUs.

    What is minimised is the throughput that GPUs miss to the threshold, in sum: 0 when the twin accepts every GPU.

    Parameters
    ----------
    oracle : TwinOracle
    weights : array of shape (n_adapters,)
        What an adapter takes of a GPU; only proportions matter.
    generator : numpy.random.Generator
    """

    def __init__(self, oracle: TwinOracle, weights: NDArray[np.float64], generator: np.random.Generator) -> None:
        self.oracle = oracle
        self.generator = generator
        self.load = oracle.loads
        self.total = float(self.load.sum())
        self.size = weights * (self.total / max(float(weights.sum()), 1e-300))

    def on(self, n_gpus: int, hint: int, deadline: Deadline) -> Placement | None:
        """A placement on so many GPUs or fewer that the twin accepts, or None if none was found.

        Parameters
        ----------
        n_gpus : int
        hint : int
            A `max_loras` to try first.
        deadline : Deadline
        """
        gpus = self._start(n_gpus, hint, deadline)
        found = None if gpus is None else self.annealed(gpus, deadline)
        return (
            None if found is None else Placement(tuple(GpuPlan(gpu.content, gpu.slots) for gpu in found if gpu.content))
        )

    def annealed(self, gpus: list[Loaded], deadline: Deadline) -> list[Loaded] | None:
        """The same adapters on the same GPUs so that none falls short, or None if the search comes to no such end.

        Parameters
        ----------
        gpus : list of Loaded
        deadline : Deadline
        """
        n_gpus = len(gpus)
        short = [_missing(gpus)]
        stuck, most_calls = 0, self.calls + SURE_CALLS
        while short[-1] and n_gpus > 1 and deadline.left_s and self._is_worth_more(short, sure=self.calls < most_calls):
            gpus = self._round(gpus, HEATS[stuck % len(HEATS)] * self.total / n_gpus, deadline)
            short.append(_missing(gpus))
            stuck = stuck + 1 if short[-1] > (1 - LITTLE) * short[-2] else 0
        return None if short[-1] else gpus

    @property
    def calls(self) -> int:
        """Contents asked about so far."""
        return self.oracle.calls

    def _is_worth_more(self, short: Sequence[float], *, sure: bool) -> bool:
        """Whether another round may lead somewhere, by the shortfall at the start and after each round."""
        rounds = len(short) - 1
        if rounds >= MOST_ROUNDS or (rounds and short[-1] > MOST_AFTER_ROUND * self.total):
            return False
        return sure or rounds < PACE or short[-1] <= PATIENCE * (short[-1 - PACE] - short[-1]) / PACE

    # --- starts

    def _start(self, n_gpus: int, hint: int, deadline: Deadline) -> list[Loaded] | None:
        """The even spread that misses least; None if each of them misses far too much, or the time is up."""
        heaviest_first = np.argsort(-self.size, kind="stable")
        busiest_first = np.argsort(-self.load, kind="stable")
        workload = self.oracle.workload
        best: list[Loaded] | None = None
        for groups in (
            least_loaded(self.size, heaviest_first, n_gpus),
            least_loaded(self.load, busiest_first, n_gpus),
            rank_by_rank(self.size, workload.ranks, n_gpus),
            slices(self.size, zigzag_order(workload), n_gpus),
        ):
            gpus = []
            for group in groups:
                if not deadline.left_s:
                    return None
                gpus.append(self._asked(tuple(sorted(group)), min(hint, max(len(group), 1)), -math.inf))
            if best is None or _missing(gpus) < _missing(best):
                best = gpus
        return best if best is not None and _missing(best) <= MOST_AT_START * self.total else None

    # --- exchanges

    def _round(self, gpus: Sequence[Loaded], least_temperature: float, deadline: Deadline) -> list[Loaded]:
        """The best state among some proposals."""
        state, best = list(gpus), list(gpus)
        for _ in range(ROUND + ROUND_PER_GPU * len(state)):
            if not _missing(state) or not deadline.left_s:
                break
            self._propose(state, max(TEMPERATURE * _missing(state) / len(state), least_temperature))
            if _missing(state) < _missing(best):
                best = list(state)
        return best

    def _propose(self, state: list[Loaded], temperature: float) -> None:
        """Exchange adapters between two GPUs if the twin likes the outcome."""
        generator = self.generator
        missing = np.array([gpu.missing for gpu in state])
        giver = int(generator.choice(len(state), p=missing / missing.sum()))
        taker = self._taker(state, giver)
        old = state[giver].missing + state[taker].missing
        most = old - temperature * math.log(max(generator.random(), 1e-300))
        leaving, coming = self._exchange(state, giver, taker)
        grown = _changed(state[taker].content, coming, leaving)
        takes = self._asked(grown, state[taker].slots, -most, state[taker].kind)
        if takes.missing > most:
            return
        shrunk = _changed(state[giver].content, leaving, coming)
        gives = self._asked(shrunk, state[giver].slots, takes.missing - most, state[giver].kind)
        if takes.missing + gives.missing <= most:
            state[giver], state[taker] = gives, takes

    def _taker(self, state: Sequence[Loaded], giver: int) -> int:
        """A GPU other than the giver, preferably with room."""
        room = np.array([max(0.0, gpu.spare) if gpu.content else self.total / len(state) for gpu in state])
        chance = room / max(float(room.sum()), 1e-300) + 1.0 / len(state)
        chance[giver] = 0.0
        return int(self.generator.choice(len(state), p=chance / chance.sum()))

    def _exchange(self, state: Sequence[Loaded], giver: int, taker: int) -> tuple[set[int], set[int]]:
        """Adapters that leave the giver and that come to it: of some that are drawn, those that shift what is wanted."""
        generator = self.generator
        mine, theirs = np.array(state[giver].content), np.array(state[taker].content, dtype=np.int64)
        n_leaving = self._several(len(mine))
        n_coming = 0 if generator.random() < ONE_WAY else self._several(len(theirs))
        least = LEAST_SHIFT * self.total / len(state)
        wanted = generator.random() * LARGEST_SHIFT * max(state[giver].missing / self.oracle.service.share, least)
        # The first places of random permutations.
        leaving = mine[np.argsort(generator.random((DRAWN, len(mine))), axis=1)[:, :n_leaving]]
        coming = theirs[np.argsort(generator.random((DRAWN, len(theirs))), axis=1)[:, :n_coming]]
        shift = self.size[leaving].sum(axis=1) - self.size[coming].sum(axis=1)
        nearest = int(np.argmin(np.abs(shift - wanted)))
        return set(leaving[nearest].tolist()), set(coming[nearest].tolist())

    def _several(self, count: int) -> int:
        """How many of so many adapters are exchanged: mostly one or two, of hundreds now and then dozens."""
        return min(count, int(max(2.0, LARGEST_EXCHANGE * count) ** self.generator.random() + 0.5))

    def oracle_of(self, kind: int) -> TwinOracle:  # noqa: ARG002  # here all GPUs are of one type
        """Whom GPUs of a type are asked of."""
        return self.oracle

    def _asked(self, content: tuple[int, ...], hint: int, least: float, kind: int = 0) -> Loaded:
        """A GPU with a content at the best `max_loras` near a hint.

        Parameters
        ----------
        content : tuple of int
        hint : int
        least : float
            Spare throughput below which the answer is of no use.
        kind : int
            Type of the GPU.
        """
        if not content:
            return Loaded((), 1, 0.0, kind)
        oracle = self.oracle_of(kind)
        load = float(self.load[list(content)].sum())
        candidates = oracle.slots(content)
        if not candidates:
            return Loaded(content, 1, -load, kind)

        def spare(place: int) -> float:
            return (oracle.share(content, candidates[place]) - oracle.service.share) * load

        place = candidates.index(nearest_first(candidates, hint)[0])
        best = spare(place)
        if best < least - HOPELESS * load:
            return Loaded(content, candidates[place], best, kind)
        for step in (1, -1):
            improved = False
            while best < 0 and 0 <= place + step < len(candidates) and (trial := spare(place + step)) > best:
                best, place, improved = trial, place + step, True
            if improved:
                break
        return Loaded(content, candidates[place], best, kind)


def fewer_on_twin(  # noqa: PLR0913  # a start and the limits of a search
    placement: Placement,
    weights: NDArray[np.float64],
    oracle: TwinOracle,
    deadline: Deadline,
    seed: int,
    *,
    least: int = 1,
) -> Placement:
    """A placement on fewer GPUs as long as the search finds one, or what it was given.

    Parameters
    ----------
    placement : Placement
        That the twin accepts.
    weights : array of shape (n_adapters,)
        What an adapter takes of a GPU; only proportions matter.
    oracle : TwinOracle
    deadline : Deadline
    seed : int
    least : int
        GPUs below which nothing is tried.

    Returns
    -------
    Placement
        That the twin accepts.
    """
    search = TwinSearch(oracle, weights, np.random.default_rng(seed))
    while placement.n_gpus > least and deadline.left_s:
        hint = int(np.median([plan.max_loras for plan in placement.gpus]))
        try:
            better = search.on(placement.n_gpus - 1, hint, deadline)
        except OutOfTimeError:
            break
        if better is None:
            break
        placement = better
    return placement


def _missing(gpus: Sequence[Loaded]) -> float:
    return sum(gpu.missing for gpu in gpus)


def _changed(content: Sequence[int], leaving: set[int], coming: set[int]) -> tuple[int, ...]:
    return tuple(sorted((set(content) - leaving) | coming))
