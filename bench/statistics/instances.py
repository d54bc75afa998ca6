"""Instances: what candidates must share to be compared, and what is known of the best answer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.comparison.rows import Row

#: The oracle that scores every placement as well, so that a bound for it is one on the score.
TWIN = "twin"

#: Workload, profile, objective, time limit, GPU limit, seed.
Instance = tuple[str, str, str, float | None, int | None, int]


def instance(row: Row) -> Instance:
    """What candidates must share to be compared: workload, profile, objective, time limit, GPU limit, seed."""
    gpus = None if row.fleet_searched else row.gpu_limit
    return (row.workload_label, row.profile, row.objective, row.time_limit_s, gpus, row.seed)


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Candidates in the order of the objective, feasible ones first; ties keep their order."""
    return sorted(rows, key=lambda row: row.rank_key)


def by_instance(rows: Sequence[Row]) -> dict[Instance, list[Row]]:
    """Candidates that were compared with each other, ranked."""
    groups: dict[Instance, list[Row]] = defaultdict(list)
    for row in rows:
        groups[instance(row)].append(row)
    return {key: ranked(group) for key, group in groups.items()}


def fewest_gpus(rows: Iterable[Row]) -> int | None:
    """The fewest GPUs of a placement that the twin calls feasible; None without one."""
    return min((row.gpus for row in rows if row.feasible and row.gpus is not None), default=None)


@dataclass(frozen=True)
class Case:
    """One instance with its candidates.

    Attributes
    ----------
    key : tuple
        As `instance` gives it.
    rows : tuple of Row
        Ranked; one for each solver.
    """

    key: Instance
    rows: tuple[Row, ...]

    @property
    def cluster(self) -> tuple[object, ...]:
        """The instance without its seed: what is not independent of each other shares it."""
        return self.key[:-1]

    @property
    def service(self) -> str:
        """Name of the service level."""
        return self.rows[0].service

    @cached_property
    def by_solver(self) -> dict[str, Row]:
        """The candidate of each solver."""
        return {row.solver_label: row for row in self.rows}

    @cached_property
    def best_known(self) -> int | None:
        """The fewest GPUs of a placement that the twin calls feasible."""
        return fewest_gpus(self.rows)

    @cached_property
    def _bounds(self) -> tuple[int | None, str]:
        found = [(row.lower_bound, oracle_of(row)) for row in self.rows if row.lower_bound is not None]
        # What a suite knows of the instance is a bound for the twin.
        found += [(row.best_bound, TWIN) for row in self.rows if row.best_bound is not None]
        of_twin = [bound for bound, oracle in found if oracle == TWIN]
        if of_twin:
            return max(of_twin), TWIN
        return max(found, default=(None, ""))

    @property
    def proven_bound(self) -> int | None:
        """The largest lower bound that a solver claims for the twin; without one, that for any other oracle."""
        return self._bounds[0]

    @property
    def bound_oracle(self) -> str:
        """Whose answers the bound is proven for: "twin", a predictor's name, or "" where nobody says."""
        return self._bounds[1]

    @property
    def bound_refuted(self) -> bool:
        """Whether the twin calls a placement feasible that has fewer GPUs than the bound: the oracle was wrong."""
        return self.best_known is not None and self.proven_bound is not None and self.best_known < self.proven_bound

    @property
    def lower_bound(self) -> int | None:
        """The largest lower bound that no feasible placement refutes."""
        if self.proven_bound is None or self.best_known is None:
            return self.proven_bound
        return min(self.proven_bound, self.best_known)


def oracle_of(row: Row) -> str:
    """What decided for the solver whether a GPU content is feasible, as far as its details tell."""
    return str(json.loads(row.details or "{}").get("oracle", ""))


def cases(rows: Sequence[Row]) -> list[Case]:
    """Instances with their candidates, in the order of the rows; of several rows of a solver the last one counts."""
    latest: dict[tuple[Instance, str], Row] = {}
    for row in rows:
        latest[instance(row), row.solver_label] = row
    return [Case(key, tuple(group)) for key, group in by_instance(list(latest.values())).items()]


def mean_ranks(group: Sequence[Row]) -> dict[str, float]:
    """Rank of each solver among the candidates of an instance, 1 is best; ties share the mean of their ranks."""
    keys = [row.rank_key for row in group]
    return {
        row.solver_label: sum(key < row.rank_key for key in keys) + (keys.count(row.rank_key) + 1) / 2 for row in group
    }
