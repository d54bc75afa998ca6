"""Fitting adapters onto a given number of GPUs by simulated annealing on a learned model, in compiled code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictors.features import N_FEATURES, N_SUMS
from predictors.meanfield import N_INPUTS
from solvers.limits import Deadline
from solvers.oracles.kernel import starvation_at
from solvers.spreading.exchange_kernel import exchange, sums_after
from twin.compiled import njit

#: Proposals of one compiled call, between looks at the clock: some milliseconds.
CHUNK = 500
#: Places of `max_loras` on either side of the present one that a proposal tries. By hand: a proposal changes a content by an
#: adapter or two, which moves its best value by a place or two of the grid.
NEAR = 2
#: Temperature at first, in shares of a GPU, and what is left of it at the end: from a twentieth of a GPU, about an adapter of twenty, down
#: to a thousandth. By hand.
HOT, COOLED = 0.05, 0.02
#: Share of proposals that are swaps (the others are moves, which only help while GPUs have room), draws until an adapter of a GPU that has
#: too much is found, and halvings of the share of a content that is too much (eight leave .4 % of a GPU). By hand.
SWAPS, DRAWS, HALVINGS = 0.6, 8, 8


@njit(cache=True, nogil=True)
def _accepted_near(  # noqa: PLR0913  # arrays of a forest
    sums: NDArray[np.float64],
    scale: float,
    count: int,
    place: int,
    content: NDArray[np.float64],
    grid: NDArray[np.int64],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    inputs: NDArray[np.float32],
) -> int:
    """Place in `grid`, near `place`, of a `max_loras` at which a share of a content is accepted; -1 if there is none."""
    for j in range(N_SUMS):
        content[j] = scale * sums[j]
    last = min(int(np.searchsorted(grid, count)), len(grid) - 1)
    place = min(place, last)
    for step in range(2 * NEAR + 1):
        trial = place + ((step + 1) // 2 if step % 2 else -(step // 2))
        if trial < 0 or trial > last:
            continue
        if starvation_at(content, grid[trial], starvation, inputs) < threshold:
            return trial
    return -1


@njit(cache=True, nogil=True)
def _excess(  # noqa: PLR0913  # arrays of a forest
    sums: NDArray[np.float64],
    count: int,
    place: int,
    content: NDArray[np.float64],
    grid: NDArray[np.int64],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    inputs: NDArray[np.float32],
) -> tuple[float, int]:
    """The share of a content that is too much, and the place in `grid` at which the rest is accepted."""
    if count == 0:
        return 0.0, place
    found = _accepted_near(sums, 1.0, count, place, content, grid, starvation, threshold, inputs)
    if found >= 0:
        return 0.0, found
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2 if low else 0.9 * high
        found = _accepted_near(sums, middle, count, place, content, grid, starvation, threshold, inputs)
        if found >= 0:
            low, place = middle, found
        else:
            high = middle
    return 1.0 - low, place


@njit(cache=True, nogil=True)
def anneal(  # noqa: C901, PLR0913  # one local search, one loop
    rows: NDArray[np.float64],
    tail: NDArray[np.float64],
    grid: NDArray[np.int64],
    starvation: tuple[NDArray[Any], ...],
    threshold: float,
    proposals: int,
    generator: np.random.Generator,
    temperature: float,
    gpu_of: NDArray[np.int64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    places: NDArray[np.int64],
    excess: NDArray[np.float64],
) -> tuple[float, int]:
    """Propose moves and swaps between GPUs; keep those that make less too much, and now and then another.

    Parameters
    ----------
    rows : array of shape (n_adapters, N_SUMS)
    tail : array of shape (N_FEATURES - N_SUMS,)
    grid : array of shape (n,), ascending
        Values of `max_loras`.
    starvation, threshold
        `Predictor.starvation_arrays` or the distilled ones, and the probability that counts as starvation.
    proposals : int
    generator : numpy.random.Generator
    temperature : float
        Of the acceptance rule, in shares of a GPU.
    gpu_of : array of shape (n_adapters,), changed
    sums, counts, places, excess : arrays of shape (n_gpus, ...), changed
        State of each GPU; `excess` of -1 is not known yet.

    Returns
    -------
    total : float
        Sum of `excess`; at 0 all GPUs are accepted.
    calls : int
        Contents asked about.
    """
    n_adapters, n_gpus = len(rows), len(counts)
    content = np.empty(N_FEATURES)
    content[N_SUMS:] = tail
    inputs = np.empty(N_INPUTS, np.float32)
    first, second = np.empty(N_SUMS), np.empty(N_SUMS)
    calls = 0
    total = 0.0
    for gpu in range(n_gpus):
        if excess[gpu] < 0.0:
            calls += 1
            excess[gpu], places[gpu] = _excess(
                sums[gpu], counts[gpu], places[gpu], content, grid, starvation, threshold, inputs
            )
        total += excess[gpu]
    for _ in range(proposals):
        if total <= 0.0:
            break
        a = int(generator.random() * n_adapters)
        # Something has to leave a GPU that has too much.
        for _try in range(DRAWS):
            if excess[gpu_of[a]] > 0.0:
                break
            a = int(generator.random() * n_adapters)
        source = gpu_of[a]
        b = -1
        if generator.random() < SWAPS:
            b = int(generator.random() * n_adapters)
            target = gpu_of[b]
        else:
            target = int(generator.random() * n_gpus)
        if target == source:
            continue
        sums_after(rows, sums, source, target, a, b, first, second)
        shift = 0 if b >= 0 else 1
        calls += 2
        left, left_place = _excess(
            first, counts[source] - shift, places[source], content, grid, starvation, threshold, inputs
        )
        change = left - excess[source] - excess[target]
        # The other GPU's excess is not negative: hopeless proposals cost one question only.
        bar = -temperature * np.log(max(generator.random(), 1e-300))
        if change > bar:
            continue
        right, right_place = _excess(
            second, counts[target] + shift, places[target], content, grid, starvation, threshold, inputs
        )
        change += right
        if change > bar:
            continue
        exchange(gpu_of, sums, counts, source, target, a, b, first, second)
        places[source], places[target] = left_place, right_place
        excess[source], excess[target] = left, right
        total = 0.0
        for gpu in range(n_gpus):
            total += excess[gpu]
    return total, calls


@dataclass(frozen=True)
class Packed:
    """What annealing ended with.

    Attributes
    ----------
    gpu_of : array of shape (n_adapters,)
    places : array of shape (n_gpus,)
        `max_loras` of each GPU, as a place in the grid.
    excess : array of shape (n_gpus,)
        The share of each GPU's content that is too much; all 0 if the model accepts every GPU.
    calls : int
        Contents asked about.
    """

    gpu_of: NDArray[np.int64]
    places: NDArray[np.int64]
    excess: NDArray[np.float64]
    calls: int

    @property
    def accepted(self) -> bool:
        """Whether the model accepts every GPU."""
        return not self.excess.any()


class ModelArrays(NamedTuple):
    """A starvation model with a workload's contributions: the first arguments of `anneal`, as described there."""

    rows: NDArray[np.float64]
    tail: NDArray[np.float64]
    grid: NDArray[np.int64]
    starvation: tuple[NDArray[Any], ...]
    threshold: float


def repack(  # noqa: PLR0913  # a start, a model and the limits of a search
    gpu_of: NDArray[np.int64],
    n_gpus: int,
    model: ModelArrays,
    *,
    proposals: int,
    seed: int,
    deadline: Deadline,
) -> Packed:
    """Anneal from a start until the model accepts all GPUs, or the proposals or the time run out.

    Parameters
    ----------
    gpu_of : array of shape (n_adapters,)
        Where the adapters are at first; not changed.
    n_gpus : int
    model : ModelArrays
    proposals, seed : int
    deadline : Deadline
    """
    gpu_of = gpu_of.copy()
    sums = np.zeros((n_gpus, N_SUMS))
    np.add.at(sums, gpu_of, model.rows)
    counts = np.bincount(gpu_of, minlength=n_gpus)
    places = np.minimum(np.searchsorted(model.grid, counts), np.searchsorted(model.grid, 64))
    excess = np.full(n_gpus, -1.0)
    generator = np.random.default_rng(seed)
    calls, done = 0, 0
    while done < proposals and deadline.left_s:
        temperature = HOT * COOLED ** (done / proposals)
        total, asked = anneal(*model, CHUNK, generator, temperature, gpu_of, sums, counts, places, excess)
        calls += asked
        done += CHUNK
        if total <= 0.0:
            break
        # Sums drift by rounding.
        sums[:] = 0.0
        np.add.at(sums, gpu_of, model.rows)
    return Packed(gpu_of, places, np.maximum(excess, 0.0), calls)
