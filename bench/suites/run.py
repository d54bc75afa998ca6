"""`python -m bench suite=TIER`: every solver on every instance, with one summary and a check of the bounds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.comparison.cell import Cell
from bench.comparison.cells import cells_of
from bench.comparison.config import BenchConfig, SuiteOptions
from bench.comparison.execution import execution_of, run_cells
from bench.comparison.rows import FILE_NAME, Row, gap_to, write_rows
from bench.shared.files import check_folder, write_text
from bench.shared.terminal import console
from bench.statistics.contradictions import all_contradictions, end_with
from bench.statistics.costs import best_cost_bounds, cost_gap
from bench.suites.bounds import best_bounds, fingerprint
from bench.suites.instance import Instance
from bench.suites.library import FOLDER, load_suite, read_best_known
from bench.suites.summary import results_csv, summary_markdown, summary_table
from twin.service import NAMED

#: What stands for the service level's name in the name of a folder, so that no level's results overwrite another's.
LEVEL = "{level}"


def run_suite(config: BenchConfig, overrides: Sequence[str] = ()) -> list[Row]:
    """Run a tier, write rows and summary, and tell of contradicted bounds.

    Parameters
    ----------
    config : BenchConfig
        With `suite` set; its workload and its seed are those of the instances.
    overrides : sequence of str
        The command line.

    Raises
    ------
    UserError
        For a tier, tag, instance or solver that there is not.
    SystemExit
        If the twin calls a placement feasible that has fewer GPUs than a bound proven for the twin.
    """
    options = config.suite or SuiteOptions()
    folder = Path(options.folder or FOLDER)
    instances = load_suite(options.tier, folder, tags=options.tags, ids=options.ids)
    level = config.service.level()
    out = check_folder("suite.results", options.results.replace(LEVEL, re.sub(r"[^\w.]+", "-", level.name)))
    of_level = read_best_known(folder, level.name) if level == NAMED.get(level.name) else {}
    known = {
        instance.id: best.lower_bound
        for instance in instances
        if (best := of_level.get(instance.id)) and best.twin == fingerprint(instance.profile)
    }
    rows = _run(suite_cells(config, instances, known, overrides), config)
    rows = with_bounds(rows, known)
    command = shlex.join(["python", "-m", "bench", *overrides])
    write_rows(rows, out / FILE_NAME)
    write_text(out / "results.csv", results_csv(rows))
    write_text(out / "summary.md", summary_markdown(rows, command))
    terminal = console()
    terminal.print(summary_table(rows))
    terminal.print(f"rows     {out / FILE_NAME}", soft_wrap=True)
    terminal.print(f"summary  {out / 'summary.md'}", soft_wrap=True)
    end_with(all_contradictions(rows))
    return rows


def suite_cells(
    config: BenchConfig, instances: Sequence[Instance], known: dict[str, int], overrides: Sequence[str] = ()
) -> list[Cell]:
    """One cell for each instance and solver, ordered by instance; `known` has the best bounds for their service level."""
    # What is changed for all instances alike tells solvers apart, not workloads.
    kept = tuple(override for override in overrides if override.lstrip("+~").startswith("solver."))
    cells = cells_of(config, kept)
    return [
        replace(
            cell,
            workload=instance.options,
            profile=instance.profile,
            seed=instance.seed,
            instance=instance.id,
            best_bound=known.get(instance.id),
            fleet=instance.fleet,
        )
        for instance in instances
        for cell in cells
    ]


def with_bounds(rows: Sequence[Row], known: dict[str, int]) -> list[Row]:
    """The rows with the best bound of all, those that the run itself has proven included."""
    bounds = {level: best_bounds(rows, known, level) for level in {row.service for row in rows}}
    costs = best_cost_bounds(rows)
    done = []
    for row in rows:
        if row.fleet:
            done.append(replace(row, gap=cost_gap(row, costs.get(row.workload_label))))
            continue
        bound = bounds[row.service].get(row.instance)
        done.append(replace(row, best_bound=bound, gap=gap_to(bound, row)))
    return done


def _run(cells: Sequence[Cell], config: BenchConfig) -> list[Row]:
    """Rows of the cells. Solvers that search with threads of their own have the machine to themselves."""
    execution = execution_of(config, sweep=True)
    alone = [_has_workers(cell.solver_options) for cell in cells]
    shared = [cell for cell, own in zip(cells, alone, strict=True) if not own]
    single = [cell for cell, own in zip(cells, alone, strict=True) if own]
    others = iter(run_cells(shared, execution))
    exact = iter(run_cells(single, replace(execution, processes=1)))
    return [next(exact if own else others) for own in alone]


def _has_workers(options: Any) -> bool:  # noqa: ANN401  # options of a solver
    """Whether a solver's option `workers` asks for several threads."""
    workers = options.get("workers", 1)
    return isinstance(workers, int) and workers > 1
