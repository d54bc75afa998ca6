"""`python -m bench.paper runs=DIR`: the tables and figures of the papers (arXiv 2602.24044, 2508.08343) beside ours.

Each table is a file of its own and is left alone where it is there, so that an interrupted command goes on. docs/paper.md says what each is
beside, and what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from omegaconf import MISSING
from rich.console import Console

from bench.comparison.rows import read_any
from bench.measured.papers import largest_contents, learned, over_time, overheads, twin_errors
from bench.measured.papers.replays import kept_replays
from bench.measured.predictors_beside_runs import predict_runs, predictors_of
from bench.measured.published import PROFILE_OF_MODEL, read_runs
from bench.measured.twin_beside_runs import ReplayOptions, published_twin, write_csv
from bench.shared.command import command
from bench.shared.files import check_file, check_folder
from bench.shared.terminal import console
from bench.studies.four_gpus import fair_saving_table, fewest_table, fleet_table, saving_table
from twin import UserError

#: Solvers that use as few GPUs as they can, and the fleet that the others always use.
_FEWEST, _FLEET = ("ffd", "ffd_plus", "max_backbone"), 4


@dataclass
class PaperConfig:
    """Options of `python -m bench.paper`; `conf/paper.yaml` says what each is for."""

    runs: str = MISSING
    out: str = "results/paper"
    again: bool = False
    replays: str = "results/runs/paper/replays.csv"
    four_gpus: str = "results/runs/paper/four_gpus.parquet"
    latency: str = "results/runs/paper/latency.parquet"
    fewest: str = "results/runs/paper/fewest"
    seed: int = 0
    threads: int = 1


class _Sources:
    """What tables are made from, each read when it is first asked for."""

    def __init__(self, config: PaperConfig, terminal: Console) -> None:
        self._config = config
        self._terminal = terminal

    @cached_property
    def runs(self) -> pd.DataFrame:
        return read_runs(self._config.runs)

    @cached_property
    def replays(self) -> pd.DataFrame:
        options = ReplayOptions(seed=self._config.seed, threads=self._config.threads)
        return kept_replays(self.runs, check_file("replays", self._config.replays), options, self._terminal)

    @cached_property
    def published(self) -> pd.DataFrame:
        table = published_twin(self._config.runs)
        if table is None:
            raise UserError(f"runs={self._config.runs}: no file published_twin_vs_real.csv in it")
        return table

    @cached_property
    def learned(self) -> pd.DataFrame:
        predictors = predictors_of(self.runs, "shipped")
        rules = {model: one.starvation_tree.n_leaves for model, one in predictors.items()}
        return learned.predictors_table(self.runs, predict_runs(self.runs, predictors), rules)

    @cached_property
    def overheads(self) -> pd.DataFrame:
        return overheads.overheads_table(self._config.runs)

    @cached_property
    def over_time(self) -> pd.DataFrame:
        chosen = over_time.chosen_runs(self.runs)
        return over_time.over_time_table(self._config.runs, self.runs, chosen, PROFILE_OF_MODEL, self._config.seed)

    def fleet(self, path: str) -> pd.DataFrame:
        """Rows of a sweep."""
        return fleet_table(read_any(Path(path)))

    @cached_property
    def fewest(self) -> pd.DataFrame:
        return fewest_table(read_any(Path(self._config.fewest)))


def _tables(sources: _Sources, config: PaperConfig) -> dict[str, Callable[[], pd.DataFrame]]:
    """What to make, by file name."""
    return {
        "max_pack": lambda: largest_contents.pairs_table(sources.replays),
        "max_pack_curves": lambda: largest_contents.curves_table(sources.replays),
        "twin_errors": lambda: twin_errors.errors_table(sources.replays, sources.published),
        "twin_times": lambda: twin_errors.times_table(sources.replays, sources.published),
        "predictors": lambda: sources.learned,
        "overheads": lambda: overheads.errors_table(sources.overheads),
        "over_time": lambda: over_time.errors_table(sources.over_time),
        "four_gpus": lambda: sources.fleet(config.four_gpus),
        "four_gpus_saving": lambda: saving_table(sources.fleet(config.four_gpus), _FEWEST, _FLEET),
        "latency": lambda: sources.fleet(config.latency),
        "fewest_gpus": lambda: sources.fewest,
        "fewest_gpus_saving": lambda: fair_saving_table(sources.fewest, ("ffd", "ffd_plus"), "dlora"),
    }


def _sweeps(config: PaperConfig) -> dict[str, tuple[str, str]]:
    """Where the rows of a table are looked for, and the options that put them there."""
    four = (config.four_gpus, "experiment=paper_fig11 out=")
    latency = (config.latency, "experiment=paper_fig12 out=")
    fewest = (config.fewest, "suite=paper 'solver=[ffd,ffd_plus,dlora,lora_serve,max_pack]' draws=0 suite.results=")
    return {
        "four_gpus": four,
        "four_gpus_saving": four,
        "latency": latency,
        "fewest_gpus": fewest,
        "fewest_gpus_saving": fewest,
    }


def _pictures(sources: _Sources) -> dict[str, Callable[[Path], None]]:
    return {
        "over_time": lambda path: over_time.draw(sources.over_time, path),
        "overheads": lambda path: overheads.draw(sources.overheads, path),
    }


@command("paper", PaperConfig)
def main(config: PaperConfig) -> None:
    """Make what is missing."""
    folder = check_folder("out", config.out)
    terminal = console()
    sources = _Sources(config, terminal)
    makers = _sweeps(config)
    for name, table in _tables(sources, config).items():
        path = folder / f"{name}.csv"
        rows, maker = makers.get(name, (None, ""))
        if path.exists() and not config.again:
            terminal.print(f"there     {path}", soft_wrap=True)
        elif rows is not None and not Path(rows).exists():
            terminal.print(f"left out  {path}: python -m bench {maker}{rows}", soft_wrap=True)
        else:
            write_csv(table(), path)
            terminal.print(f"written   {path}", soft_wrap=True)
    for name, draw in _pictures(sources).items():
        path = folder / f"{name}.png"
        if path.exists() and not config.again:
            terminal.print(f"there     {path}", soft_wrap=True)
        else:
            draw(path)
            terminal.print(f"written   {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
