"""`python -m bench.robustness RESULTS`: whether placements and ranking stand if the twin's profile is off by its fit error.

Every placement is simulated again with profiles whose step-time coefficients are moved at random, by as much as the profile
missed the step times of runs that it was not fitted on. `python -m bench.report` shows the outcome.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import MISSING
from rich.progress import track
from rich.table import Table
from rich.text import Text

from bench.cell import Cell
from bench.cli import command
from bench.report_parts.rows_of import read_any
from bench.rows import Row
from bench.run import build_workload
from bench.statistics.instances import Case, cases
from bench.statistics.moved_profiles import fit_error_pct, moved_profiles
from bench.statistics.rank_changes import RankChanges, SolverStability, rank_changes
from bench.suites.library import write_text
from bench.table import console
from twin import Placement, Score, ServingProfile, UserError, Workload, load_profile, score_placement

#: What the file is called beside a folder of rows.
FILE_NAME = "robustness.parquet"


@dataclass
class RobustnessConfig:
    """Options of `python -m bench.robustness`; `conf/robustness.yaml` says what each is for.

    Attributes
    ----------
    rows : str
        Folder or Parquet file.
    out : str, optional
        Parquet file.
    table, picture : str, optional
        CSV and PNG file.
    samples, seed : int
        Moved profiles for each profile; of the draws.
    error_pct : float, optional
        Mean absolute error of the step time in percent.
    solvers : list of str
        Only these, if any.
    threads : int
        GPUs that are simulated at the same time.
    """

    rows: str = MISSING
    out: str | None = None
    table: str | None = None
    picture: str | None = None
    samples: int = 10
    seed: int = 0
    error_pct: float | None = None
    solvers: list[str] = field(default_factory=list)
    threads: int = 2


@command("robustness", RobustnessConfig, positional="rows")
def main(config: RobustnessConfig) -> None:
    """Simulate, write after each instance, and print how often the order changes."""
    if config.samples < 1:
        raise UserError(f"samples={config.samples} must be 1 or more")
    rows = read_any(Path(config.rows))
    known = {row.solver_label for row in rows}
    for name in config.solvers:
        if name not in known:
            raise UserError(f"solvers={name}: no such solver in the rows; there are {', '.join(sorted(known))}")
    chosen = cases([row for row in rows if not config.solvers or row.solver_label in config.solvers])
    source = Path(config.rows)
    out = Path(config.out) if config.out else target_beside(source)
    done = _done(out, config)
    profiles = {name: _moved(name, chosen, config) for name in dict.fromkeys(case.key[1] for case in chosen)}
    terminal = console()
    terminal.print(f"{len(chosen)} instances, each placement under {config.samples} moved profiles, seed {config.seed}")
    for case in track(chosen, description="simulating", transient=True, console=console()):
        if json.dumps(case.key) in done:
            continue
        done[json.dumps(case.key)] = pd.DataFrame(list(_scores(case, profiles[case.key[1]], config)))
        _write(pd.concat(done.values(), ignore_index=True), out)
    table = pd.concat([frame for frame in done.values() if len(frame)], ignore_index=True)
    changes = rank_changes(table)
    for line in changes.in_words():
        terminal.print(line)
    terminal.print(_table(changes))
    terminal.print(f"scores   {out}", soft_wrap=True)
    if config.table is not None:
        write_text(Path(config.table), _csv(changes))
        terminal.print(f"table    {config.table}", soft_wrap=True)
    if config.picture is not None:
        from bench.robustness_picture import draw

        draw(changes, Path(config.picture))
        terminal.print(f"picture  {config.picture}", soft_wrap=True)


def target_beside(rows: Path) -> Path:
    """Where the scores of rows are, by default."""
    return rows / FILE_NAME if rows.is_dir() else rows.with_name(f"{rows.stem}-{FILE_NAME}")


def _moved(name: str, chosen: Sequence[Case], config: RobustnessConfig) -> list[ServingProfile]:
    """The profile itself and its moved versions."""
    rows = [row for case in chosen if case.key[1] == name for row in case.rows]
    cell = next((row.cell for row in rows if row.cell), None)
    if cell is None:
        raise UserError(f"rows={config.rows}: were made by a release that did not store how to make them again")
    profile = load_profile(Cell.from_json(cell).profile)
    error_pct = config.error_pct if config.error_pct is not None else fit_error_pct(profile)
    return [profile, *moved_profiles(profile, rows, error_pct, config.samples, config.seed)]


def _scores(case: Case, profiles: Sequence[ServingProfile], config: RobustnessConfig) -> Iterator[dict[str, object]]:
    """One record for each candidate and each profile; number 0 is the profile itself.

    No placement is not feasible under any profile.
    """
    texts = list(dict.fromkeys(row.placement for row in case.rows if row.placement is not None))
    workload = None
    if texts:
        cell = next(row.cell for row in case.rows if row.placement is not None)
        workload = build_workload(Cell.from_json(cell).workload, profiles[0])
        _check(workload, case)
    for sample, profile in enumerate(profiles):
        scores: dict[str, Score] = {}
        if workload is not None:
            # Solvers often give the same placement.
            for text in texts:
                placement = Placement.from_json(text)
                scores[text] = score_placement(workload, placement, profile, threads=config.threads)
        for row in case.rows:
            score = None if row.placement is None else scores[row.placement]
            yield {
                "instance": json.dumps(case.key),
                "objective": row.objective,
                "solver": row.solver_label,
                "sample": sample,
                "feasible": score is not None and score.feasible,
                "cost": np.inf if score is None else _cost(row, score),
                "headroom": np.nan if score is None else score.headroom,
                **_settings(config),
            }


def _cost(row: Row, score: Score) -> float:
    """What the objective compares: GPUs, or the one of three latencies that its key holds."""
    if row.objective != "min_latency" or row.objective_key is None:
        return float(score.gpus)
    key = row.objective_key[1]
    values = {name: getattr(row, name) for name in ("e2e_ms", "itl_ms", "ttft_ms")}
    metric = min(values, key=lambda name: abs((values[name] or np.inf) - key))
    return float(getattr(score, metric))


def _check(workload: Workload, case: Case) -> None:
    row = case.rows[0]
    if workload.ranks.tolist() != row.adapter_ranks or not np.allclose(workload.rates, row.adapter_rates or []):
        raise UserError(f"workload {row.workload_label}: what its row says no longer makes the same adapters")


def _settings(config: RobustnessConfig) -> dict[str, float]:
    return {
        "samples": config.samples,
        "seed": config.seed,
        "error_pct": -1.0 if config.error_pct is None else config.error_pct,
    }


def _done(out: Path, config: RobustnessConfig) -> dict[str, pd.DataFrame]:
    """Instances that an earlier, interrupted run has finished."""
    if not out.exists():
        return {}
    table = pd.read_parquet(out)
    for name, value in _settings(config).items():
        if name not in table or not np.isclose(table[name], value).all():
            raise UserError(f"out={out}: holds scores made with another {name}; remove it or name another file")
    return {str(key): frame for key, frame in table.groupby("instance", sort=False)}


def _table(changes: RankChanges) -> Table:
    """One line for each solver, the best mean rank first."""
    table = Table(header_style="bold")
    for name in (
        "solver",
        "instances",
        "mean cost\n(where feasible)",
        "over the\nleast",
        "feasible",
        "feasible,\nmoved",
    ):
        table.add_column(name, justify="left" if name == "solver" else "right", overflow="fold")
    for line in changes.solvers:
        cost, ratio = ("" if np.isnan(value) else f"{value:.3f}" for value in (line.cost, line.ratio))
        table.add_row(
            Text(line.solver), str(line.instances), cost, ratio, f"{line.feasible:.1%}", f"{line.feasible_moved:.1%}"
        )
    return table


def _csv(changes: RankChanges) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([each.name for each in fields(SolverStability)])
    for line in changes.solvers:
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in asdict(line).values()])
    return text.getvalue()


def _write(table: pd.DataFrame, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    table.to_parquet(temporary, index=False)
    temporary.replace(out)


if __name__ == "__main__":
    main()
