"""Adapters counted by type: identical rank, rate and length of shared prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twin import Workload


@dataclass(frozen=True)
class AdapterTypes:
    """The adapters of a workload, grouped into types of identical rank, rate and `shared_prompt_tokens`.

    Attributes
    ----------
    ranks : array of shape (n_types,), int64
    rates : array of shape (n_types,), float64
        Requests per second. Types descend by rank, then by rate, then by shared prompt.
    counts : array of shape (n_types,), int64
        How many adapters there are of each type.
    members : tuple of arrays
        Workload indices of the adapters of each type.
    """

    ranks: NDArray[np.int64]
    rates: NDArray[np.float64]
    counts: NDArray[np.int64]
    members: tuple[NDArray[np.int64], ...]

    def __len__(self) -> int:
        return len(self.counts)

    def contents(self, counts: NDArray[np.int64]) -> tuple[int, ...]:
        """Adapters that stand for a GPU content given as counts per type: the first of each type."""
        chosen = [member[:count] for member, count in zip(self.members, counts, strict=True)]
        return tuple(sorted(int(a) for part in chosen for a in part))


def adapter_types(workload: Workload, *, by_requests: bool = False) -> AdapterTypes:
    """Group the adapters of a workload by (rank, rate, shared prompt).

    Parameters
    ----------
    workload : Workload
    by_requests : bool
        Order the members of a type so that the first few are neither the busiest nor the idlest; otherwise as they come.
    """
    keys = np.column_stack([-workload.ranks.astype(np.float64), -workload.rates])
    if workload.shared_prompt_tokens is not None:
        keys = np.column_stack([keys, -workload.shared_prompt_tokens.astype(np.float64)])
    unique, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    by_type = np.argsort(inverse.reshape(-1), kind="stable")
    members = np.split(by_type, np.cumsum(counts)[:-1]) if len(counts) else []
    return AdapterTypes(
        ranks=(-unique[:, 0]).astype(np.int64),
        rates=-unique[:, 1] + 0.0,
        counts=counts.astype(np.int64),
        members=tuple(_typical_first(workload, member) if by_requests else member for member in members),
    )


def single_types(workload: Workload) -> AdapterTypes:
    """Each adapter as a type of its own, in the order of the workload."""
    count = workload.n_adapters
    members = tuple(np.arange(count)[:, None])
    return AdapterTypes(workload.ranks, workload.rates, np.ones(count, dtype=np.int64), members)


def _typical_first(workload: Workload, members: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order adapters of one type so that the first few are neither the busiest nor the idlest.

    Adapters of one type draw different requests. A content given as counts is judged by the first
    members of each type; from the middle outwards, their mean load is that of the type.
    """
    if len(members) < 3:
        return members
    requests = workload.requests
    tokens = np.bincount(requests.adapter, requests.prompt_tokens + requests.requested_tokens, workload.n_adapters)
    ascending = members[np.argsort(tokens[members], kind="stable")]
    from_the_middle = np.argsort(np.abs(np.arange(len(members)) - (len(members) - 1) / 2), kind="stable")
    return ascending[from_the_middle]
