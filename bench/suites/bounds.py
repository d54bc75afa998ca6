"""Best known figures of instances, and whether the rows of a run contradict a bound."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from bench.comparison.rows import Row, gather, read_rows
from bench.comparison.sources import source_hash
from bench.suites.instance import Instance
from bench.suites.library import BestKnown
from twin import PUBLISHED, UserError, load_profile

#: What makes a workload and what scores a placement of it: with all that they import, these decide the figures.
DECIDING = ("twin.builders", "twin.score")

#: What is known of an instance before anybody has solved it.
TRIVIAL = "trivial: there are adapters"


def read_results(names: Iterable[str]) -> list[Row]:
    """Rows of files and of all runs in folders.

    Raises
    ------
    UserError
        If there is no such file or folder, or there are no rows.
    """
    rows: list[Row] = []
    for name in names:
        path = Path(name)
        found = gather(path) if path.is_dir() else read_rows(path)
        if not found:
            raise UserError(f"{name}: holds no rows")
        rows += found
    return rows


def proven_bound(row: Row) -> int | None:
    """Lower bound of a row for the twin itself; a bound for a predictor says nothing about the twin."""
    if row.lower_bound is None or json.loads(row.details).get("oracle") != "twin":
        return None
    return row.lower_bound


def best_bounds(rows: Iterable[Row], known: Mapping[str, int], service: str = PUBLISHED.name) -> dict[str, int]:
    """Best lower bound of each instance under a service level: what the rows carry or prove, or what was known before.

    A solver's claim that another's feasible placement refutes is none (`violations` tells of it).
    """
    bounds = dict(known)
    rows = [row for row in rows if row.service == service]
    fewest = _fewest(rows)
    for row in rows:
        claimed = proven_bound(row)
        if claimed is not None and claimed > fewest.get(row.instance, claimed):
            claimed = None
        for bound in (claimed, row.best_bound):
            if bound is not None:
                bounds[row.instance] = max(bound, bounds.get(row.instance, bound))
    return bounds


def _fewest(rows: Iterable[Row]) -> dict[str, int]:
    """The fewest GPUs of a feasible placement, by instance."""
    fewest: dict[str, int] = {}
    for row in rows:
        if row.feasible and row.gpus is not None:
            fewest[row.instance] = min(row.gpus, fewest.get(row.instance, row.gpus))
    return fewest


def improved(
    instances: Sequence[Instance],
    known: Mapping[str, BestKnown],
    rows: Iterable[Row],
    command: str,
    service: str = PUBLISHED.name,
) -> dict[str, BestKnown]:
    """What is known of each instance after a run: the larger bound and the fewer GPUs of before and now.

    Figures of another twin or profile are dropped. Rows of other workloads, of an instance with options changed, or of another
    service level are left out.

    Parameters
    ----------
    instances : sequence of Instance
    known : mapping of str to BestKnown
    rows : iterable of Row
    command : str
        That made the rows.
    service : str
        Name of the service level.
    """
    by_id = {instance.id: instance for instance in instances}
    best: dict[str, BestKnown] = {}
    for instance in instances:
        mark = fingerprint(instance.profile)
        old = known.get(instance.id)
        if old is None or old.twin != mark:
            old = BestKnown(instance.id, 1, TRIVIAL, None, "", "", mark, service)
        best[instance.id] = old
    for row in rows:
        owner = by_id.get(row.workload)
        if owner is None or row.service != service or not is_of(row, owner):
            continue
        best[row.workload] = _better(best[row.workload], row, command)
    # A claim that a feasible placement refutes is no bound.
    for name, found in best.items():
        if found.gpus is not None and found.lower_bound > found.gpus:
            old = known.get(name)
            stands = old is not None and old.twin == found.twin and old.lower_bound <= found.gpus
            bound, prover = (old.lower_bound, old.lower_bound_solver) if old is not None and stands else (1, TRIVIAL)
            best[name] = replace(found, lower_bound=bound, lower_bound_solver=prover)
    return best


def is_of(row: Row, instance: Instance) -> bool:
    """Whether a row is of an instance as it stands in the suite, no option changed."""
    return (row.workload, row.workload_options, row.seed, row.profile, row.duration_s) == (
        instance.id,
        "",
        instance.seed,
        load_profile(instance.profile).name,
        instance.duration_s,
    )


def _better(old: BestKnown, row: Row, command: str) -> BestKnown:
    who = f"{row.solver_label} ({row.time_limit_s:g} s)"
    new = old
    bound = proven_bound(row)
    if bound is not None and bound > old.lower_bound:
        new = replace(new, lower_bound=bound, lower_bound_solver=who, command=command)
    if row.feasible and row.gpus is not None and (old.gpus is None or row.gpus < old.gpus):
        new = replace(new, gpus=row.gpus, gpus_solver=who, command=command)
    return new


@cache
def fingerprint(profile: str) -> str:
    """Twelve hexadecimal digits of the twin's code and a serving profile: figures hold for these.

    Comments, docstrings, layout and where a profile came from do not count.
    """
    code = source_hash(DECIDING)
    values = asdict(load_profile(profile))
    values.pop("provenance")
    text = code + json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
