"""What the builders of workloads have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from twin.arrivals import Arrivals, PoissonArrivals
from twin.errors import UserError
from twin.lengths import Lengths
from twin.numbers import MOST_ADAPTERS, number, shown, whole
from twin.profile import ServingProfile
from twin.workload import LONGEST_PROMPT, Workload

# Beyond these, a popularity is that of one adapter, or of none.
_LARGEST_EXPONENT = 100.0
SMALLEST_CONCENTRATION, LARGEST_CONCENTRATION = 1e-3, 1e6


def drawn(  # noqa: PLR0913  # what the builders have in common
    profile: ServingProfile,
    ranks: NDArray[np.int64],
    rates: NDArray[np.float64],
    duration_s: float,
    lengths: Lengths | None,
    arrivals: Arrivals | None,
    ignore_eos: bool,
    seed: int,
    name: str,
    shared: Sequence[int] | int = 0,
) -> Workload:
    """The workload of adapters whose requests are drawn; `shared` are the tokens of each one's shared prompt.

    Raises
    ------
    UserError
        For a value out of range, a rank that the profile does not know, or lengths that its server does not take.
    """
    if lengths is not None and not isinstance(lengths, Lengths):
        raise UserError(
            f"workload {name}: lengths={shown(lengths)} must be a twin.Lengths, such as workload/lengths=sharegpt"
        )
    if arrivals is not None and not hasattr(arrivals, "draw"):
        raise UserError(
            f"workload {name}: arrivals={shown(arrivals)} must be a process, such as workload/arrivals=poisson"
        )
    if not isinstance(ignore_eos, bool):
        raise UserError(f"workload {name}: ignore_eos={shown(ignore_eos)} must be true or false")
    profile.check_ranks(ranks)
    given = replace(lengths or Lengths(), generated_fraction=1.0 if ignore_eos else profile.generated_fraction)
    prompts = shared_prompts(name, shared, len(ranks))
    longest = 0 if prompts is None else int(prompts.max())
    if given.max_total_tokens + longest > profile.max_model_len:
        beside = f" and a shared prompt of {longest} tokens exceed" if longest else " exceeds"
        raise UserError(
            f"workload {name}: lengths.max_total_tokens={given.max_total_tokens}{beside} "
            f"max_model_len={profile.max_model_len} of profile {profile.name}"
        )
    window_s = number(f"workload {name}: duration_s", duration_s, at_least=0.0, unit="seconds")
    return Workload(
        ranks=ranks,
        rates=rates,
        lengths=given,
        duration_s=window_s,
        seed=seed,
        name=name,
        arrivals=arrivals or PoissonArrivals(),
        shared_prompt_tokens=prompts,
    )


def shared_prompts(name: str, shared: Sequence[int] | int, count: int) -> NDArray[np.int64] | None:
    """Tokens of each adapter's shared prompt, shape (count,), or None where there is none."""
    values = [shared] * min(count, 1) if isinstance(shared, int) else shared
    checked = [shared_of(f"workload {name}: shared_prompt_tokens", value) for value in values]
    if not any(checked):
        return None
    return np.full(count, checked[0]) if len(checked) == 1 else np.array(checked, dtype=np.int64)


def shared_of(key: str, value: object) -> int:
    """Tokens of a shared prompt."""
    return whole(key, value, at_least=0, at_most=LONGEST_PROMPT, unit="tokens")


def adapter_count(name: str, value: object, *, at_least: int = 0) -> int:
    """How many adapters a workload is to have."""
    return whole(f"workload {name}: n_adapters", value, at_least=at_least, at_most=MOST_ADAPTERS)


def in_turn(ranks: Sequence[int], count: int, name: str) -> NDArray[np.int64]:
    """Ranks given to adapters in turn."""
    values = np.array(listed(f"workload {name}: ranks", ranks, rank_of), dtype=np.int64)
    return values[np.arange(count) % len(values)]


def rank_of(key: str, value: object) -> int:
    """A LoRA rank."""
    return whole(key, value, at_least=1, at_most=2**16)


def rate_of(key: str, value: object) -> float:
    """A request rate."""
    return number(key, value, at_least=0.0)


Value = TypeVar("Value")


def listed(key: str, values: object, check: Callable[[str, object], Value]) -> list[Value]:
    """Each item of a list that has one or more, checked."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise UserError(f"{key}={shown(values)} must be a list")
    if not values:
        raise UserError(f"{key}=[] must name at least one {key.rpartition(' ')[2].removesuffix('s')}")
    return [check(f"{key}[{place}]", value) for place, value in enumerate(values)]


def zipf_shares(count: int, exponent: object, key: str) -> NDArray[np.float64]:
    """Share of the requests that each adapter gets by Zipf's law; array of shape (count,) that sums to 1."""
    power = number(key, exponent, at_least=0.0, at_most=_LARGEST_EXPONENT)
    weights: NDArray[np.float64] = np.arange(1.0, count + 1) ** -power
    weights /= weights.sum()
    return weights


def concentration_of(key: str, value: object) -> float:
    """Concentration of a symmetric Dirichlet distribution."""
    return number(key, value, at_least=SMALLEST_CONCENTRATION, at_most=LARGEST_CONCENTRATION)


def told_apart(rates: NDArray[np.float64], kinds: Sequence[int]) -> NDArray[np.float64]:
    """Rates that differ in the tenth digit where adapters are of another kind.

    Solvers count adapters of equal rank and rate as one type. Those of another kind are another type, which such a difference
    says without a trace in any figure.
    """
    _, number = np.unique(np.asarray(kinds, dtype=np.int64), return_inverse=True)
    told: NDArray[np.float64] = rates * (1 + number * 1e-10)
    return told
