"""`python -m bench.refute`: whether brute force refutes what solvers claim of small instances.

Instances are drawn at random: both shipped profiles, both service levels, windows from one to ten minutes, Poisson requests and
bursts, adapters busier than a GPU among them. For each the twin alone is asked about all contents at every `max_loras`, and about a
sample of placements with replicas. A lower bound above a placement that is found, an "optimal" that is not the least, and an
"infeasible" that is not are refuted.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from rich.table import Table

from bench.comparison.cells import cells_of
from bench.comparison.config import BenchConfig
from bench.comparison.execution import Execution
from bench.comparison.rows import FILE_NAME, Row, read_rows, write_rows
from bench.shared.command import command
from bench.shared.files import check_file, check_files, write_text
from bench.shared.plugins import register_solvers
from bench.shared.terminal import console, plain, tracked
from bench.studies.lines import as_csv
from bench.studies.refutation import BRUTE_FORCE, ClaimAgainstTwin, answers, cells_of_instance, claims
from bench.studies.small_instances import draw_instance
from twin import UserError
from twin.numbers import seed_number

#: Exit code when a claim is refuted, as that of the suite.
REFUTED = 3


@dataclass
class RefuteConfig:
    """Options of `python -m bench.refute`; `conf/refute.yaml` says what each is for.

    Attributes
    ----------
    instances, seed : int
        How many, from number 0 on; of the draws.
    solver : dict of dict
        As in `bench.comparison.config.BenchConfig`.
    time_limit_s : float
        For each solver.
    brute_force_s : float
        For all contents of an instance, and as much again for placements with replicas.
    out : str, optional
        Parquet file for the rows.
    table : str, optional
        CSV file with a line for each instance and solver.
    """

    instances: int = 30
    seed: int = 0
    solver: dict[str, Any] = field(default_factory=dict)
    time_limit_s: float = 10.0
    brute_force_s: float = 60.0
    out: str | None = None
    table: str | None = None


@command("refute", RefuteConfig)
def main(config: RefuteConfig) -> None:
    """Draw, ask, search, write rows after each instance; exit code 3 if a claim is refuted."""
    if config.instances < 1:
        raise UserError(f"instances={config.instances} must be 1 or more")
    for name in ("time_limit_s", "brute_force_s"):
        if not getattr(config, name) > 0:
            raise UserError(f"{name}={getattr(config, name)} must be a positive number of seconds")
    seed_number("seed", config.seed)
    out = check_file("out", config.out or str(Path(HydraConfig.get().runtime.output_dir) / FILE_NAME))
    check_files(table=config.table)
    overrides = [each for each in HydraConfig.get().overrides.task if each.lstrip("+~").startswith("solver.")]
    objective = {"_target_": "solvers.objectives.min_gpus.MinGpus"}
    asked = BenchConfig(solver=config.solver, objective=objective, time_limit_s=config.time_limit_s)
    cells = cells_of(asked, overrides)
    terminal = console()
    terminal.print(
        f"{config.instances} instances, {len(cells)} solvers with {config.time_limit_s:g} s each, seed {config.seed}"
    )
    found: list[ClaimAgainstTwin] = []
    done = _done(out)
    for number in tracked(range(config.instances), "refuting"):
        instance = draw_instance(config.seed, number)
        rows = done.get(instance.name, [])
        if [row.cell for row in rows[:-1]] != [cell.to_json() for cell in cells_of_instance(instance, cells)]:
            rows = done[instance.name] = answers(instance, cells, Execution(show=False), config.brute_force_s)
            write_rows([row for group in done.values() for row in group], out)
        found += claims(rows)
        if config.table is not None:
            write_text(Path(config.table), as_csv(ClaimAgainstTwin, found))
    terminal.print(_table(found))
    terminal.print(f"rows     {out}", soft_wrap=True)
    if config.table is not None:
        terminal.print(f"table    {config.table}", soft_wrap=True)
    wrong = [claim for claim in found if claim.refuted]
    for claim in wrong:
        line = f"{claim.instance}: {claim.solver}: {claim.refuted} by {claim.found_by}"
        sys.stderr.write(f"CONTRADICTION: {plain(line)}\n")
    if wrong:
        sys.exit(REFUTED)


def _done(out: Path) -> dict[str, list[Row]]:
    """Rows of an earlier, interrupted run, by instance."""
    groups: dict[str, list[Row]] = {}
    for row in read_rows(out) if out.exists() else []:
        groups.setdefault(row.instance, []).append(row)
    return {name: rows for name, rows in groups.items() if rows[-1].solver == BRUTE_FORCE}


def _table(found: Sequence[ClaimAgainstTwin]) -> Table:
    """One line for each solver: how many claims there are of each kind, and how many are refuted."""
    table = Table(header_style="bold")
    for name in (
        "solver",
        "instances",
        "feasible",
        "fewest\nGPUs",
        "bounds\nabove 1",
        "proofs",
        "infeasible",
        "refuted",
    ):
        table.add_column(name, justify="left" if name == "solver" else "right")
    for solver in dict.fromkeys(claim.solver for claim in found):
        mine = [claim for claim in found if claim.solver == solver]
        counts = Counter(claim.status for claim in mine)
        figures = (
            len(mine),
            sum(claim.feasible for claim in mine),
            sum(claim.feasible and claim.gpus == claim.fewest for claim in mine),
            sum((claim.lower_bound or 0) > 1 for claim in mine),
            counts["optimal"],
            counts["infeasible"],
            sum(bool(claim.refuted) for claim in mine),
        )
        table.add_row(solver, *map(str, figures))
    return table


if __name__ == "__main__":
    register_solvers()
    main()
