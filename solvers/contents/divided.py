"""Adapters counted as several, so that what places adapters places shares of them: what replicas are made of.

A *part* of an adapter sends the requests whose routing draws fall into its interval. Parts of one adapter on one GPU are one adapter
there. Which of an adapter's parts a GPU has is a matter of the order of the GPUs (`twin.placement.Placement.routing_intervals`), so parts
are numbered anew before a placement is judged (`in_order_of_gpus`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from twin import GpuPlan, Placement, Requests, Workload

#: Most parts of one adapter: shares are whole numbers of so much at least.
MOST_PARTS = 4096


@dataclass(frozen=True)
class DividedWorkload(Workload):
    """A workload some of whose adapters are counted as several; made by `divided`.

    Attributes
    ----------
    whole : Workload
        The workload that it was made of.
    counts : array of shape (whole.n_adapters,)
        Parts of each adapter, of equal shares.
    """

    whole: Workload = None  # type: ignore[assignment]  # fields after those with defaults need one
    counts: NDArray[np.int64] = None  # type: ignore[assignment]

    @property
    def owners(self) -> NDArray[np.int64]:
        """The adapter that each part is of."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def lengthened(self, tail_s: float) -> Workload:
        """As `Workload.lengthened`, of the whole."""
        if not tail_s:
            return self
        if tail_s not in self._longer:
            self._longer[tail_s] = divided(self.whole.lengthened(tail_s), self.counts)
        return self._longer[tail_s]

    def with_seed(self, seed: int) -> Workload:
        """As `Workload.with_seed`, of the whole."""
        return divided(self.whole.with_seed(seed), self.counts)


def divided(workload: Workload, counts: NDArray[np.int64]) -> DividedWorkload:
    """The workload with each adapter counted as so many, which share its requests evenly.

    Parameters
    ----------
    workload : Workload
    counts : array of shape (n_adapters,)
        1 for adapters that stay whole.
    """
    owners = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    each = counts[owners]
    intervals = np.column_stack([place / each, np.where(place + 1 == each, 1.0, (place + 1) / each)])
    return DividedWorkload(
        ranks=workload.ranks[owners],
        rates=workload.rates[owners] / each,
        lengths=workload.lengths,
        duration_s=workload.duration_s,
        seed=workload.seed,
        trace=workload.requests_of(owners, intervals),
        name=workload.name,
        arrivals=workload.arrivals,
        shared_prompt_tokens=None if workload.shared_prompt_tokens is None else workload.shared_prompt_tokens[owners],
        whole=workload,
        counts=counts,
    )


def n_adapters_of(workload: Workload, content: tuple[int, ...]) -> int:
    """How many adapters a content has: parts of one count once."""
    if isinstance(workload, DividedWorkload):
        return len(np.unique(workload.owners[list(content)]))
    return len(content)


def sent_to(workload: Workload, source: Workload, content: tuple[int, ...]) -> tuple[Requests, NDArray[np.int64]]:
    """The requests of a content, numbered by its adapters, and the rank of each of these.

    Parameters
    ----------
    workload : Workload
    source : Workload
        The same, or what it was lengthened to.
    content : tuple of int
        Ascending.
    """
    requests = source.requests_of(np.asarray(content, dtype=np.int64))
    if not isinstance(workload, DividedWorkload):
        return requests, workload.ranks[list(content)]
    adapters, place = np.unique(workload.owners[list(content)], return_inverse=True)
    return replace(requests, adapter=place[requests.adapter]), workload.whole.ranks[adapters]


def in_order_of_gpus(workload: DividedWorkload, placement: Placement) -> Placement:
    """The placement with parts numbered so that each GPU has those which its shares stand for when requests are routed."""
    owners, used = workload.owners, np.cumsum(workload.counts) - workload.counts
    used = used.copy()
    plans = []
    for plan in placement.gpus:
        adapters, several = np.unique(owners[list(plan.adapters)], return_counts=True)
        content: list[int] = []
        for adapter, count in zip(adapters.tolist(), several.tolist(), strict=True):
            content.extend(range(used[adapter], used[adapter] + count))
            used[adapter] += count
        plans.append(GpuPlan(tuple(sorted(content)), plan.max_loras))
    return Placement(tuple(plans))


def with_shares(workload: DividedWorkload, placement: Placement) -> Placement:
    """A placement of parts as one of adapters with shares."""
    plans = []
    for plan in placement.gpus:
        adapters, several = np.unique(workload.owners[list(plan.adapters)], return_counts=True)
        shares = several / workload.counts[adapters]
        plans.append(
            GpuPlan(
                tuple(adapters.tolist()),
                min(plan.max_loras, len(adapters)),
                tuple(shares.tolist()) if (shares < 1).any() else None,
            )
        )
    return Placement(tuple(plans))


def parts_of(workload: Workload, placement: Placement) -> tuple[DividedWorkload, Placement] | None:
    """The adapters that a placement divides in parts that its shares are whole numbers of, and what each GPU has of them.

    Returns
    -------
    tuple or None
        None where there are no such numbers below `MOST_PARTS`.
    """
    counts = np.ones(workload.n_adapters, dtype=np.int64)
    for plan in placement.gpus:
        for adapter, share in zip(plan.adapters, plan.shares or (), strict=plan.shares is not None):
            part = Fraction(share).limit_denominator(MOST_PARTS)
            counts[adapter] = math.lcm(int(counts[adapter]), part.denominator)
    used = np.cumsum(counts) - counts
    ends = used + counts
    if counts.max(initial=1) > MOST_PARTS:
        return None
    plans = []
    for plan in placement.gpus:
        content: list[int] = []
        for adapter, share in zip(plan.adapters, plan.shares or (1.0,) * len(plan.adapters), strict=True):
            several = round(share * int(counts[adapter]))
            content.extend(range(used[adapter], used[adapter] + several))
            used[adapter] += several
        plans.append(GpuPlan(tuple(sorted(content)), plan.max_loras))
    if (used != ends).any() or not all(plan.adapters for plan in plans):
        return None
    return divided(workload, counts), Placement(tuple(plans))
