"""`python -m bench.pareto`: how much latency another GPU saves, for several solvers and sizes of the fleet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hydra.core.hydra_config import HydraConfig
from rich.table import Table
from rich.text import Text

from bench.comparison.build import build_workload, objective_of
from bench.comparison.cells import cells_of
from bench.comparison.compare import is_user_error
from bench.comparison.config import BenchConfig
from bench.comparison.execution import execution_of, run_cells
from bench.comparison.rows import write_rows
from bench.shared.command import command
from bench.shared.files import check_folder, write_text
from bench.shared.plugins import register_solvers
from bench.shared.terminal import console, plain
from bench.studies.pareto import Candidate, candidates, fleet_sizes
from solvers.objectives.min_latency import MinLatency
from twin import UserError, load_profile


@dataclass
class ParetoConfig(BenchConfig):
    """Options of `python -m bench.pareto`: those of `python -m bench`, and the fleets.

    Attributes
    ----------
    fleets : list of int, optional
        GPUs; by default from the fewest that a solver finds feasible, up to `LARGEST` times as many.
    """

    fleets: list[int] | None = None


@command("pareto", ParetoConfig)
def main(config: ParetoConfig) -> None:
    """Run every solver on every fleet, print the table, write rows and picture."""
    from bench.studies.pareto_picture import draw

    folder = check_folder("out", config.out or HydraConfig.get().runtime.output_dir)
    objective = objective_of(config.objective)
    if not isinstance(objective, MinLatency):
        raise UserError("objective must be min_latency (objective.metric=e2e_ms, itl_ms or ttft_ms)")
    overrides = list(HydraConfig.get().overrides.task)
    build_workload(config.workload, load_profile(config.profile))
    cells = cells_of(config, overrides)
    execution = execution_of(config, sweep=True)
    fleets = fleet_sizes(config.fleets, cells, execution)
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
            Text(plain(row.solver_label), style=style),
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
