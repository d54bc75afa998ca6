"""`python -m bench.pareto`: how much latency another GPU saves, for several solvers and sizes of the fleet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from rich.table import Table
from rich.text import Text

from bench.cells import Cell, cells_of, execution_of, run_cells
from bench.cli import command
from bench.compare import is_user_error
from bench.config import BenchConfig
from bench.plugins import register_solvers
from bench.rows import Row, write_rows
from bench.run import build_workload
from bench.suites.library import write_text
from bench.table import console
from solvers.objectives.min_latency import MinLatency
from twin import UserError, load_profile

#: Fleets that are tried unless they are given.
MOST_FLEETS = 8
#: The largest of them, in multiples of the smallest feasible one.
LARGEST = 3.0


@dataclass
class ParetoConfig(BenchConfig):
    """Options of `python -m bench.pareto`: those of `python -m bench`, and the fleets.

    Attributes
    ----------
    fleets : list of int, optional
        GPUs; by default from the fewest that a solver finds feasible, up to `LARGEST` times as many.
    """

    fleets: list[int] | None = None


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


@command("pareto", ParetoConfig)
def main(config: ParetoConfig) -> None:
    """Run every solver on every fleet, print the table, write rows and picture."""
    from bench.pareto_picture import draw

    folder = Path(config.out) if config.out else Path(HydraConfig.get().runtime.output_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} must be a folder")
    objective = instantiate(config.objective, _convert_="all")
    if not isinstance(objective, MinLatency):
        raise UserError("objective must be min_latency (objective.metric=e2e_ms, itl_ms or ttft_ms)")
    overrides = list(HydraConfig.get().overrides.task)
    build_workload(config.workload, load_profile(config.profile))
    cells = cells_of(config, overrides)
    fleets = _fleets(config, cells)
    execution = execution_of(config, sweep=True)
    rows = run_cells([replace(cell, gpus=gpus) for gpus in fleets for cell in cells], execution)
    if all(is_user_error(row) for row in rows):
        raise UserError(rows[0].message)
    found = candidates(rows, objective.metric)
    write_rows([one.row for one in found], folder / "rows.parquet")
    write_text(folder / "pareto.csv", _csv(found, objective.metric))
    draw(found, objective.metric, folder / "pareto.png")
    terminal = console()
    terminal.print(_table(found, objective.metric))
    for name in ("pareto.csv", "rows.parquet", "pareto.png"):
        terminal.print(f"{folder / name}", soft_wrap=True)


def _fleets(config: ParetoConfig, cells: Sequence[Cell]) -> list[int]:
    """The sizes of the fleet: those given, or from the fewest feasible GPUs on."""
    if config.fleets is not None:
        if not config.fleets or min(config.fleets) < 1:
            raise UserError(f"fleets={config.fleets} must list numbers of GPUs, 1 or more, or be null")
        return sorted(set(config.fleets))
    search = Cell(
        solver="max_pack",
        solver_options={"_target_": "solvers.max_pack.MaxPack"},
        **{
            name: getattr(cells[0], name)
            for name in ("workload", "profile", "seed", "time_limit_s", "threads", "reserve")
        },
    )
    (row,) = run_cells([search], replace(execution_of(config, sweep=True), show=False))
    if row.gpus is None:
        raise UserError(f"fleets must be given: no feasible placement was found to start from ({row.message})")
    n_adapters = row.n_adapters or row.gpus
    last = min(max(math.ceil(LARGEST * row.gpus), row.gpus + 3), max(n_adapters, row.gpus))
    steps = min(MOST_FLEETS, last - row.gpus + 1)
    return sorted({round(row.gpus + (last - row.gpus) * step / max(steps - 1, 1)) for step in range(steps)})


def _table(found: Sequence[Candidate], metric: str) -> Table:
    table = Table(header_style="bold", title=f"GPUs against mean {_LABELS[metric]}")
    for name in ("fleet", "solver", "GPUs used", "feasible", _LABELS[metric], "front"):
        table.add_column(name, justify="left" if name in ("solver", "front") else "right", overflow="fold")
    fleet = 0
    for one in found:
        if fleet and one.fleet != fleet:
            table.add_section()
        style = "bold" if one.on_front else ""
        row = one.row
        table.add_row(
            str(one.fleet) if one.fleet != fleet else "",
            Text(row.solver_label, style=style),
            "" if row.gpus is None else str(row.gpus),
            Text("yes", style="green") if row.feasible else Text(row.status if row.gpus is None else "no", style="red"),
            "" if one.latency_ms is None else Text(f"{one.latency_ms:.1f}", style=style),
            "*" if one.on_front else "",
        )
        fleet = one.fleet
    return table


def _csv(found: Sequence[Candidate], metric: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fleet", "solver", "gpus", "feasible", metric, "on_front"])
    for one in found:
        latency = "" if one.latency_ms is None else f"{one.latency_ms:.3f}"
        writer.writerow([one.fleet, one.row.solver_label, one.row.gpus, one.row.feasible, latency, one.on_front])
    return text.getvalue()


_LABELS = {"e2e_ms": "end-to-end latency (ms)", "itl_ms": "inter-token latency (ms)", "ttft_ms": "TTFT (ms)"}


if __name__ == "__main__":
    register_solvers()
    main()
