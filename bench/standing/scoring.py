"""Rows scored again by the twin before they count, each once: what was found is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.comparison.rows import Row
from bench.shared.files import write_text
from bench.suites.bounds import fingerprint
from bench.suites.instance import Instance
from bench.suites.rescoring import COUNTS, FIGURES, difference, scored_again
from twin.inputs import read_json
from twin.service import NAMED

#: Rows between two times that what was found is written down.
_KEPT_EVERY = 50


@dataclass
class Scores:
    """What the twin of today says of rows: nothing, or which figure it gives differently.

    Parameters
    ----------
    path : Path, optional
        JSON file that keeps it from one run to the next; without it everything is simulated anew.
    """

    path: Path | None = None
    _known: dict[str, str] = field(default_factory=dict, init=False)
    _new: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.is_file():
            kept = read_json(self.path, "scores of an earlier leaderboard", key="scores")
            self._known = {str(key): str(value) for key, value in kept.items()} if isinstance(kept, dict) else {}

    def check(self, row: Row, instance: Instance) -> str:
        """Why a row does not count, as "gpus was 3 and is 4"; empty if it does."""
        key = _key(row, instance)
        if key not in self._known:
            self._known[key] = _found(row, instance)
            self._new += 1
            if self._new % _KEPT_EVERY == 0:
                self.keep()
        return self._known[key]

    def keep(self) -> None:
        """Write down what was found."""
        if self.path is not None and self._new:
            write_text(self.path, json.dumps(self._known, indent=0) + "\n")


def reproduced(
    rows: Sequence[Row],
    instances: Sequence[Instance],
    scores: Scores,
    each: Callable[[Sequence[Row]], Iterable[Row]] = iter,
) -> tuple[list[Row], list[str]]:
    """The rows that the twin of today says the same of, and a line for each that it does not.

    Parameters
    ----------
    rows : sequence of Row
        Of these instances.
    instances : sequence of Instance
    scores : Scores
    each : callable
        Goes over the rows, for instance with a bar.
    """
    by_id = {instance.id: instance for instance in instances}
    good, refused = [], []
    for row in each(rows):
        found = scores.check(row, by_id[row.instance])
        if found:
            refused.append(f"{row.service}, {row.instance}: {row.solver_label}: {found}")
        else:
            good.append(row)
    scores.keep()
    return good, refused


def _found(row: Row, instance: Instance) -> str:
    if row.placement is None:
        return "feasible without a placement" if row.feasible else ""
    try:
        return difference(row, scored_again(instance, row, NAMED[row.service]))
    except ValueError as error:
        return f"no placement of this instance: {' '.join(str(error).split())[:200]}"


def _key(row: Row, instance: Instance) -> str:
    """Of all that decides what is found."""
    figures = [getattr(row, name) for name in (*COUNTS, *FIGURES)]
    parts = [instance.to_yaml(), fingerprint(instance.profile), row.service, row.placement, figures]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]
