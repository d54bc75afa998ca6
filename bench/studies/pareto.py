"""Latency against GPUs: the candidates that nothing beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.comparison.cell import Cell
from bench.comparison.execution import Execution, run_cells
from bench.comparison.rows import Row
from twin import UserError

#: Fleets that are tried unless they are given. By hand: each costs every solver's time limit.
MOST_FLEETS = 8

#: The largest of them, in multiples of the smallest feasible one; by hand.
LARGEST = 3.0


@dataclass(frozen=True)
class Candidate:
    """One solver on one fleet.

    Attributes
    ----------
    fleet : int
        GPUs given; the placement may use fewer.
    row : Row
    latency_ms : float, optional
        By the metric of the objective, of a feasible placement.
    on_front : bool
        No feasible candidate uses as few GPUs with as little latency, and less of one of the two.
    """

    fleet: int
    row: Row
    latency_ms: float | None
    on_front: bool = False


def candidates(rows: Sequence[Row], metric: str) -> list[Candidate]:
    """Candidates with the non-dominated ones marked, by fleet and latency; infeasible ones last in a fleet.

    Parameters
    ----------
    rows : sequence of Row
        With `gpu_limit` set.
    metric : {"e2e_ms", "itl_ms", "ttft_ms"}
    """
    found = [Candidate(row.gpu_limit or 0, row, getattr(row, metric) if row.feasible else None) for row in rows]
    marked = [replace(one, on_front=not any(_dominates(other, one) for other in found)) for one in found]
    marked = [replace(one, on_front=one.on_front and one.latency_ms is not None) for one in marked]
    return sorted(marked, key=lambda one: (one.fleet, math.inf if one.latency_ms is None else one.latency_ms))


def _dominates(one: Candidate, other: Candidate) -> bool:
    if one.latency_ms is None:
        return False
    if other.latency_ms is None:
        return True
    assert one.row.gpus is not None  # noqa: S101  # a feasible row has a placement
    assert other.row.gpus is not None  # noqa: S101
    mine, theirs = (one.row.gpus, one.latency_ms), (other.row.gpus, other.latency_ms)
    if mine == theirs:
        # A solver that leaves GPUs empty gives the same placement on every fleet: the smallest one counts.
        return one.row.solver_label == other.row.solver_label and one.fleet < other.fleet
    return mine[0] <= theirs[0] and mine[1] <= theirs[1]


def fleet_sizes(given: Sequence[int] | None, cells: Sequence[Cell], execution: Execution) -> list[int]:
    """The sizes of the fleet: those given, or from the fewest feasible GPUs on."""
    if given is not None:
        if not given or min(given) < 1:
            raise UserError(f"fleets={list(given)} must list numbers of GPUs, 1 or more, or be null")
        return sorted(set(given))
    search = Cell(
        solver="max_pack",
        solver_options={"_target_": "solvers.max_pack.MaxPack"},
        **{
            name: getattr(cells[0], name)
            for name in ("workload", "profile", "seed", "time_limit_s", "threads", "reserve")
        },
    )
    (row,) = run_cells([search], replace(execution, show=False))
    if row.gpus is None:
        raise UserError(f"fleets must be given: no feasible placement was found to start from ({row.message})")
    n_adapters = row.n_adapters or row.gpus
    last = min(max(math.ceil(LARGEST * row.gpus), row.gpus + 3), max(n_adapters, row.gpus))
    steps = min(MOST_FLEETS, last - row.gpus + 1)
    return sorted({round(row.gpus + (last - row.gpus) * step / max(steps - 1, 1)) for step in range(steps)})
