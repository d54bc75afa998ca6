"""Workloads that replay a recorded request trace."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twin.building import adapter_count, concentration_of, in_turn, zipf_shares
from twin.errors import UserError
from twin.lengths import Lengths, LogNormalTokens
from twin.numbers import check_requests, number, seed_number, whole
from twin.profile import ServingProfile
from twin.requests import Requests
from twin.traces import read_trace
from twin.workload import Workload

_log = logging.getLogger(__name__)

# Streams of what is drawn once for a whole workload; those of adapters count up from 0.
_POPULARITY_STREAM = 2**63 - 2
_TRACE_STREAM = 2**63 - 3


def trace(  # noqa: PLR0913  # the options of one description, by keyword; past 60 lines by their docstring
    profile: ServingProfile,
    *,
    path: str,
    n_adapters: int,
    ranks: Sequence[int],
    popularity: str,
    popularity_parameter: float,
    multiplier: float = 1.0,
    start_s: float = 0.0,
    duration_s: float | None = None,
    history_s: float = 0.0,
    max_total_tokens: int | None = None,
    time_unit: str | None = None,
    adapter_column: str | None = None,
    seed: int = 0,
    name: str = "trace",
) -> Workload:
    """Replay of a recorded request trace, its requests given to adapters by a drawn popularity.

    Public traces have no adapter identities; the popularity is Zipf or, as in arXiv 2602.24044 v2, Dirichlet(0.5). A trace
    with a column of adapters (`twin.traces.ADAPTER_COLUMNS`) is replayed with these: `n_adapters` and the popularity are
    not used then, and the adapters are ordered by their names.

    Parameters
    ----------
    profile : ServingProfile
    path : str
        CSV file or JSON lines with the columns of the Azure, BurstGPT or Mooncake traces (`twin.traces.FORMATS`).
    n_adapters : int
    ranks : sequence of int
        LoRA ranks, given in turn.
    popularity : {"zipf", "dirichlet"}
    popularity_parameter : float
        Exponent of Zipf's law, or concentration of the symmetric Dirichlet distribution.
    multiplier : float
        Requests for each recorded one. The copies of a request arrive between it and the next recorded one, with the
        lengths of requests chosen at random, so that the load keeps its shape in time; below 1, requests are left out
        at random.
    start_s, duration_s : float
        The window, in seconds since the first recorded request; by default up to the last one.
    history_s : float
        The rates that solvers see are measured in so many seconds before the window. With 0 they are the expected
        ones: popularity times the request rate of the window.
    max_total_tokens : int, optional
        Longer requests are cut to it, the output first; by default, and at most, the profile's `max_model_len`.
    time_unit : {"s", "ms"}, optional
    adapter_column : str, optional
        As in `twin.traces.read_trace`.
    seed : int
        Of the popularity, of who sends which request, and of the copies.
    name : str

    Returns
    -------
    Workload
        With `trace` set; its `lengths` have the means of the requests in the window.

    Raises
    ------
    UserError
        For a missing file or column, a value that is no number, an empty window, or an option out of range.
    """
    _ = adapter_count(name, n_adapters, at_least=1)
    seed_number(f"workload {name}: seed", seed)
    factor = number(f"workload {name}: multiplier", multiplier, at_least=0.0)
    limit = profile.max_model_len
    if max_total_tokens is not None:
        limit = min(limit, whole(f"workload {name}: max_total_tokens", max_total_tokens, at_least=2))
    read = read_trace(path, time_unit=time_unit, adapter_column=adapter_column)
    window = _window(read.arrival_s, path, start_s, duration_s, history_s, name)
    check_requests(f"workload {name}: multiplier={factor:g}", len(read.arrival_s) * max(factor, 1.0))
    draws = np.random.Generator(np.random.Philox(key=[seed, _TRACE_STREAM]))
    arrival, source, lengths_of = _multiplied(read.arrival_s, factor, draws)
    output = np.clip(read.output_tokens[lengths_of], 1, limit - 1)
    prompt = np.clip(read.prompt_tokens[lengths_of], 1, limit - output)
    inside = (window.first_s <= arrival) & (arrival < window.last_s)
    if not inside.any():
        raise UserError(f"workload {name}: no request of {path} arrives in the window of {window.length_s:g} s")
    if read.adapter is None:
        shares = _popularity(popularity, popularity_parameter, n_adapters, seed, name)
        adapter = draws.choice(n_adapters, size=len(arrival), p=shares)
    else:
        adapter, shares = (
            read.adapter[source],
            np.bincount(read.adapter[source][inside], minlength=len(read.adapter_names)) / inside.sum(),
        )
        _log.info("%s: its %d adapters are replayed; n_adapters and popularity are not used", path, len(shares))
    rates = _rates(arrival, adapter, shares, window)
    ranks_given = in_turn(ranks, len(shares), name)
    profile.check_ranks(ranks_given)
    return Workload(
        ranks=ranks_given,
        rates=rates,
        lengths=Lengths(
            _like(prompt[inside], limit),
            _like(output[inside], limit),
            max_total_tokens=limit,
            correlation=0.0,
        ),
        duration_s=window.length_s,
        seed=seed,
        trace=Requests(
            arrival[inside] - window.first_s, adapter[inside], prompt[inside], output[inside], output[inside].copy()
        ),
        name=name,
    )


class _Window(NamedTuple):
    """The part of a trace that is replayed, and how long before it rates are measured."""

    first_s: float
    last_s: float
    history_s: float

    @property
    def length_s(self) -> float:
        return self.last_s - self.first_s


def _rates(
    arrival: NDArray[np.float64], adapter: NDArray[np.int64], shares: NDArray[np.float64], window: _Window
) -> NDArray[np.float64]:
    """What solvers see: the rates of the history, or the shares of what comes in the window."""
    if window.history_s:
        before = (window.first_s - window.history_s <= arrival) & (arrival < window.first_s)
        counted: NDArray[np.float64] = np.bincount(adapter[before], minlength=len(shares)) / window.history_s
        return counted
    inside = (window.first_s <= arrival) & (arrival < window.last_s)
    expected: NDArray[np.float64] = shares * inside.sum() / window.length_s
    return expected


def _window(  # noqa: PLR0913  # the options that say it
    arrival: NDArray[np.float64], path: str, start_s: object, duration_s: object, history_s: object, name: str
) -> _Window:
    before_s = number(f"workload {name}: history_s", history_s, at_least=0.0, unit="seconds")
    first_s = number(f"workload {name}: start_s", start_s, at_least=0.0, unit="seconds")
    # The window is half open; by default the last recorded request is still in it.
    end_s = float(np.nextafter(arrival[-1], np.inf))
    last_s = end_s
    if duration_s is not None:
        last_s = first_s + number(f"workload {name}: duration_s", duration_s, at_least=0.0, unit="seconds")
    if before_s > first_s:
        raise UserError(
            f"workload {name}: history_s={history_s} must not exceed start_s={start_s}: nothing is before it"
        )
    if not first_s + 1 <= last_s <= math.ceil(end_s):
        raise UserError(
            f"workload {name}: the window from start_s={first_s:g} to {last_s:g} must have a second or more and lie in the "
            f"{end_s:.0f} s of {path}"
        )
    return _Window(first_s, last_s, before_s)


def _popularity(kind: str, parameter: float, count: int, seed: int, name: str) -> NDArray[np.float64]:
    """Share of the requests that each adapter gets; array of shape (count,) that sums to 1."""
    key = f"workload {name}: popularity_parameter"
    if kind == "zipf":
        return zipf_shares(count, parameter, key)
    if kind == "dirichlet":
        value = concentration_of(key, parameter)
        draws = np.random.Generator(np.random.Philox(key=[seed, _POPULARITY_STREAM]))
        shares: NDArray[np.float64] = draws.dirichlet(np.full(count, value))
        return shares
    raise UserError(f"workload {name}: popularity={kind} must be zipf or dirichlet")


def _multiplied(
    arrival: NDArray[np.float64], multiplier: float, draws: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Requests `multiplier` times as many as recorded, in order of arrival; the recorded ones stay as they are.

    Returns
    -------
    time, source, lengths_of : arrays of shape (n_requests,)
        When each comes, and the recorded request that it is a copy of and whose lengths it has.
    """
    if multiplier == 1:
        every = np.arange(len(arrival))
        return arrival, every, every
    whole_copies = int(multiplier)
    copies = whole_copies + (draws.random(len(arrival)) < multiplier - whole_copies)
    source = np.repeat(np.arange(len(arrival)), copies)
    original = np.diff(source, prepend=-1) > 0
    gap = np.diff(arrival, append=arrival[-1])
    lengths_of = np.where(original, source, draws.integers(0, len(arrival), len(source)))
    time = arrival[source] + np.where(original, 0.0, draws.random(len(source)) * gap[source])
    order = np.argsort(time, kind="stable")
    return time[order], source[order], lengths_of[order]


def _like(tokens: NDArray[np.int64], limit: int) -> LogNormalTokens:
    """Log-normal lengths with the mean and the spread of recorded ones."""
    return LogNormalTokens(float(tokens.mean()), float(np.log(tokens).std()), 1, limit)
