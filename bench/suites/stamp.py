"""Best known figures taken over to a changed twin, once that is shown to say the same of placements as before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.comparison.rows import Row
from bench.suites.bounds import fingerprint, is_of
from bench.suites.instance import Instance
from bench.suites.library import BestKnown
from bench.suites.rescoring import difference, scored_again
from twin import PUBLISHED, ServiceLevel, UserError


@dataclass(frozen=True)
class Shown:
    """How it was shown that figures have not moved.

    Attributes
    ----------
    instances, placements : int
        So many placements, of so many instances, were simulated again.
    """

    instances: int
    placements: int


def stamped(
    instances: Sequence[Instance],
    known: Mapping[str, BestKnown],
    rows: Iterable[Row],
    service: ServiceLevel = PUBLISHED,
) -> tuple[dict[str, BestKnown], Shown]:
    """The best known figures with the fingerprint of today, after the twin of today has said what rows of an older one say.

    Of each instance two placements are simulated: that of the fewest GPUs which the rows call feasible, and the first one that
    they call infeasible.

    Parameters
    ----------
    instances : sequence of Instance
    known : mapping of str to BestKnown
    rows : iterable of Row
        With placements, of instances of each profile.
    service : ServiceLevel
        Only rows of this level show anything, and its figures are stamped.

    Raises
    ------
    UserError
        If a figure differs, or there is no placement for some profile.
    """
    rows = [row for row in rows if row.service == service.name]
    stale = [i for i in instances if i.id in known and known[i.id].twin != fingerprint(i.profile)]
    needed = {instance.profile for instance in stale}
    checked, placements = [], 0
    for instance in instances:
        chosen = _chosen(instance, rows) if instance.profile in needed else []
        for row in chosen:
            _compare(instance, row, service)
        if chosen:
            checked.append(instance)
            placements += len(chosen)
    without = sorted(needed - {instance.profile for instance in checked})
    if without:
        raise UserError(
            f"results: no placement on an instance of profile {without[0]}, so that nothing can be shown of it"
        )
    marks = {instance.id: replace(known[instance.id], twin=fingerprint(instance.profile)) for instance in stale}
    return {**known, **marks}, Shown(len(checked), placements)


def _chosen(instance: Instance, rows: Sequence[Row]) -> list[Row]:
    placed = [row for row in rows if row.placement and row.gpus is not None and is_of(row, instance)]
    feasible = sorted((row for row in placed if row.feasible), key=lambda row: row.gpus or 0)
    return feasible[:1] + [row for row in placed if not row.feasible][:1]


def _compare(instance: Instance, row: Row, service: ServiceLevel) -> None:
    if moved := difference(row, scored_again(instance, row, service)):
        raise UserError(
            f"{instance.id}, placement of {row.solver_label}: {moved}; solve the suite again in place of stamping its figures"
        )
