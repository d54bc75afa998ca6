"""The learned starvation model as an oracle: microseconds a content."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors import Predictor, adapter_contributions, content_tail
from predictors.features import MAX_LORAS, N_CLASSES, N_FEATURES, N_SUMS, RATE, WINDOW
from predictors.kernels import STARVATION, values_of
from predictors.meanfield import LOAD, SERVICE_INPUT
from predictors.model import inputs_of
from solvers.contents.adapter_types import AdapterTypes
from solvers.contents.demands import Demands, presence
from solvers.oracles.base import MAX_LORAS_GRID, MadeUp, Oracle, nearest_first
from twin import ServingProfile, Workload
from twin.engine import PER_LOAD, PER_LOAD_ADAPTER

#: What loads of adapters cost, in a profile table.
LOAD_COLUMNS = [LOAD, PER_LOAD, PER_LOAD_ADAPTER]


# Counts of made-up contents are fractions; sums of them are as exact as this.
_ROUNDING = 1e-9


class PredictorOracle(Oracle):
    """The starvation model with its threshold; adapters of one type are the same to it, and it is monotone.

    Parameters
    ----------
    workload, profile : Workload, ServingProfile
    predictor : Predictor
    distilled : bool
        The single tree instead of the full model.
    """

    name = "predictor"

    def __init__(
        self, workload: Workload, profile: ServingProfile, predictor: Predictor, *, distilled: bool = False
    ) -> None:
        super().__init__(workload, profile)
        if distilled:
            self.name = "distilled"
        self._arrays = predictor.distilled_starvation_arrays if distilled else predictor.starvation_arrays
        # Loads are free: see `starves_from`.
        light = self._arrays[0].copy()
        light[:, :, LOAD_COLUMNS] = 0.0
        self._light_arrays = (light, *self._arrays[1:])
        self._threshold = predictor.distilled_threshold if distilled else predictor.starvation_threshold
        #: What each adapter adds to the sums of a content, shape (n_adapters, N_SUMS).
        self.contributions = adapter_contributions(workload.ranks, workload.rates)
        #: Where what was asked last did not starve.
        self._light_at = 0
        self._tail = workload_tail(workload)

    # --- real contents

    def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether the predicted probability of starvation is below the predictor's threshold."""
        return bool(
            self._starvation(self.contributions[list(adapters)].sum(axis=0), (max_loras,), self._arrays)[0]
            < self._threshold
        )

    def find_max_loras(self, adapters: tuple[int, ...], hint: int | None = None) -> int | None:
        """The `max_loras` with the least predicted probability of starvation, if that is below the threshold.

        All values are asked about at once; of equal ones the nearest to the hint is taken.
        """
        candidates = nearest_first(self.slots(adapters), hint or min(len(adapters), 64))
        if not candidates:
            return None
        probability = self._starvation(self.contributions[list(adapters)].sum(axis=0), candidates, self._arrays)
        best = int(np.argmin(probability))
        return candidates[best] if probability[best] < self._threshold else None

    def starves(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:  # noqa: ARG002  # as the base class
        """Whether the content, and all that asks for more, is rejected at every `max_loras`."""
        rank = int(self.workload.ranks[list(adapters)].max())
        return self.starves_from(rank, self.contributions[list(adapters)].sum(axis=0))

    def _starvation(
        self, sums: NDArray[np.float64], candidates: Sequence[int], arrays: tuple[NDArray[Any], ...]
    ) -> NDArray[np.float64]:
        self.calls += len(candidates)
        contents = np.empty((len(candidates), N_FEATURES))
        contents[:, :N_SUMS] = sums
        contents[:, N_SUMS:] = self._tail
        contents[:, MAX_LORAS] = candidates
        return values_of(STARVATION, contents, *arrays)

    # --- what bounds rest on

    def demands(self, types: AdapterTypes) -> Demands:
        """What the predictor knows of a content: adapters, ranks present, summed rate, expected active adapters."""
        rows = adapter_contributions(types.ranks, types.rates)
        above = presence(types.ranks)
        adapters = np.ones((1, len(types)))
        return Demands(np.vstack([above, adapters, rows[:, RATE:N_SUMS].T]), len(above) + 1)

    def made_up_sums(self, content: MadeUp) -> NDArray[np.float64]:
        """As `Oracle.made_up_sums`."""
        above = (np.unique(self.workload.ranks)[1:] <= content.rank).astype(np.float64)
        row = adapter_contributions([content.rank], [content.load / content.n_adapters])[0]
        return np.concatenate([above, [content.n_adapters], content.n_adapters * row[RATE:N_SUMS]])

    def made_up_starves(self, content: MadeUp) -> bool:
        """Asks about the made-up sums at every `max_loras` that any content of this workload may be given."""
        smallest, largest = adapter_contributions(
            [int(self.workload.ranks.min()), content.rank], [content.load / content.n_adapters] * 2
        )
        return self.starves_from(content.rank, (content.n_adapters - 1) * smallest + largest)

    def starves_from(self, rank: int, sums: NDArray[np.float64]) -> bool:
        """Whether whatever has at least these sums is rejected at every `max_loras` that it may be given.

        An adapter more never helps the model's estimate, but a content with larger sums may have fewer loads of adapters: their
        rate is a slope of the activity, not a sum. So loads are free here. All else that the estimate is made of grows with
        every sum (`predictors.meanfield`), the trees are monotone in it, and what they reject without loads they reject with
        them.

        Parameters
        ----------
        rank : int
            The largest rank of such a content is at least this, as it is of the sums.
        sums : array of shape (N_SUMS,)
        """
        slots = self._slots_from(rank, max(1, math.ceil(sums[:N_CLASSES].sum() - _ROUNDING)))
        # What was asked before is often similar.
        if (
            self._light_at in slots
            and self._starvation(sums, (self._light_at,), self._light_arrays)[0] < self._threshold
        ):
            return False
        probability = self._starvation(sums, slots, self._light_arrays) if slots else np.ones(1)
        best = int(np.argmin(probability))
        if probability[best] >= self._threshold:
            return True
        self._light_at = slots[best]
        return False

    def service_s(self, sums: NDArray[np.float64], max_loras: int) -> float:
        """The time in service, in seconds, that the model's estimate expects of a content with these sums."""
        content = np.concatenate([sums, self._tail])[None]
        content[0, MAX_LORAS] = max_loras
        inputs, _ = inputs_of((self._arrays[0], self._arrays[1]), content)
        return float(inputs[0, SERVICE_INPUT] * content[0, WINDOW])

    @lru_cache(maxsize=4096)  # noqa: B019  # as long as the oracle, of a handful of ranks and some hundred counts
    def _slots_from(self, rank: int, count: int) -> tuple[int, ...]:
        """Every `max_loras` that any content of at least a largest rank and so many adapters may be given (`Oracle.slots_for`)."""
        limits = {self.profile.largest_max_loras(known) for known in self.profile.ranks if known >= rank}
        # A content may have a slot for each of its adapters, and more of them than are counted.
        one_each = range(count, min(max(limits), self.workload.n_adapters) + 1)
        return tuple(value for value in sorted({*MAX_LORAS_GRID, *limits, *one_each}) if 0 < value <= max(limits))


def workload_tail(workload: Workload) -> NDArray[np.float64]:
    """What a predictor is told of a workload apart from its adapters, with `max_loras` left at 1."""
    lengths = workload.lengths_asked
    return content_tail(1, lengths, workload.duration_s)
