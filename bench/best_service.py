"""`python -m bench.best_service RESULTS`: what the best service within the GPUs found does to the placements of a run.

Each placement is improved as `exact`, `ffd_plus` and `max_pack` improve theirs (`solvers/mending/best_service.py`) and scored before and
after. A table keeps what is done, so that an interrupted command goes on. The rows should be of a solver without it
(`solver.NAME.best_service=false`); placements that have been improved already become little better.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import MISSING
from rich.table import Table

from bench.comparison.rows import read_any
from bench.shared.command import command
from bench.shared.files import check_files, write_text
from bench.shared.terminal import console, tracked
from bench.studies.best_service import COLUMNS, BestServiceOptions, Improved, chosen, improve, key_of, summary_lines
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
    done = {} if config.table is None else _done(Path(config.table), config)
    terminal = console()
    terminal.print(f"{len(rows)} placements of {config.candidate}, {config.seconds:g} s for each")
    for row in tracked(rows, "improving"):
        if key_of(row) not in done:
            done[key_of(row)] = improve(row, config)
        if config.table is not None:
            write_text(Path(config.table), _csv(done.values()))
    found = [done[key_of(row)] for row in rows]
    terminal.print(_table(found))
    for line in summary_lines(found):
        terminal.print(line)
    if config.table is not None:
        terminal.print(f"table    {config.table}", soft_wrap=True)


def _done(table: Path, config: BestServiceConfig) -> dict[tuple[str, int], Improved]:
    """Placements that an earlier, interrupted run has finished."""
    if not table.exists():
        return {}
    frame = pd.read_csv(table)
    if list(frame.columns) != list(COLUMNS):
        raise UserError(f"table={table}: its columns must be {', '.join(COLUMNS)}; remove it or name another file")
    if not (frame["seconds"] == config.seconds).all():
        raise UserError(f"table={table}: holds lines made with other seconds; remove it or name another file")
    lines = [Improved(*values) for values in frame.itertuples(index=False)]
    return {(line.instance, line.workload_seed): line for line in lines if config.candidate in line.solver}


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


def _csv(found: Iterable[Improved]) -> str:
    frame = pd.DataFrame([asdict(each) for each in found], columns=list(COLUMNS))
    numbers = frame.select_dtypes(np.floating).columns
    frame[numbers] = frame[numbers].round(5)
    return frame.to_csv(index=False)


if __name__ == "__main__":
    main()
