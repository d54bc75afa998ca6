"""Random streams: Philox with the key (seed, number), as NumPy's generators draw from it, many streams in one compiled loop.

Philox is counter-based: a stream needs no state but its key and a counter, so that opening one costs nothing. What is drawn is
what `numpy.random.Generator(numpy.random.Philox(key=[seed, number]))` draws, to the digit; that generator is the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.np.random import _constants as ziggurat  # NumPy's own tables, which NumPy itself shows to nobody
from numpy.typing import NDArray

from twin.compiled import njit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

# Philox4x64-10 (Salmon, Moraes, Dror & Shaw 2011): multipliers, and what is added to the key in each of the ten rounds.
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_ROUNDS = 10
_HALF, _LOW, _ONE = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(1)
_UNIT = 1.0 / 2.0**53
_ELEVEN = np.uint64(11)

# Places in a stream's state: key, counter, words used of the block, and the block.
_KEY_0, _KEY_1, _COUNTER, _USED, _BLOCK = range(5)
_WORDS_OF_A_BLOCK = 4
_STATE = _BLOCK + _WORDS_OF_A_BLOCK

# Tables of the ziggurat of an exponential variable (Marsaglia & Tsang 2000), as NumPy has them.
_WIDTH: Floats = np.array(ziggurat.we_double, dtype=np.float64)
_INSIDE: Words = np.array(ziggurat.ke_double, dtype=np.uint64)
_HEIGHT: Floats = np.array(ziggurat.fe_double, dtype=np.float64)
_TAIL = float(ziggurat.ziggurat_exp_r)
_THREE, _EIGHT, _STRIP = np.uint64(3), np.uint64(8), np.uint64(0xFF)


class Streams:
    """Streams of one seed, opened one after the other on one generator: making a generator costs six times as much.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self._philox = np.random.Philox(key=[seed, 0])
        self._generator = np.random.Generator(self._philox)
        self._state: Any = self._philox.state

    def open(self, number: int) -> np.random.Generator:
        """The generator at the beginning of a stream; it holds until the next one is opened."""
        key = np.array([self._state["state"]["key"][0], number], dtype=np.uint64)
        state: Any = {**self._state, "state": {**self._state["state"], "key": key}}
        self._philox.state = state
        return self._generator


@njit(cache=True, nogil=True)
def _multiply_high(one: np.uint64, other: np.uint64) -> np.uint64:
    """Upper half of a product."""
    low = (one & _LOW) * (other & _LOW)
    cross = (one >> _HALF) * (other & _LOW) + (low >> _HALF)
    second = (one & _LOW) * (other >> _HALF) + (cross & _LOW)
    return (one >> _HALF) * (other >> _HALF) + (cross >> _HALF) + (second >> _HALF)


@njit(cache=True, nogil=True)
def _open(state: Words, seed: np.uint64, number: np.uint64) -> None:
    state[_KEY_0] = seed
    state[_KEY_1] = number
    state[_COUNTER] = 0
    state[_USED] = _WORDS_OF_A_BLOCK


@njit(cache=True, nogil=True)
def _word(state: Words) -> np.uint64:
    """The next 64 bits of a stream."""
    used = state[_USED]
    if used < _WORDS_OF_A_BLOCK:
        state[_USED] = used + _ONE
        return state[_BLOCK + used]  # type: ignore[no-any-return]
    state[_COUNTER] += _ONE
    key_0, key_1 = state[_KEY_0], state[_KEY_1]
    a, b, c, d = state[_COUNTER], np.uint64(0), np.uint64(0), np.uint64(0)
    for _ in range(_ROUNDS):
        high_0, low_0 = _multiply_high(_MULTIPLIER_0, a), _MULTIPLIER_0 * a
        high_1, low_1 = _multiply_high(_MULTIPLIER_1, c), _MULTIPLIER_1 * c
        a, b, c, d = high_1 ^ b ^ key_0, low_1, high_0 ^ d ^ key_1, low_0
        key_0 += _WEYL_0
        key_1 += _WEYL_1
    state[_BLOCK], state[_BLOCK + 1], state[_BLOCK + 2], state[_BLOCK + 3] = a, b, c, d
    state[_USED] = _ONE
    return a  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _uniform(state: Words) -> float:
    return (_word(state) >> _ELEVEN) * _UNIT


@njit(cache=True, nogil=True)
def _exponential(state: Words) -> float:
    """An exponential variable with mean 1."""
    while True:
        bits = _word(state) >> _THREE
        strip = np.int64(bits & _STRIP)
        bits >>= _EIGHT
        value: float = bits * _WIDTH[strip]
        if bits < _INSIDE[strip]:
            return value
        if strip == 0:
            return _TAIL - float(np.log1p(-_uniform(state)))
        if (_HEIGHT[strip - 1] - _HEIGHT[strip]) * _uniform(state) + _HEIGHT[strip] < np.exp(-value):
            return value


@njit(cache=True, nogil=True)
def uniforms(seed: np.uint64, numbers: Words, counts: Ints, each: int) -> Floats:
    """Draws from [0, 1), of one stream after the other.

    Parameters
    ----------
    seed : int
    numbers, counts : arrays of shape (n_streams,)
        Of the streams, and how many rows are drawn from each.
    each : int
        Draws of one row.

    Returns
    -------
    array of shape (each, sum of counts)
        Column by column what a generator draws row by row.
    """
    drawn = np.empty((each, counts.sum()))
    state = np.empty(_STATE, np.uint64)
    row = 0
    for stream in range(len(numbers)):
        _open(state, seed, numbers[stream])
        for _ in range(counts[stream]):
            for place in range(each):
                drawn[place, row] = _uniform(state)
            row += 1
    return drawn


@njit(cache=True, nogil=True)
def poisson_times(seed: np.uint64, numbers: Words, rates: Floats, duration_s: float, room: int) -> tuple[Floats, Ints]:
    """Arrival times of Poisson processes, of one stream after the other.

    Gaps are summed in parts of as many as are expected and six deviations more, as `PoissonArrivals.draw` does, whose sums
    these are.

    Parameters
    ----------
    seed : int
    numbers, rates : arrays of shape (n_streams,)
        Of the streams, and requests per second; no arrivals at 0.
    duration_s : float
    room : int
        Arrivals that are made room for at first.

    Returns
    -------
    times : array of shape (sum of counts,)
        Seconds in [0, duration_s), ascending within a stream.
    counts : array of shape (n_streams,)
    """
    times = np.empty(max(room, 1))
    counts = np.zeros(len(numbers), np.int64)
    state = np.empty(_STATE, np.uint64)
    total = 0
    for stream in range(len(numbers)):
        if rates[stream] == 0:
            continue
        _open(state, seed, numbers[stream])
        scale = 1 / rates[stream]
        mean = rates[stream] * duration_s
        part = int(mean + 6 * np.sqrt(mean) + 16)
        first, base, since, left = total, 0.0, 0.0, part
        while True:
            if left == 0:
                base, since, left = base + since, 0.0, part
            since += scale * _exponential(state)
            left -= 1
            if base + since >= duration_s:
                break
            if total == len(times):
                times = np.concatenate((times, np.empty(len(times))))
            times[total] = base + since
            total += 1
        counts[stream] = total - first
    return times[:total].copy(), counts
