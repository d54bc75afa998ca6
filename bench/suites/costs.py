"""Best known costs of the instances with fleets of several GPU types, and the bounds on them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from bench.comparison.rows import Row
from bench.shared.files import write_text
from bench.suites.bounds import fingerprint, is_of
from bench.suites.instance import Instance
from bench.suites.library import FOLDER
from twin import PUBLISHED, UserError
from twin.inputs import read_text
from twin.numbers import number

_BEST_COSTS = "best_known_costs.csv"
#: Sums of prices this near are equal.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class BestCost:
    """What is known of an instance with a fleet.

    Attributes
    ----------
    id : str
        The instance.
    cost_bound : float
        No placement that the twin accepts beyond doubt costs less.
    bound_solver : str
    cost : float, optional
        Least cost of a placement that the twin calls feasible.
    cost_solver : str
    mix : str
        GPUs of each type in that placement.
    command : str
        What the figures come from.
    twin : str
        Fingerprint of the twin, the profiles and the prices that the figures hold for.
    service : str
    """

    id: str
    cost_bound: float
    bound_solver: str
    cost: float | None
    cost_solver: str
    mix: str
    command: str
    twin: str
    service: str = PUBLISHED.name

    @property
    def gap(self) -> float | None:
        """Cost above the bound, over the bound."""
        return None if self.cost is None or not self.cost_bound else max(0.0, self.cost / self.cost_bound - 1)


def fleet_fingerprint(fleet: Sequence[Mapping[str, Any]]) -> str:
    """Twelve hexadecimal digits of the twin's code, the profiles of the types, their prices and counts."""
    parts = [[fingerprint(str(kind["profile"])), kind["name"], kind["price"], kind["count"]] for kind in fleet]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def improved_costs(
    instances: Sequence[Instance],
    known: Mapping[str, BestCost],
    rows: Iterable[Row],
    command: str,
    service: str = PUBLISHED.name,
) -> dict[str, BestCost]:
    """What is known of each instance after a run: the larger bound and the lower cost of before and now.

    Parameters
    ----------
    instances : sequence of Instance
        With fleets.
    known : mapping of str to BestCost
        Figures of another twin, of other profiles or prices are dropped.
    rows : iterable of Row
    command : str
        That made the rows.
    service : str
        Name of the service level; rows of others are left out.
    """
    best: dict[str, BestCost] = {}
    for instance in instances:
        mark = fleet_fingerprint(instance.fleet)
        old = known.get(instance.id)
        if old is None or old.twin != mark:
            old = BestCost(instance.id, 0.0, "", None, "", "", "", mark, service)
        best[instance.id] = old
    by_id = {instance.id: instance for instance in instances}
    for row in rows:
        owner = by_id.get(row.workload)
        if owner is None or row.service != service or not row.fleet or not is_of(row, owner):
            continue
        best[row.workload] = _better(best[row.workload], row, command)
    return best


def _better(old: BestCost, row: Row, command: str) -> BestCost:
    who, new = f"{row.solver_label} ({row.time_limit_s:g} s)", old
    if row.feasible and row.cost is not None and (old.cost is None or row.cost < old.cost * (1 - _ROUNDING)):
        used = [kind.get("gpu_type") for kind in json.loads(row.placement or "[]")]
        mix = " + ".join(f"{used.count(kind['name'])} {kind['name']}" for kind in row.types if kind["name"] in used)
        new = replace(new, cost=round(row.cost, 6), cost_solver=who, mix=mix, command=command)
    bound = row.cost_bound
    if bound is not None and bound > old.cost_bound and (new.cost is None or bound <= new.cost * (1 + _ROUNDING)):
        new = replace(new, cost_bound=round(bound, 6), bound_solver=who, command=command)
    return new


def read_best_costs(folder: Path = FOLDER, service: str = PUBLISHED.name) -> dict[str, BestCost]:
    """What is known of each instance under a service level, by id; empty without the table.

    Raises
    ------
    UserError
        For a table with other columns or values.
    """
    return {best.id: best for best in _all(folder) if best.service == service}


def _all(folder: Path) -> list[BestCost]:
    path = folder / _BEST_COSTS
    if not path.exists():
        return []
    names = [each.name for each in fields(BestCost)]
    reader = csv.DictReader(read_text(path, f"a table with the columns {', '.join(names)}").splitlines())
    if reader.fieldnames != names:
        raise UserError(f"{path}: the columns must be {', '.join(names)}")
    found = []
    for place, line in enumerate(reader, start=2):
        if None in line or None in line.values():
            raise UserError(f"{path}: line {place}: must have a value for each of the {len(names)} columns")
        given: dict[str, Any] = dict(line)
        for name in ("cost_bound", "cost"):
            text = given[name]
            try:
                given[name] = number(name, float(text), at_least=0.0) if text or name == "cost_bound" else None
            except ValueError:
                raise UserError(f"{path}: line {place}: {name}={text!r} must be a number") from None
        found.append(BestCost(**given))
    return found


def write_best_costs(known: Mapping[str, BestCost], folder: Path = FOLDER, service: str = PUBLISHED.name) -> None:
    """Write what is known under a service level into the table, which keeps what it says of other levels."""
    kept = [best for best in _all(folder) if best.service != service] + list(known.values())
    text = io.StringIO()
    writer = csv.DictWriter(text, [each.name for each in fields(BestCost)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(best) for best in sorted(kept, key=lambda best: (best.service, best.id)))
    write_text(folder / _BEST_COSTS, text.getvalue())
