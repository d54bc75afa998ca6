"""`python -m bench.max_pack`: throughput of one GPU over the number of its adapters, and how many it serves at most.

Max_pack (arXiv 2508.08343) is the largest adapter count such that it and every smaller count do not starve, over all
`max_loras`; the adapters are all alike. The paper measured it on real GPUs (its Figure 1); here the twin is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from rich.progress import track
from rich.table import Table

from bench.cli import command
from bench.run import build_workload
from bench.suites.library import write_text
from bench.table import console
from solvers.twin_oracle import TwinOracle
from twin import ServingProfile, UserError, Workload, load_profile
from twin.simulate import STARVATION_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable

#: The curves go on up to this many times Max_pack.
BEYOND = 1.6
#: Points of a curve.
POINTS = 36


@dataclass
class MaxPackConfig:
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

    profile: str = "llama-3.1-8b"
    ranks: list[int] = field(default_factory=lambda: [8, 16, 32])
    rates: list[float] = field(default_factory=lambda: [0.05])
    most_adapters: int = 1024
    max_loras: list[int] | None = None
    duration_s: float = 1800.0
    lengths: dict[str, Any] = field(default_factory=dict)
    arrivals: dict[str, Any] = field(default_factory=dict)
    ignore_eos: bool = False
    seed: int = 0
    out: str | None = None


@dataclass(frozen=True)
class Point:
    """One GPU of identical adapters.

    Attributes
    ----------
    rank, rate : int, float
    n_adapters, max_loras : int
    throughput, offered_throughput : float
        Tokens per second; the throughput of a GPU that does not start is 0.
    starved, memory_error : bool
    frontier : bool
        No other `max_loras` has more throughput with as many adapters.
    """

    rank: int
    rate: float
    n_adapters: int
    max_loras: int
    throughput: float
    offered_throughput: float
    starved: bool
    memory_error: bool
    frontier: bool = False


@dataclass(frozen=True)
class MaxPack:
    """The most adapters that a GPU serves.

    Attributes
    ----------
    rank, rate : int, float
    n_adapters : int
        0 if even one starves; `capped` if the search ended before any count starved.
    max_loras : int
        The one with the most throughput there.
    throughput, offered_throughput : float
        Tokens per second at that point.
    capped : bool
    """

    rank: int
    rate: float
    n_adapters: int
    max_loras: int
    throughput: float
    offered_throughput: float
    capped: bool


class IdenticalAdapters:
    """The twin asked about GPUs of 1, 2, ... identical adapters, each with requests of its own.

    Parameters
    ----------
    workload : Workload
        Of identical adapters, as many as will ever be asked about.
    profile : ServingProfile
    slots : sequence of int, optional
        `max_loras` to try; by default those that solvers try.
    """

    def __init__(self, workload: Workload, profile: ServingProfile, slots: Sequence[int] | None = None) -> None:
        self.workload = workload
        self.oracle = TwinOracle(workload, profile)
        self._slots = slots
        requests = workload.requests
        tokens = np.bincount(requests.adapter, requests.prompt_tokens + requests.requested_tokens, workload.n_adapters)
        self._offered = np.cumsum(tokens) / workload.duration_s

    def slots(self, count: int) -> tuple[int, ...]:
        """The `max_loras` to try for so many adapters."""
        return tuple(self._slots) if self._slots is not None else self.oracle.slots(range(count))

    def serves(self, count: int, hint: int | None = None) -> int | None:
        """A `max_loras` with which so many adapters do not starve, or None."""
        adapters = tuple(range(count))
        slots = sorted(self.slots(count), key=lambda value: abs(np.log2(value / (hint or min(count, 64)))))
        for value in slots:
            if self.oracle.accepts(adapters, value):
                return value
        return None

    def max_pack(self) -> tuple[int, bool]:
        """The largest count such that it and every smaller one are served, and whether the search ended before one was not.

        Every count is asked about, from 1 on: the curve may dip before it falls for good. A smaller count that falls short
        only because the window ends (few requests, one of them late) does not end the search.
        """
        hint: int | None = None
        most = 0
        for count in range(1, self.workload.n_adapters + 1):
            found = self.serves(count, hint)
            if found is not None:
                most, hint = count, found
            elif not self.oracle.is_cut_off(tuple(range(count)), hint):
                return most, False
        return most, True

    def point(self, count: int, max_loras: int) -> Point:
        """Throughput of so many adapters at one `max_loras`."""
        share = self.oracle.share(tuple(range(count)), max_loras)
        offered = float(self._offered[count - 1])
        return Point(
            rank=int(self.workload.ranks[0]),
            rate=float(self.workload.rates[0]),
            n_adapters=count,
            max_loras=max_loras,
            throughput=max(share, 0.0) * offered,
            offered_throughput=offered,
            starved=share < STARVATION_SHARE,
            memory_error=share < 0,
        )

    def curve(self, counts: Sequence[int]) -> Iterator[Point]:
        """Yield the points of every `max_loras` for these adapter counts; those on the frontier are marked."""
        for count in counts:
            points = [self.point(count, value) for value in self.slots(count)]
            most = max((point.throughput for point in points), default=0.0)
            marked = False
            for point in points:
                # Of equal ones the fewest slots.
                on = not marked and point.throughput == most and not point.memory_error
                marked = marked or on
                yield Point(**{**asdict(point), "frontier": on})


def measure(identical: IdenticalAdapters, advance: Callable[[], None] | None = None) -> tuple[MaxPack, list[Point]]:
    """Max_pack and the curves around it.

    Parameters
    ----------
    identical : IdenticalAdapters
    advance : callable, optional
        Called when done.
    """
    count, capped = identical.max_pack()
    workload = identical.workload
    most = min(workload.n_adapters, max(8, int(BEYOND * count) + 2))
    points = list(identical.curve(sorted({*np.linspace(1, most, POINTS).astype(int).tolist(), max(count, 1)})))
    best = next((point for point in points if point.n_adapters == count and point.frontier), None)
    if advance is not None:
        advance()
    return (
        MaxPack(
            rank=int(workload.ranks[0]),
            rate=float(workload.rates[0]),
            n_adapters=count,
            max_loras=best.max_loras if best else 0,
            throughput=best.throughput if best else 0.0,
            offered_throughput=best.offered_throughput if best else 0.0,
            capped=capped,
        ),
        points,
    )


def identical_adapters(config: MaxPackConfig, rank: int, rate: float) -> IdenticalAdapters:
    """What the options describe, for one rank and rate.

    Raises
    ------
    UserError
        For a value out of range, or a rank that the profile does not know.
    """
    if not rate > 0:
        raise UserError(f"rates: {rate:g} must be above 0 requests per second")
    if config.most_adapters < 1:
        raise UserError(f"most_adapters={config.most_adapters} must be 1 or more")
    if config.max_loras is not None and (not config.max_loras or min(config.max_loras) < 1):
        raise UserError(f"max_loras={config.max_loras} must list numbers of slots, 1 or more, or be null")
    profile = load_profile(config.profile)
    options = {
        "_target_": "twin.builders.groups",
        "name": f"rank {rank}, {rate:g} req/s",
        "groups": [{"count": config.most_adapters, "rank": rank, "rate": rate}],
        "duration_s": config.duration_s,
        "lengths": config.lengths,
        "arrivals": config.arrivals,
        "ignore_eos": config.ignore_eos,
        "seed": config.seed,
    }
    return IdenticalAdapters(build_workload(options, profile), profile, config.max_loras)


@command("max_pack", MaxPackConfig)
def main(config: MaxPackConfig) -> None:
    """Measure every rank and rate, print the table, write points and picture."""
    from bench.max_pack_picture import draw

    if not config.ranks or not config.rates:
        raise UserError("ranks and rates must name at least one each")
    folder = Path(config.out) if config.out else Path(HydraConfig.get().runtime.output_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} must be a folder")
    pairs = [(rank, rate) for rate in config.rates for rank in config.ranks]
    found: list[MaxPack] = []
    points: list[Point] = []
    for rank, rate in track(pairs, description="simulating", transient=True):
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


def _table(found: Sequence[MaxPack]) -> Table:
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


def _write(points: Sequence[Point], found: Sequence[MaxPack], folder: Path) -> None:
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "points.parquet"
    temporary = target.with_name(f"{target.name}.tmp")
    pd.DataFrame([asdict(point) for point in points]).to_parquet(temporary)
    temporary.replace(target)
    write_text(folder / "max_pack.csv", pd.DataFrame([asdict(pack) for pack in found]).to_csv(index=False))


if __name__ == "__main__":
    main()
