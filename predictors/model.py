"""The learned models of one serving profile: what a GPU content does, in microseconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from predictors import features as content_places
from predictors.features import FEATURE_NAMES, N_CLASSES, N_FEATURES
from predictors.kernels import FEASIBLE_LOAD, LATENCY, STARVATION, THROUGHPUT, values_of
from predictors.levels import PERCENTILES, Latency, LevelModels
from predictors.meanfield import N_INPUTS, model_inputs_batch, profile_table
from predictors.trees import Forest
from twin import PUBLISHED, ServiceLevel, UserError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from twin import ServingProfile


#: What is predicted; for each there is a forest and, with `_tree` behind its name, a single tree.
TARGETS = ("throughput", "starvation", "itl", "ttft", "feasible_load")
FORESTS = (*TARGETS, *(f"{target}_tree" for target in TARGETS))

#: Calibration of what is a probability already, or none.
UNCALIBRATED = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
for _array in UNCALIBRATED:
    _array.flags.writeable = False

# Raw content quantities whose trained range the card states and `in_range` checks.
RANGE_NAMES = ("adapters", "sum_rate", *FEATURE_NAMES[content_places.MAX_LORAS :])


@dataclass(frozen=True)
class Predictor:
    """What was learned of GPU contents under one serving profile.

    Attributes
    ----------
    profile : ServingProfile
        What the twin was given that the training data come from.
    throughput : Forest
        Logarithm of twin over queueing estimate.
    starvation : Forest
        Score that grows with the probability of starvation; `calibration` makes a probability of it.
    calibration : array of shape (2, n)
        Scores and probabilities, both ascending, interpolated linearly.
    itl, ttft : Forest
        Logarithm of the twin's mean inter-token latency, and of its mean time to first token, over the estimated step time.
    feasible_load : Forest
        Logarithm of the estimated load at which the content begins to starve.
    throughput_tree, starvation_tree, itl_tree, ttft_tree, feasible_load_tree : Forest
        The same, distilled into one tree each; the leaves of `starvation_tree` are probabilities.
    starvation_threshold, distilled_threshold : float
        A content counts as starved from this probability on. Chosen so that at most the share
        `card["risk"]` of the starved contents of left-out twin data is missed.
    card : dict
        Model card: data, ranges, errors on left-out data, thresholds for other risks.
    levels : LevelModels, optional
        Models of service levels and of percentiles of latency.
    service : ServiceLevel
        What `starvation` and what goes with it are about: the published rule, or another level (`under`).
    published : Predictor, optional
        The same for the published rule, where this one is for another level.
    """

    profile: ServingProfile
    throughput: Forest
    starvation: Forest
    itl: Forest
    ttft: Forest
    feasible_load: Forest
    calibration: NDArray[np.float64]
    throughput_tree: Forest
    starvation_tree: Forest
    itl_tree: Forest
    ttft_tree: Forest
    feasible_load_tree: Forest
    starvation_threshold: float
    distilled_threshold: float
    card: dict[str, Any]
    levels: LevelModels | None = None
    service: ServiceLevel = PUBLISHED
    published: Predictor | None = field(default=None, repr=False, compare=False)
    table: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    flags: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table, flags = profile_table(self.profile)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "flags", flags)
        for array in (table, flags, self.calibration):
            array.flags.writeable = False

    @property
    def profile_name(self) -> str:
        """Name of the serving profile."""
        return self.profile.name

    def made_for(self, profile: ServingProfile) -> bool:
        """Whether a profile behaves as that of the training data; where the two come from, and how sure they are, may differ."""
        mine, other = (replace(one, provenance={}, uncertainty=None) for one in (self.profile, profile))
        return mine == other

    def predict_throughput(self, contents: ArrayLike) -> NDArray[np.float64]:
        """Throughput of GPU contents by the full model.

        Parameters
        ----------
        contents : array-like of shape (n, N_FEATURES)
            Rows from `content_features`.

        Returns
        -------
        array of shape (n,)
            Tokens per second, prompt and output; 0 where the engine would not start.
        """
        return values_of(THROUGHPUT, _rows(contents), *_uncalibrated(self.throughput_arrays))

    def predict_starvation(self, contents: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probability of starvation by the full model.

        Parameters
        ----------
        contents : array-like of shape (n, N_FEATURES)

        Returns
        -------
        array of shape (n,)
            1 where the engine would not start. Never smaller when an adapter joins.
        """
        return values_of(STARVATION, _rows(contents), *self.starvation_arrays)

    def distilled_throughput(self, contents: ArrayLike) -> NDArray[np.float64]:
        """`predict_throughput` by the single tree."""
        return values_of(THROUGHPUT, _rows(contents), *_uncalibrated(self.distilled_throughput_arrays))

    def distilled_starvation(self, contents: ArrayLike) -> NDArray[np.float64]:
        """`predict_starvation` by the single tree."""
        return values_of(STARVATION, _rows(contents), *self.distilled_starvation_arrays)

    def predict_itl_ms(self, contents: ArrayLike, *, distilled: bool = False) -> NDArray[np.float64]:
        """Mean inter-token latency of the requests that finish inside the window, as the engine sees it.

        Parameters
        ----------
        contents : array-like of shape (n, N_FEATURES)
        distilled : bool
            By the single tree.

        Returns
        -------
        array of shape (n,)
            Milliseconds; NaN where nothing is served.
        """
        return values_of(LATENCY, _rows(contents), *_uncalibrated(self._forest_arrays("itl", distilled)))

    def predict_ttft_ms(self, contents: ArrayLike, *, distilled: bool = False) -> NDArray[np.float64]:
        """Mean time to first token, as `predict_itl_ms`."""
        return values_of(LATENCY, _rows(contents), *_uncalibrated(self._forest_arrays("ttft", distilled)))

    def predict_feasible_load(self, contents: ArrayLike, *, distilled: bool = False) -> NDArray[np.float64]:
        """By how much all rates of a content can be multiplied before it starves.

        Parameters
        ----------
        contents : array-like of shape (n, N_FEATURES)
        distilled : bool
            By the single tree.

        Returns
        -------
        array of shape (n,)
            Below 1 for a content that starves; infinite where nothing is asked of the GPU, 0 where the engine would not
            start. Times the summed rate it is the largest load that the GPU
            bears with this mix of adapters.
        """
        arrays = self._forest_arrays("feasible_load", distilled)
        return values_of(FEASIBLE_LOAD, _rows(contents), *_uncalibrated(arrays))

    def _forest_arrays(self, target: str, distilled: bool) -> tuple[NDArray[Any], ...]:
        forest: Forest = getattr(self, f"{target}_tree" if distilled else target)
        return self.table, self.flags, *forest.arrays

    def predict_percentile_ms(
        self, what: Latency, percentile: int, contents: ArrayLike, *, distilled: bool = False
    ) -> NDArray[np.float64]:
        """A percentile of the TTFT of the requests that finish inside the window, or of the ITL of their tokens.

        Parameters
        ----------
        what : {"ttft", "itl"}
        percentile : {50, 90, 95, 99}
        contents : array-like of shape (n, N_FEATURES)
        distilled : bool
            By the single tree.

        Returns
        -------
        array of shape (n,)
            Milliseconds, as the engine sees it; NaN where nothing is served.

        Raises
        ------
        UserError
            If the predictor has learned no percentiles, or not this one.
        """
        if self.levels is None or percentile not in PERCENTILES:
            known = list(PERCENTILES) if self.levels else "none"
            raise UserError(f"percentile={percentile}: the predictor of {self.profile_name} knows {known}")
        forest = self.levels.percentile(what, percentile, distilled=distilled)
        return values_of(LATENCY, _rows(contents), *_uncalibrated((self.table, self.flags, *forest.arrays)))

    def under(self, level: ServiceLevel) -> Predictor:
        """The same predictor with a service level in place of the published rule, wherever it speaks of starvation.

        Parameters
        ----------
        level : ServiceLevel

        Returns
        -------
        Predictor
            Whose `service` is the level; or the published rule, if it is that or the level was not learned.
        """
        if level == self.service:
            return self
        mine = self.published or self
        verdicts = mine.levels.verdicts(level) if mine.levels and level.judges_requests else None
        if verdicts is None:
            return mine
        thresholds = {"thresholds": verdicts.thresholds, "distilled_thresholds": verdicts.distilled_thresholds}
        return replace(
            mine,
            starvation=verdicts.forest,
            starvation_tree=verdicts.tree,
            calibration=verdicts.calibration,
            card={**mine.card, **thresholds},
            service=level,
            published=mine,
        ).at_risk(mine.card["risk"])

    def knows(self, level: ServiceLevel) -> bool:
        """Whether what it says of starvation is about a level."""
        return self.service == level or not (level.judges_requests or self.service.judges_requests)

    def at_risk(self, risk: float) -> Predictor:
        """The same predictor with the thresholds that miss another share of the starved contents.

        Parameters
        ----------
        risk : float
            Share of the starved contents of left-out twin data that may be accepted; between the smallest and the largest
            one of `card["thresholds"]`, in between those linearly in logarithms.

        Raises
        ------
        UserError
            For a risk outside that range.
        """
        full, distilled = self.card["thresholds"], self.card["distilled_thresholds"]
        known = sorted(full, key=float)
        if not float(known[0]) <= risk <= float(known[-1]):
            raise UserError(f"risk={risk:g} must be between {known[0]} and {known[-1]}")
        x = np.log([float(name) for name in known])
        return replace(
            self,
            starvation_threshold=float(np.interp(math.log(risk), x, [full[name] for name in known])),
            distilled_threshold=float(np.interp(math.log(risk), x, [distilled[name] for name in known])),
            card={**self.card, "risk": risk},
        )

    # What the kernels `throughput_of` and `starvation_of` take after the content and, for those, the scratch array.

    @property
    def throughput_arrays(self) -> tuple[NDArray[Any], ...]:
        """Arrays that `values_of` takes after the contents, without a calibration: profile table and forest."""
        return self.table, self.flags, *self.throughput.arrays

    @property
    def starvation_arrays(self) -> tuple[NDArray[Any], ...]:
        """Arrays that `values_of` takes after the contents: profile table, forest, calibration."""
        return self.table, self.flags, *self.starvation.arrays, self.calibration[0], self.calibration[1]

    @property
    def distilled_throughput_arrays(self) -> tuple[NDArray[Any], ...]:
        """`throughput_arrays` of the single tree."""
        return self.table, self.flags, *self.throughput_tree.arrays

    @property
    def distilled_starvation_arrays(self) -> tuple[NDArray[Any], ...]:
        """`starvation_arrays` of the single tree, whose leaves are probabilities already."""
        return self.table, self.flags, *self.starvation_tree.arrays, *UNCALIBRATED

    def in_range(self, contents: ArrayLike) -> NDArray[np.bool_]:
        """Whether each content lies within what the model was trained on; elsewhere it extrapolates.

        More load than was ever trained on is no extrapolation: it starves.
        """
        rows = range_values(_rows(contents))
        low, high = np.array([self.card["range"][name] for name in RANGE_NAMES]).T
        inside: NDArray[np.bool_] = ((rows >= low - 1e-9) & (rows <= high + 1e-9)).all(axis=1)
        return inside


def _uncalibrated(arrays: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
    return (*arrays, *UNCALIBRATED)


def range_values(contents: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quantities of `RANGE_NAMES`, shape (n, len(RANGE_NAMES)), of contents."""
    return np.column_stack(
        [
            contents[:, :N_CLASSES].sum(axis=1),
            contents[:, content_places.RATE],
            contents[:, content_places.MAX_LORAS :],
        ]
    )


def inputs_of(
    predictor_table: tuple[NDArray[np.float64], NDArray[np.float64]], contents: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the trees split on, shape (n, N_INPUTS), and the state that `model_inputs` returns, shape (n,)."""
    rows = _rows(contents)
    inputs = np.zeros((len(rows), N_INPUTS), np.float32)
    state = np.zeros(len(rows), np.int64)
    model_inputs_batch(rows, *predictor_table, inputs, state)
    return inputs, state


def _rows(contents: ArrayLike) -> NDArray[np.float64]:
    rows = np.ascontiguousarray(contents, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != N_FEATURES:
        msg = f"contents have shape {rows.shape}; (n, {N_FEATURES}) is needed"
        raise ValueError(msg)
    return rows
