"""Training: models of what the queueing estimate misses, one of starvation, and a tree distilled from each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from predictors.distil import distil, distil_monotone, unlabelled_inputs
from predictors.errors import LabelledContents, errors_by_region, evaluate, reliability, safe_threshold, take
from predictors.families import (
    TREES,
    Target,
    best_family,
    compare_families,
    export,
    fit_forest,
    folds_of,
    make_model,
)
from predictors.features import ACTIVE, N_SERVICE_TIMES, OUTPUT, RATE, WINDOW
from predictors.meanfield import (
    LOAD_INPUT,
    MONOTONE,
    N_STARVATION_INPUTS,
    SERVABLE_INPUT,
    SERVICE_INPUT,
    profile_table,
)
from predictors.model import FORESTS, RANGE_NAMES, Predictor, inputs_of, range_values
from predictors.options import TrainingOptions
from twin import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from predictors.trees import Forest
    from twin import ServingProfile

#: Shares of missed starvation that the card gives thresholds for: what `risk` can be set to, chosen by hand.
RISKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
#: The logarithm of throughput over its estimate is clipped here: below, all is starved anyway. Chosen by hand.
CORRECTION_RANGE = (-5.0, 1.0)
#: The calibrated probability keeps this much slope where isotonic regression is flat, so that contents stay ordered. By hand:
#: a thousandth of a probability is below what the thresholds tell apart.
CALIBRATION_SLOPE = 1e-3
#: Knots of the table that the regression is kept as, at even quantiles, chosen by hand.
CALIBRATION_KNOTS = 128
#: Loads, in powers of the root of 2, at which a content of known feasible load is shown again: an eighth to twice, chosen by
#: hand, more of them below, where placements are.
OTHER_LOADS = (-6, -4, -3, -2, -1, 1, 2)
EXTRAPOLATION = (
    "Outside the range above the models extrapolate: trees stay as they are at the edge, the queueing estimate that they "
    "correct goes on. More load than the range is no extrapolation, it starves. Not seen in training: bursty arrivals, "
    "prefix caching, host slots fewer than adapters, engine flags other than the profile's."
)


def fit_predictor(  # past 60 lines by its docstring
    data: LabelledContents,
    profile: ServingProfile,
    options: TrainingOptions,
    log: Callable[[str], None] = lambda _: None,
) -> Predictor:
    """Train on labelled contents.

    Parameters
    ----------
    data : LabelledContents
    profile : ServingProfile
        The one that the labels were made with.
    options : TrainingOptions
    log : callable
        Told in one line what is being done.

    Returns
    -------
    Predictor
        With all figures in its card.

    Raises
    ------
    UserError
        If the data are too few or all of one kind.
    """
    test, train = _split(data, profile, options)
    learned = take(data, train)
    _check_enough(learned, options)

    targets = _targets(learned, profile, options)
    log(f"drawing {options.distillation_points} contents to distil on")
    extra = unlabelled_inputs(profile, options)[:, :N_STARVATION_INPUTS]
    forests, families, errors = _fit_best(targets, extra, options, log)
    starvation = next(target for target in targets if target.name == "starvation")
    out_of_fold = _out_of_fold(families["starvation"], starvation, options, log)
    calibration = calibrate(out_of_fold, learned.starved)
    thresholds = _thresholds(np.interp(out_of_fold, *calibration), learned, options)
    for target in targets:
        log(f"distilling {target.name}")
        forests[f"{target.name}_tree"] = _distilled(forests[target.name], target, extra, calibration, options)
    distilled = _thresholds(forests["starvation_tree"].values(starvation.X), learned, options)
    named: dict[str, Any] = {**forests}
    predictor = Predictor(
        profile=profile,
        calibration=calibration,
        starvation_threshold=thresholds[f"{options.risk:g}"],
        distilled_threshold=distilled[f"{options.risk:g}"],
        card={},
        **named,
    )
    predictor.card.update(
        **_about_the_data(data, train, test, options),
        thresholds=thresholds,
        distilled_thresholds=distilled,
        families=families,
        taught=[name for name, family in families.items() if family not in TREES],
        cross_validation=errors,
        extrapolation=EXTRAPOLATION,
        size={name: [getattr(predictor, name).n_trees, getattr(predictor, name).n_leaves] for name in FORESTS},
        **_about_the_errors(predictor, data, test),
    )
    return predictor


def _fit_best(
    targets: list[Target], extra: NDArray[np.float32], options: TrainingOptions, log: Callable[[str], None]
) -> tuple[dict[str, Forest], dict[str, str], dict[str, dict[str, float]]]:
    """For each target the forest of the family that does best, its name, and the errors of all families."""
    forests: dict[str, Forest] = {}
    families: dict[str, str] = {}
    errors: dict[str, dict[str, float]] = {}
    for target in targets:
        errors[target.name] = compare_families(target, options, log)
        families[target.name] = best_family(errors[target.name])
        log(f"{target.name}: fitting {families[target.name]}")
        forests[target.name] = fit_forest(families[target.name], target, options, extra)
    return forests, families, errors


def _check_enough(learned: LabelledContents, options: TrainingOptions) -> None:
    starved = learned.starved
    if len(starved) < 20 * options.folds or min(starved.sum(), (~starved).sum()) < 2 * options.folds:
        raise UserError(
            f"data: {len(starved)} contents to train on, {int(starved.sum())} of them starved, are too few; "
            "make more with python -m bench.dataset points=..."
        )


def _thresholds(
    probability: NDArray[np.float64], learned: LabelledContents, options: TrainingOptions
) -> dict[str, float]:
    """For each risk the probability from which on a content counts as starved, so that no larger share of them is missed."""
    # The part near the boundary was drawn to be hard: shares are promised of the designed part, which was not.
    fair = learned.starved & ~learned.boundary
    if not fair.any():
        fair = learned.starved
    return {f"{risk:g}": safe_threshold(probability, fair, risk) for risk in sorted({*RISKS, options.risk})}


def _distilled(
    forest: Forest,
    target: Target,
    extra: NDArray[np.float32],
    calibration: NDArray[np.float64],
    options: TrainingOptions,
) -> Forest:
    """One tree that gives what a forest does, calibrated where that is a score."""
    # One content of each ladder: the tree's few leaves are for all of the space.
    _, different = np.unique(target.group, return_index=True)
    X = np.concatenate([target.X[different], extra])
    values = forest.values(X)
    if target.classes:
        values = np.interp(values, *calibration)
    return distil(X, values, options) if target.signs is None else distil_monotone(X, values, target.signs, options)


def _about_the_data(
    data: LabelledContents, train: NDArray[np.int64], test: NDArray[np.int64], options: TrainingOptions
) -> dict[str, Any]:
    """What the card says of the data and of what was done with them."""
    ranges = range_values(data.contents[np.concatenate([test, train])])
    return {
        "points": len(train) + len(test),
        "train": len(train),
        "test": len(test),
        "starved_share": float(data.starved[np.concatenate([train, test])].mean()),
        "known_feasible_loads": int(np.isfinite(data.feasible_load[train]).sum()),
        "risk": options.risk,
        "seed": options.seed,
        "comparison_rows": min(options.comparison_rows, len(train)),
        "svm_rows": min(options.svm_rows, len(train)),
        "range": {
            name: [float(low), float(high)]
            for name, low, high in zip(RANGE_NAMES, ranges.min(axis=0), ranges.max(axis=0), strict=True)
        },
    }


def _about_the_errors(predictor: Predictor, data: LabelledContents, test: NDArray[np.int64]) -> dict[str, Any]:
    """What the card says of contents that were left out."""
    parts = {
        name: take(data, test[data.boundary[test] == near])
        for name, near in (("designed", False), ("boundary", True))
        if (data.boundary[test] == near).any()
    }
    everything = take(data, test)
    return {
        "test_errors": {name: evaluate(predictor, part) for name, part in parts.items()},
        "reliability": {
            "full": reliability(predictor.predict_starvation(everything.contents), everything.starved),
            "distilled": reliability(predictor.distilled_starvation(everything.contents), everything.starved),
        },
        "regions": errors_by_region(predictor, parts.get("designed", everything)),
    }


def fit_boundary_model(
    data: LabelledContents, profile: ServingProfile, seed: int
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """A quick model of starvation that says where more labels are wanted: probability of contents, shape (n,)."""
    table = profile_table(profile)
    inputs, state = inputs_of(table, data.contents)
    rows = np.flatnonzero((state == 0) & (data.offered > 0))
    options = TrainingOptions(boosting_rounds=150, boosting_leaves=16, boosting_inputs=1.0, seed=seed)
    starved = data.starved[rows].astype(int)
    target = _target("starvation", inputs[rows], starved, rows, monotone=True)
    forest = export(make_model("boosting", target, options).fit(target.X, target.y))

    def probability(contents: NDArray[np.float64]) -> NDArray[np.float64]:
        x, what = inputs_of(table, contents)
        score: NDArray[np.float64] = np.select([what == 0, what == 1], [forest.values(x), -np.inf], np.inf)
        return np.asarray(expit(score))

    return probability


def _split(
    data: LabelledContents, profile: ServingProfile, options: TrainingOptions
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to leave out and rows to learn from, whole groups on one side."""
    _, state = inputs_of(profile_table(profile), data.contents)
    # Memory errors and idle GPUs are known without a model.
    usable = np.flatnonzero((state == 0) & (data.offered > 0))
    generator = np.random.default_rng(options.seed)
    order = generator.permutation(usable)
    groups = generator.permutation(np.unique(data.group[usable]))
    left_out = np.isin(data.group[order], groups[: int(options.test_share * len(groups))])
    return order[left_out], order[~left_out]


def _targets(data: LabelledContents, profile: ServingProfile, options: TrainingOptions) -> list[Target]:
    """What is learned, from contents that are served and asked."""
    table = profile_table(profile)
    X, _ = inputs_of(table, data.contents)
    estimate = X[:, SERVABLE_INPUT].astype(float) / np.maximum(1.0, X[:, LOAD_INPUT])
    share = data.throughput / data.offered
    correction = np.clip(np.log(np.maximum(share, 1e-9) / estimate), *CORRECTION_RANGE)
    targets = [
        _target("throughput", X, correction, data.group),
        _target("starvation", X, data.starved.astype(float), data.group, monotone=True),
    ]
    step_ms = 1000 * X[:, SERVICE_INPUT] * data.contents[:, WINDOW] / data.contents[:, OUTPUT]
    for name, latency in (("itl", data.itl_ms), ("ttft", data.ttft_ms)):
        seen = np.flatnonzero(np.isfinite(latency) & (latency > 0))
        targets.append(_target(name, X[seen], np.log(latency[seen] / step_ms[seen]), data.group[seen]))
    known = np.flatnonzero(np.isfinite(data.feasible_load))
    generator = np.random.default_rng(options.seed)
    contents, feasible, group = data.contents[known], data.feasible_load[known], data.group[known]
    shifts = generator.choice(OTHER_LOADS, len(known))
    contents = np.concatenate([contents, with_rates_scaled(contents, shifts)])
    feasible = np.concatenate([feasible, feasible / 2.0 ** (shifts / 2)])
    inputs, _ = inputs_of(table, contents)
    # The estimated load at which the content starves.
    critical = np.log(feasible * inputs[:, LOAD_INPUT])
    # Not monotone: an adapter more can make the mix an easier one for its load.
    targets.append(_target("feasible_load", inputs, critical, np.concatenate([group, group])))
    return targets


def _target(
    name: str, X: NDArray[np.float32], y: NDArray[Any], group: NDArray[np.int64], *, monotone: bool = False
) -> Target:
    """A target of the models that see the inputs of starvation; one that is monotone has two classes."""
    signs = MONOTONE[:N_STARVATION_INPUTS] if monotone else None
    return Target(name, X[:, :N_STARVATION_INPUTS], y, group, signs, classes=monotone)


def with_rates_scaled(contents: NDArray[np.float64], shifts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Contents with all rates multiplied by `2 ** (shift / 2)`.

    The expected activity of rates `f r` in a time `t` is that of rates `r` in a time `f t`, and the times stand a factor
    of the root of 2 apart: the sums move along by whole places. Below the first time activity is proportional to it.

    Parameters
    ----------
    contents : array of shape (n, N_FEATURES)
    shifts : array of shape (n,)
    """
    place = np.arange(N_SERVICE_TIMES) + shifts[:, None]
    moved = np.take_along_axis(
        contents[:, ACTIVE : ACTIVE + N_SERVICE_TIMES], np.clip(place, 0, N_SERVICE_TIMES - 1), 1
    )
    scaled = contents.copy()
    scaled[:, ACTIVE : ACTIVE + N_SERVICE_TIMES] = moved * 2.0 ** (np.minimum(place, 0) / 2)
    scaled[:, RATE] *= 2.0 ** (shifts / 2)
    return scaled


def _out_of_fold(
    family: str, target: Target, options: TrainingOptions, log: Callable[[str], None]
) -> NDArray[np.float64]:
    """Scores of models that have not seen the contents: what probabilities and thresholds are fitted to."""
    scores = np.empty(len(target.y))
    for number, (rest, held_out) in enumerate(folds_of(target.group, options.folds, options.seed)):
        log(f"{target.name}: calibrating, fold {number + 1} of {options.folds}")
        scores[held_out] = fit_forest(family, target.rows(rest), options).values(target.X[held_out])
    return scores


def calibrate(scores: NDArray[np.float64], starved: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ascending (score, probability) table, shape (2, n), from out-of-fold scores.

    Parameters
    ----------
    scores : array of shape (n,)
    starved : array of shape (n,), bool
    """
    isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, starved)
    # Knots at even quantiles of the undecided scores and at both ends.
    undecided = np.sort(scores[np.abs(isotonic.predict(scores) - 0.5) < 0.4999])
    knots = np.quantile(undecided, np.linspace(0, 1, CALIBRATION_KNOTS)) if len(undecided) else np.median(scores)
    x = np.unique(np.concatenate([[scores.min()], np.atleast_1d(knots), [scores.max()]]))
    slope = (x - x[0]) / max(x[-1] - x[0], 1e-12)
    return np.stack([x, (1 - CALIBRATION_SLOPE) * isotonic.predict(x) + CALIBRATION_SLOPE * slope])
