"""Request lengths: how many prompt and output tokens a request has."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from twin.errors import UserError
from twin.numbers import number, whole
from twin.token_tables import (
    MOST_TABLED,
    OutputTable,
    correlated_tokens,
    normal_table,
    output_table,
    tokens_by_quantile,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


# No request is longer; a spread of more than e^5 either way is no spread of lengths.
_MOST_TOKENS = 10**9
_MOST_SIGMA = 5.0


@dataclass(frozen=True)
class LogNormalTokens:
    """Token counts from a log-normal distribution truncated to a range, with a given mean.

    A normal distribution clipped at 1 inflates the mean by more than a tenth; a truncated
    log-normal is long-tailed, as chat traffic is, and its location is solved for so that the mean
    *after* truncation is the one asked for.

    Parameters
    ----------
    mean_tokens : float
        Mean after truncation, in tokens.
    sigma : float
        Standard deviation of the logarithm before truncation; 0 gives a constant length.
    min_tokens, max_tokens : int
        Inclusive range.

    Raises
    ------
    UserError
        If the mean is outside the range or a value is negative.
    """

    mean_tokens: float
    sigma: float
    min_tokens: int = 4
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        for key in ("min_tokens", "max_tokens"):
            whole(f"lengths: {key}", getattr(self, key), at_least=1, at_most=_MOST_TOKENS)
        number("lengths: mean_tokens", self.mean_tokens)
        number("lengths: sigma", self.sigma, at_least=0.0, at_most=_MOST_SIGMA)
        if not self.min_tokens <= self.max_tokens:
            msg = (
                f"lengths: min_tokens={self.min_tokens} and max_tokens={self.max_tokens} must satisfy "
                "1 <= min_tokens <= max_tokens"
            )
            raise UserError(msg)
        if not self.min_tokens <= self.mean_tokens <= self.max_tokens:
            msg = f"lengths: mean_tokens={self.mean_tokens} must lie in [{self.min_tokens}, {self.max_tokens}]"
            raise UserError(msg)

    def from_uniform(self, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Token counts by inverse transform of uniform draws.

        Parameters
        ----------
        uniform : array of shape (n_requests,)
            Draws from [0, 1).

        Returns
        -------
        array of shape (n_requests,), int64
        """
        if self.sigma == 0 or self.min_tokens == self.max_tokens:
            return np.full(uniform.shape, round(self.mean_tokens), dtype=np.int64)
        table = _quantile_table(self.mean_tokens, self.sigma, self.min_tokens, self.max_tokens)
        tokens = np.rint(np.interp(uniform, _GRID, table)).astype(np.int64)
        return np.clip(tokens, self.min_tokens, self.max_tokens)

    def from_ordered(self, uniform: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int64]:
        """`from_uniform(uniform[order])`, sooner."""
        if self.sigma == 0 or self.min_tokens == self.max_tokens:
            return np.full(order.shape, round(self.mean_tokens), dtype=np.int64)
        table = _quantile_table(self.mean_tokens, self.sigma, self.min_tokens, self.max_tokens)
        return tokens_by_quantile(uniform, order, _GRID, _CELL, table, self.min_tokens, self.max_tokens)


# Interpolating a quantile table is some forty times faster than evaluating the inverse normal for
# every request; the grid is dense enough that the mean is off by less than 0.1 %. It grows denser
# towards both ends, where a narrow distribution in a wide range has its quantiles far apart.
_CELL = 1 / 4096
_ENDS = _CELL * 0.5 ** np.arange(1, 40)
_GRID = np.concatenate([[0.0], _ENDS[::-1], np.arange(1, 4096) * _CELL, 1 - _ENDS, [1.0]])


def _log_mass(a: float, b: float) -> float:
    """Log of the standard normal probability between a and b, exact in either tail."""
    from scipy.special import log_ndtr

    if a > 0:
        a, b = -b, -a
    return float(log_ndtr(b) + np.log1p(-np.exp(log_ndtr(a) - log_ndtr(b))))


def _truncated_mean(mu: float, sigma: float, low: float, high: float) -> float:
    """Mean of exp(N(mu, sigma)) given low <= value <= high (Johnson, Kotz & Balakrishnan, 1994)."""
    a, b = (np.log(low) - mu) / sigma, (np.log(high) - mu) / sigma
    return float(np.exp(mu + sigma**2 / 2 + _log_mass(a - sigma, b - sigma) - _log_mass(a, b)))


@lru_cache(maxsize=256)
def _quantile_table(mean: float, sigma: float, low: int, high: int) -> NDArray[np.float64]:
    # SciPy takes half a second to import, which a command that draws nothing need not.
    from scipy.optimize import brentq
    from scipy.special import log_ndtr, ndtri_exp

    # Rounding to whole tokens is symmetric about the half-open cells, hence the half-token margins.
    edge_low, edge_high = low - 0.5, high + 0.5
    # Far enough for a mean within some per cent of an end of the range; there the density is a power law.
    lowest, highest = np.log(edge_low) - 40 * sigma**2 - 6, np.log(edge_high) + 40 * sigma**2 + 6
    try:
        mu = brentq(lambda m: _truncated_mean(m, sigma, edge_low, edge_high) - mean, lowest, highest)
    except ValueError:
        msg = (
            f"lengths: no log-normal with sigma={sigma} truncated to [{low}, {high}] has "
            f"mean_tokens={mean}; take a smaller sigma or a mean further from the ends"
        )
        raise UserError(msg) from None
    a, b = (np.log(edge_low) - mu) / sigma, (np.log(edge_high) - mu) / sigma
    mirror = -1.0 if a > 0 else 1.0
    near, far = (a, b) if a <= 0 else (-b, -a)
    share = _GRID if a <= 0 else 1 - _GRID
    ratio = np.exp(log_ndtr(near) - log_ndtr(far))
    below = np.maximum(ratio + share * (1 - ratio), np.finfo(np.float64).tiny)
    quantiles = mirror * ndtri_exp(log_ndtr(far) + np.log(below))
    table: NDArray[np.float64] = np.exp(mu + sigma * np.clip(quantiles, a, b))
    table.flags.writeable = False
    return table


@lru_cache(maxsize=256)
def _output_table(tokens: LogNormalTokens) -> OutputTable:
    table = _quantile_table(tokens.mean_tokens, tokens.sigma, tokens.min_tokens, tokens.max_tokens)
    return output_table(table, _GRID, tokens.min_tokens, tokens.max_tokens)


#: Uniform draws that the lengths of one request take.
LENGTH_DRAWS = 3


@dataclass(frozen=True)
class Lengths:
    """Prompt and output lengths of every request of a workload, and how much of the output is made.

    Parameters
    ----------
    prompt, output : LogNormalTokens
        Distribution of prompt tokens and of *requested* output tokens.
    max_total_tokens : int
        Output is shortened so that prompt + output stays within it.
    generated_fraction : float
        Mean share of the requested output tokens that the model makes before it stops by itself; 1
        with `ignore_eos`. The published runs made 0.989 (Llama-3.1-8B) and 0.953 (Qwen-2.5-7B).
    correlation : float
        Between prompt and requested output, of the normal variables behind the two (Gaussian copula).
    """

    # Defaults: ShareGPT as vLLM's own serving benchmark filters it, with the means of the published runs of
    # arXiv 2508.08343. The shape of the output and its correlation with the prompt are what gives the KV cache in
    # use per running request (360 tokens) and the queues of slot-limited servers (narrower outputs halve them) in
    # the runs that the shipped profiles were fitted to; the spread of the prompt is a prior.
    prompt: LogNormalTokens = field(default_factory=lambda: LogNormalTokens(222.8, 1.2, 4, 1024))
    output: LogNormalTokens = field(default_factory=lambda: LogNormalTokens(197.0, 1.4, 4, 1024))
    max_total_tokens: int = 2048
    generated_fraction: float = 1.0
    correlation: float = -0.49

    def __post_init__(self) -> None:
        for key in ("prompt", "output"):
            if not hasattr(getattr(self, key), "from_uniform"):
                raise UserError(f"lengths.{key}={getattr(self, key)} must be a distribution such as LogNormalTokens")
        number("lengths: generated_fraction", self.generated_fraction, above=0.0, at_most=1.0)
        whole("lengths: max_total_tokens", self.max_total_tokens, at_least=2, at_most=2 * _MOST_TOKENS)
        if not -1 < number("lengths: correlation", self.correlation) < 1:
            msg = f"lengths: correlation={self.correlation} must be above -1 and below 1"
            raise UserError(msg)

    @property
    def mean_total_tokens(self) -> float:
        """Mean prompt + requested output tokens of a request."""
        return self.prompt.mean_tokens + self.output.mean_tokens

    def draw(
        self, generator: np.random.Generator, n_requests: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Lengths of `n_requests` requests, as `from_uniforms` gives them."""
        return self.from_uniforms(generator.random((n_requests, LENGTH_DRAWS)))

    def from_uniforms(
        self, uniform: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Lengths by inverse transform of uniform draws.

        Parameters
        ----------
        uniform : array of shape (n_requests, LENGTH_DRAWS)
            Draws from [0, 1).

        Returns
        -------
        prompt_tokens, output_tokens, requested_tokens : arrays of shape (n_requests,)
            `output_tokens` is what the model makes, `requested_tokens` what was asked for.
        """
        prompt = self.prompt.from_uniform(uniform[:, 0])
        return self._cut(prompt, self._requested(uniform[:, 0], uniform[:, 1]), uniform[:, 2])

    def from_ordered(
        self, uniform: NDArray[np.float64], order: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """`from_uniforms(uniform.T[order])`, sooner.

        Parameters
        ----------
        uniform : array of shape (LENGTH_DRAWS, n_requests)
        order : array of shape (n_requests,)
        """
        prompt, output = self.prompt, self.output
        # A distribution of the user's own, or of one length, or of a book's.
        if not (
            type(prompt) is type(output) is LogNormalTokens and output.max_tokens - output.min_tokens <= MOST_TABLED
        ):
            return self.from_uniforms(uniform.T[order])
        if self.correlation and output.sigma and output.min_tokens < output.max_tokens:
            requested, doubtful = correlated_tokens(
                uniform[0], uniform[1], order, self.correlation, normal_table(), *_output_table(output)
            )
            if len(doubtful):
                rows = order[doubtful]
                requested[doubtful] = self._requested(uniform[0, rows], uniform[1, rows])
        else:
            requested = output.from_ordered(uniform[1], order)
        return self._cut(prompt.from_ordered(uniform[0], order), requested, uniform[2], order)

    def _requested(self, prompt_uniform: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Output tokens asked for, before they are cut to fit."""
        from scipy.special import ndtr, ndtri

        if self.correlation:
            own = np.sqrt(1 - self.correlation**2)
            uniform = ndtr(self.correlation * ndtri(prompt_uniform) + own * ndtri(uniform))
        return self.output.from_uniform(uniform)

    def _cut(
        self,
        prompt: NDArray[np.int64],
        requested: NDArray[np.int64],
        stopping: NDArray[np.float64],
        order: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Lengths that fit together, and what is made of the output."""
        prompt = np.minimum(prompt, self.max_total_tokens - 1)
        requested = np.minimum(requested, self.max_total_tokens - prompt)
        output = requested
        if self.generated_fraction < 1:
            # A share of the requests stops early, at a uniform place; the share gives the mean.
            share = min(1.0, 2 * (1 - self.generated_fraction))
            place = stopping if order is None else stopping[order]
            output = np.where(place < share, np.ceil(requested * (place / share)), requested).astype(np.int64)
            output = np.maximum(output, 1)
        return prompt, output, requested


def fixed_lengths(prompt_tokens: int, output_tokens: int) -> Lengths:
    """Every request with the same prompt and output length, in tokens."""
    return Lengths(
        LogNormalTokens(prompt_tokens, 0.0, 1, max(prompt_tokens, 1)),
        LogNormalTokens(output_tokens, 0.0, 1, max(output_tokens, 1)),
        max_total_tokens=prompt_tokens + output_tokens,
        correlation=0.0,
    )
