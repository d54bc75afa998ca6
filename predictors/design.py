"""The designed sample of GPU contents that the twin labels for training.

A content is drawn from a stream of (seed, index) alone, so a sample of 50,000 begins with the sample of
20,000, in whatever pieces it is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from predictors.features import LengthStats, content_features, length_stats
from predictors.meanfield import LOAD_INPUT
from predictors.model import inputs_of
from twin import Lengths, LogNormalTokens, Requests

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from twin import ServingProfile

#: Rates of the published training set (arXiv 2602.24044), requests per second.
PUBLISHED_RATES = (3.2, 1.6, 0.8, 0.4, 0.1, 0.05, 0.025, 0.0125, 0.00625, 0.003125)
#: Adapter counts of the same set.
PUBLISHED_COUNTS = (8, 16, 32, 64, 96, 128, 160, 192, 256, 320, 384)
#: The published rates with a little room: from just below their least to twice their largest, requests per second.
RATE_RANGE = (0.003, 6.4)
#: More than twice the most adapters of the published set, 384. Chosen by hand.
MOST_ADAPTERS = 1024
#: Windows in seconds and how often each is drawn, chosen by hand: starvation is judged over 5 minutes to an hour.
WINDOWS_S = (300.0, 600.0, 1200.0, 1800.0, 3600.0)
WINDOW_SHARES = (0.1, 0.3, 0.15, 0.15, 0.3)
#: Mean prompt and output tokens that lengths other than the default ones are drawn from: steps of about the root of 2 over
#: what a context of 4,096 tokens leaves room for.
LENGTH_MEANS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1280)
#: Requests of one simulation: far beyond capacity a longer window tells nothing more. Chosen by hand; an hour of a GPU that
#: serves 17 requests/s has as many.
MOST_REQUESTS = 60_000


@dataclass(frozen=True)
class DrawnContent:
    """One GPU content and the window it is simulated over.

    Attributes
    ----------
    ranks, rates : arrays of shape (n_adapters,)
    max_loras : int
    lengths : Lengths
    window_s : float
    """

    ranks: NDArray[np.int64]
    rates: NDArray[np.float64]
    max_loras: int
    lengths: Lengths
    window_s: float

    def features(self) -> NDArray[np.float64]:
        """DrawnContent vector, shape (N_FEATURES,)."""
        return content_features(self.ranks, self.rates, self.max_loras, self.lengths, self.window_s)


def content_generator(seed: int, index: int, stream: int = 0) -> np.random.Generator:
    """The stream that content `index` of a sample is drawn from (stream 0) and simulated with (stream 1)."""
    return np.random.Generator(np.random.Philox(key=[seed, 4 * index + stream]))


def draw_content(
    generator: np.random.Generator,
    profile: ServingProfile,
    table: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    load: float = 1.0,
    load_spread: float = 0.7,
) -> DrawnContent:
    """Draw one content.

    Its mix of rates and ranks, adapter count and `max_loras` are drawn first; then all rates are scaled so that
    the estimated load is log-normal around what is given, because nothing is to be learned far from saturation.

    Parameters
    ----------
    generator : numpy Generator
    profile : ServingProfile
    table : tuple of arrays
        Of `profile_table(profile)`.
    load : float
        Median of the estimated load that is aimed at.
    load_spread : float
        Standard deviation of the logarithm of the estimated load that is aimed at.
    """
    ranks_known = np.array(profile.ranks)
    top = int(generator.choice(ranks_known))
    max_loras = _draw_max_loras(generator, profile.largest_max_loras(top))
    n_adapters = _draw_count(generator, max_loras)
    ranks = _draw_ranks(generator, ranks_known[ranks_known <= top], n_adapters)
    rates = _draw_rates(generator, n_adapters)
    lengths = draw_lengths(generator, profile)
    window_s = float(generator.choice(WINDOWS_S, p=WINDOW_SHARES))
    # A quarter keeps the rates as drawn, whatever the load.
    if generator.random() < 0.75:
        target = float(load * np.exp(load_spread * generator.standard_normal()))
        rates = scale_to_load(ranks, rates, max_loras, length_stats(lengths), table, target)
    return DrawnContent(ranks, rates, max_loras, lengths, min(window_s, longest_window_s(rates)))


def scale_to_load(  # noqa: PLR0913  # a content in its parts, not yet one
    ranks: NDArray[np.int64],
    rates: NDArray[np.float64],
    max_loras: int,
    stats: LengthStats,
    table: tuple[NDArray[np.float64], NDArray[np.float64]],
    target: float,
) -> NDArray[np.float64]:
    """Rates in the same proportions with which the estimated load is near `target`, within `RATE_RANGE`."""
    for _ in range(3):
        inputs, state = inputs_of(table, content_features(ranks, rates, max_loras, stats)[None])
        if state[0]:
            break
        rates = np.clip(rates * (target / float(inputs[0, LOAD_INPUT])), *RATE_RANGE)
    return rates


def _draw_max_loras(generator: np.random.Generator, largest: int) -> int:
    if generator.random() < 0.3:
        return int(generator.choice([count for count in (*PUBLISHED_COUNTS, largest) if count <= largest]))
    return int(np.clip(round(np.exp(generator.uniform(0, np.log(largest + 1)))), 1, largest))


def _draw_count(generator: np.random.Generator, max_loras: int) -> int:
    kind = generator.random()
    if kind < 0.2:
        return max_loras
    if kind < 0.6:
        count = max_loras * np.exp(generator.uniform(np.log(0.5), np.log(8)))
    else:
        count = np.exp(generator.uniform(0, np.log(MOST_ADAPTERS)))
    return int(np.clip(round(count), 1, MOST_ADAPTERS))


def _draw_ranks(generator: np.random.Generator, known: NDArray[np.int64], n_adapters: int) -> NDArray[np.int64]:
    """Ranks with at least one adapter of the largest."""
    if generator.random() < 0.5:
        return np.full(n_adapters, known[-1])
    ranks: NDArray[np.int64] = generator.choice(known, n_adapters, p=generator.dirichlet(np.ones(len(known))))
    ranks[0] = known[-1]
    return ranks


def _draw_rates(generator: np.random.Generator, n_adapters: int) -> NDArray[np.float64]:
    """Few distinct values, or a continuous mix as skewed as the popularity of adapters can be."""
    low, high = np.log(RATE_RANGE)
    kind = generator.random()
    if kind < 0.3:
        values = generator.choice(PUBLISHED_RATES, int(generator.integers(1, 4)))
        rates = generator.choice(values, n_adapters)
    elif kind < 0.6:
        values = np.exp(generator.uniform(low, high, int(generator.integers(1, 6))))
        rates = generator.choice(values, n_adapters, p=generator.dirichlet(np.ones(len(values))))
    elif kind < 0.8:
        spread = generator.uniform(0.1, 1.5)
        rates = np.exp(generator.uniform(low, high) + spread * generator.standard_normal(n_adapters))
    else:
        rates = np.arange(1, n_adapters + 1) ** -generator.uniform(0.3, 1.5) * np.exp(generator.uniform(low, high))
    clipped: NDArray[np.float64] = np.clip(rates, *RATE_RANGE)
    return clipped


def draw_lengths(generator: np.random.Generator, profile: ServingProfile) -> Lengths:
    """Half the default lengths, else others; half with the profile's early stops, else with none."""
    generated = float(generator.choice([1.0, profile.generated_fraction]))
    longest = min(4096, profile.max_model_len)
    if generator.random() < 0.5:
        default = Lengths()
        return replace(default, max_total_tokens=min(default.max_total_tokens, longest), generated_fraction=generated)
    # From a short list, so that solved distributions are shared between contents.
    prompt = float(generator.choice(LENGTH_MEANS[: np.searchsorted(LENGTH_MEANS, min(1300, longest / 3))]))
    output = float(generator.choice(LENGTH_MEANS[: np.searchsorted(LENGTH_MEANS, min(900, longest / 4))]))
    prompt_sigma = float(generator.choice([0.0, 0.4, 0.8, 1.2]))
    output_sigma = float(generator.choice([0.0, 0.4, 0.8, 1.08]))
    return Lengths(
        LogNormalTokens(prompt, prompt_sigma, 4, longest // 2),
        LogNormalTokens(output, output_sigma, 4, longest // 2),
        longest,
        generated,
        float(generator.choice([-0.72, 0.0])) if prompt_sigma and output_sigma else 0.0,
    )


def longest_window_s(rates: NDArray[np.float64]) -> float:
    """The window that a simulation is cut to, in seconds, so that it stays within `MOST_REQUESTS`."""
    return max(60.0, MOST_REQUESTS / float(rates.sum()))


def draw_requests(generator: np.random.Generator, content: DrawnContent) -> Requests:
    """Requests of Poisson arrivals, drawn for all adapters at once.

    A merged Poisson process is one of the summed rate whose requests belong to an adapter with
    probability rate / summed rate: the same law as a stream for each adapter, in a tenth of the time.
    """
    total = content.rates.sum()
    n_requests = int(generator.poisson(total * content.window_s))
    arrival_s = np.sort(generator.random(n_requests)) * content.window_s
    share = np.cumsum(content.rates) / total
    adapter = np.minimum(np.searchsorted(share, generator.random(n_requests), side="right"), len(share) - 1)
    return Requests(arrival_s, adapter.astype(np.int64), *content.lengths.draw(generator, n_requests))
