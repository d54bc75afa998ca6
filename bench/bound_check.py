"""`python -m bench.bound_check RESULTS`: whether what the twin accepts contradicts the bounds that `exact` proves with it.

A bound rests on contents of a GPU that starve beyond doubt, and on everything that asks for more starving too (`solvers.zone_bound`). Both
hold up to the chance of single requests, so both are put to the test on contents that were not asked about: those of all feasible
placements in the rows, and, to look for luck on purpose, what these become when adapters are exchanged for busier ones as long as the
twin accepts it. The bound's prices say that no accepted content costs more than 1.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

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
from bench.suites.library import write_text
from bench.table import console
from solvers.base import Problem
from solvers.exact_bounds import Bounds
from solvers.exact_state import SearchState
from solvers.objectives.min_gpus import MinGpus
from solvers.packing import Deadline
from solvers.twin_oracle import TwinOracle
from twin import Placement, UserError, load_profile

#: Rounding of prices that are sums of hundreds.
ROUNDING = 1e-6


@dataclass
class BoundCheckConfig:
    """Options of `python -m bench.bound_check`; `conf/bound_check.yaml` says what each is for.

    Attributes
    ----------
    rows : str
        Folder or Parquet file.
    instances : list of str
        Only these, if any.
    seconds : float
        For the bound of an instance.
    gpus, exchanges, seed : int
        GPUs from which luck is looked for, and exchanges tried on each; of the draws.
    table : str, optional
        CSV file.
    """

    rows: str = MISSING
    instances: list[str] = field(default_factory=list)
    seconds: float = 15.0
    gpus: int = 8
    exchanges: int = 150
    seed: int = 0
    table: str | None = None


@dataclass(frozen=True)
class Checked:
    """What accepted contents say of one bound.

    Attributes
    ----------
    instance : str
    bound : float
        Before it is rounded up to whole GPUs.
    fewest : int
        GPUs of the best placement in the rows.
    cuts : int
        Contents that the bound holds for too much, each with all that ask for more.
    accepted, lucky : int
        Contents of the rows that the twin accepts, and those found by exchanges.
    ruled_out : int
        Accepted ones that ask for as much as some cut; they would not matter if they cost less than 1.
    dearest : float
        Highest price of an accepted content.
    refuting : int
        Accepted ones that cost more than 1.
    workload_seed : int
        Of the instance's requests.
    seconds, gpus, exchanges, seed
        The options that the line was made with.
    """

    instance: str
    bound: float
    fewest: int
    cuts: int
    accepted: int
    lucky: int
    ruled_out: int
    dearest: float
    refuting: int
    workload_seed: int
    seconds: float
    gpus: int
    exchanges: int
    seed: int

    @property
    def is_lower(self) -> bool:
        """Whether the bound in whole GPUs is too high with prices that no accepted content refutes."""
        return math.ceil(self.bound - ROUNDING) > math.ceil(self.bound / max(self.dearest, 1.0) - ROUNDING)


@command("bound_check", BoundCheckConfig, positional="rows")
def main(config: BoundCheckConfig) -> None:
    """Bound each instance anew, collect contents, compare; exit code 3 if a bound in whole GPUs is refuted."""
    for name, least in (("seconds", 0.0), ("gpus", 0), ("exchanges", 0)):
        if getattr(config, name) < least:
            raise UserError(f"{name}={getattr(config, name)} must be {least:g} or more")
    found = cases(read_any(Path(config.rows)))
    known = {case.key[0] for case in found}
    for name in config.instances:
        if name not in known:
            raise UserError(f"instances={name}: no such instance in the rows; there are {', '.join(sorted(known))}")
    chosen = [case for case in found if _served(case) and (not config.instances or case.key[0] in config.instances)]
    terminal = console()
    terminal.print(
        f"{len(chosen)} instances with feasible placements, {config.seconds:g} s for each bound, seed {config.seed}"
    )
    done = {} if config.table is None else _done(Path(config.table), config)
    for case in track(chosen, description="checking", transient=True, console=console()):
        if _key(case) not in done:
            done[_key(case)] = check(case, config)
        if config.table is not None:
            write_text(Path(config.table), _csv(done.values()))
    checked = [done[_key(case)] for case in chosen]
    terminal.print(_table(checked))
    total = sum(each.accepted + each.lucky for each in checked)
    lower = [each.instance for each in checked if each.is_lower]
    terminal.print(
        f"{total} accepted contents: {sum(each.ruled_out for each in checked)} ask for as much as a cut, "
        f"{sum(each.refuting for each in checked)} cost more than 1; in whole GPUs that lowers {len(lower)} bounds"
    )
    if config.table is not None:
        terminal.print(f"table    {config.table}", soft_wrap=True)
    if lower:
        terminal.print(f"refuted  {', '.join(lower)}")
        sys.exit(3)


def check(case: Case, config: BoundCheckConfig) -> Checked:
    """Bound one instance and compare.

    Parameters
    ----------
    case : Case
        With a feasible placement.
    config : BoundCheckConfig
    """
    rows = _served(case)
    cell = Cell.from_json(rows[0].cell)
    profile = load_profile(cell.profile)
    workload = build_workload(cell.workload, profile)
    problem = Problem(workload, profile, MinGpus(), time_limit_s=config.seconds)
    state = SearchState(problem, TwinOracle(workload, profile), Deadline.after(config.seconds), workers=1)
    bounds = Bounds(state)
    bounds.first()
    zones = bounds.zones
    assert zones is not None  # noqa: S101  # made by that call
    # On beyond the GPUs of the placements: the higher the prices, the stricter the test.
    zones.run(state.deadline)

    placements = [Placement.from_json(row.placement) for row in rows if row.placement is not None]
    accepted = {tuple(sorted(plan.adapters)) for placement in placements for plan in placement.gpus}
    # The oracle that bounded remembers contents; luck is looked for with one that was asked nothing.
    lucky = (
        busier_contents(min(placements, key=lambda each: each.n_gpus), TwinOracle(workload, profile), config) - accepted
    )
    ruled_out = refuting = 0
    dearest = 0.0
    for content in accepted | lucky:
        members = list(content)
        asked, rank = zones.sums[members].sum(axis=0), int(workload.ranks[members].max())
        ruled_out += any(rank >= least and (asked >= sums).all() for least, sums in zones.cuts)
        price = float(zones.prices[members].sum())
        refuting += price > 1 + ROUNDING
        dearest = max(dearest, price)
    fewest = min(placement.n_gpus for placement in placements)
    return Checked(
        case.key[0], zones.value, fewest, len(zones.cuts), len(accepted), len(lucky), ruled_out, dearest, refuting,
        case.key[-1], **_settings(config),
    )  # fmt: skip


def busier_contents(placement: Placement, oracle: TwinOracle, config: BoundCheckConfig) -> set[tuple[int, ...]]:
    """Contents that the twin accepts after adapters were added, or exchanged for busier ones, time and again.

    Parameters
    ----------
    placement : Placement
        Accepted by the oracle.
    oracle : TwinOracle
    config : BoundCheckConfig
    """
    generator = np.random.default_rng(config.seed)
    load = oracle.loads
    found: set[tuple[int, ...]] = set()
    for plan in placement.gpus[: config.gpus]:
        content, slots = set(plan.adapters), plan.max_loras
        for _ in range(config.exchanges):
            outside = np.setdiff1d(np.arange(len(load)), list(content))
            if not len(outside):
                break
            coming = int(generator.choice(outside))
            leaving = int(generator.choice(sorted(content)))
            trial = content | {coming}
            if generator.random() < 0.6:
                if load[coming] <= load[leaving]:
                    continue
                trial -= {leaving}
            adapters = tuple(sorted(trial))
            near = [slots, *(value for value in oracle.slots(adapters) if slots / 2 <= value <= 2 * slots)]
            accepting = next((value for value in near if oracle.accepts(adapters, value)), None)
            if accepting is not None:
                content, slots = trial, accepting
                found.add(adapters)
    return found


def _served(case: Case) -> list[Row]:
    """Rows whose placements the twin calls feasible, each adapter on one GPU."""
    return [
        row
        for row in case.rows
        if row.feasible
        and row.gpus
        and row.placement
        and row.cell
        and not Placement.from_json(row.placement).has_replicas
    ]


def _key(case: Case) -> tuple[str, int]:
    return case.key[0], case.key[-1]


def _settings(config: BoundCheckConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("seconds", "gpus", "exchanges", "seed")}


def _done(table: Path, config: BoundCheckConfig) -> dict[tuple[str, int], Checked]:
    """Instances that an earlier, interrupted run has finished."""
    if not table.exists():
        return {}
    frame = pd.read_csv(table)
    for name, value in _settings(config).items():
        if name not in frame or not np.isclose(frame[name], value).all():
            raise UserError(f"table={table}: holds lines made with another {name}; remove it or name another file")
    names = [each.name for each in fields(Checked)]
    lines = [Checked(*values) for values in frame[names].itertuples(index=False)]
    return {(line.instance, line.workload_seed): line for line in lines}


def _table(checked: Sequence[Checked]) -> Table:
    table = Table(header_style="bold")
    for name in ("instance", "bound", "fewest", "cuts", "accepted", "lucky", "as much\nas a cut", "dearest", "over 1"):
        table.add_column(name, justify="left" if name == "instance" else "right", overflow="fold")
    for each in checked:
        table.add_row(
            Text(each.instance), f"{each.bound:.3f}", str(each.fewest), str(each.cuts), str(each.accepted), str(each.lucky),
            str(each.ruled_out), f"{each.dearest:.3f}", str(each.refuting),
        )  # fmt: skip
    return table


def _csv(checked: Iterable[Checked]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([each.name for each in fields(Checked)])
    for line in checked:
        writer.writerow([f"{value:.4f}" if isinstance(value, float) else value for value in asdict(line).values()])
    return text.getvalue()


if __name__ == "__main__":
    main()
