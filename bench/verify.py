"""`python -m bench.verify ROWS`: placements and certificates of rows checked again, by the twin and by exact arithmetic alone.

Nothing of `solvers` is imported. A bound rests on contents that fall short, simulated again; zones that hold what they leave; and prices.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import MISSING
from rich.table import Table

from bench.certificates.adding_up import RefusedError
from bench.certificates.proof import prove
from bench.comparison.rows import Row, read_any
from bench.shared.command import command
from bench.shared.terminal import console, tracked
from twin import Placement, ServiceLevel, ServingProfile, UserError, Workload, load_profile, score_placement

#: Modules of what a workload in a row may name.
KNOWN = ("twin.builders", "twin.lengths", "twin.arrivals")
#: How it begins when a certificate or a placement is not what the row says, and the exit code then.
WRONG = ("WRONG", "REFUSED", "CONTRADICTION")
REFUTED = 3


@dataclass
class VerifyConfig:
    """Options of `python -m bench.verify`; `conf/verify.yaml` says what each is for."""

    rows: str = MISSING
    solvers: list[str] = field(default_factory=list)
    instances: list[str] = field(default_factory=list)


@command("verify", VerifyConfig, positional="rows")
def main(config: VerifyConfig) -> None:
    """Check every row with a lower bound, print what was and was not proven; exit code 3 if something is wrong."""
    rows = [row for row in read_any(Path(config.rows)) if row.lower_bound is not None]
    if not rows:
        raise UserError(f"rows={config.rows}: no row has a lower bound")
    for option, names in (("solvers", config.solvers), ("instances", config.instances)):
        of = [row.solver if option == "solvers" else row.instance or row.workload for row in rows]
        if strange := [name for name in names if name not in of]:
            raise UserError(f"{option}={strange[0]}: not among those with a bound: {', '.join(sorted(set(of)))}")
        rows = [row for row, name in zip(rows, of, strict=True) if not names or name in names]
    table = Table("instance", "solver", "GPUs", "placement", "bound", "proven", "by", header_style="bold")
    proven, wrong = 0, []
    for row in tracked(rows, "verifying"):
        placement, bound, how = checked(row)
        name = row.instance or row.workload_label
        shown = "" if bound is None else str(min(bound, row.lower_bound or bound))
        table.add_row(name, row.solver_label, str(row.gpus or ""), placement, str(row.lower_bound), shown, how)
        proven += bound is not None and bound >= (row.lower_bound or 0)
        wrong += [f"{name}: {row.solver_label}: {text}" for text in (placement, how) if text.startswith(WRONG)]
    terminal = console()
    terminal.print(table)
    terminal.print(
        f"{proven} of {len(rows)} bounds were proven again. Taken for granted: the serving profile, the requests of each seed, that what "
        "asks for more of everything is served no sooner, and that a replica asks for its share"
    )
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    if wrong:
        sys.exit(REFUTED)


def checked(row: Row) -> tuple[str, int | None, str]:
    """What holds of a row: its placement in words, the lower bound that was proven again if any, and how."""
    try:
        cell = json.loads(row.cell or "{}")
        profile, service = load_profile(cell["profile"]), ServiceLevel(**cell.get("service", {}))
        workload = workload_of(cell["workload"], profile)
    except (KeyError, TypeError, ValueError, UserError) as error:
        return "not made again", None, f"not made again: {error}"
    placement, bound, how = "", row.lower_bound, "nothing to prove"
    try:
        placement = _placement(row, workload, profile, service)
        if (row.lower_bound or 0) > 1:
            bound, how = (None, "not proven: no certificate")
            if row.certificate is not None:
                bound, how = prove(row.certificate, workload, profile, service)
    except RefusedError as why:
        return (placement, None, f"REFUSED: {why}") if placement else (f"WRONG: {why}", None, "")
    if row.feasible and row.gpus is not None and (row.lower_bound or 0) > row.gpus:
        return placement, None, f"CONTRADICTION: {row.lower_bound} GPUs are said to be needed"
    by = json.loads(row.details).get("bound_by") or "a step that it does not name"
    rest = f"; the rest is by {by}, not proven again" if bound and bound < (row.lower_bound or 0) else ""
    return placement, bound, how + rest


def _placement(row: Row, workload: Workload, profile: ServingProfile, service: ServiceLevel) -> str:
    """What the twin says of a row's placement, if that is what the row says."""
    if row.placement is None:
        return "none"
    placement = Placement.from_json(row.placement)
    try:
        placement.check(workload)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    feasible = score_placement(workload, placement, profile, service=service).feasible
    if (placement.n_gpus, feasible) != (row.gpus, row.feasible):
        raise RefusedError(f"{placement.n_gpus} GPUs, {'' if feasible else 'not '}feasible")
    return "feasible" if feasible else "fails, as the row says"


def workload_of(options: Mapping[str, Any], profile: ServingProfile) -> Workload:
    """The workload that a cell describes; `UserError` if it names anything but builders, lengths and arrivals of the twin."""
    _check_names(options)
    workload = instantiate(options, _partial_=True, _convert_="all")(profile)
    if not isinstance(workload, Workload):
        raise UserError(f"{options['_target_']} makes no workload")
    return workload


def _check_names(value: object) -> None:
    for key, entry in value.items() if isinstance(value, Mapping) else ():
        if str(key).startswith("_") and (key != "_target_" or str(entry).rpartition(".")[0] not in KNOWN):
            raise UserError(f"the workload names {key}={entry}, which is not of {', '.join(KNOWN)}")
        _check_names(entry)
    for entry in value if isinstance(value, list) else ():
        _check_names(entry)


if __name__ == "__main__":
    main()
