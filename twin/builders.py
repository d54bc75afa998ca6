"""Workloads by description: what `conf/workload/*.yaml` names as its `_target_`.

A builder is a function of a serving profile and keyword options that returns a `Workload`; one from another package
works in the same way. The profile sets the limits of a request and says how early the model stops by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.arrivals import Arrivals, PoissonArrivals
from twin.errors import UserError
from twin.lengths import Lengths, LogNormalTokens
from twin.profile import ServingProfile
from twin.traces import read_trace
from twin.workload import Requests, Workload

# Streams of what is drawn once for a whole workload; those of adapters count up from 0.
_POPULARITY_STREAM = 2**63 - 2
_TRACE_STREAM = 2**63 - 3
_DIRICHLET_STREAM = 2**63 - 9


def groups(  # noqa: PLR0913  # the options of one description, all by keyword
    profile: ServingProfile,
    *,
    groups: Sequence[Any],
    duration_s: float,
    lengths: Lengths | None = None,
    arrivals: Arrivals | None = None,
    ignore_eos: bool = False,
    seed: int = 0,
    name: str = "groups",
) -> Workload:
    """Groups of identical adapters.

    Parameters
    ----------
    profile : ServingProfile
    groups : sequence of {count, rank, rate}
        How many adapters, their LoRA rank, and the rate of each in requests per second.
    duration_s : float
        Window in seconds.
    lengths : Lengths, optional
    arrivals : Arrivals, optional
        A Poisson process by default.
    ignore_eos : bool
        Every request gets all the output tokens that it asks for; otherwise the model stops as early as the profile says.
    seed : int
    name : str

    Returns
    -------
    Workload

    Raises
    ------
    UserError
        For a group with other keys, a negative count or rate, or a rank that the profile does not know.
    """
    ranks: list[int] = []
    rates: list[float] = []
    for index, group in enumerate(groups):
        key = f"workload {name}: groups[{index}]"
        if not isinstance(group, Mapping) or set(group) != {"count", "rank", "rate"}:
            raise UserError(f"{key} must have the keys count, rank and rate, not {group}")
        count = _whole(f"{key}.count", group["count"], at_least=0)
        ranks += [_whole(f"{key}.rank", group["rank"], at_least=1)] * count
        rates += [_number(f"{key}.rate", group["rate"])] * count
    return _drawn(profile, np.array(ranks), np.array(rates), duration_s, lengths, arrivals, ignore_eos, seed, name)


def mixed(  # noqa: PLR0913  # the options of one description, all by keyword
    profile: ServingProfile,
    *,
    n_adapters: int,
    ranks: Sequence[int],
    rates: Sequence[float],
    duration_s: float,
    lengths: Lengths | None = None,
    arrivals: Arrivals | None = None,
    ignore_eos: bool = False,
    seed: int = 0,
    name: str = "mixed",
) -> Workload:
    """Adapters that share some ranks and rates, as in the published vLLM runs (arXiv 2508.08343).

    The rates are given out in contiguous shares of equal size (the first adapters get the first rate), the ranks in
    turn, so that every rank meets every rate.

    Parameters
    ----------
    profile : ServingProfile
    n_adapters : int
    ranks : sequence of int
        LoRA ranks, given in turn.
    rates : sequence of float
        Requests per second of one adapter, given in shares.
    duration_s : float
        Window in seconds.
    lengths : Lengths, optional
    arrivals : Arrivals, optional
        A Poisson process by default.
    ignore_eos : bool
        Every request gets all the output tokens that it asks for; otherwise the model stops as early as the profile says.
    seed : int
    name : str

    Returns
    -------
    Workload

    Raises
    ------
    UserError
        For a value out of range, or a rank that the profile does not know.
    """
    count = _whole(f"workload {name}: n_adapters", n_adapters, at_least=0)
    values = np.array([_number(f"workload {name}: rates[{i}]", rate) for i, rate in enumerate(rates)])
    if not len(values):
        raise UserError(f"workload {name}: rates=[] must name at least one rate")
    share = np.arange(count) * len(values) // max(count, 1)
    return _drawn(
        profile, _in_turn(ranks, count, name), values[share], duration_s, lengths, arrivals, ignore_eos, seed, name
    )


def zipf(  # noqa: PLR0913  # the options of one description, all by keyword
    profile: ServingProfile,
    *,
    n_adapters: int,
    total_rate: float,
    exponent: float,
    ranks: Sequence[int],
    duration_s: float,
    lengths: Lengths | None = None,
    arrivals: Arrivals | None = None,
    ignore_eos: bool = False,
    seed: int = 0,
    name: str = "zipf",
) -> Workload:
    """Adapters whose popularity follows Zipf's law.

    Parameters
    ----------
    profile : ServingProfile
    n_adapters : int
    total_rate : float
        Requests per second of all adapters together; the k-th most popular gets a share in proportion to
        k^(-exponent).
    exponent : float
    ranks : sequence of int
        LoRA ranks, given in turn from the most popular adapter on.
    duration_s : float
        Window in seconds.
    lengths : Lengths, optional
    arrivals : Arrivals, optional
        A Poisson process by default.
    ignore_eos : bool
        Every request gets all the output tokens that it asks for; otherwise the model stops as early as the profile says.
    seed : int
    name : str

    Returns
    -------
    Workload

    Raises
    ------
    UserError
        For a value out of range, or a rank that the profile does not know.
    """
    count = _whole(f"workload {name}: n_adapters", n_adapters, at_least=0)
    power = _number(f"workload {name}: exponent", exponent)
    rates = _number(f"workload {name}: total_rate", total_rate) * _zipf_shares(count, power)
    return _drawn(profile, _in_turn(ranks, count, name), rates, duration_s, lengths, arrivals, ignore_eos, seed, name)


def trace(  # noqa: PLR0913  # the options of one description, all by keyword
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
    seed: int = 0,
    name: str = "trace",
) -> Workload:
    """Replay of a recorded request trace, its requests given to adapters by a drawn popularity.

    Recorded traces have no adapter identities; the popularity is Zipf or, as in arXiv 2602.24044 v2, Dirichlet(0.5).

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
    count = _whole(f"workload {name}: n_adapters", n_adapters, at_least=1)
    factor = _number(f"workload {name}: multiplier", multiplier)
    before_s = _number(f"workload {name}: history_s", history_s)
    limit = profile.max_model_len
    if max_total_tokens is not None:
        limit = min(limit, _whole(f"workload {name}: max_total_tokens", max_total_tokens, at_least=2))
    arrival, prompt, output = read_trace(path)
    first_s = _number(f"workload {name}: start_s", start_s)
    # The window is half open; by default the last recorded request is still in it.
    end_s = float(np.nextafter(arrival[-1], np.inf))
    last_s = end_s if duration_s is None else first_s + _number(f"workload {name}: duration_s", duration_s)
    if before_s > first_s:
        raise UserError(
            f"workload {name}: history_s={history_s} must not exceed start_s={start_s}: nothing is before it"
        )
    if not first_s + 1 <= last_s <= math.ceil(end_s):
        raise UserError(
            f"workload {name}: the window from start_s={first_s:g} to {last_s:g} must have a second or more and lie in the "
            f"{end_s:.0f} s of {path}"
        )
    draws = np.random.Generator(np.random.Philox(key=[seed, _TRACE_STREAM]))
    arrival, prompt, output = _multiplied(arrival, prompt, output, factor, draws)
    output = np.clip(output, 1, limit - 1)
    prompt = np.clip(prompt, 1, limit - output)
    shares = _popularity(popularity, popularity_parameter, count, seed, name)
    adapter = draws.choice(count, size=len(arrival), p=shares)

    window = (first_s <= arrival) & (arrival < last_s)
    length_s = last_s - first_s
    if not window.any():
        raise UserError(f"workload {name}: no request of {path} arrives in the window of {length_s:g} s")
    if before_s:
        history = (first_s - before_s <= arrival) & (arrival < first_s)
        rates = np.bincount(adapter[history], minlength=count) / before_s
    else:
        rates = shares * window.sum() / length_s
    rank_of = _in_turn(ranks, count, name)
    profile.check_ranks(rank_of)
    return Workload(
        ranks=rank_of,
        rates=rates,
        lengths=Lengths(
            _like(prompt[window], limit),
            _like(output[window], limit),
            max_total_tokens=limit,
            correlation=0.0,
        ),
        duration_s=length_s,
        seed=seed,
        trace=Requests(
            arrival[window] - first_s, adapter[window], prompt[window], output[window], output[window].copy()
        ),
        name=name,
    )


def _drawn(  # noqa: PLR0913  # what the builders have in common
    profile: ServingProfile,
    ranks: NDArray[np.int64],
    rates: NDArray[np.float64],
    duration_s: float,
    lengths: Lengths | None,
    arrivals: Arrivals | None,
    ignore_eos: bool,
    seed: int,
    name: str,
) -> Workload:
    profile.check_ranks(ranks)
    given = replace(lengths or Lengths(), generated_fraction=1.0 if ignore_eos else profile.generated_fraction)
    if given.max_total_tokens > profile.max_model_len:
        raise UserError(
            f"workload {name}: lengths.max_total_tokens={given.max_total_tokens} exceeds "
            f"max_model_len={profile.max_model_len} of profile {profile.name}"
        )
    window_s = _number(f"workload {name}: duration_s", duration_s)
    return Workload(
        ranks=ranks,
        rates=rates,
        lengths=given,
        duration_s=window_s,
        seed=seed,
        name=name,
        arrivals=arrivals or PoissonArrivals(),
    )


def _in_turn(ranks: Sequence[int], count: int, name: str) -> NDArray[np.int64]:
    values = np.array([_whole(f"workload {name}: ranks[{i}]", rank, at_least=1) for i, rank in enumerate(ranks)])
    if not len(values):
        raise UserError(f"workload {name}: ranks=[] must name at least one rank")
    return values[np.arange(count) % len(values)]


def _zipf_shares(count: int, exponent: float) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.arange(1.0, count + 1) ** -exponent
    weights /= weights.sum()
    return weights


def _popularity(kind: str, parameter: float, count: int, seed: int, name: str) -> NDArray[np.float64]:
    """Share of the requests that each adapter gets; array of shape (count,) that sums to 1."""
    value = _number(f"workload {name}: popularity_parameter", parameter)
    if kind == "zipf":
        return _zipf_shares(count, value)
    if kind == "dirichlet":
        if value == 0:
            raise UserError(f"workload {name}: popularity_parameter=0 of a Dirichlet distribution must be above 0")
        draws = np.random.Generator(np.random.Philox(key=[seed, _POPULARITY_STREAM]))
        shares: NDArray[np.float64] = draws.dirichlet(np.full(count, value))
        return shares
    raise UserError(f"workload {name}: popularity={kind} must be zipf or dirichlet")


def _multiplied(
    arrival: NDArray[np.float64],
    prompt: NDArray[np.int64],
    output: NDArray[np.int64],
    multiplier: float,
    draws: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Requests `multiplier` times as many as recorded, in order of arrival; the recorded ones stay as they are."""
    if multiplier == 1:
        return arrival, prompt, output
    whole = int(multiplier)
    copies = whole + (draws.random(len(arrival)) < multiplier - whole)
    source = np.repeat(np.arange(len(arrival)), copies)
    original = np.diff(source, prepend=-1) > 0
    gap = np.diff(arrival, append=arrival[-1])
    lengths_of = np.where(original, source, draws.integers(0, len(arrival), len(source)))
    time = arrival[source] + np.where(original, 0.0, draws.random(len(source)) * gap[source])
    order = np.argsort(time, kind="stable")
    return time[order], prompt[lengths_of][order], output[lengths_of][order]


def _like(tokens: NDArray[np.int64], limit: int) -> LogNormalTokens:
    """Log-normal lengths with the mean and the spread of recorded ones."""
    return LogNormalTokens(float(tokens.mean()), float(np.log(tokens).std()), 1, limit)


def _number(key: str, value: object) -> float:
    """A finite number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise UserError(f"{key}={value} must be a number, 0 or more")
    return float(value)


def _whole(key: str, value: object, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise UserError(f"{key}={value} must be a whole number, {at_least} or more")
    return value


def dirichlet(  # noqa: PLR0913  # the options of one description, all by keyword
    profile: ServingProfile,
    *,
    n_adapters: int,
    total_rate: float,
    concentration: float,
    ranks: Sequence[int],
    duration_s: float,
    lengths: Lengths | None = None,
    arrivals: Arrivals | None = None,
    ignore_eos: bool = False,
    seed: int = 0,
    name: str = "dirichlet",
) -> Workload:
    """Adapters whose shares of the requests come from a symmetric Dirichlet distribution, as in arXiv 2602.24044 v2.

    Parameters
    ----------
    profile : ServingProfile
    n_adapters : int
    total_rate : float
        Requests per second of all adapters together.
    concentration : float
        0.5 in the paper; the smaller, the fewer adapters get most of the requests.
    ranks : sequence of int
        LoRA ranks, given in turn.
    duration_s : float
        Window in seconds.
    lengths : Lengths, optional
    arrivals : Arrivals, optional
        A Poisson process by default.
    ignore_eos : bool
        Every request gets all the output tokens that it asks for; otherwise the model stops as early as the profile says.
    seed : int
        Of the popularity and of the requests.
    name : str

    Returns
    -------
    Workload

    Raises
    ------
    UserError
        For a value out of range, or a rank that the profile does not know.
    """
    if n_adapters < 1:
        raise UserError(f"workload {name}: n_adapters={n_adapters} must be 1 or more")
    if not concentration > 0:
        raise UserError(f"workload {name}: concentration={concentration} must be above 0")
    if not ranks:
        raise UserError(f"workload {name}: ranks=[] must name at least one rank")
    draws = np.random.Generator(np.random.Philox(key=[seed, _DIRICHLET_STREAM]))
    rates = total_rate * draws.dirichlet(np.full(n_adapters, concentration))
    return groups(
        profile,
        groups=[
            {"count": 1, "rank": ranks[index % len(ranks)], "rate": float(rate)} for index, rate in enumerate(rates)
        ],
        duration_s=duration_s,
        lengths=lengths,
        arrivals=arrivals,
        ignore_eos=ignore_eos,
        seed=seed,
        name=name,
    )
