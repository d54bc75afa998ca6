"""`python -m bench.online`: controllers that decide placements anew as load changes, each over the same simulated day."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

import numpy as np
from hydra.core.hydra_config import HydraConfig
from rich.table import Table

from bench.changing.rows import BOUND, DayRow, in_words, read_days, write_days
from bench.changing.study import DayStudy, OnlineOptions, controller_of, predictor_for
from bench.comparison.sources import source_hash
from bench.shared.command import command
from bench.shared.files import check_folder
from bench.shared.terminal import console, tracked
from twin import UserError, load_profile
from twin.curves import STEP_S
from twin.fleet import MOST_GPUS
from twin.numbers import number, whole


@dataclass
class OnlineConfig(OnlineOptions):
    """Options of `python -m bench.online`; `conf/online.yaml` says what each is for.

    Attributes
    ----------
    days : int
    out : str, optional
        Folder.
    """

    days: int = 1
    out: str | None = None


@command("online", OnlineConfig)
def main(config: OnlineConfig) -> None:
    """Serve each day under each controller, write after each, print the table and a sentence."""
    from bench.changing.picture import draw

    _check(config)
    folder = check_folder("out", config.out or HydraConfig.get().runtime.output_dir)
    for name, options in config.controller.items():
        controller_of(name, options)
    terminal = console()
    done = {row.question: row for row in read_days(folder / "rows.parquet")}
    names = [*([BOUND] if config.bound_s else []), *config.controller]
    wanted = {(day, name): _question(config, config.seed + day, name) for day in range(config.days) for name in names}
    terminal.print(f"{config.days} days, seeds from {config.seed}, {len(config.controller)} controllers")
    rows: list[DayRow] = []
    studies: dict[int, DayStudy] = {}
    for (day, name), question in tracked(list(wanted.items()), "serving"):
        if question not in done:
            if day not in studies:
                studies = {day: DayStudy(config, config.seed + day)}
            bound = done.get(wanted.get((day, BOUND), ""))
            done[question] = studies[day].row(name, question, bound)
        rows.append(done[question])
        write_days(list(done.values()), folder)
    terminal.print(_table(rows))
    terminal.print(in_words(rows))
    draw([row for row in rows if row.seed == config.seed], folder / "day.png")
    for file in ("online.csv", "rows.parquet", "day.png"):
        terminal.print(f"{folder / file}", soft_wrap=True)


# Least and most of each: a year of days, a day between ticks, a week of waiting. By hand: nobody waits for more.
_RANGES = {
    "days": (1, 366), "tick_s": (1.0, 86_400.0), "start_up_s": (0.0, 7 * 86_400.0), "price": (0.0, 1e9),
    "interval_s": (STEP_S, 7 * 86_400.0), "bound_s": (0.0, 86_400.0), "threads": (1, 1024),
}  # fmt: skip


def _check(config: OnlineConfig) -> None:
    for key, (least, most) in _RANGES.items():
        number(key, getattr(config, key), at_least=least, at_most=most)
    if config.gpus is not None:
        whole("gpus", config.gpus, at_least=1, at_most=MOST_GPUS)
    if not config.controller:
        raise UserError("controller must name one or more, such as controller=headroom")


def _question(config: OnlineConfig, seed: int, name: str) -> str:
    """Identity of a row: all options but the others' and those that decide nothing, code, profile and predictor."""
    options = {
        key: value for key, value in asdict(config).items() if key not in ("controller", "threads", "out", "days")
    }
    mine = {**options, "seed": seed, "workload": {**config.workload, "seed": seed}, "name": name}
    mine["controller"] = config.controller.get(name)
    if name != BOUND:
        mine.pop("interval_s")
    # A controller is imported by its name, so that the code of this command does not lead to it.
    target = str((config.controller.get(name) or {}).get("_target_", "")).rpartition(".")[0]
    profile = load_profile(config.profile)
    predictor = predictor_for(profile)
    decided_by = [
        source_hash(("bench.online", *([target] if target else []))), repr(profile), predictor and predictor.card,
    ]  # fmt: skip
    return sha256(json.dumps([mine, decided_by], sort_keys=True, default=str).encode()).hexdigest()


_COLUMNS = (
    "seed", "controller", "GPU-hours", "cost", "over the\nbound", "most\nGPUs", "goodput", "starved\nadapter-minutes",
    "moves per\nadapter, day", "CPU s",
)  # fmt: skip


def _table(rows: Sequence[DayRow]) -> Table:
    """One line for each controller and day."""
    table = Table(header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "controller" else "right", overflow="fold")
    for row in sorted(rows, key=lambda row: (row.seed, row.gpu_hours)):
        cpu_s = row.deciding_cpu_s + row.simulating_cpu_s
        moves = f"{row.moves_per_adapter:.2f}"
        figures = [f"{row.goodput:.2%}", str(row.starved_minutes), moves, f"{cpu_s:.1f}"]
        table.add_row(
            str(row.seed), row.controller, f"{row.gpu_hours:.1f}", f"{row.cost:.1f}",
            "" if np.isnan(row.over_bound) else f"{row.over_bound:.3f}", f"{row.most_gpus:.0f}",
            *([""] * len(figures) if row.controller == BOUND else figures),
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
