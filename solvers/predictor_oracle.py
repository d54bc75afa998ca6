"""The learned starvation model as an oracle: microseconds a content."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from predictors import Predictor, adapter_contributions, content_tail
from predictors.features import FEATURE_NAMES, MAX_LORAS, N_FEATURES, N_SUMS, RATE
from predictors.model import starvation_batch
from solvers.adapter_types import AdapterTypes
from solvers.demands import Demands, presence
from solvers.oracle import MAX_LORAS_GRID, MadeUp, Oracle, nearest_first
from twin import ServingProfile, Workload

LOG = logging.getLogger(__name__)


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
        self._threshold = predictor.distilled_threshold if distilled else predictor.starvation_threshold
        self._rows = adapter_contributions(workload.ranks, workload.rates)
        self._tail = workload_tail(workload)

    # --- real contents

    def accepts(self, adapters: tuple[int, ...], max_loras: int) -> bool:
        """Whether the predicted probability of starvation is below the predictor's threshold."""
        return bool(self._starvation(self._rows[list(adapters)].sum(axis=0), (max_loras,))[0] < self._threshold)

    def find_max_loras(self, adapters: tuple[int, ...], hint: int | None = None) -> int | None:
        """The `max_loras` with the least predicted probability of starvation, if that is below the threshold.

        All values are asked about at once; of equal ones the nearest to the hint is taken.
        """
        candidates = nearest_first(self.slots(adapters), hint or min(len(adapters), 64))
        if not candidates:
            return None
        probability = self._starvation(self._rows[list(adapters)].sum(axis=0), candidates)
        best = int(np.argmin(probability))
        return candidates[best] if probability[best] < self._threshold else None

    def _starvation(self, sums: NDArray[np.float64], candidates: Sequence[int]) -> NDArray[np.float64]:
        self.calls += len(candidates)
        contents = np.empty((len(candidates), N_FEATURES))
        contents[:, :N_SUMS] = sums
        contents[:, N_SUMS:] = self._tail
        contents[:, MAX_LORAS] = candidates
        probability: NDArray[np.float64] = starvation_batch(contents, *self._arrays)
        return probability

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
        limits = {self.profile.largest_max_loras(rank) for rank in self.profile.ranks if rank >= content.rank}
        slots = [value for value in sorted({*MAX_LORAS_GRID, *limits}) if 0 < value <= max(limits)]
        if not slots:
            return True
        probability = self._starvation((content.n_adapters - 1) * smallest + largest, slots)
        return bool(probability.min() >= self._threshold)


def workload_tail(workload: Workload) -> NDArray[np.float64]:
    """What a predictor is told of a workload apart from its adapters, with `max_loras` left at 1."""
    lengths = workload.lengths if workload.trace is None or not len(workload.trace) else workload.trace
    return content_tail(1, lengths, workload.duration_s)


def out_of_range(predictor: Predictor, workload: Workload) -> str:
    """What of a workload lies outside the range that a predictor was trained on, in words; empty if nothing does.

    Only what every GPU shares: request lengths and window. More load than was trained on starves, which is no guess.
    """
    tail = dict(zip(FEATURE_NAMES[N_SUMS:], workload_tail(workload), strict=True))
    outside = []
    for name, value in tail.items():
        low, high = predictor.card["range"][name]
        if name != "max_loras" and not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
            outside.append(f"{name} {value:g} (trained on {low:g} to {high:g})")
    return ", ".join(outside)


def say_out_of_range(predictor: Predictor, workload: Workload) -> bool:
    """Whether a workload lies outside a predictor's range; if so that is said, as a warning in the log."""
    outside = out_of_range(predictor, workload)
    if outside:
        LOG.warning("predictor %s: %s; asking the twin instead", predictor.profile_name, outside)
    return bool(outside)


def learned_oracle(
    workload: Workload,
    profile: ServingProfile,
    predictor: Predictor,
    *,
    distilled: bool = False,
    twin_outside: bool = True,
) -> Oracle:
    """A predictor as an oracle, or the twin for a workload outside the range that it was trained on.

    Parameters
    ----------
    workload, profile, predictor
    distilled : bool
        The single tree instead of the full model.
    twin_outside : bool
        Fall back to the twin outside the range; otherwise the predictor extrapolates.
    """
    if twin_outside and say_out_of_range(predictor, workload):
        from solvers.twin_oracle import TwinOracle

        return TwinOracle(workload, profile)
    return PredictorOracle(workload, profile, predictor, distilled=distilled)
