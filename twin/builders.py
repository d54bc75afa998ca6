"""Workloads by description: what `conf/workload/*.yaml` names as its `_target_`.

A builder is a function of a serving profile and keyword options that returns a `Workload`; one from another package
works in the same way. The profile sets the limits of a request and says how early the model stops by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from twin.arrivals import Arrivals
from twin.building import (
    adapter_count,
    concentration_of,
    drawn,
    in_turn,
    listed,
    rank_of,
    rate_of,
    shared_of,
    told_apart,
    zipf_shares,
)
from twin.errors import UserError
from twin.lengths import Lengths
from twin.numbers import MOST_ADAPTERS, seed_number, shown, whole
from twin.profile import ServingProfile
from twin.replay import trace
from twin.workload import Workload

__all__ = ["dirichlet", "groups", "mixed", "trace", "zipf"]

# Stream of what is drawn once for a whole workload; those of adapters count up from 0.
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
    groups : sequence of {count, rank, rate, shared_prompt_tokens}
        How many adapters, their LoRA rank, the rate of each in requests per second and, if they have any, the tokens with which
        every prompt of an adapter begins, before those that `lengths` draws; each adapter has a prompt of its own.
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
    if isinstance(groups, str) or not isinstance(groups, Sequence):
        raise UserError(f"workload {name}: groups={shown(groups)} must be a list of {{count: 40, rank: 16, rate: 0.1}}")
    ranks: list[int] = []
    rates: list[float] = []
    shared: list[int] = []
    for index, group in enumerate(groups):
        key = f"workload {name}: groups[{index}]"
        if not isinstance(group, Mapping) or set(group) - {"shared_prompt_tokens"} != {"count", "rank", "rate"}:
            raise UserError(
                f"{key} must have the keys count, rank and rate (and shared_prompt_tokens), not {shown(group)}"
            )
        count = whole(f"{key}.count", group["count"], at_least=0, at_most=MOST_ADAPTERS - len(ranks))
        ranks += [rank_of(f"{key}.rank", group["rank"])] * count
        rates += [rate_of(f"{key}.rate", group["rate"])] * count
        shared += [shared_of(f"{key}.shared_prompt_tokens", group.get("shared_prompt_tokens", 0))] * count
    values = told_apart(np.array(rates), shared)
    return drawn(profile, np.array(ranks), values, duration_s, lengths, arrivals, ignore_eos, seed, name, shared)


def mixed(  # noqa: PLR0913  # the options of one description, all by keyword; past 60 lines by their docstring
    profile: ServingProfile,
    *,
    n_adapters: int,
    ranks: Sequence[int],
    rates: Sequence[float],
    duration_s: float,
    lengths: Lengths | None = None,
    arrivals: Arrivals | None = None,
    ignore_eos: bool = False,
    shared_prompt_tokens: int = 0,
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
    shared_prompt_tokens : int
        Tokens with which every prompt of an adapter begins, before those that `lengths` draws; each adapter has a prompt of its own.
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
    count = adapter_count(name, n_adapters)
    values = np.array(listed(f"workload {name}: rates", rates, rate_of))
    share = np.arange(count) * len(values) // max(count, 1)
    return drawn(
        profile,
        in_turn(ranks, count, name),
        values[share],
        duration_s,
        lengths,
        arrivals,
        ignore_eos,
        seed,
        name,
        shared_prompt_tokens,
    )


def zipf(  # noqa: PLR0913  # the options of one description, all by keyword; past 60 lines by their docstring
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
    shared_prompt_tokens: int = 0,
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
    shared_prompt_tokens : int
        Tokens with which every prompt of an adapter begins, before those that `lengths` draws; each adapter has a prompt of its own.
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
    count = adapter_count(name, n_adapters)
    shares = zipf_shares(count, exponent, f"workload {name}: exponent")
    rates = rate_of(f"workload {name}: total_rate", total_rate) * shares
    return drawn(
        profile,
        in_turn(ranks, count, name),
        rates,
        duration_s,
        lengths,
        arrivals,
        ignore_eos,
        seed,
        name,
        shared_prompt_tokens,
    )


def dirichlet(  # noqa: PLR0913  # the options of one description, all by keyword; past 60 lines by their docstring
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
    shared_prompt_tokens: int = 0,
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
    shared_prompt_tokens : int
        Tokens with which every prompt of an adapter begins, before those that `lengths` draws; each adapter has a prompt of its own.
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
    count = adapter_count(name, n_adapters, at_least=1)
    alpha = concentration_of(f"workload {name}: concentration", concentration)
    draws = np.random.Generator(np.random.Philox(key=[seed_number(f"workload {name}: seed", seed), _DIRICHLET_STREAM]))
    rates = rate_of(f"workload {name}: total_rate", total_rate) * draws.dirichlet(np.full(count, alpha))
    return drawn(
        profile,
        in_turn(ranks, count, name),
        rates,
        duration_s,
        lengths,
        arrivals,
        ignore_eos,
        seed,
        name,
        shared_prompt_tokens,
    )
