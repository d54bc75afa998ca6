"""`python -m bench.suite`: lists, checks and makes the workload suite, and keeps its best known GPU counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from bench.comparison.rows import Row
from bench.shared.command import command
from bench.shared.files import check_folder
from bench.shared.terminal import console, tracked
from bench.statistics.contradictions import all_contradictions
from bench.suites.bounds import fingerprint, improved, read_results
from bench.suites.costs import BestCost, fleet_fingerprint, improved_costs, read_best_costs, write_best_costs
from bench.suites.instance import Instance, check_instance
from bench.suites.library import (
    FOLDER,
    BestKnown,
    instance_path,
    load_suite,
    read_benchmark,
    read_best_known,
    write_benchmark,
    write_best_known,
    write_instances,
)
from twin import UserError
from twin.service import NAMED, PUBLISHED

ACTIONS = ("list", "check", "generate", "select", "update", "stamp")


@dataclass
class SuiteConfig:
    """Options of `python -m bench.suite`.

    Attributes
    ----------
    action : str
        One of `ACTIONS`.
    tier : str
        Which instances: benchmark, collection, or fleets (of several GPU types).
    tags, ids : list of str
        Only instances with all of these tags; only these instances.
    folder : str, optional
        Where the suite lies; by default the shipped one.
    results : list of str
        For update: files or folders with rows of runs. For stamp: such rows of the twin that the figures hold for.
    command : str
        For update: the command that made them.
    level : str
        For list and check: the named service level whose figures are meant. Update and stamp take all levels of the rows.
    """

    action: str = "list"
    tier: str = "collection"
    tags: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    folder: str | None = None
    results: list[str] = field(default_factory=list)
    command: str = ""
    level: str = PUBLISHED.name


@command("suite", SuiteConfig)
def main(config: SuiteConfig) -> None:
    """Do one of the actions."""
    folder = Path(config.folder) if config.folder else FOLDER
    if config.action not in ACTIONS:
        raise UserError(f"action={config.action}: must be one of {', '.join(ACTIONS)}")
    if config.level not in NAMED:
        raise UserError(f"level={config.level}: must be one of {', '.join(NAMED)}")
    if config.action not in ("list", "check"):
        check_folder("folder", str(folder))
    if config.action == "generate":
        _generate(folder)
    elif config.action == "select":
        _select(folder)
    elif config.action == "update":
        _update(folder, config)
    elif config.action == "stamp":
        _stamp(folder, config)
    else:
        instances = load_suite(config.tier, folder, tags=config.tags, ids=config.ids)
        if config.action == "check":
            _check(instances, folder, config.level)
        else:
            _list(instances, folder, config.level)


def _generate(folder: Path) -> None:
    from bench.suites.generate import collection
    from bench.suites.generate_fleets import fleets

    instances = [*collection(), *fleets()]
    write_instances(instances, folder)
    console().print(f"{len(instances)} instances in {folder / 'instances'}", soft_wrap=True)


def _select(folder: Path) -> None:
    from bench.suites.select import select

    ids = select(load_suite("collection", folder))
    write_benchmark(ids, folder)
    console().print(f"{len(ids)} instances in {folder / 'benchmark.txt'}", soft_wrap=True)


def _check(instances: Sequence[Instance], folder: Path, service: str) -> None:
    """Read every file, build every workload, and compare the best known figures with the twin of today."""
    known = read_best_known(folder, service)
    for instance in tracked(instances, "checking"):
        check_instance(instance, instance_path(instance.id, folder, fleet=bool(instance.fleet)))
    marks = {name: best.twin for name, best in known.items()}
    marks |= {name: best.twin for name, best in read_best_costs(folder, service).items()}
    without = [instance.id for instance in instances if instance.id not in marks]
    stale = [i.id for i in instances if i.id in marks and marks[i.id] != _mark(i)]
    terminal = console()
    terminal.print(f"{len(instances)} instances are well formed")
    if without:
        terminal.print(f"{len(without)} have no best known figures, the first is {without[0]}")
    if stale:
        terminal.print(
            f"{len(stale)} have figures of another twin or profile, the first is {stale[0]}: solve them again"
        )


def _mark(instance: Instance) -> str:
    """Fingerprint of the twin and of all that an instance's figures hold for."""
    return fleet_fingerprint(instance.fleet) if instance.fleet else fingerprint(instance.profile)


def _list(instances: Sequence[Instance], folder: Path, service: str) -> None:
    known = read_best_known(folder, service)
    costs = read_best_costs(folder, service)
    try:
        benchmark = set(read_benchmark(folder))
    except UserError:
        benchmark = set()
    table = Table("instance", "profile", header_style="bold")
    what = "cost" if all(instance.fleet for instance in instances) else "GPUs"
    for column in ("adapters", "requests/s", what, "bound"):
        table.add_column(column, justify="right")
    table.add_column("benchmark")
    table.add_column("tags", overflow="fold")
    for instance in instances:
        workload = instance.workload()
        best = known.get(instance.id)
        table.add_row(
            instance.id,
            instance.profile,
            str(workload.n_adapters),
            f"{workload.total_rate:.1f}",
            *(_costs(costs.get(instance.id)) if instance.fleet else _figures(best)),
            "yes" if instance.id in benchmark else "",
            " ".join(instance.tags),
        )
    terminal = console()
    terminal.print(table)
    if what == "cost":
        gaps = [found.gap for i in instances if (found := costs.get(i.id)) and found.gap is not None]
        closed = sum(gap < 1e-9 for gap in gaps)
        mean = f", {sum(gaps) / len(gaps):.1%} above its bound in the mean" if gaps else ""
        terminal.print(f"{len(instances)} instances; of {closed} the least cost is proven (for the twin){mean}")
        return
    proven = sum(1 for i in instances if i.id in known and known[i.id].gpus == known[i.id].lower_bound)
    terminal.print(f"{len(instances)} instances; of {proven} the fewest GPUs are proven (for the twin)")


def _figures(best: BestKnown | None) -> tuple[str, str]:
    if best is None:
        return "", ""
    return "" if best.gpus is None else str(best.gpus), str(best.lower_bound)


def _costs(best: BestCost | None) -> tuple[str, str]:
    if best is None:
        return "", ""
    return "" if best.cost is None else f"{best.cost:g}", f"{best.cost_bound:g}"


def _update_costs(folder: Path, rows: Sequence[Row], command: str) -> None:
    """The table of costs, by rows of instances with fleets."""
    instances = load_suite("fleets", folder)
    for level in [name for name in NAMED if any(row.service == name for row in rows)]:
        before = read_best_costs(folder, level)
        after = improved_costs(instances, before, rows, command, level)
        write_best_costs(after, folder, level)
        changed = sum(after[name] != before.get(name) for name in after)
        console().print(f"{level}: {changed} of {len(after)} costs changed", soft_wrap=True)


def _update(folder: Path, config: SuiteConfig) -> None:
    if not config.results:
        raise UserError("results must be given: results=[FILE_OR_FOLDER,...] with the rows of runs on the suite")
    instances = load_suite("collection", folder)
    rows = read_results(config.results)
    wrong = all_contradictions(rows)
    if wrong:
        raise UserError(f"{wrong[0]}: nothing is written")
    of_fleets, rows = [row for row in rows if row.fleet], [row for row in rows if not row.fleet]
    if of_fleets:
        _update_costs(folder, of_fleets, config.command)
    if not rows:
        return
    terminal = console()
    levels = [name for name in NAMED if any(row.service == name for row in rows)]
    table = Table("instance", "service", "bound", "GPUs", "from", header_style="bold")
    changed = total = 0
    for level in levels:
        before = read_best_known(folder, level)
        # Of another level than the published rule only what somebody has solved is known.
        mine = instances if level == PUBLISHED.name else _solved(instances, rows, level, before)
        after = improved(mine, before, rows, config.command, level)
        write_best_known(after, folder, level)
        total += len(after)
        for name in sorted(after):
            if after[name] != before.get(name):
                changed += 1
                table.add_row(*_change(before.get(name), after[name]))
    if changed:
        terminal.print(table)
    terminal.print(f"{changed} of {total} figures changed in {folder / 'best_known.csv'}", soft_wrap=True)


def _solved(
    instances: Sequence[Instance], rows: Sequence[Row], level: str, before: Mapping[str, BestKnown]
) -> list[Instance]:
    there = {row.instance for row in rows if row.service == level} | set(before)
    return [instance for instance in instances if instance.id in there]


def _change(old: BestKnown | None, new: BestKnown) -> tuple[str, ...]:
    return (
        new.id,
        new.service,
        f"{old.lower_bound if old else '-'} -> {new.lower_bound}",
        f"{old.gpus if old else '-'} -> {new.gpus}",
        f"{new.lower_bound_solver}, {new.gpus_solver}",
    )


def _stamp(folder: Path, config: SuiteConfig) -> None:
    from bench.suites.stamp import stamped

    if not config.results:
        raise UserError(
            "results must be given: results=[results/reference], rows of the twin that the figures hold for"
        )
    instances = load_suite("collection", folder)
    rows = read_results(config.results)
    for level in NAMED.values():
        before = read_best_known(folder, level.name)
        if not before:
            continue
        if level != PUBLISHED and not any(row.service == level.name for row in rows):
            console().print(f"{level.name}: no rows of this level, its figures keep their mark", soft_wrap=True)
            continue
        after, shown = stamped(instances, before, rows, level)
        write_best_known(after, folder, level.name)
        changed = sum(after[name] != before[name] for name in before)
        console().print(
            f"{level.name}: {shown.placements} placements on {shown.instances} instances simulated again: as in the rows. "
            f"{changed} of {len(after)} instances stamped in {folder / 'best_known.csv'}",
            soft_wrap=True,
        )


if __name__ == "__main__":
    main()
