"""Baseline: LoRAServe (arXiv 2511.22880)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.base import Problem, Solution, Tags
from solvers.contents.published_figures import operating_point_tokens_per_s
from solvers.contents.replicas import placement_of_shares
from solvers.fleet import FleetSolver
from solvers.limits import Deadline
from twin import UserError


class LoraServe(FleetSolver):
    """GPUs are given to ranks by demand, and demands are packed in fractions up to a common target utilisation.

    The target is the mean utilisation: the sum of demand over operating point, over the GPUs. A rank gets its share of
    the GPUs by largest remainder. In a rank the largest demand goes first, to the emptiest GPU, and on to the
    next where it does not fit. What is left over goes to the least loaded GPU whose largest rank is at least as
    large. Requests are routed by the fractions, and `max_loras` is the adapter count.

    Parameters
    ----------
    adapters_per_slot : int
        With 1 a slot for each adapter, as published; with 3, a third as many slots, as in `lora_serve_third`.
    search : bool
        As in `FleetSolver`.
    """

    name: ClassVar[str] = "lora_serve"
    spread_tags: ClassVar[Tags] = Tags(needs_fleet=True, uses_replicas=True)

    def __init__(self, adapters_per_slot: int = 1, *, search: bool = False) -> None:
        super().__init__(search=search)
        if adapters_per_slot < 1:
            raise UserError(f"solver.adapters_per_slot={adapters_per_slot} of solver {self.name}: must be 1 or more")
        self.adapters_per_slot = adapters_per_slot

    def slots(self, n_adapters: int) -> int:
        """`max_loras` of a GPU with so many adapters."""
        return max(1, round(n_adapters / self.adapters_per_slot))

    def spread(self, problem: Problem) -> Solution:
        """Pack the fleet rank by rank."""
        assert problem.max_gpus is not None  # noqa: S101  # Solver.run and the search see to it
        workload = problem.workload
        if not workload.n_adapters:
            return Solution("unchecked", placement_of_shares(np.zeros((1, 0)), self.slots))
        ranks, kind = np.unique(workload.ranks, return_inverse=True)
        points = np.array(
            [operating_point_tokens_per_s(problem.profile, workload.lengths, int(rank)) for rank in ranks]
        )
        utilisation = workload.rates * workload.mean_request_tokens / points[kind]
        target = float(utilisation.sum()) / problem.max_gpus
        if target > 1:
            return Solution(
                "none_found",
                message=f"not enough servers: {problem.max_gpus} GPUs would have to run at {target:.2f} of their "
                "operating points",
            )
        deadline = Deadline.after(problem.time_limit_s)
        shares = pack_fractions(utilisation, workload.ranks, target, problem.max_gpus, deadline)
        return Solution("unchecked", placement_of_shares(shares, self.slots), details={"target_utilisation": target})


def pack_fractions(
    utilisation: NDArray[np.float64],
    ranks: NDArray[np.int64],
    target: float,
    n_gpus: int,
    deadline: Deadline | None = None,
) -> NDArray[np.float64]:
    """Share of each adapter on each GPU.

    Parameters
    ----------
    utilisation : array of shape (n_adapters,)
        Demand over operating point.
    ranks : array of shape (n_adapters,)
    target : float
        What each GPU is filled to.
    n_gpus : int
    deadline : Deadline, optional

    Returns
    -------
    array of shape (n_gpus, n_adapters), columns sum to 1

    Raises
    ------
    OutOfTimeError
    """
    shares = np.zeros((n_gpus, len(ranks)))
    load = np.zeros(n_gpus)
    largest = np.zeros(n_gpus, dtype=np.int64)
    left_over: list[tuple[int, float]] = []
    distinct = np.unique(ranks)[::-1]
    first = 0
    for rank, count in zip(distinct, gpus_by_rank(utilisation, ranks, distinct, n_gpus), strict=True):
        mine = np.arange(first, first + count)
        first += count
        largest[mine] = rank
        members = np.flatnonzero(ranks == rank)
        for adapter in members[np.argsort(-utilisation[members], kind="stable")].tolist():
            if deadline is not None:
                deadline.check()
            parts, rest = _packed(float(utilisation[adapter]), mine, load, target)
            for gpu, part in parts:
                shares[gpu, adapter] = part
            if rest > 0:
                left_over.append((adapter, rest))
    for adapter, rest in left_over:
        fitting = np.flatnonzero(largest >= ranks[adapter])
        candidates = fitting if len(fitting) else np.arange(n_gpus)
        gpu = int(candidates[np.argmin(load[candidates])])
        shares[gpu, adapter] += rest
        load[gpu] += rest * utilisation[adapter]
        largest[gpu] = max(largest[gpu], ranks[adapter])
    return shares


def _packed(
    need: float, mine: NDArray[np.int64], load: NDArray[np.float64], target: float
) -> tuple[list[tuple[int, float]], float]:
    """Put a demand on some GPUs up to a target, the emptiest first: the share of each, and what is left over. `load` grows."""
    parts, rest = [], 1.0
    for gpu in mine[np.argsort(load[mine], kind="stable")].tolist():
        room = target - load[gpu]
        if need == 0:
            part = rest
        elif room <= 1e-12:
            # Nor has any that is fuller.
            break
        else:
            part = min(rest, room / need)
        # A crumb left by rounding is no replica.
        if rest - part < 1e-9:
            part = rest
        parts.append((gpu, part))
        load[gpu] += part * need
        rest -= part
        if rest == 0:
            break
    return parts, rest


def gpus_by_rank(
    utilisation: NDArray[np.float64], ranks: NDArray[np.int64], distinct: NDArray[np.int64], n_gpus: int
) -> list[int]:
    """GPUs of each distinct rank by largest remainder; they sum to `n_gpus`."""
    total = np.array([utilisation[ranks == rank].sum() for rank in distinct])
    quota = total / total.sum() * n_gpus if total.sum() else np.full(len(distinct), n_gpus / len(distinct))
    whole = np.floor(quota + 1e-9).astype(np.int64)
    missing = n_gpus - int(whole.sum())
    whole[np.argsort(whole - quota, kind="stable")[:missing]] += 1
    counts: list[int] = whole.tolist()
    return counts
