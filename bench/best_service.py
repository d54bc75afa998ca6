"""`python -m bench.best_service RESULTS`: what the best service within the GPUs found does to the placements of a run.

Each placement is improved as `exact`, `ffd_plus` and `max_pack` improve theirs (`solvers/mending/best_service.py`) and scored before and
after. A table keeps what is done, so that an interrupted command goes on. The rows should be of a solver without it
(`solver.NAME.best_service=false`); placements that have been improved already become little better.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omegaconf import MISSING
from rich.table import Table

from bench.comparison.rows import read_any
from bench.shared.command import command
from bench.shared.files import check_files
from bench.shared.terminal import console, tracked
from bench.studies.best_service import (
    KEY,
    SETTINGS,
    BestServiceOptions,
    Improved,
    about,
    chosen,
    improve,
    summary_lines,
)
from bench.studies.lines import StudyLines
from twin import UserError


@dataclass
class BestServiceConfig(BestServiceOptions):
    """Options of `python -m bench.best_service`; `conf/best_service.yaml` says what each is for.

    Attributes
    ----------
    rows : str
        Folder or Parquet file.
    table : str, optional
        CSV file.
    """

    rows: str = MISSING
    table: str | None = None


@command("best_service", BestServiceConfig, positional="rows")
def main(config: BestServiceConfig) -> None:
    """Improve the placement of each instance, and say what that did."""
    if not config.seconds > 0:
        raise UserError(f"seconds={config.seconds} must be a positive number")
    check_files(table=config.table)
    rows = chosen(list(read_any(Path(config.rows))), config)
    if not rows:
        raise UserError(
            f"{config.rows}: no feasible placement of candidate={config.candidate} with at most {config.adapters} adapters"
        )
    lines = StudyLines(Improved, config.table, KEY, config, SETTINGS)
    terminal = console()
    terminal.print(f"{len(rows)} placements of {config.candidate}, {config.seconds:g} s for each")
    found = [lines.line(about(row), partial(improve, row, config)) for row in tracked(rows, "improving")]
    terminal.print(_table(found))
    for text in summary_lines(found):
        terminal.print(text)
    if config.table is not None:
        terminal.print(f"table    {config.table}", soft_wrap=True)


def _table(found: Iterable[Improved]) -> Table:
    table = Table(header_style="bold", title="before -> after")
    for name in ("instance", "GPUs", "TTFT ms", "ITL ms", "goodput %", "worst GPU %", "starved", "least head-room %"):
        table.add_column(name, justify="left" if name == "instance" else "right", overflow="fold")
    for each in found:
        table.add_row(
            each.instance,
            str(each.gpus),
            *(
                f"{scale * getattr(each, f'{name}_before'):.{digits}f} -> {scale * getattr(each, f'{name}_after'):.{digits}f}"
                for name, scale, digits in (
                    ("ttft_ms", 1, 0), ("itl_ms", 1, 0), ("goodput", 100, 1), ("worst_goodput", 100, 1), ("starved", 1, 0),
                    ("headroom", 100, 1),
                )
            ),
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
