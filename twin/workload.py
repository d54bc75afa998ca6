"""Workloads: adapters with ranks and request rates, and the requests that they send."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from twin.arrivals import Arrivals, PoissonArrivals
from twin.errors import UserError
from twin.inputs import plain_text
from twin.lengths import LENGTH_DRAWS, Lengths
from twin.merging import in_order
from twin.numbers import LONGEST_S, MOST_ADAPTERS, check_requests, number, seed_number, whole
from twin.requests import Requests
from twin.streams import Streams, poisson_times, uniforms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


# An adapter's arrivals and lengths have the streams 2 x identity and 2 x identity + 1, its routing one far above.
_ROUTING = 2**62
# Requests of a whole fleet: a solver draws those of one GPU at a time, so that all of them need not fit into memory.
_MOST_EXPECTED = 1e10
#: No context is longer, in tokens.
LONGEST_PROMPT = 10**8


def _frozen(values: ArrayLike, dtype: type[np.generic]) -> NDArray[Any]:
    array: NDArray[Any] = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


@dataclass(frozen=True)
class Workload:
    """Adapters, how their requests arrive, how long these are, and for how long.

    Parameters
    ----------
    ranks : sequence of int, shape (n_adapters,)
        LoRA rank of each adapter.
    rates : sequence of float, shape (n_adapters,)
        Mean request rate of each adapter in requests per second.
    lengths : Lengths
        Prompt and output lengths.
    arrivals : Arrivals
        When the requests of an adapter come; a Poisson process by default.
    duration_s : float
        Length of the window in seconds.
    seed : int
        Seed of every stream of the workload. The requests of adapter `i` come from a stream of
        (seed, ids[i]) alone, so moving an adapter to another GPU moves its requests unchanged.
    ids : sequence of int, optional
        Identity of each adapter's stream; the position by default.
    trace : Requests, optional
        Recorded requests to replay instead of drawing them; `rates` are then what the solvers see.
    name : str
        For tables.
    shared_prompt_tokens : sequence of int, shape (n_adapters,), optional
        Tokens with which every prompt of an adapter begins, such as its system prompt. They come before the prompts that
        `lengths` draws; in a trace they are part of the prompts that are longer. A server with prefix caching computes them once.

    Raises
    ------
    UserError
        For a negative or non-finite rate, a rank below 1, unequal lengths, duplicate ids or a
        window that is not positive.
    """

    ranks: NDArray[np.int64]
    rates: NDArray[np.float64]
    lengths: Lengths = field(default_factory=Lengths)
    duration_s: float = 600.0
    seed: int = 0
    ids: NDArray[np.int64] | None = None
    trace: Requests | None = None
    name: str = "workload"
    arrivals: Arrivals = field(default_factory=PoissonArrivals)
    shared_prompt_tokens: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        plain_text("workload name", self.name)
        object.__setattr__(self, "ranks", _frozen(self.ranks, np.int64))
        object.__setattr__(self, "rates", _frozen(self.rates, np.float64))
        ids = np.arange(len(self.ranks)) if self.ids is None else self.ids
        object.__setattr__(self, "ids", _frozen(ids, np.int64))
        if self.shared_prompt_tokens is not None:
            object.__setattr__(self, "shared_prompt_tokens", _frozen(self.shared_prompt_tokens, np.int64))
            self._check_shared(np.asarray(self.shared_prompt_tokens))
        if not len(self.ranks) == len(self.rates) == len(ids):
            msg = (
                f"workload {self.name}: {len(self.ranks)} ranks, {len(self.rates)} rates and "
                f"{len(ids)} ids; one of each per adapter is needed"
            )
            raise UserError(msg)
        for index in np.flatnonzero(~(np.isfinite(self.rates) & (self.rates >= 0)))[:1]:
            msg = (
                f"workload {self.name}: rate={self.rates[index]} of adapter {index} must be a "
                "number of requests per second, 0 or more"
            )
            raise UserError(msg)
        for index in np.flatnonzero(self.ranks < 1)[:1]:
            msg = f"workload {self.name}: rank={self.ranks[index]} of adapter {index} must be 1 or more"
            raise UserError(msg)
        if len(np.unique(ids)) != len(ids) or (len(ids) and not 0 <= np.min(ids) <= np.max(ids) < _ROUTING // 2):
            msg = f"workload {self.name}: ids must be unique and not negative"
            raise UserError(msg)
        number(f"workload {self.name}: duration_s", self.duration_s, above=0.0, at_most=LONGEST_S, unit="seconds")
        seed_number(f"workload {self.name}: seed", self.seed)
        if self.trace is None and not self.total_rate * self.duration_s <= _MOST_EXPECTED:
            check_requests(
                f"workload {self.name}: {self.total_rate:.4g} requests/s for {self.duration_s:g} s",
                self.total_rate * self.duration_s,
            )

    def _check_shared(self, shared: NDArray[np.int64]) -> None:
        if len(shared) != len(self.ranks):
            raise UserError(
                f"workload {self.name}: {len(shared)} shared_prompt_tokens and {len(self.ranks)} ranks; one of each per "
                "adapter is needed"
            )
        for index in np.flatnonzero((shared < 0) | (shared > LONGEST_PROMPT))[:1]:
            raise UserError(
                f"workload {self.name}: shared_prompt_tokens={shared[index]} of adapter {index} must be from 0 to {LONGEST_PROMPT}"
            )

    @property
    def n_adapters(self) -> int:
        """How many adapters there are."""
        return len(self.ranks)

    @property
    def total_rate(self) -> float:
        """Summed request rate, in requests per second."""
        return float(self.rates.sum())

    @property
    def mean_request_tokens(self) -> NDArray[np.float64]:
        """Mean prompt and output tokens of a request of each adapter; array of shape (n_adapters,)."""
        mean: NDArray[np.float64] = np.full(self.n_adapters, float(self.lengths.mean_total_tokens))
        if self.shared_prompt_tokens is not None:
            mean += self.shared_prompt_tokens
        return mean

    @property
    def lengths_asked(self) -> Lengths | Requests:
        """What says how long requests are: the requests themselves where `lengths` alone does not."""
        if self.shared_prompt_tokens is not None:
            return self.requests
        return self.lengths if self.trace is None or not len(self.trace) else self.trace

    @cached_property
    def requests(self) -> Requests:
        """The requests that every candidate placement is scored with; the arrays are read-only."""
        if self.trace is None:
            return self._draw(np.arange(self.n_adapters), None).read_only()
        return self.trace.sharing(self.shared_prompt_tokens).read_only()

    def requests_of(self, adapters: NDArray[np.int64], intervals: NDArray[np.float64] | None = None) -> Requests:
        """The requests that some adapters send to one GPU.

        They are the rows of `requests`, but need not be drawn with those of all the other adapters: a fleet's requests
        may not fit into memory.

        Parameters
        ----------
        adapters : array of shape (n,)
        intervals : array of shape (n, 2), optional
            For each of them, only the requests whose routing draw lies in [low, high) come to this GPU (replicas).

        Returns
        -------
        Requests
            With `adapter` counted in 0..n-1, in the order of `adapters`.
        """
        if self.trace is None and "requests" not in vars(self):
            return self._draw(adapters, intervals)
        adapters = np.asarray(adapters, dtype=np.int64)
        first, counts = self._starts[adapters], np.diff(self._starts)[adapters]
        place = np.repeat(np.arange(len(adapters)), counts)
        rows = self._rows[np.arange(len(place)) + np.repeat(first - (np.cumsum(counts) - counts), counts)]
        if intervals is not None:
            here = self._routed(adapters, counts, intervals[place])
            rows, place = rows[here], place[here]
        order = in_order(rows.astype(np.float64), rows)
        return replace(self.requests.take(rows[order]), adapter=place[order])

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """Rows of `requests` by adapter, in order of arrival; those of adapter i begin at `_starts[i]`."""
        return np.argsort(self.requests.adapter, kind="stable")

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.searchsorted(self.requests.adapter[self._rows], np.arange(self.n_adapters + 1))

    def routing_draws(self, adapters: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """For each of so many requests of some adapters, a draw that says which replica serves it."""
        return self._uniforms(_ROUTING + np.asarray(self.ids)[adapters], counts, 1).ravel()

    def _routed(
        self, adapters: NDArray[np.int64], counts: NDArray[np.int64], intervals: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which requests go to the replica that serves [low, high) of their adapter's routing draws."""
        draw = self.routing_draws(adapters, counts)
        return (intervals[:, 0] <= draw) & (draw < intervals[:, 1])

    def _draw(self, adapters: NDArray[np.int64], intervals: NDArray[np.float64] | None) -> Requests:
        """Draw the requests of some adapters, each from streams of (seed, identity) alone.

        Arrivals, lengths and routing have a stream each, so that a longer window keeps the earlier requests.
        """
        adapters = np.asarray(adapters, dtype=np.int64)
        rates = self.rates[adapters]
        check_requests(f"workload {self.name}", float(rates.sum()) * self.duration_s)
        identities = np.asarray(self.ids)[adapters]
        arrival_s, counts = self._times(identities, rates)
        uniform = self._uniforms(2 * identities + 1, counts, LENGTH_DRAWS)
        owner = np.repeat(np.arange(len(adapters)), counts)
        if intervals is not None:
            here = self._routed(adapters, counts, intervals[owner])
            arrival_s, owner, uniform = arrival_s[here], owner[here], uniform[:, here]
        # Ties (rate 0 apart, of probability 0) go by the stream's identity, not by position, so
        # that listing the adapters in another order changes nothing.
        order = in_order(arrival_s, identities[owner])
        drawn = Requests(arrival_s[order], owner[order], *self.lengths.from_ordered(uniform, order))
        if self.shared_prompt_tokens is None:
            return drawn
        shared = self.shared_prompt_tokens[adapters][drawn.adapter]
        return replace(drawn, prompt_tokens=drawn.prompt_tokens + shared, shared_tokens=shared)

    def arrival_stream(self, adapter: int) -> int:
        """Number of the random stream that the arrivals of an adapter are drawn from."""
        assert self.ids is not None  # noqa: S101  # set when the workload is made
        return 2 * int(self.ids[adapter])

    def _times(
        self, identities: NDArray[np.int64], rates: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Arrivals of one adapter after the other, and how many each has."""
        numbers = (2 * identities).astype(np.uint64)
        if type(self.arrivals) is PoissonArrivals:
            mean = float(rates.sum()) * self.duration_s
            room = int(mean + 6 * math.sqrt(mean) + 16)
            return poisson_times(np.uint64(self.seed), numbers, rates, self.duration_s, room)
        streams = Streams(self.seed)
        times = [
            self.arrivals.draw(streams.open(int(number)), float(rate), self.duration_s) if rate > 0 else np.empty(0)
            for number, rate in zip(numbers, rates, strict=True)
        ]
        return np.concatenate([np.empty(0), *times]), np.array([len(time) for time in times], dtype=np.int64)

    def _uniforms(self, numbers: NDArray[np.int64], counts: NDArray[np.int64], each: int) -> NDArray[np.float64]:
        return uniforms(np.uint64(self.seed), numbers.astype(np.uint64), counts, each)

    def lengthened(self, tail_s: float) -> Workload:
        """The same requests, and those that go on arriving for `tail_s` after the window; a trace begins again.

        Parameters
        ----------
        tail_s : float

        Returns
        -------
        Workload
            With a window of `duration_s + tail_s`. Made once: its requests are drawn once as well.
        """
        if not tail_s:
            return self
        if tail_s not in self._longer:
            duration_s = self.duration_s + tail_s
            self._check_tail(tail_s)
            trace = None if self.trace is None else _repeated(self.trace, self.duration_s, duration_s)
            self._longer[tail_s] = replace(self, duration_s=duration_s, trace=trace)
        return self._longer[tail_s]

    def _check_tail(self, tail_s: float) -> None:
        """Refuse a tail whose requests do not fit into memory, before any is made."""
        rate = self.total_rate if self.trace is None else len(self.trace) / self.duration_s
        check_requests(f"workload {self.name}: service.tail_s={tail_s:g}", rate * (self.duration_s + tail_s))

    @cached_property
    def _longer(self) -> dict[float, Workload]:
        return {}

    def with_seed(self, seed: int) -> Workload:
        """The same workload with other random streams."""
        return replace(self, seed=seed)


def _repeated(trace: Requests, duration_s: float, until_s: float) -> Requests:
    """A recorded trace, and again from its beginning until a time."""
    rows = np.arange(len(trace))
    turns = np.arange(math.ceil(until_s / duration_s))
    every, turn = np.tile(rows, len(turns)), np.repeat(turns, len(rows))
    arrival_s = trace.arrival_s[every] + turn * duration_s
    kept = np.flatnonzero(arrival_s < until_s)
    return replace(trace.take(every[kept]), arrival_s=arrival_s[kept])


def workload_from_groups(
    groups: Sequence[tuple[int, int, float]],
    *,
    lengths: Lengths | None = None,
    duration_s: float = 600.0,
    seed: int = 0,
    name: str = "workload",
) -> Workload:
    """Workload from (count, rank, rate) groups of identical adapters."""
    counts = [count for count, _, _ in groups]
    for count in counts:
        whole(f"workload {name}: count", count, at_least=0, at_most=MOST_ADAPTERS)
    return Workload(
        ranks=np.repeat([rank for _, rank, _ in groups], counts),
        rates=np.repeat([rate for _, _, rate in groups], counts),
        lengths=lengths or Lengths(),
        duration_s=duration_s,
        seed=seed,
        name=name,
    )
