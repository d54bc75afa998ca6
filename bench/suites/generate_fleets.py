"""The instances with fleets of several GPU types, as functions of fixed seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bench.suites.generate import ARRIVALS, LENGTHS, NOMINAL_TOKENS_PER_S, Draws
from bench.suites.instance import Instance

# Chosen by hand, so that there is something of every kind (docs/fleets.md): the numbers stay as they are.

#: Prices in dollars per GPU and hour, of the size that clouds ask; what matters is their proportion.
PRICES = {"l40s-48gb": 0.9, "a100-80gb": 1.4, "h100-80gb": 2.5, "h200-141gb": 3.2, "b200-180gb": 5.0}
#: Types of each fleet, with how many there are.
FLEETS: dict[str, tuple[tuple[str, int | None], ...]] = {
    "two": (("h100-80gb", None), ("a100-80gb", None)),
    "owned": (("h100-80gb", 2), ("a100-80gb", None)),
    "three": (("h200-141gb", None), ("a100-80gb", 3), ("l40s-48gb", None)),
    "few-large": (("b200-180gb", 1), ("a100-80gb", None)),
    "any": (("b200-180gb", None), ("h100-80gb", None), ("l40s-48gb", None)),
}
#: A server of two GPUs at the price of both, with half the weights on each.
PAIR = {"name": "h100-pair", "profile": "llama-3.1-8b/h100-80gb-tp2-fp8", "price": 5.0, "count": None}
MODELS = {"llama": "llama-3.1-8b", "qwen": "qwen-2.5-7b"}
#: Adapters of each size, and the ends of the load in nominal GPUs.
SIZES = {"small": (8, 24, 1.5, 4.0), "medium": (24, 72, 3.0, 7.0), "large": (72, 160, 5.0, 10.0)}
RANK_SETS = ((8,), (16,), (8, 16), (8, 16, 32), (8, 8, 8, 8, 16, 32), (16, 32, 64))
#: No adapter has more than this share of a nominal GPU, so that every type holds each.
LARGEST_ADAPTER = 0.4


def fleets() -> list[Instance]:
    """All of them, by id."""
    return sorted(_instances(), key=lambda instance: instance.id)


def _instances() -> Iterator[Instance]:
    for short, model in MODELS.items():
        for fleet, types in FLEETS.items():
            for size, (fewest, most, least_load, most_load) in SIZES.items():
                name = f"fleet-{fleet}-{short}-{size}"
                draws = Draws(name)
                rows = [_type(model, gpu, count) for gpu, count in types]
                if fleet == "two" and short == "llama":
                    rows.append(PAIR)
                n_adapters = round(draws.log_uniform(fewest, most))
                lengths = draws.pick(("chat", "short", "long-output"), (0.6, 0.2, 0.2))
                tokens = sum(LENGTHS[lengths][part]["mean_tokens"] for part in ("prompt", "output"))
                load = draws.log_uniform(least_load, most_load) * NOMINAL_TOKENS_PER_S / tokens
                adapters = {
                    "family": "zipf",
                    "n_adapters": n_adapters,
                    "total_rate": 1.0,
                    "exponent": draws.pick((0.3, 0.6, 0.9)),
                    "ranks": list(draws.pick(RANK_SETS)),
                }
                arrivals = draws.pick(("poisson", "bursts-2"), (0.7, 0.3))
                instance = Instance(
                    name, str(rows[0]["profile"]), draws.seed(), 600.0, adapters, LENGTHS[lengths], ARRIVALS[arrivals],
                    ("fleet", fleet, size, lengths, arrivals), tuple(rows),
                )  # fmt: skip
                largest = LARGEST_ADAPTER * NOMINAL_TOKENS_PER_S / tokens / float(instance.workload().rates.max())
                yield replace(instance, adapters={**adapters, "total_rate": float(f"{min(load, largest):.4g}")})


def _type(model: str, gpu: str, count: int | None) -> dict[str, Any]:
    return {"name": gpu, "profile": f"{model}/{gpu}", "price": PRICES[gpu], "count": count}
