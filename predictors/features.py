"""What a learned model is told of a GPU content: sums over its adapters, server flags, lengths, window.

Every adapter contributes one row of numbers (`adapter_contributions`), and a content is described by
the sum of the rows of its adapters. So the description does not depend on their order or number, and
an adapter joins or leaves a GPU by adding or subtracting one row.

The sums hold what the queueing estimate in `predictors.meanfield` asks for: how many adapters of each
rank, their summed rate, and the expected number of distinct adapters with a request in service. With
Poisson arrivals of rate `r` and a mean time in service `t`, an adapter is active with probability
`1 - exp(-r t)` whatever the distribution of the time in service (the M/G/infinity queue), so the
expected number is a sum over adapters for each `t`; it is kept for a geometric grid of `t`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np

from twin import Lengths, UserError
from twin.compiled import njit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from twin import Requests

#: Adapters are counted per class: the smallest of these that is not below their rank. These are values that vLLM takes as
#: `max_lora_rank`.
RANK_CLASSES = (8, 16, 32, 64, 128, 256)
N_CLASSES = len(RANK_CLASSES)
#: Times in service of the expected-activity sums, two for each doubling: from a quarter of a second to 48 minutes.
FIRST_SERVICE_S = 0.25
N_SERVICE_TIMES = 28
SERVICE_TIMES_S = FIRST_SERVICE_S * 2.0 ** (np.arange(N_SERVICE_TIMES) / 2)
SERVICE_TIMES_S.flags.writeable = False

# Places in a content vector; the first N_SUMS are sums over adapters.
RATE = N_CLASSES
ACTIVE = RATE + 1
N_SUMS = ACTIVE + N_SERVICE_TIMES
MAX_LORAS, PROMPT, OUTPUT, REQUESTED, HELD, WINDOW = range(N_SUMS, N_SUMS + 6)

FEATURE_NAMES = (
    *(f"adapters_of_rank_{rank}" for rank in RANK_CLASSES),
    "sum_rate",
    *(f"expected_active_in_{seconds:.4g}_s" for seconds in SERVICE_TIMES_S),
    "max_loras",
    "mean_prompt_tokens",
    "mean_output_tokens",
    "mean_requested_tokens",
    "mean_held_tokens",
    "window_s",
)
N_FEATURES = len(FEATURE_NAMES)

#: Window that starvation is judged over where none is given, in seconds.
DEFAULT_WINDOW_S = 3600.0


@dataclass(frozen=True)
class LengthStats:
    """The moments of the request lengths that matter to a GPU.

    Attributes
    ----------
    prompt_tokens, output_tokens, requested_tokens : float
        Means per request: prompt, output that the model makes, output that was asked for.
    held_tokens : float
        Mean KV-cache tokens of a running request at a random moment: requests with long outputs run
        longer, so it is E[output * (prompt + output / 2)] / E[output].
    """

    prompt_tokens: float
    output_tokens: float
    requested_tokens: float
    held_tokens: float


class _EvenPoints:
    """Stands in for a random generator with points that fill the cube evenly, the same in every call."""

    def random(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        # Multiples of powers of the root of x**4 = x + 1, modulo 1 (the R3 sequence of M. Roberts, 2018).
        root = 1.2207440846057596
        steps = root ** -np.arange(1.0, shape[1] + 1)
        points: NDArray[np.float64] = (0.5 + np.arange(1.0, shape[0] + 1)[:, None] * steps) % 1.0
        return points


@lru_cache(maxsize=4096)
def _stats_of_lengths(lengths: Lengths) -> LengthStats:
    # Lengths have no formula for these moments; evenly spread draws give them to about 0.1 %, without noise.
    return _moments(*lengths.draw(cast("np.random.Generator", _EvenPoints()), 1 << 13))


def _moments(
    prompt_tokens: NDArray[np.int64], output_tokens: NDArray[np.int64], requested_tokens: NDArray[np.int64]
) -> LengthStats:
    prompt, output = prompt_tokens.astype(float), output_tokens.astype(float)
    return LengthStats(
        float(prompt.mean()),
        float(output.mean()),
        float(requested_tokens.mean()),
        float((output * (prompt + output / 2)).mean() / output.mean()),
    )


def length_stats(lengths: Lengths | Requests | LengthStats) -> LengthStats:
    """Moments of the lengths that a distribution describes or that recorded requests have.

    Raises
    ------
    UserError
        If there are no requests to take lengths from.
    """
    if isinstance(lengths, LengthStats):
        return lengths
    if isinstance(lengths, Lengths):
        return _stats_of_lengths(lengths)
    if not len(lengths):
        raise UserError("requests: an empty trace has no request lengths to learn from")
    return _moments(lengths.prompt_tokens, lengths.output_tokens, lengths.requested_tokens)


@njit(cache=True, nogil=True)
def fill_contributions(rank_class: NDArray[np.int64], rates: NDArray[np.float64], rows: NDArray[np.float64]) -> None:
    """Fill in the rows that adapters add to a content vector.

    Parameters
    ----------
    rank_class : array of shape (n_adapters,)
        Index into `RANK_CLASSES`.
    rates : array of shape (n_adapters,)
        Requests per second.
    rows : array of shape (n_adapters, N_SUMS), filled in
    """
    for i in range(len(rates)):
        for j in range(N_SUMS):
            rows[i, j] = 0.0
        rows[i, rank_class[i]] = 1.0
        rows[i, RATE] = rates[i]
        # Twice the time squares the probability of being idle.
        active = -math.expm1(-rates[i] * FIRST_SERVICE_S)
        between = -math.expm1(-rates[i] * FIRST_SERVICE_S * math.sqrt(2.0))
        for k in range(0, N_SERVICE_TIMES, 2):
            rows[i, ACTIVE + k] = active
            rows[i, ACTIVE + k + 1] = between
            active *= 2.0 - active
            between *= 2.0 - between


def rank_classes(ranks: ArrayLike) -> NDArray[np.int64]:
    """Index into `RANK_CLASSES` of each rank.

    Raises
    ------
    UserError
        For a rank below 1 or above the largest class.
    """
    ranks = np.asarray(ranks, dtype=np.int64)
    wrong = (ranks < 1) | (ranks > RANK_CLASSES[-1])
    if np.any(wrong):
        raise UserError(f"rank={ranks[wrong][0]}: predictors know ranks from 1 to {RANK_CLASSES[-1]}")
    return np.searchsorted(RANK_CLASSES, ranks).astype(np.int64)


def adapter_contributions(ranks: ArrayLike, rates: ArrayLike) -> NDArray[np.float64]:
    """What each adapter adds to the sums of a content vector.

    Parameters
    ----------
    ranks, rates : array-likes of shape (n_adapters,)

    Returns
    -------
    array of shape (n_adapters, N_SUMS)
        The sum of some rows is the beginning of the content vector of these adapters.
    """
    rates = np.asarray(rates, dtype=np.float64)
    rows = np.empty((len(rates), N_SUMS))
    fill_contributions(rank_classes(ranks), rates, rows)
    return rows


def content_tail(
    max_loras: float, lengths: Lengths | Requests | LengthStats, window_s: float = DEFAULT_WINDOW_S
) -> NDArray[np.float64]:
    """The part of a content vector that does not depend on the adapters.

    Returns
    -------
    array of shape (N_FEATURES - N_SUMS,)
    """
    stats = length_stats(lengths)
    return np.array(
        [max_loras, stats.prompt_tokens, stats.output_tokens, stats.requested_tokens, stats.held_tokens, window_s]
    )


def content_features(
    ranks: ArrayLike,
    rates: ArrayLike,
    max_loras: int,
    lengths: Lengths | Requests | LengthStats,
    window_s: float = DEFAULT_WINDOW_S,
) -> NDArray[np.float64]:
    """Describe one GPU content to a predictor.

    Parameters
    ----------
    ranks, rates : array-likes of shape (n_adapters,)
        LoRA rank and request rate (requests per second) of each adapter on the GPU.
    max_loras : int
        Adapter slots of the GPU.
    lengths : Lengths, Requests or LengthStats
        Distribution of the request lengths, or recorded requests to take them from.
    window_s : float
        Window that throughput and starvation are judged over: requests still in service at its end do not
        count, so a short window is harder.

    Returns
    -------
    array of shape (N_FEATURES,)
        In the order of `FEATURE_NAMES`; the same whatever the order of the adapters.
    """
    sums = adapter_contributions(ranks, rates).sum(axis=0)
    return np.concatenate([sums, content_tail(max_loras, lengths, window_s)])
