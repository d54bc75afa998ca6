"""`python -m bench.monotony`: how far the twin is from "one more adapter never helps", under a service level.

Bounds of `exact` rest on it up to a margin (`solvers/oracles/twin.py`). Contents of the suite's instances are grown adapter by
adapter until they fail, and on from there: how often does the share that the level looks at rise again, by how much, and does a
content that a bound would rest on ever become good?
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from rich.table import Table

from bench.comparison.config import ServiceConfig
from bench.shared.command import command
from bench.shared.files import check_files
from bench.shared.terminal import console, tracked
from bench.studies.lines import StudyLines
from bench.studies.monotony import KEY, SETTINGS, Growth, MonotonyOptions, grow, summary_line
from bench.suites.library import load_suite
from solvers.oracles.twin import TwinOracle
from twin import UserError, load_profile


@dataclass
class MonotonyConfig(MonotonyOptions):
    """Options of `python -m bench.monotony`; `conf/monotony.yaml` says what each is for.

    Attributes
    ----------
    service : ServiceConfig
    tier : str
    ids : list of str
    adapters : int
        Only instances of at most so many.
    table : str, optional
        CSV file.
    """

    service: ServiceConfig = field(default_factory=ServiceConfig)
    tier: str = "benchmark"
    ids: list[str] = field(default_factory=list)
    adapters: int = 1000
    table: str | None = None


@command("monotony", MonotonyConfig)
def main(config: MonotonyConfig) -> None:
    """Grow contents of each instance, and say how often and how far an adapter more helped."""
    for name in ("draws", "steps", "adapters"):
        if getattr(config, name) < 1:
            raise UserError(f"{name}={getattr(config, name)} must be 1 or more")
    check_files(table=config.table)
    service = config.service.level()
    instances = load_suite(config.tier, ids=config.ids)
    lines = StudyLines(Growth, config.table, KEY, config, SETTINGS)
    terminal = console()
    terminal.print(f"{len(instances)} instances, service {service.name}: {service.in_words()}; seed {config.seed}")
    found = []
    for instance in tracked(instances, "growing"):
        profile = load_profile(instance.profile)
        workload = instance.workload(profile)
        if workload.n_adapters > config.adapters:
            continue
        oracle = TwinOracle(workload, profile, service=service)
        found.append(lines.line((instance.id, service.name), partial(grow, instance.id, oracle, config)))
    if not found:
        raise UserError(f"adapters={config.adapters}: no instance of the suite has so few; give a larger number")
    terminal.print(_table(found))
    terminal.print(summary_line(found))
    if config.table is not None:
        terminal.print(f"table    {config.table}", soft_wrap=True)


def _table(found: Iterable[Growth]) -> Table:
    table = Table(header_style="bold")
    for name in (
        "instance",
        "failing",
        "rose",
        "mean rise %",
        "largest %",
        "made good",
        "from %",
        "beyond doubt",
        "refuted",
    ):
        table.add_column(name, justify="left" if name == "instance" else "right", overflow="fold")
    for each in found:
        table.add_row(
            each.instance, str(each.pairs), str(each.rises), f"{100 * each.mean_rise:.2f}", f"{100 * each.largest_rise:.2f}",
            str(each.made_good), f"{100 * each.made_good_from:.2f}", str(each.beyond_doubt), str(each.refuted),
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
