"""What the report is of: the rows of a comparison, their instances and statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

from bench.comparison.rows import Row
from bench.reporting.content import LegendEntry, slug, unique_slugs
from bench.reporting.drawing import series
from bench.statistics.instances import Case, Instance, cases
from bench.statistics.summary import Statistics, by_track, statistics_of


@dataclass(frozen=True)
class WorkloadCases:
    """One workload (with profile, objective and limits) and its instances, one for each seed.

    Attributes
    ----------
    name, label : str
        Anchor; for people.
    cases : tuple of Case
    """

    name: str
    label: str
    cases: tuple[Case, ...]

    @property
    def first(self) -> Row:
        """Some row, for what they have in common."""
        return self.cases[0].rows[0]

    @property
    def link(self) -> str:
        """Where its page is."""
        return f"#{self.name}"


class Study:
    """Rows and everything that follows from them.

    Parameters
    ----------
    rows : sequence of Row, at least one
    samples, seed : int
        Of the bootstrap.
    """

    def __init__(self, rows: Sequence[Row], *, samples: int, seed: int) -> None:
        self.rows = list(rows)
        self.cases = cases(rows)
        self.statistics: dict[str, Statistics] = {
            track: statistics_of(group, samples=samples, seed=seed) for track, group in by_track(self.cases).items()
        }

    @property
    def tracks(self) -> Iterator[tuple[str, str, Statistics]]:
        """Statistics of each objective and service level, with what their names and titles end with: nothing if there is one."""
        for track, statistics in self.statistics.items():
            yield (
                (f"-{slug(track)}", f", objective {track}", statistics)
                if len(self.statistics) > 1
                else ("", "", statistics)
            )

    @cached_property
    def solvers(self) -> list[str]:
        """Solvers, the best of the first track first."""
        return list(dict.fromkeys(name for one in self.statistics.values() for name in one.paired.solvers))

    @cached_property
    def series(self) -> dict[str, LegendEntry]:
        """Colour and dash of each solver, the same in all charts."""
        return series(self.solvers)

    @cached_property
    def workloads(self) -> list[WorkloadCases]:
        """Workloads in the order of the rows."""
        groups: dict[tuple[object, ...], list[Case]] = {}
        for case in self.cases:
            groups.setdefault(case.cluster, []).append(case)
        labels = self._labels(list(groups))
        names = unique_slugs([f"workload {label}" for label in labels])
        return [
            WorkloadCases(name, label, tuple(group))
            for name, label, group in zip(names, labels, groups.values(), strict=True)
        ]

    def workload_of(self, case: Case) -> WorkloadCases:
        """The workload of an instance."""
        return self._workload_of[case.key]

    @cached_property
    def _workload_of(self) -> dict[Instance, WorkloadCases]:
        return {case.key: workload for workload in self.workloads for case in workload.cases}

    def in_turn(self) -> list[Case]:
        """Instances, the first one of each workload first, then the second ones: what of many is shown where not all are."""
        return [case for turn in zip_longest(*(workload.cases for workload in self.workloads)) for case in turn if case]

    @staticmethod
    def _labels(clusters: Sequence[tuple[object, ...]]) -> list[str]:
        """A label for each workload, with what tells it from others of the same name."""
        labels = [str(cluster[0]) for cluster in clusters]
        heads = ("", "", "", "time limit ", "GPU limit ")
        for place in range(1, 5):
            if len({cluster[place] for cluster in clusters}) > 1:
                labels = [
                    label if cluster[place] is None else f"{label} · {heads[place]}{cluster[place]}"
                    for label, cluster in zip(labels, clusters, strict=True)
                ]
        return labels
