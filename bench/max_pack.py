"""`python -m bench.max_pack`: throughput of one GPU over the number of its adapters, and how many it serves at most.

Max_pack (arXiv 2508.08343) is the largest adapter count such that it and every smaller count do not starve, over all
`max_loras`; the adapters are all alike. The paper measured it on real GPUs (its Figure 1); here the twin is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from rich.table import Table

from bench.shared.command import command
from bench.shared.files import check_folder, write_table, write_text
from bench.shared.terminal import console, tracked
from bench.studies.max_pack import LargestContent, MaxPackOptions, Point, identical_adapters, measure
from twin import UserError, load_profile


@dataclass
class MaxPackConfig(MaxPackOptions):
    """Options of `python -m bench.max_pack`; `conf/max_pack.yaml` says what each is for.

    Attributes
    ----------
    profile : str
    ranks : list of int
    rates : list of float
        Requests per second of one adapter.
    most_adapters : int
        Where the search ends.
    max_loras : list of int, optional
        By default the grid that solvers try.
    duration_s : float
    lengths, arrivals : dict
    ignore_eos : bool
    seed : int
    out : str, optional
        Folder.
    """

    ranks: list[int] = field(default_factory=lambda: [8, 16, 32])
    rates: list[float] = field(default_factory=lambda: [0.05])
    out: str | None = None


@command("max_pack", MaxPackConfig)
def main(config: MaxPackConfig) -> None:
    """Measure every rank and rate, print the table, write points and picture."""
    from bench.studies.max_pack_picture import draw

    if not config.ranks or not config.rates:
        raise UserError("ranks and rates must name at least one each")
    folder = check_folder("out", config.out or HydraConfig.get().runtime.output_dir)
    pairs = [(rank, rate) for rate in config.rates for rank in config.ranks]
    found: list[LargestContent] = []
    points: list[Point] = []
    for rank, rate in tracked(pairs, "simulating"):
        pack, curve = measure(identical_adapters(config, rank, rate))
        found.append(pack)
        points += curve
    _write(points, found, folder)
    draw(points, found, folder / "max_pack.png", f"profile {load_profile(config.profile).name}, seed {config.seed}")
    terminal = console()
    terminal.print(_table(found))
    if any(pack.capped for pack in found):
        terminal.print(f"> the search ended at most_adapters={config.most_adapters} before any count starved")
    for name in ("max_pack.csv", "points.parquet", "max_pack.png"):
        terminal.print(f"{folder / name}", soft_wrap=True)


def _table(found: Sequence[LargestContent]) -> Table:
    table = Table(header_style="bold", title="Max_pack on the twin")
    for name in (
        "rank",
        "requests/s\nof an adapter",
        "Max_pack\nadapters",
        "max_loras",
        "throughput\ntok/s",
        "offered\ntok/s",
    ):
        table.add_column(name, justify="right")
    for pack in found:
        table.add_row(
            str(pack.rank),
            f"{pack.rate:g}",
            f"{'>' if pack.capped else ''}{pack.n_adapters}",
            str(pack.max_loras),
            f"{pack.throughput:.0f}",
            f"{pack.offered_throughput:.0f}",
        )
    return table


def _write(points: Sequence[Point], found: Sequence[LargestContent], folder: Path) -> None:
    import pandas as pd

    write_table(pd.DataFrame([asdict(point) for point in points]), folder / "points.parquet")
    write_text(folder / "max_pack.csv", pd.DataFrame([asdict(pack) for pack in found]).to_csv(index=False))


if __name__ == "__main__":
    main()
