"""What solvers ask whether a GPU content is feasible: a GPU with these adapters at this `max_loras`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from predictors import Predictor, adapter_contributions, content_tail
from predictors.features import MAX_LORAS, N_FEATURES, N_SUMS, RATE
from predictors.model import starvation_batch
from solvers.adapter_types import AdapterTypes
from solvers.base import Problem
from solvers.demands import SERVICE_TIMES_S, Demands, expected_active, presence
from twin import GpuResult, ServingProfile, UserError, Workload, simulate_requests
from twin.simulate import STARVATION_SHARE

#: Adapter slots that a solver tries: the values of the published training data (arXiv 2602.24044)
#: and the powers of two below them.
MAX_LORAS_GRID = (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576)

ORACLES = ("auto", "predictor", "distilled", "twin")


class Oracle(ABC):
    """Answers for GPU contents: a sorted tuple of workload indices, at a `max_loras`.

    Attributes
    ----------
    name : str
    calls : int
        Contents asked about so far, each (content, `max_loras`) counted once.
    interchangeable : bool
        Adapters of the same rank and rate are the same to this oracle. The twin replays each
        adapter's own requests, so to it they are only alike.
    """

    name: str
    interchangeable: bool = True

    def __init__(self, workload: Workload, profile: ServingProfile) -> None:
        profile.check_ranks(workload.ranks)
        self.workload = workload
        self.profile = profile
        self.calls = 0

    @abstractmethod
    def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether a GPU with these adapters (ascending indices) is feasible at `max_loras`."""

    def is_cut_off(self, adapters: tuple[int, ...], max_loras: int) -> bool:  # noqa: ARG002
        """Whether a rejected content falls short only because the window ends, not for lack of capacity."""
        return False

    @abstractmethod
    def demands(self, types: AdapterTypes) -> Demands:
        """Sums in which this oracle is monotone: what asks for more of each is accepted no sooner."""

    @abstractmethod
    def made_up_demand(self, types: AdapterTypes, n_adapters: int, rank: int, load: float) -> NDArray[np.float64]:
        """Sums of a made-up content (`solvers.demands`), shape (n_sums,).

        Parameters
        ----------
        types : AdapterTypes
        n_adapters : int
            All equally busy; one has `rank`, the others the smallest rank.
        rank : int
        load : float
            In the units of the load among `demands`.
        """

    @abstractmethod
    def rejects_made_up(self, types: AdapterTypes, n_adapters: int, rank: int, load: float) -> bool:
        """Whether a made-up content starves at every `max_loras`, and not for the end of the window."""

    def slots(self, adapters: Sequence[int]) -> tuple[int, ...]:
        """The `max_loras` worth trying for a content: the grid below its adapter count, and the count itself.

        More slots than adapters only cost KV cache. Values at which the engine does not start are left
        out; empty if none is left.
        """
        return self.slots_for(len(adapters), int(self.workload.ranks[list(adapters)].max()))

    def slots_for(self, count: int, rank: int) -> tuple[int, ...]:
        """`slots` of a content of `count` adapters with this largest rank."""
        limit = self.profile.largest_max_loras(rank)
        grid = [value for value in MAX_LORAS_GRID if value < count] + [count]
        # The largest that starts is worth trying even where the grid steps over it.
        return tuple(sorted({min(value, limit) for value in grid})) if limit else ()

    def find_max_loras(
        self, adapters: tuple[int, ...], hint: int | None = None, *, breadth: int | None = None
    ) -> int | None:
        """A `max_loras` at which the content is accepted, or None if it is at none of `slots`.

        Parameters
        ----------
        adapters : tuple of int
        hint : int, optional
            What a similar content was accepted with; values near it are tried first.
        breadth : int, optional
            Try at most this many values; a None then says less.
        """
        candidates = nearest_first(self.slots(adapters), hint or min(len(adapters), 64))
        for value in candidates[:breadth]:
            if self.accepts(adapters, value):
                return value
        return None


class TwinOracle(Oracle):
    """The digital twin with the workload's own requests and window: what it accepts is feasible when scored.

    Parameters
    ----------
    workload, profile : Workload, ServingProfile
    """

    name = "twin"
    interchangeable = False

    def __init__(self, workload: Workload, profile: ServingProfile) -> None:
        super().__init__(workload, profile)
        requests = workload.requests
        self._rows = np.argsort(requests.adapter, kind="stable")
        self._starts = np.searchsorted(requests.adapter[self._rows], np.arange(workload.n_adapters + 1))
        self._cache: dict[tuple[tuple[int, ...], int], bool] = {}
        self._thinning = np.random.Generator(np.random.PCG64(workload.seed)).random((2, len(requests)))

    def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether the GPU neither starves nor has a memory error; simulated once, then remembered."""
        key = (adapters, max_loras)
        if key not in self._cache:
            self.calls += 1
            self._cache[key] = self._simulate(adapters, max_loras, self.workload.duration_s).feasible
        return self._cache[key]

    def is_cut_off(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether a rejected content would be served at no less than 90 % of its rate, given more time.

        A short window cuts off the requests that arrive near its end; with few requests that alone
        makes a lone adapter fall short, and more adapters beside it can mend it. So the same requests
        are simulated on past the window, by as much as a GPU at 90 % of the offered throughput is
        behind, and by a minute at least, longer than any single request takes.
        """
        window_s = self.workload.duration_s
        result = self._simulate(adapters, max_loras, max(window_s / STARVATION_SHARE, window_s + 60.0))
        return not result.memory_error and result.finished == result.arrived

    def demands(self, types: AdapterTypes) -> Demands:
        """Adapters of each rank or above, offered tokens per second, expected active adapters.

        Load and activity come from the requests that are replayed, averaged over the members of a type.
        """
        requests, count = self.workload.requests, self.workload.n_adapters
        tokens = np.bincount(requests.adapter, requests.prompt_tokens + requests.requested_tokens, count)
        rates = np.bincount(requests.adapter, minlength=count) / self.workload.duration_s
        load = np.array([tokens[members].mean() for members in types.members]) / self.workload.duration_s
        rate = np.array([rates[members].mean() for members in types.members])
        above = presence(types.ranks)
        return Demands(np.vstack([above, load, expected_active(rate, SERVICE_TIMES_S)]), len(above))

    def made_up_demand(self, types: AdapterTypes, n_adapters: int, rank: int, load: float) -> NDArray[np.float64]:
        """As `Oracle.made_up_demand`."""
        requests = self.workload.requests
        tokens = float((requests.prompt_tokens + requests.requested_tokens).sum()) / self.workload.duration_s
        rate = len(requests) / self.workload.duration_s * load / tokens
        above = (np.unique(types.ranks)[1:] <= rank).astype(np.float64)
        active = n_adapters * expected_active(np.array([rate / n_adapters]), SERVICE_TIMES_S)[:, 0]
        return np.concatenate([above, [load], active])

    def rejects_made_up(self, types: AdapterTypes, n_adapters: int, rank: int, load: float) -> bool:
        """Simulates the workload's own requests, thinned to the load and dealt at random to the adapters."""
        requests = self.workload.requests
        tokens = float((requests.prompt_tokens + requests.requested_tokens).sum()) / self.workload.duration_s
        kept = requests.take(np.flatnonzero(self._thinning[0] < load / tokens))
        dealt = (self._thinning[1, self._thinning[0] < load / tokens] * n_adapters).astype(np.int64)
        kept = replace(kept, adapter=dealt)
        ranks = np.full(n_adapters, types.ranks.min())
        ranks[0] = rank
        window_s = self.workload.duration_s
        slots = nearest_first(self.slots_for(n_adapters, rank), min(n_adapters, 64))
        for max_loras in slots:
            self.calls += 1
            if simulate_requests(kept, ranks, self.profile, max_loras, duration_s=window_s).feasible:
                return False
        longer_s = max(window_s / STARVATION_SHARE, window_s + 60.0)
        drained = simulate_requests(kept, ranks, self.profile, slots[0], duration_s=longer_s)
        return drained.finished < drained.arrived

    def _simulate(self, adapters: tuple[int, ...], max_loras: int, duration_s: float) -> GpuResult:
        parts = [self._rows[self._starts[a] : self._starts[a + 1]] for a in adapters]
        mine = self.workload.requests.take(np.sort(np.concatenate(parts)))
        local = np.searchsorted(np.asarray(adapters), mine.adapter)
        return simulate_requests(
            replace(mine, adapter=local),
            self.workload.ranks[list(adapters)],
            self.profile,
            max_loras,
            duration_s=duration_s,
        )


class PredictorOracle(Oracle):
    """The learned starvation model: microseconds a content, and adapters of one type are the same to it.

    Parameters
    ----------
    workload, profile : Workload, ServingProfile
    predictor : Predictor
    distilled : bool
        The single tree instead of the full model.
    """

    name = "predictor"

    def __init__(
        self, workload: Workload, profile: ServingProfile, predictor: Predictor, *, distilled: bool = False
    ) -> None:
        super().__init__(workload, profile)
        if distilled:
            self.name = "distilled"
        self._arrays = predictor.distilled_starvation_arrays if distilled else predictor.starvation_arrays
        self._threshold = predictor.distilled_threshold if distilled else predictor.starvation_threshold
        self._rows = adapter_contributions(workload.ranks, workload.rates)
        self._tail = workload_tail(workload)

    def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether the predicted probability of starvation is below the predictor's threshold."""
        return bool(self._accepted(adapters, (max_loras,))[0])

    def find_max_loras(
        self, adapters: tuple[int, ...], hint: int | None = None, *, breadth: int | None = None
    ) -> int | None:
        """As `Oracle.find_max_loras`; all values are asked about at once."""
        candidates = nearest_first(self.slots(adapters), hint or min(len(adapters), 64))[:breadth]
        if not candidates:
            return None
        accepted = self._accepted(adapters, candidates)
        return next((value for value, good in zip(candidates, accepted, strict=True) if good), None)

    def demands(self, types: AdapterTypes) -> Demands:
        """What the predictor knows of a content: adapters, ranks present, summed rate, expected active adapters."""
        rows = adapter_contributions(types.ranks, types.rates)
        above = presence(types.ranks)
        adapters = np.ones((1, len(types)))
        return Demands(np.vstack([above, adapters, rows[:, RATE:N_SUMS].T]), len(above) + 1)

    def made_up_demand(self, types: AdapterTypes, n_adapters: int, rank: int, load: float) -> NDArray[np.float64]:
        """As `Oracle.made_up_demand`."""
        above = (np.unique(types.ranks)[1:] <= rank).astype(np.float64)
        row = adapter_contributions([rank], [load / n_adapters])[0]
        return np.concatenate([above, [n_adapters], n_adapters * row[RATE:N_SUMS]])

    def rejects_made_up(self, types: AdapterTypes, n_adapters: int, rank: int, load: float) -> bool:
        """Asks the starvation model about the made-up sums."""
        smallest, largest = adapter_contributions([int(types.ranks.min()), rank], [load / n_adapters] * 2)
        slots = self.slots_for(n_adapters, rank)
        return not self._accepted_sums((n_adapters - 1) * smallest + largest, slots).any()

    def _accepted(self, adapters: tuple[int, ...], candidates: Sequence[int]) -> NDArray[np.bool_]:
        return self._accepted_sums(self._rows[list(adapters)].sum(axis=0), candidates)

    def _accepted_sums(self, sums: NDArray[np.float64], candidates: Sequence[int]) -> NDArray[np.bool_]:
        self.calls += len(candidates)
        contents = np.empty((len(candidates), N_FEATURES))
        contents[:, :N_SUMS] = sums
        contents[:, N_SUMS:] = self._tail
        contents[:, MAX_LORAS] = candidates
        accepted: NDArray[np.bool_] = starvation_batch(contents, *self._arrays) < self._threshold
        return accepted


def workload_tail(workload: Workload) -> NDArray[np.float64]:
    """What a predictor is told of a workload apart from its adapters, with `max_loras` left at 1."""
    lengths = workload.lengths if workload.trace is None or not len(workload.trace) else workload.trace
    return content_tail(1, lengths, workload.duration_s)


def nearest_first(candidates: Sequence[int], aim: int) -> list[int]:
    """Values of `max_loras`, those that are the fewest doublings away from `aim` first."""
    return sorted(candidates, key=lambda value: abs(math.log2(value / aim)))


def make_oracle(kind: str, problem: Problem, solver: str) -> Oracle:
    """The oracle that an option `oracle` names.

    Parameters
    ----------
    kind : {"auto", "predictor", "distilled", "twin"}
        "auto" is the predictor if the problem has one, and the twin otherwise.
    problem : Problem
    solver : str
        Name for messages.

    Raises
    ------
    UserError
        For an unknown name, and for a predictor when the problem has none.
    """
    check_oracle_option(kind, solver)
    if kind == "twin" or (kind == "auto" and problem.predictor is None):
        return TwinOracle(problem.workload, problem.profile)
    if problem.predictor is None:
        raise UserError(f"solver {solver} needs a predictor for profile {problem.profile.name} with oracle={kind}")
    return PredictorOracle(
        problem.workload, problem.profile, problem.predictor, distilled=kind == "distilled"
    )


def check_oracle_option(kind: str, solver: str, allowed: Iterable[str] = ORACLES) -> None:
    """Raise `UserError` unless the option `oracle` of a solver is one of those it knows."""
    if kind not in allowed:
        raise UserError(f"solver.oracle={kind} of solver {solver}: must be one of {list(allowed)}")
