"""From counts per GPU to actual adapters: what a cover by patterns leaves open."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.contents.adapter_types import AdapterTypes
from solvers.contents.patterns import Counts
from solvers.oracles.base import Oracle
from twin import GpuPlan, Placement


def realise(
    patterns: list[Counts], types: AdapterTypes, oracle: Oracle, hint: int | None = None
) -> tuple[Placement | None, list[Counts]]:
    """Deal the adapters to GPUs that were given patterns, and ask the oracle about each actual content.

    Parameters
    ----------
    patterns : list of arrays of shape (n_types,)
        One per GPU; together they cover the counts of all types, and may cover more.
    types : AdapterTypes
    oracle : Oracle
    hint : int, optional
        A `max_loras` to try first.

    Returns
    -------
    placement : Placement or None
        None if some GPU's actual content is rejected.
    failed : list of arrays
        Patterns of the GPUs that were rejected.
    """
    counts = _without_surplus(patterns, types.counts)
    contents = _deal(counts, types, oracle)
    plans, failed = [], []
    for content, pattern in zip(contents, patterns, strict=True):
        if not content:
            continue
        slots = oracle.find_max_loras(content, hint)
        if slots is None:
            failed.append(pattern)
        else:
            plans.append(GpuPlan(content, slots))
    return (None, failed) if failed else (Placement(tuple(plans)), [])


def _without_surplus(patterns: list[Counts], demand: Counts) -> list[Counts]:
    """Take what is covered twice from the GPUs that have the most of it."""
    counts = np.array(patterns)
    for kind, surplus in enumerate(counts.sum(axis=0) - demand):
        for _ in range(int(surplus)):
            # Relative to what the GPU has of everything, so that surplus leaves full GPUs first.
            counts[np.lexsort((counts[:, kind], counts.sum(axis=1) * (counts[:, kind] > 0)))[-1], kind] -= 1
    return list(counts)


def _deal(counts: list[Counts], types: AdapterTypes, oracle: Oracle) -> list[tuple[int, ...]]:
    """Which adapter goes where: the GPU that is furthest below its expected load gets the busiest."""
    workload = oracle.workload
    requests = workload.requests
    tokens = np.bincount(requests.adapter, requests.prompt_tokens + requests.requested_tokens, workload.n_adapters)
    excess: NDArray[np.float64] = np.zeros(len(counts))
    contents: list[list[int]] = [[] for _ in counts]
    for kind, members in enumerate(types.members):
        left = np.array([count[kind] for count in counts])
        typical = tokens[members].mean()
        deviation = tokens[members] - typical
        for place in np.argsort(-np.abs(deviation), kind="stable"):
            open_gpus = np.flatnonzero(left)
            order = np.lexsort((open_gpus, excess[open_gpus] * np.sign(deviation[place])))
            gpu = open_gpus[order[0]]
            contents[gpu].append(int(members[place]))
            excess[gpu] += deviation[place]
            left[gpu] -= 1
    return [tuple(sorted(content)) for content in contents]
