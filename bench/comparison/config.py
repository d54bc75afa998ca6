"""The options of `python -m bench`, with their types; `conf/config.yaml` has the defaults and says what each is for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from twin.service import NAMED, PUBLISHED, ServiceLevel


@dataclass
class ServiceConfig:
    """A service level (`twin.ServiceLevel`); `conf/service/*.yaml` says what each number is for."""

    name: str = PUBLISHED.name
    ttft_ms: float | None = PUBLISHED.ttft_ms
    tpot_ms: float | None = PUBLISHED.tpot_ms
    e2el_ms: float | None = PUBLISHED.e2el_ms
    share: float = PUBLISHED.share
    warm_up: float = PUBLISHED.warm_up
    least_judged: int = PUBLISHED.least_judged
    tail_s: float = PUBLISHED.tail_s

    def level(self) -> ServiceLevel:
        """The level itself, by the name of a shipped one only if it has its numbers.

        Raises
        ------
        UserError
            For a number out of range.
        """
        level = ServiceLevel(**asdict(self))
        shipped = NAMED.get(level.name)
        if shipped is not None and level != shipped:
            changed = [f"{key}={value:g}" for key, value in asdict(level).items() if value != getattr(shipped, key)]
            return replace(level, name=f"{level.name} {' '.join(changed)}")
        return level


@dataclass
class SuiteOptions:
    """Which instances of the workload suite are run; `conf/suite/*.yaml` says what each option is for."""

    tier: str = "benchmark"
    tags: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    results: str = "results/runs/suite"
    folder: str | None = None


@dataclass
class BenchConfig:
    """One comparison: a workload, the solvers compared on it, and what they are compared by.

    Attributes
    ----------
    workload : dict
        `_target_` builds a `twin.Workload` from the serving profile; the rest are its options.
    solver : dict of dict
        For each solver's name the `_target_` that makes it and its options.
    objective : dict
        `_target_` makes a `solvers.objectives.base.Objective`.
    service : ServiceConfig
        What every GPU must keep.
    suite : SuiteOptions, optional
        Run a tier of the workload suite instead of one workload.
    profile : str
        Name of a shipped serving profile, or a JSON file.
    fleet : list of dict or str, optional
        GPU types with profile, price and count, or the file that lists them (`twin.fleet`); `profile` is not looked at then.
    seed : int
        Of the workload's streams, and of the solvers that draw.
    gpus : int, optional
        GPU limit.
    time_limit_s : float
        For each solver.
    threads : int
        GPUs that are simulated at the same time.
    repeats : int
        How often each solver runs; the least of its times counts.
    reserve : float
        Share of the load that solvers place for on top of it.
    draws : int
        Other draws of the requests that placements are scored with.
    cache : bool, optional
        Take rows that have been computed from the cache, and keep new ones there; by default in a sweep only.
    cache_dir : str
        Folder of the cache.
    retry_failed : bool
        Run candidates again whose row in the cache tells of a crash, a time-out or an error.
    isolated : bool
        Run each solver in a process of its own that is killed when it goes on after its time.
    margin_s : float
        How long after its time limit.
    processes : int
        Such processes at the same time.
    out : str, optional
        Parquet file for the rows.
    picture : str, optional
        PNG file for the picture.
    """

    workload: dict[str, Any] = field(default_factory=dict)
    solver: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    service: ServiceConfig = field(default_factory=ServiceConfig)
    suite: SuiteOptions | None = None
    profile: str = "llama-3.1-8b"
    fleet: Any = None
    seed: int = 0
    gpus: int | None = None
    time_limit_s: float = 60.0
    threads: int = 2
    repeats: int = 1
    reserve: float = 0.0
    draws: int = 0
    cache: bool | None = None
    cache_dir: str = "results/runs/cache"
    retry_failed: bool = False
    isolated: bool = True
    margin_s: float = 60.0
    processes: int = 1
    out: str | None = None
    picture: str | None = None
