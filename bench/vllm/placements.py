"""What is validated: a placement with its workload and profile, from a file of rows or from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.comparison.build import build_workload, level_of, service_of
from bench.comparison.cell import Cell, as_named_now
from bench.comparison.known import refuse_unknown
from bench.comparison.rows import Row, read_rows
from twin import PUBLISHED, Placement, ServiceLevel, ServingProfile, UserError, Workload, load_profile
from twin.inputs import read_json


@dataclass(frozen=True)
class Placed:
    """A placement, the workload that it counts the adapters of, and the profile and the service level that it was made for."""

    placement: Placement
    workload: Workload
    profile: ServingProfile
    label: str
    service: ServiceLevel = PUBLISHED

    @property
    def arriving(self) -> Workload:
        """The workload with what goes on arriving while the last judged requests are served."""
        return self.workload.lengthened(self.service.tail_s) if self.service.judges_requests else self.workload


def read_placed(  # noqa: PLR0913  # what may stand in place of the file's own
    path: str,
    *,
    solver: str | None = None,
    seed: int | None = None,
    workload: Mapping[str, Any] | None = None,
    profile: str | None = None,
    duration_s: float | None = None,
    trust: Sequence[str] = (),
) -> Placed:
    """A placement from a file.

    Parameters
    ----------
    path : str
        `rows.parquet` of `python -m bench`, or JSON: a list of {max_loras, adapters}, or an object with such a list as
        `placement` and, if they are not given here, `workload` (a builder with its options) and `profile`, and `service` (the
        numbers of a service level) where it is not the published rule.
    solver, seed : optional
        Which row of a Parquet file; the best ranked one by default.
    workload : mapping, optional
        Builder and options, for a JSON list.
    profile : str, optional
        In place of the one in the file.
    duration_s : float, optional
        A shorter window.
    trust : sequence of str
        Builders that the file may name besides those that are known.

    Raises
    ------
    UserError
        Naming the file and what is missing or wrong.
    """
    if not Path(path).is_file():
        raise UserError(f"placement={path}: no such file")
    if path.endswith(".parquet"):
        row = choose_row(read_rows(Path(path)), path, solver, seed)
        if not row.cell:
            raise UserError(f"{path}: its rows were written by an older version and do not hold their workload")
        cell = Cell.from_json(row.cell, path, trust=trust, makes=["workload"])
        _refuse_several_types(row.types, path)
        text, label = row.placement or "[]", f"{row.workload_label} seed {row.seed}, {row.solver_label}"
        workload, profile, service = cell.workload, profile or cell.profile, service_of(cell)
    elif path.endswith(".json"):
        text, workload, profile, service = _from_json(path, workload, profile, trust)
        label = Path(path).stem
    else:
        raise UserError(f"placement={path} must be a .parquet file of rows or a .json file")
    serving = load_profile(profile)
    built = build_workload(workload, serving)
    if duration_s is not None:
        built = shortened(built, duration_s)
    placement = Placement.from_json(text, path)
    try:
        placement.check(built)
    except ValueError as error:
        raise UserError(f"{path}: the placement does not fit its workload: {error}") from None
    return Placed(placement, built, serving, label, service)


def choose_row(rows: list[Row], path: str, solver: str | None, seed: int | None) -> Row:
    """The row of a solver (and seed), or the best ranked row that has a placement."""
    chosen = [
        row
        for row in rows
        if row.placement not in (None, "[]")
        and solver in (None, row.solver, row.solver_label)
        and seed in (None, row.seed)
    ]
    if not chosen:
        there = sorted({f"solver={row.solver} seed={row.seed}" for row in rows if row.placement not in (None, "[]")})
        raise UserError(f"{path}: no placement of solver={solver} seed={seed}; there are {', '.join(there) or 'none'}")
    if len({(row.workload_label, row.profile) for row in chosen}) > 1:
        raise UserError(f"{path}: rows of several workloads; a file with the rows of one is needed")
    return min(chosen, key=lambda row: row.rank_key)


def shortened(workload: Workload, duration_s: float) -> Workload:
    """The workload's first seconds: the requests that arrive in them are the same.

    Raises
    ------
    UserError
        If the workload is not as long.
    """
    if not 0 < duration_s <= workload.duration_s:
        raise UserError(
            f"duration_s={duration_s:g} must be above 0 and at most the workload's {workload.duration_s:g} seconds"
        )
    if workload.trace is None:
        return replace(workload, duration_s=duration_s)
    rows = (workload.trace.arrival_s < duration_s).nonzero()[0]
    return replace(workload, duration_s=duration_s, trace=workload.trace.take(rows))


def _refuse_several_types(types: object, path: str) -> None:
    """Servers are started and simulated with one profile here."""
    if isinstance(types, list) and len(types) > 1:
        raise UserError(
            f"{path}: the placement is on GPUs of {len(types)} types, and servers of one profile are compared here: plan for each type by "
            "itself (profile=NAME) to replay its GPUs"
        )


def _from_json(
    path: str, workload: Mapping[str, Any] | None, profile: str | None, trust: Sequence[str]
) -> tuple[str, Mapping[str, Any], str, ServiceLevel]:
    data = read_json(path, "a placement (JSON)")
    content = data if isinstance(data, dict) and "placement" in data else {"placement": data}
    if workload is None and content.get("workload") is not None:
        workload = as_named_now(content["workload"])
        refuse_unknown(workload, "workload", path, trust)
    _refuse_several_types(content.get("fleet"), path)
    profile = profile or content.get("profile")
    for key, value in (("workload", workload), ("profile", profile)):
        if value is None:
            raise UserError(f"{path}: it has no {key}; add one to the file or give {key}=NAME")
    assert workload is not None  # noqa: S101  # for the type checker
    service = content.get("service") or {}
    if not isinstance(service, dict):
        raise UserError(
            f"{path}: service={json.dumps(service)[:80]} must be an object with the numbers of a service level"
        )
    try:
        level = level_of(service)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return json.dumps(content["placement"]), workload, str(profile), level
