"""`python -m bench.suite`: lists, checks and makes the workload suite, and keeps its best known GPU counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from bench.shared.command import command
from bench.shared.files import check_folder
from bench.shared.terminal import console, tracked
from bench.suites.bounds import fingerprint, improved, read_results, violations
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

ACTIONS = ("list", "check", "generate", "select", "update", "stamp")


@dataclass
class SuiteConfig:
    """Options of `python -m bench.suite`.

    Attributes
    ----------
    action : str
        One of `ACTIONS`.
    tier : str
        Which instances: benchmark or collection.
    tags, ids : list of str
        Only instances with all of these tags; only these instances.
    folder : str, optional
        Where the suite lies; by default the shipped one.
    results : list of str
        For update: files or folders with rows of runs. For stamp: such rows of the twin that the figures hold for.
    command : str
        For update: the command that made them.
    """

    action: str = "list"
    tier: str = "collection"
    tags: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    folder: str | None = None
    results: list[str] = field(default_factory=list)
    command: str = ""


@command("suite", SuiteConfig)
def main(config: SuiteConfig) -> None:
    """Do one of the actions."""
    folder = Path(config.folder) if config.folder else FOLDER
    if config.action not in ACTIONS:
        raise UserError(f"action={config.action}: must be one of {', '.join(ACTIONS)}")
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
            _check(instances, folder)
        else:
            _list(instances, folder)


def _generate(folder: Path) -> None:
    from bench.suites.generate import collection

    instances = collection()
    write_instances(instances, folder)
    console().print(f"{len(instances)} instances in {folder / 'instances'}", soft_wrap=True)


def _select(folder: Path) -> None:
    from bench.suites.select import select

    ids = select(load_suite("collection", folder))
    write_benchmark(ids, folder)
    console().print(f"{len(ids)} instances in {folder / 'benchmark.txt'}", soft_wrap=True)


def _check(instances: Sequence[Instance], folder: Path) -> None:
    """Read every file, build every workload, and compare the best known figures with the twin of today."""
    known = read_best_known(folder)
    for instance in tracked(instances, "checking"):
        check_instance(instance, instance_path(instance.id, folder))
    prints = {name: fingerprint(name) for name in {instance.profile for instance in instances}}
    without = [instance.id for instance in instances if instance.id not in known]
    stale = [i.id for i in instances if i.id in known and known[i.id].twin != prints[i.profile]]
    terminal = console()
    terminal.print(f"{len(instances)} instances are well formed")
    if without:
        terminal.print(f"{len(without)} have no best known figures, the first is {without[0]}")
    if stale:
        terminal.print(
            f"{len(stale)} have figures of another twin or profile, the first is {stale[0]}: solve them again"
        )


def _list(instances: Sequence[Instance], folder: Path) -> None:
    known = read_best_known(folder)
    try:
        benchmark = set(read_benchmark(folder))
    except UserError:
        benchmark = set()
    table = Table("instance", "profile", header_style="bold")
    for column in ("adapters", "requests/s", "GPUs", "bound"):
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
            *_figures(best),
            "yes" if instance.id in benchmark else "",
            " ".join(instance.tags),
        )
    terminal = console()
    terminal.print(table)
    proven = sum(1 for i in instances if i.id in known and known[i.id].gpus == known[i.id].lower_bound)
    terminal.print(f"{len(instances)} instances; of {proven} the fewest GPUs are proven (for the twin)")


def _figures(best: BestKnown | None) -> tuple[str, str]:
    if best is None:
        return "", ""
    return "" if best.gpus is None else str(best.gpus), str(best.lower_bound)


def _update(folder: Path, config: SuiteConfig) -> None:

    if not config.results:
        raise UserError("results must be given: results=[FILE_OR_FOLDER,...] with the rows of runs on the suite")
    instances = load_suite("collection", folder)
    rows = read_results(config.results)
    before = read_best_known(folder)
    wrong = violations(rows)
    if wrong:
        raise UserError(f"{wrong[0]}: nothing is written")
    after = improved(instances, before, rows, config.command)
    changed = [name for name in sorted(after) if after[name] != before.get(name)]
    table = Table("instance", "bound", "GPUs", "from", header_style="bold")
    for name in changed:
        new, old = after[name], before.get(name)
        table.add_row(
            name,
            f"{old.lower_bound if old else '-'} -> {new.lower_bound}",
            f"{old.gpus if old else '-'} -> {new.gpus}",
            f"{new.lower_bound_solver}, {new.gpus_solver}",
        )
    terminal = console()
    if changed:
        terminal.print(table)
    write_best_known(after, folder)
    terminal.print(f"{len(changed)} of {len(after)} instances changed in {folder / 'best_known.csv'}", soft_wrap=True)


def _stamp(folder: Path, config: SuiteConfig) -> None:
    from bench.suites.stamp import stamped

    if not config.results:
        raise UserError(
            "results must be given: results=[results/reference], rows of the twin that the figures hold for"
        )
    instances = load_suite("collection", folder)
    before = read_best_known(folder)
    after, shown = stamped(instances, before, read_results(config.results))
    write_best_known(after, folder)
    changed = sum(after[name] != before[name] for name in before)
    console().print(
        f"{shown.placements} placements on {shown.instances} instances simulated again: as in the rows. "
        f"{changed} of {len(after)} instances stamped in {folder / 'best_known.csv'}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
