"""The collection: what instances there are, as functions of fixed seeds."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.suites.instance import Instance

PROFILES = {"llama": "llama-3.1-8b", "qwen": "qwen-2.5-7b"}

# What follows was chosen by hand where no source is named, so that there is something of every kind and size (docs/suite.md). The
# numbers stay as they are: with another the same name would be another instance.

#: Tokens per second that one GPU serves at chat lengths with few adapters (`python -m bench.max_pack`): only to give
#: instances a size, in GPUs, before anybody has solved them.
NOMINAL_TOKENS_PER_S = 10_000.0
#: Prompt and output tokens of a chat request together: 222.8 and 197, as in `LENGTHS`.
CHAT_TOKENS = 420.0
#: No adapter has more than this share of a nominal GPU, so that every instance has a feasible placement.
LARGEST_ADAPTER = 0.6
#: The busiest adapters of instances with the tag "hot" ask for so many nominal GPUs: one GPU holds none of them (one alone on a GPU is
#: served at about 1.4 times the nominal rate), so that only placements with replicas are feasible.
HOT_LOADS = (2.0, 3.6)
#: Up to so many adapters popularity is flatter: otherwise one of them has nearly all of the load, and one GPU is enough.
FEW = 32

#: Rates of arXiv 2602.24044 and 2508.08343, in requests per second; the high ones are inferred from the low.
PAPER_RATES = {
    "low": (0.075, 0.0375, 0.01875, 0.009375, 0.0046875),
    "high": (2.4, 1.2, 0.6, 0.3, 0.15),
    "mixed": (2.4, 1.2, 0.6, 0.3, 0.15, 0.075, 0.0375, 0.01875, 0.009375, 0.0046875),
}
#: Adapters that make one and four GPUs' load of each.
PAPER_ADAPTERS = {"low": (256, 1535), "high": (20, 96), "mixed": (40, 200)}
PAPER_RANKS = ((8, 16), (8, 16, 32))

#: Rates of the published training set (arXiv 2508.08343), of which it takes three at a time.
TRAINING_RATES = (3.2, 1.6, 0.8, 0.4, 0.1, 0.05, 0.025, 0.0125, 0.00625, 0.003125)
RANK_SETS = ((8,), (16,), (32,), (8, 16), (8, 32), (16, 32), (8, 16, 32), (8, 8, 8, 8, 16, 32), (8, 16, 32, 32))


def _tokens(mean: float, sigma: float, least: int, most: int) -> dict[str, Any]:
    return {"mean_tokens": mean, "sigma": sigma, "min_tokens": least, "max_tokens": most}


def _lengths(prompt: dict[str, Any], output: dict[str, Any], total: int, correlation: float) -> dict[str, Any]:
    return {"prompt": prompt, "output": output, "max_total_tokens": total, "correlation": correlation}


#: Request lengths. "chat" is ShareGPT with the means of the published runs, as in `conf/workload/lengths/sharegpt.yaml`;
#: the others are shapes of other uses: equal requests, classification, retrieval, drafting.
LENGTHS: dict[str, dict[str, Any]] = {
    "chat": _lengths(_tokens(222.8, 1.2, 4, 1024), _tokens(197.0, 1.4, 4, 1024), 2048, -0.49),
    "fixed": _lengths(_tokens(250.0, 0.0, 1, 250), _tokens(231.0, 0.0, 1, 231), 481, 0.0),
    "short": _lengths(_tokens(120.0, 0.8, 4, 1024), _tokens(40.0, 0.8, 1, 512), 1536, 0.0),
    "long-prompt": _lengths(_tokens(1200.0, 0.7, 64, 4096), _tokens(120.0, 0.9, 4, 1024), 4096, 0.0),
    "long-output": _lengths(_tokens(150.0, 1.0, 4, 1024), _tokens(600.0, 0.8, 16, 2048), 3072, 0.0),
}

#: "unpredictable" is that of arXiv 2602.24044, as in `conf/workload/arrivals/unpredictable.yaml`.
ARRIVALS: dict[str, dict[str, Any]] = {
    "poisson": {"process": "poisson"},
    "bursts-2": {"process": "gamma", "cv": 2.0},
    "bursts-4": {"process": "gamma", "cv": 4.0},
    "unpredictable": {"process": "unpredictable", "period_s": 300.0, "factor": 1.5, "limit": 7.5},
}
#: Gaps of the log-normal kind have a median of 1 s at any rate, so that many adapters would need hundreds of GPUs.
MOST_UNPREDICTABLE = 64


class Draws:
    """Draws of one instance from its name alone: what is added to the collection later changes nothing.

    Python promises that `random.Random(text).random()` stays as it is, and of nothing else in `random`.
    """

    def __init__(self, name: str) -> None:
        self._random = random.Random(name)

    def uniform(self, low: float, high: float) -> float:
        """A number between two."""
        return low + (high - low) * self._random.random()

    def log_uniform(self, low: float, high: float) -> float:
        """A number whose logarithm lies anywhere between those of two."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def pick(self, choices: Sequence[Any], weights: Sequence[float] | None = None) -> Any:  # noqa: ANN401  # one of them
        """One of some choices, by their weights if there are any."""
        shares = np.cumsum(weights or [1.0] * len(choices))
        return choices[int(np.searchsorted(shares, self._random.random() * shares[-1], side="right"))]

    def seed(self) -> int:
        """A seed of a workload."""
        return int(self._random.random() * 1_000_000)


def collection() -> list[Instance]:
    """All instances, by id."""
    parts = (_paper(), _training(), _max_pack(), _popular(), _typed(), _large(), _hot())
    instances = sorted((instance for part in parts for instance in part), key=lambda instance: instance.id)
    assert len({instance.id for instance in instances}) == len(instances)  # noqa: S101  # ids are unique by design
    return instances


def _paper() -> Iterator[Instance]:
    """The scenarios of arXiv 2508.08343 and 2602.24044: `conf/workload/paper_*.yaml` as they are, and their variants."""
    for short, profile in PROFILES.items():
        for fleet, n_adapters in (("1gpu", 256), ("4gpus", 1535)):
            name = f"paper_{fleet}" if short == "llama" else f"paper_{fleet}-{short}"
            adapters = {
                "family": "mixed", "n_adapters": n_adapters, "ranks": [8, 16, 32], "rates": list(PAPER_RATES["low"]),
            }  # fmt: skip
            tags = ("paper", "low", fleet, "chat", "poisson")
            yield Instance(name, profile, 0, 3600.0, adapters, LENGTHS["chat"], ARRIVALS["poisson"], tags)
        for kind, rates in PAPER_RATES.items():
            for ranks in PAPER_RANKS:
                for fleet, n_adapters in zip(("1gpu", "4gpus"), PAPER_ADAPTERS[kind], strict=True):
                    name = f"paper_{fleet}-{short}-{kind}-r{'-'.join(map(str, ranks))}"
                    adapters = {
                        "family": "mixed", "n_adapters": n_adapters, "ranks": list(ranks), "rates": list(rates),
                    }  # fmt: skip
                    tags = ("paper", kind, fleet, "chat", "poisson")
                    seed = Draws(name).seed()
                    yield Instance(name, profile, seed, 600.0, adapters, LENGTHS["chat"], ARRIVALS["poisson"], tags)


def _training() -> Iterator[Instance]:
    """Contents like those of the published training set: three rates given in shares, a multiset of ranks."""
    sizes = (24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384)
    for short, profile in PROFILES.items():
        for n_adapters in sizes:
            name = f"mixed-{short}-{n_adapters:04d}"
            draws = Draws(name)
            # Loads of more than 20 nominal GPUs, or of little more than one, are drawn again.
            while True:
                rates = sorted({draws.pick(TRAINING_RATES) for _ in range(3)}, reverse=True)
                load = n_adapters * float(np.mean(rates)) * CHAT_TOKENS / NOMINAL_TOKENS_PER_S
                if len(rates) == 3 and 1.2 <= load <= 20:
                    break
            ranks = draws.pick(
                ((8, 8, 8), (8, 8, 16), (8, 16, 16), (8, 8, 32), (8, 16, 32), (16, 16, 32), (32, 32, 32))
            )
            adapters = {"family": "mixed", "n_adapters": n_adapters, "ranks": list(ranks), "rates": rates}
            yield _instance(name, profile, draws, adapters, ("mixed",), arrivals="poisson", lengths="chat")


def _max_pack() -> Iterator[Instance]:
    """Identical adapters, as in the published Max_pack curves: three GPUs' worth of each."""
    for short, profile in PROFILES.items():
        for rank in (8, 16, 32):
            for rate, count in ((0.0125, 1000), (0.05, 450), (0.2, 150), (0.8, 48)):
                if short == "qwen" and rank == 16:
                    continue
                name = f"identical-{short}-r{rank}-{rate:g}"
                adapters = {"family": "groups", "groups": [{"count": count, "rank": rank, "rate": rate}]}
                yield _instance(
                    name, profile, Draws(name), adapters, ("identical",), arrivals="poisson", lengths="chat"
                )


def _popular() -> Iterator[Instance]:
    """Popularity by Zipf's law or drawn from a Dirichlet distribution."""
    sizes = (8, 12, 16, 24, 32, 48, 64, 80, 100, 128, 160, 200, 256, 320, 400, 500, 640, 800)
    for short, profile in PROFILES.items():
        for family, parameters, flat in (
            ("zipf", (0.6, 0.97, 1.2), (0.2, 0.4, 0.6)),
            ("dirichlet", (0.2, 0.5, 2.0), (1.0, 2.0, 4.0)),
        ):
            for n_adapters in sizes:
                name = f"{family}-{short}-{n_adapters:04d}"
                draws = Draws(name)
                parameter = draws.pick(flat if n_adapters <= FEW else parameters)
                yield _with_popularity(name, profile, draws, family, parameter, n_adapters, (2.5, 16.0))


def _typed() -> Iterator[Instance]:
    """A few types of adapters, whose rate goes with, against or without regard to their rank."""
    for short, profile in PROFILES.items():
        for number, n_types in enumerate((2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 18, 24)):
            for size in ("small", "medium"):
                name = f"types-{short}-{n_types:02d}-{size}"
                draws = Draws(name)
                low, high = (8, 64) if size == "small" else (64, 512)
                n_adapters = max(n_types, round(draws.log_uniform(low, high)))
                adapters, trend = _groups(draws, n_types, n_adapters, draws.log_uniform(2.5, 14.0), number)
                yield _instance(name, profile, draws, adapters, ("types", trend))


def _large() -> Iterator[Instance]:
    """A thousand adapters and more."""
    for short, profile in PROFILES.items():
        # Popularity is flatter where the load is high: no adapter may need a GPU for itself.
        for load, ends, zipf in (("light", (3.0, 10.0), 0.97), ("heavy", (10.0, 45.0), 0.6)):
            for family, parameter in (("zipf", zipf), ("dirichlet", 0.5)):
                for n_adapters in (1000, 1500, 2000):
                    name = f"large-{family}-{short}-{n_adapters}-{load}"
                    draws = Draws(name)
                    yield _with_popularity(name, profile, draws, family, parameter, n_adapters, ends, "large", load)
        for number, n_adapters in enumerate((1000, 1500, 2000)):
            name = f"large-types-{short}-{n_adapters}"
            draws = Draws(name)
            adapters, trend = _groups(draws, 12, n_adapters, draws.log_uniform(6.0, 20.0), number)
            yield _instance(name, profile, draws, adapters, ("types", trend, "large"))


def _hot() -> Iterator[Instance]:
    """Adapters that no GPU holds alone: one giant or several among small ones, and heads of Zipf's law."""
    giants = (
        (1, 6, "poisson"),
        (1, 40, "poisson"),
        (1, 24, "bursts-2"),
        (2, 12, "poisson"),
        (3, 60, "bursts-4"),
        (4, 120, "poisson"),
    )
    heads = ((16, 1.2, "poisson"), (64, 1.2, "poisson"), (200, 0.97, "poisson"), (48, 1.5, "bursts-2"))
    for short, profile in PROFILES.items():
        for number, (n_giants, n_small, arrivals) in enumerate(giants):
            name = f"hot-giants-{short}-{n_giants}-{n_small:04d}"
            draws = Draws(name)
            small, _ = _groups(draws, min(4, n_small), n_small, draws.log_uniform(0.8, 4.0), number)
            per_s = NOMINAL_TOKENS_PER_S / CHAT_TOKENS
            groups = [
                {"count": 1, "rank": draws.pick((8, 16, 32)), "rate": float(f"{draws.uniform(*HOT_LOADS) * per_s:.3g}")}
                for _ in range(n_giants)
            ]
            adapters = {"family": "groups", "groups": groups + small["groups"]}
            yield _instance(name, profile, draws, adapters, ("hot", "giants"), lengths="chat", arrivals=arrivals)
        for n_adapters, exponent, arrivals in heads:
            name = f"hot-zipf-{short}-{n_adapters:04d}"
            draws = Draws(name)
            ranks = list(draws.pick(RANK_SETS))
            head = draws.uniform(*HOT_LOADS) * NOMINAL_TOKENS_PER_S / CHAT_TOKENS
            total = head * sum((place + 1) ** -exponent for place in range(n_adapters))
            adapters = {
                "family": "zipf", "n_adapters": n_adapters, "total_rate": float(f"{total:.4g}"), "exponent": exponent,
                "ranks": ranks,
            }  # fmt: skip
            yield _instance(name, profile, draws, adapters, ("hot", "zipf"), lengths="chat", arrivals=arrivals)


def _with_popularity(  # noqa: PLR0913  # what makes an instance
    name: str, profile: str, draws: Draws, family: str, parameter: float, n_adapters: int,
    loads: tuple[float, float], *tags: str,
) -> Instance:  # fmt: skip
    """An instance with drawn lengths, arrivals and ranks whose load is so many nominal GPUs."""
    lengths, arrivals = _kinds(draws, n_adapters)
    total_rate = draws.log_uniform(*loads) * NOMINAL_TOKENS_PER_S / _request_tokens(lengths)
    adapters = {
        "family": family,
        "n_adapters": n_adapters,
        "total_rate": 1.0,
        "exponent" if family == "zipf" else "concentration": parameter,
        "ranks": list(draws.pick(RANK_SETS)),
    }
    instance = _instance(name, profile, draws, adapters, (family, *tags), lengths=lengths, arrivals=arrivals)
    # Small instances can have little load in all before one adapter has too much.
    most = LARGEST_ADAPTER * NOMINAL_TOKENS_PER_S / _request_tokens(lengths) / float(instance.workload().rates.max())
    return replace(instance, adapters={**adapters, "total_rate": float(f"{min(total_rate, most):.4g}")})


def _groups(draws: Draws, n_types: int, n_adapters: int, load: float, number: int) -> tuple[dict[str, Any], str]:
    """So many types with chat lengths' rates, and how their rates go with their ranks."""
    trend = ("rate-with-rank", "rate-against-rank", "rate-and-rank-apart")[number % 3]
    weights = [draws.log_uniform(0.3, 1.0) for _ in range(n_types)]
    counts = np.maximum(1, np.floor(np.array(weights) / sum(weights) * n_adapters)).astype(int)
    counts[0] += max(0, n_adapters - int(counts.sum()))
    rates = sorted(draws.log_uniform(0.01, 1.0) for _ in range(n_types))
    ranks = sorted(draws.pick((8, 16, 32)) for _ in range(n_types))
    if trend == "rate-against-rank":
        ranks = ranks[::-1]
    elif trend == "rate-and-rank-apart":
        ranks = [draws.pick((8, 16, 32)) for _ in range(n_types)]
    per_s = load * NOMINAL_TOKENS_PER_S / CHAT_TOKENS
    scale = per_s / float(np.array(rates) @ counts)
    scale = min(scale, LARGEST_ADAPTER * NOMINAL_TOKENS_PER_S / CHAT_TOKENS / max(rates))
    groups = [
        {"count": int(count), "rank": int(rank), "rate": float(f"{rate * scale:.3g}")}
        for count, rank, rate in zip(counts, ranks, rates, strict=True)
    ]
    return {"family": "groups", "groups": groups}, trend


def _kinds(draws: Draws, n_adapters: int) -> tuple[str, str]:
    """Kinds of lengths and arrivals."""
    lengths = draws.pick(tuple(LENGTHS), (0.4, 0.1, 0.15, 0.15, 0.2))
    processes = tuple(ARRIVALS) if n_adapters <= MOST_UNPREDICTABLE else tuple(ARRIVALS)[:3]
    return lengths, draws.pick(processes, (0.5, 0.2, 0.1, 0.2)[: len(processes)])


def _request_tokens(lengths: str) -> float:
    """Mean tokens of a request."""
    return float(LENGTHS[lengths]["prompt"]["mean_tokens"] + LENGTHS[lengths]["output"]["mean_tokens"])


def _instance(  # noqa: PLR0913  # what makes an instance
    name: str, profile: str, draws: Draws, adapters: dict[str, Any], tags: tuple[str, ...],
    *, lengths: str | None = None, arrivals: str | None = None,
) -> Instance:  # fmt: skip
    """An instance with a window of 600 s; what is not said is drawn."""
    if lengths is None or arrivals is None:
        n_adapters = adapters.get("n_adapters") or sum(group["count"] for group in adapters["groups"])
        drawn_lengths, drawn_arrivals = _kinds(draws, n_adapters)
        # Loads of typed adapters are set at chat lengths.
        lengths, arrivals = lengths or ("fixed" if drawn_lengths == "fixed" else "chat"), arrivals or drawn_arrivals
    return Instance(
        name, profile, draws.seed(), 600.0, adapters, LENGTHS[lengths], ARRIVALS[arrivals], (*tags, lengths, arrivals)
    )
