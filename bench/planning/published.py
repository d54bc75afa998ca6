"""What the published rule, which looks at throughput alone, would need for the same adapters."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.comparison.cell import Cell
from bench.comparison.rows import Row
from twin import Placement, ServiceLevel, ServingProfile, Workload, score_placement


@dataclass(frozen=True)
class PublishedNeed:
    """A placement that the published rule calls feasible.

    Attributes
    ----------
    gpus : int
        Fewer may do: nothing is proven.
    solver : str
        That found it.
    goodput : float
        Share of its requests that keep the limits of the service level asked for.
    """

    gpus: int
    solver: str
    goodput: float

    def in_words(self, gpus: int | None = None) -> str:
        """One line, beside an answer on so many GPUs or none."""
        rule = "by the published rule (throughput alone)"
        if gpus is not None and self.gpus >= gpus:
            return f"{rule} {self.solver} finds nothing on fewer GPUs"
        count = f"{self.gpus} GPU{'s' * (self.gpus != 1)}"
        return (
            f"{rule} {count} would do, as {self.solver} finds; there {self.goodput:.0%} of the requests keep the limits"
        )


def published_cell(cell: Cell) -> Cell:
    """The question to the published rule, to a solver that takes a second: a placement for any number of GPUs.

    Parameters
    ----------
    cell : Cell
        A candidate for the service level asked for.
    """
    options = {"_target_": "solvers.max_pack.MaxPack", "best_service": False}
    return replace(cell, solver="max_pack", solver_options=options, service={}, gpus=None, overrides=())


def published_need(
    row: Row, workload: Workload, profile: ServingProfile, service: ServiceLevel, *, threads: int = 2
) -> PublishedNeed | None:
    """What the row of `published_cell` says; None if it has no feasible placement.

    Parameters
    ----------
    row : Row
    workload : Workload
        The load that goodput is for, without a reserve.
    profile : ServingProfile
    service : ServiceLevel
        Whose limits are counted.
    threads : int
    """
    if not row.feasible or row.placement is None or row.gpus is None:
        return None
    score = score_placement(workload, Placement.from_json(row.placement), profile, threads=threads, service=service)
    return PublishedNeed(row.gpus, row.solver, 1.0 if score.goodput is None else score.goodput)
