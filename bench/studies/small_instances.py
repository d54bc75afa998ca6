"""Small instances drawn at random, of the kinds on which bounds have been wrong: hot adapters, bursts, odd numbers of slots."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bench.comparison.build import build_workload
from bench.studies.brute_force import Divided, GpuTwin
from twin import INTERACTIVE, PUBLISHED, ServiceLevel, load_profile

#: Tokens per second that one GPU serves at chat lengths with few adapters (`python -m bench.max_pack`): only to give instances a size.
NOMINAL_TOKENS_PER_S = 10_000.0
#: Kinds of instances, and how often each is drawn. By hand: as many of what has refuted bounds as of what has not.
KINDS = {"skewed": 0.25, "types": 0.2, "identical": 0.15, "hot": 0.25, "many": 0.15}
#: Adapters of a small instance, and how often so many are drawn: all contents of the largest take minutes to simulate.
FEWEST, MOST, FEWER = 5, 14, 0.8
#: Identical adapters so many that slots decide, which all `max_loras` are tried with on one GPU.
MANY = (40, 110)
#: Rates are scaled within these, until it is known to this factor what an even spread serves, and off that by so much.
SCALES, ACCURACY, OFF_LIMIT = (0.25, 4.0), 1.02, (-0.03, 0.06)
_RANKS = ((8,), (16,), (32,), (8, 16), (8, 32), (8, 16, 32))


def _lengths(prompt: tuple[float, float], output: tuple[float, float], total: int) -> dict[str, Any]:
    tokens = "twin.lengths.LogNormalTokens"
    parts = {
        name: {"_target_": tokens, "mean_tokens": mean, "sigma": sigma, "min_tokens": 4, "max_tokens": total // 2}
        for name, (mean, sigma) in (("prompt", prompt), ("output", output))
    }
    return {"_target_": "twin.lengths.Lengths", **parts, "max_total_tokens": total, "correlation": 0.0}


#: Request lengths: a chat, equal requests, short and long answers.
LENGTHS = {
    "chat": _lengths((222.8, 1.2), (197.0, 1.4), 2048),
    "fixed": _lengths((250.0, 0.0), (231.0, 0.0), 1024),
    "short": _lengths((120.0, 0.8), (40.0, 0.8), 1024),
    "long": _lengths((150.0, 1.0), (600.0, 0.8), 3072),
}
ARRIVALS = {
    "poisson": {"_target_": "twin.arrivals.PoissonArrivals"},
    "gamma-2": {"_target_": "twin.arrivals.GammaArrivals", "cv": 2.0},
    "gamma-4": {"_target_": "twin.arrivals.GammaArrivals", "cv": 4.0},
    "unpredictable": {
        "_target_": "twin.arrivals.UnpredictableArrivals", "period_s": 60.0, "factor": 1.5, "limit": 7.5,
    },
}  # fmt: skip


@dataclass(frozen=True)
class SmallInstance:
    """One drawn instance.

    Attributes
    ----------
    name : str
    kind : str
        One of `KINDS`.
    profile : str
        Shipped serving profile.
    service : ServiceLevel
    workload : dict
        A `_target_` and its options, as `conf/workload` has them.
    """

    name: str
    kind: str
    profile: str
    service: ServiceLevel
    workload: dict[str, Any]

    @property
    def service_options(self) -> dict[str, Any]:
        """The service level as a cell has it."""
        return {} if self.service == PUBLISHED else asdict(self.service)


def draw_instance(seed: int, number: int) -> SmallInstance:
    """The instance of this number: the same whatever else is drawn.

    Parameters
    ----------
    seed, number : int
    """
    generator = np.random.default_rng([seed, number])
    kind = str(generator.choice(list(KINDS), p=list(KINDS.values())))
    lengths = "chat" if kind == "many" else str(generator.choice(list(LENGTHS), p=[0.5, 0.1, 0.2, 0.2]))
    arrivals = str(generator.choice(list(ARRIVALS), p=[0.5, 0.2, 0.15, 0.15]))
    if kind in ("many", "hot") and arrivals == "unpredictable":
        # Its log-normal gaps have a median of a second at any rate, so that nothing is hot or idle.
        arrivals = "gamma-2"
    # Windows of whole seconds, as users have them; short ones, where chance is greatest, as often as long ones.
    duration_s = float(round(np.exp(generator.uniform(np.log(60), np.log(600)))))
    groups = _groups(generator, kind, lengths)
    name = f"{kind}-{seed}-{number:03d}"
    drawn = SmallInstance(
        name,
        kind,
        str(generator.choice(["llama-3.1-8b", "qwen-2.5-7b"])),
        PUBLISHED if generator.random() < 0.6 else INTERACTIVE,
        {
            "_target_": "twin.builders.groups",
            "name": name,
            "groups": groups,
            "duration_s": duration_s,
            "seed": int(generator.integers(1_000_000)),
            "arrivals": ARRIVALS[arrivals],
            "lengths": LENGTHS[lengths],
        },
    )
    return _near_its_limit(drawn, generator)


def arrivals_of(instance: SmallInstance) -> str:
    """The name of an instance's arrivals among `ARRIVALS`."""
    return next(name for name, options in ARRIVALS.items() if options == instance.workload["arrivals"])


def _near_its_limit(drawn: SmallInstance, generator: np.random.Generator) -> SmallInstance:
    """The instance with its rates scaled until an even spread on one to three GPUs is just feasible, or just is not.

    There bounds have the least room to be wrong by little.
    """
    hot = drawn.kind == "hot"
    gpus = int(generator.integers(2, 5) if hot else generator.integers(1, 4 if drawn.kind != "many" else 3))
    off = generator.uniform(*OFF_LIMIT)
    low, high = SCALES
    while high / low > ACCURACY:
        scale = math.sqrt(low * high)
        if _spreads(_scaled(drawn, scale), gpus, whole=not hot):
            low = scale
        else:
            high = scale
    return _scaled(drawn, low * (1 + off))


def _spreads(instance: SmallInstance, gpus: int, *, whole: bool) -> bool:
    profile = load_profile(instance.profile)
    twin = GpuTwin(build_workload(instance.workload, profile), profile, instance.service)
    return Divided(twin, 0).evenly(gpus, whole=whole)


def _scaled(instance: SmallInstance, scale: float) -> SmallInstance:
    groups = [_group(each["count"], each["rank"], each["rate"] * scale) for each in instance.workload["groups"]]
    return replace(instance, workload={**instance.workload, "groups": groups})


def _groups(generator: np.random.Generator, kind: str, lengths: str) -> list[dict[str, Any]]:
    tokens = sum(LENGTHS[lengths][part]["mean_tokens"] for part in ("prompt", "output"))
    gpus = NOMINAL_TOKENS_PER_S / tokens
    ranks = _RANKS[int(generator.integers(len(_RANKS)))]
    if kind == "many":
        count = int(generator.integers(MANY[0], MANY[1] + 1))
        load = generator.uniform(0.7, 1.25) * gpus * generator.integers(1, 3)
        return [_group(count, int(generator.choice(ranks)), load / count)]
    sizes = np.arange(FEWEST, MOST + 1)
    weights = FEWER ** np.arange(len(sizes))
    count = int(generator.choice(sizes, p=weights / weights.sum()))
    load = np.exp(generator.uniform(np.log(0.7), np.log(3.2))) * gpus
    if kind == "identical":
        return [_group(count, int(generator.choice(ranks)), load / count)]
    if kind == "types":
        n_types = int(generator.integers(2, 4))
        counts = 1 + generator.multinomial(count - n_types, np.full(n_types, 1 / n_types))
        rates = np.exp(generator.uniform(-2.0, 0.0, n_types))
        rates *= load / (rates @ counts)
        return [_group(int(many), int(generator.choice(ranks)), rate) for many, rate in zip(counts, rates, strict=True)]
    shares = np.exp(generator.uniform(-2.5, 0.0, count))
    rates = shares / shares.sum() * load
    if kind == "hot":
        rates *= 0.5
        n_hot = int(generator.integers(1, 3))
        rates[:n_hot] = generator.uniform(1.05, 2.2, n_hot) * gpus
    return [_group(1, int(generator.choice(ranks)), rate) for rate in rates]


def _group(count: int, rank: int, rate: float) -> dict[str, Any]:
    return {"count": count, "rank": rank, "rate": float(f"{rate:.4g}")}
