"""Adapters as an operator lists them, and the workload that they make."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from twin import Lengths, Requests, ServingProfile, UserError, Workload
from twin.arrivals import Arrivals, PoissonArrivals
from twin.subsets import subset

_log = logging.getLogger(__name__)

# Lengths of an adapter with a mean of its own lie within this factor of it, if they do not by the workload's lengths. By hand.
_LENGTH_RANGE = 4.0
# A smaller spread is rounding. By hand.
_NO_SPREAD = 1e-6


@dataclass(frozen=True)
class Adapter:
    """One adapter of an operator's list.

    Attributes
    ----------
    name : str
        What requests give as their model.
    rank : int
    rate : float
        Requests per second.
    prompt_tokens, output_tokens : float, optional
        Means of its requests; those of the workload's lengths where absent.
    path : str
        Folder or repository of the weights; empty where the list does not say.
    shared_prompt_tokens : int, optional
        Tokens with which all its prompts begin, such as a system prompt; part of `prompt_tokens` where that is given, otherwise
        before the prompts of the workload's lengths.
    """

    name: str
    rank: int
    rate: float
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    path: str = ""
    shared_prompt_tokens: int | None = None

    @property
    def own(self) -> tuple[float | None, float | None, int]:
        """Means of its own part of prompts and of outputs, as far as given, and the tokens that its prompts share."""
        shared = self.shared_prompt_tokens or 0
        return None if self.prompt_tokens is None else self.prompt_tokens - shared, self.output_tokens, shared


@dataclass(frozen=True)
class Traffic:
    """How the requests of all adapters come and how long they are.

    Attributes
    ----------
    lengths : Lengths
        Of the adapters that do not say their own; the spread holds for all.
    arrivals : Arrivals
    duration_s : float
    seed : int
    """

    lengths: Lengths
    arrivals: Arrivals
    duration_s: float
    seed: int

    @staticmethod
    def of(
        profile: ServingProfile,
        *,
        lengths: Lengths | None = None,
        arrivals: Arrivals | None = None,
        duration_s: float = 600.0,
        seed: int = 0,
    ) -> Traffic:
        """Traffic to a server of this profile: its model stops by itself as early as the profile says.

        Raises
        ------
        UserError
            If the lengths exceed what the server takes.
        """
        given = replace(lengths or Lengths(), generated_fraction=profile.generated_fraction)
        if given.max_total_tokens > profile.max_model_len:
            raise UserError(
                f"lengths.max_total_tokens={given.max_total_tokens} exceeds max_model_len={profile.max_model_len} "
                f"of profile {profile.name}"
            )
        return Traffic(given, arrivals or PoissonArrivals(), duration_s, seed)


def workload_of(  # noqa: PLR0913  # a part of the adapters at another load
    adapters: Sequence[Adapter],
    traffic: Traffic,
    profile: ServingProfile,
    *,
    ids: Sequence[int] | None = None,
    factor: float = 1.0,
    name: str = "adapters",
) -> Workload:
    """The workload that some adapters make.

    Parameters
    ----------
    adapters : sequence of Adapter
    traffic : Traffic
    profile : ServingProfile
        Limits the lengths.
    ids : sequence of int, optional
        Identity of each adapter's random streams; its position by default. The requests of an adapter are the same
        whoever is beside it.
    factor : float
        Of all rates.
    name : str

    Raises
    ------
    UserError
        For a rank that the profile does not know, or lengths that do not fit the server.
    """
    identities = np.arange(len(adapters)) if ids is None else np.asarray(ids)
    ranks = np.array([adapter.rank for adapter in adapters], dtype=np.int64)
    profile.check_ranks(ranks)
    rates = np.array([adapter.rate * factor for adapter in adapters])
    groups: dict[tuple[float | None, float | None, int], list[int]] = {}
    for place, adapter in enumerate(adapters):
        groups.setdefault(adapter.own, []).append(place)
    lengths_of = {
        own: _lengths_like(traffic.lengths, own, profile, adapters[members[0]].name) for own, members in groups.items()
    }
    shared = np.array([adapter.own[2] for adapter in adapters], dtype=np.int64)
    workload = Workload(
        ranks, rates, traffic.lengths, traffic.duration_s, traffic.seed, identities, name=name, arrivals=traffic.arrivals,
        shared_prompt_tokens=shared if shared.any() else None,
    )  # fmt: skip
    if len(groups) <= 1:
        return replace(workload, lengths=next(iter(lengths_of.values()), traffic.lengths))
    return _of_several_lengths(workload, [(np.array(members), lengths_of[own]) for own, members in groups.items()])


def _of_several_lengths(workload: Workload, parts: Sequence[tuple[np.ndarray, Lengths]]) -> Workload:
    """The workload with lengths of their own for each part of its adapters, drawn and put together as a trace."""
    rates, identities = workload.rates.copy(), np.asarray(workload.ids)
    drawn = [(subset(workload, members, lengths=lengths).requests, members) for members, lengths in parts]
    # Solvers count adapters of equal rank and rate as one type. Those of other lengths are another type, which a rate
    # that differs in the tenth digit says without a trace in any figure.
    for number, (members, _) in enumerate(parts):
        rates[members] *= 1 + number * 1e-10
    mean = _mean_lengths([lengths for _, lengths in parts], [rates[members].sum() for members, _ in parts])
    return replace(workload, rates=rates, lengths=mean, trace=_joined(drawn, identities))


def planned(  # noqa: PLR0913  # the options of one description, all by keyword
    profile: ServingProfile,
    *,
    adapters: Sequence[Mapping[str, Any]],
    duration_s: float,
    lengths: Lengths | None = None,
    arrivals: Arrivals | None = None,
    seed: int = 0,
    name: str = "plan",
) -> Workload:
    """The workload of a plan as a builder, which is how `placement.json` tells other commands of it.

    Parameters
    ----------
    profile : ServingProfile
    adapters : sequence of mapping
        The fields of `Adapter`.
    duration_s, lengths, arrivals, seed : optional
        As in `Traffic`.
    name : str
    """
    traffic = Traffic.of(profile, lengths=lengths, arrivals=arrivals, duration_s=duration_s, seed=seed)
    return workload_of([Adapter(**fields) for fields in adapters], traffic, profile, name=name)


def _lengths_like(
    lengths: Lengths, own: tuple[float | None, float | None, int], profile: ServingProfile, name: str
) -> Lengths:
    """Lengths of the same spread with an adapter's own means, beside its shared prompt."""
    prompt, output = lengths.prompt, lengths.output
    means, shared = (own[0] or prompt.mean_tokens, own[1] or output.mean_tokens), own[2]
    room = profile.max_model_len - shared
    if own[:2] == (None, None) and lengths.max_total_tokens <= room:
        return lengths
    if sum(means) >= room:
        raise UserError(
            f"adapter {name}: prompt_tokens={means[0] + shared:g} and output_tokens={means[1]:g} together must be below "
            f"max_model_len={profile.max_model_len} of profile {profile.name}"
        )
    ranges = []
    for given, mean in zip((prompt, output), means, strict=True):
        # Each side has its share of what the server takes, so that no request is cut and the means hold.
        share = int(room * mean / sum(means))
        most = max(math.ceil(mean), min(max(given.max_tokens, math.ceil(_LENGTH_RANGE * mean)), share))
        fewest = min(given.min_tokens, max(1, math.floor(mean / _LENGTH_RANGE)))
        # Where the range leaves no room for the spread, the lengths draw together.
        leeway = min(most / mean, mean / fewest)
        sigma = given.sigma if leeway >= _LENGTH_RANGE / 2 else min(given.sigma, 0.3 * math.log(max(leeway, 1.0)))
        # A mean that is one token but for rounding: no spread at all, where a numerical one finds no solution.
        sigma = sigma if sigma > _NO_SPREAD else 0.0
        ranges.append(replace(given, mean_tokens=mean, min_tokens=fewest, max_tokens=most, sigma=sigma))
    limit = min(max(lengths.max_total_tokens, ranges[0].max_tokens + ranges[1].max_tokens), room)
    return replace(lengths, prompt=ranges[0], output=ranges[1], max_total_tokens=limit)


def _mean_lengths(lengths: Sequence[Lengths], weights: Sequence[float]) -> Lengths:
    """Lengths with the mean of all requests: what predictors and tables see of several groups."""
    share = np.asarray(weights, dtype=float) + 1e-12
    share /= share.sum()
    widest = max(lengths, key=lambda each: each.max_total_tokens)

    def mean(part: str) -> float:
        return float(sum(w * getattr(each, part).mean_tokens for w, each in zip(share, lengths, strict=True)))

    return replace(
        widest,
        prompt=replace(widest.prompt, mean_tokens=mean("prompt"), min_tokens=1, max_tokens=widest.max_total_tokens),
        output=replace(widest.output, mean_tokens=mean("output"), min_tokens=1, max_tokens=widest.max_total_tokens),
    )


def _joined(parts: Sequence[tuple[Requests, np.ndarray]], identities: np.ndarray) -> Requests:
    """The requests of several groups of adapters in order of arrival, adapters counted over all of them."""
    arrival = np.concatenate([requests.arrival_s for requests, _ in parts])
    adapter = np.concatenate([members[requests.adapter] for requests, members in parts])
    order = np.lexsort((identities[adapter], arrival))
    # What they share is known by adapter (`Workload.shared_prompt_tokens`).
    return Requests(
        arrival[order],
        adapter[order],
        *(
            np.concatenate([getattr(requests, name) for requests, _ in parts])[order]
            for name in ("prompt_tokens", "output_tokens", "requested_tokens")
        ),
    )
