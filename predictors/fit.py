"""Training: a model of the correction to the queueing estimate, one of starvation, and a tree distilled from each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import KFold
from sklearn.tree import DecisionTreeRegressor

from predictors.design import content_generator, draw_content
from predictors.errors import LabelledContents, errors_by_region, evaluate, safe_threshold, take
from predictors.meanfield import INPUT_NAMES, LOAD_INPUT, MONOTONE, SERVABLE_INPUT, profile_table
from predictors.model import RANGE_NAMES, Predictor, inputs_of, range_values
from predictors.monotone_tree import fit_monotone_tree
from predictors.trees import Forest, forest_from_nodes
from twin import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from twin import ServingProfile

FAMILIES = ("forest", "boosting")
#: Shares of missed starvation that the card gives thresholds for.
RISKS = (0.001, 0.005, 0.01, 0.02, 0.05)
#: The logarithm of throughput over its estimate is clipped here: below, all is starved anyway.
CORRECTION_RANGE = (-5.0, 1.0)
#: The calibrated probability keeps this much slope where isotonic regression is flat, so that contents stay ordered.
CALIBRATION_SLOPE = 1e-3
CALIBRATION_KNOTS = 128
# Streams of distillation contents, away from those of the labelled sample.
DISTILLATION_SEED_SHIFT = 1_000_003


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes
    ----------
    families : tuple of str
        scikit-learn families to choose from by cross-validation.
    trees : int
        Trees of a random forest.
    forest_leaves : int
        Most leaves of each of its trees.
    boosting_rounds, boosting_leaves : int
        Trees of gradient boosting and the most leaves of each.
    learning_rate : float
    distilled_leaves : int
        Most leaves of a distilled tree.
    distillation_points : int
        Unlabelled contents that a distilled tree is fitted to, beside the labelled ones.
    distillation_attempts : int
        Trees that the distilled tree of starvation is chosen among.
    folds : int
        Of the cross-validation.
    test_share : float
        Share of the data that is left out for the figures of the card.
    risk : float
        Share of the starved contents that the threshold may miss.
    seed : int
    """

    families: tuple[str, ...] = FAMILIES
    trees: int = 60
    forest_leaves: int = 600
    boosting_rounds: int = 300
    boosting_leaves: int = 31
    learning_rate: float = 0.08
    distilled_leaves: int = 256
    distillation_points: int = 20_000
    distillation_attempts: int = 24
    folds: int = 4
    test_share: float = 0.2
    risk: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [family for family in self.families if family not in FAMILIES]
        if unknown or not self.families:
            raise UserError(f"families={list(self.families)}: choose among {list(FAMILIES)}")
        for key in ("risk", "test_share", "learning_rate"):
            if not 0 < getattr(self, key) < 1:
                raise UserError(f"{key}={getattr(self, key)} must be between 0 and 1")
        for key in (
            "trees",
            "forest_leaves",
            "boosting_rounds",
            "boosting_leaves",
            "distilled_leaves",
            "distillation_attempts",
            "folds",
        ):
            if getattr(self, key) < 2 - (key in ("trees", "boosting_rounds", "distillation_attempts")):
                raise UserError(f"{key}={getattr(self, key)} is too small")


def fit_predictor(
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
    table = profile_table(profile)
    inputs, state = inputs_of(table, data.contents)
    # Memory errors and idle GPUs are known without a model.
    usable = np.flatnonzero((state == 0) & (data.offered > 0))
    order = np.random.default_rng(options.seed).permutation(usable)
    n_test = int(options.test_share * len(order))
    test, train = order[:n_test], order[n_test:]
    starved = data.starved
    if len(train) < 20 * options.folds or min(starved[train].sum(), (~starved[train]).sum()) < 2 * options.folds:
        raise UserError(
            f"data: {len(train)} contents to train on, {int(starved[train].sum())} of them starved, are too few; "
            "make more with python -m bench.dataset points=..."
        )
    X = inputs[train]
    estimate = X[:, SERVABLE_INPUT].astype(float) / np.maximum(1.0, X[:, LOAD_INPUT])
    share = data.throughput[train] / data.offered[train]
    correction = np.clip(np.log(np.maximum(share, 1e-9) / estimate), *CORRECTION_RANGE)
    fold = list(KFold(options.folds, shuffle=True, random_state=options.seed).split(X))

    throughput, _, throughput_scores = _choose("throughput", X, correction, options, fold, _regressor, log)
    starvation, out_of_fold, starvation_scores = _choose(
        "starvation", X, starved[train].astype(int), options, fold, _classifier, log
    )
    calibration = _calibrate(out_of_fold, starved[train])
    probability = np.interp(out_of_fold, *calibration)
    thresholds = {f"{risk:g}": safe_threshold(probability, starved[train], risk) for risk in (*RISKS, options.risk)}

    log(f"distilling on {options.distillation_points} unlabelled contents")
    extra = _unlabelled_inputs(profile, options)
    D = np.concatenate([X, extra])
    soft = np.interp(starvation.values(D), *calibration)
    throughput_tree = _distil_throughput(D, throughput.values(D), options)
    starvation_tree = _distil_starvation(D, soft, options)
    threshold = thresholds[f"{options.risk:g}"]
    distilled = {
        f"{risk:g}": safe_threshold(starvation_tree.values(X), starved[train], risk) for risk in (*RISKS, options.risk)
    }
    predictor = Predictor(
        profile=profile,
        throughput=throughput,
        starvation=starvation,
        calibration=calibration,
        throughput_tree=throughput_tree,
        starvation_tree=starvation_tree,
        starvation_threshold=threshold,
        distilled_threshold=distilled[f"{options.risk:g}"],
        card={},
    )
    ranges = range_values(data.contents[order])
    predictor.card.update(
        points=len(order),
        train=len(train),
        test=len(test),
        starved_share=float(starved[order].mean()),
        risk=options.risk,
        seed=options.seed,
        thresholds=thresholds,
        distilled_thresholds=distilled,
        cross_validation={"throughput": throughput_scores, "starvation": starvation_scores},
        range={
            name: [float(low), float(high)]
            for name, low, high in zip(RANGE_NAMES, ranges.min(axis=0), ranges.max(axis=0), strict=True)
        },
        size={name: [getattr(predictor, name).n_trees, getattr(predictor, name).n_leaves]
              for name in ("throughput", "starvation", "throughput_tree", "starvation_tree")},
        test_errors={
            "designed": evaluate(predictor, take(data, test[~data.boundary[test]])),
            "boundary": evaluate(predictor, take(data, test[data.boundary[test]])),
        },
        regions=errors_by_region(predictor, take(data, test[~data.boundary[test]])),
    )  # fmt: skip
    return predictor


def fit_boundary_model(
    data: LabelledContents, profile: ServingProfile, seed: int
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """A quick model of starvation that says where more labels are wanted: probability of contents, shape (n,)."""
    table = profile_table(profile)
    inputs, state = inputs_of(table, data.contents)
    rows = np.flatnonzero((state == 0) & (data.offered > 0))
    model = _classifier("boosting", TrainingOptions(seed=seed))
    forest = export(model.fit(inputs[rows], data.starved[rows].astype(int)))

    def probability(contents: NDArray[np.float64]) -> NDArray[np.float64]:
        x, what = inputs_of(table, contents)
        score: NDArray[np.float64] = np.select([what == 0, what == 1], [forest.values(x), -np.inf], np.inf)
        return np.asarray(expit(score))

    return probability


def _regressor(family: str, options: TrainingOptions) -> Any:  # noqa: ANN401  # scikit-learn has no types
    if family == "forest":
        return RandomForestRegressor(
            options.trees, max_leaf_nodes=options.forest_leaves, max_features=0.5, n_jobs=-1, random_state=options.seed
        )
    return HistGradientBoostingRegressor(
        max_iter=options.boosting_rounds,
        max_leaf_nodes=options.boosting_leaves,
        learning_rate=options.learning_rate,
        random_state=options.seed,
        early_stopping=False,
    )


def _classifier(family: str, options: TrainingOptions) -> Any:  # noqa: ANN401
    if family == "forest":
        return RandomForestClassifier(
            options.trees,
            max_leaf_nodes=options.forest_leaves,
            max_features=0.5,
            n_jobs=-1,
            monotonic_cst=list(MONOTONE),
            random_state=options.seed,
        )
    return HistGradientBoostingClassifier(
        max_iter=options.boosting_rounds // 2,
        max_leaf_nodes=options.boosting_leaves // 2 + 1,
        learning_rate=options.learning_rate,
        monotonic_cst=list(MONOTONE),
        random_state=options.seed,
        early_stopping=False,
    )


def _choose(  # noqa: PLR0913
    target: str,
    X: NDArray[np.float32],
    y: NDArray[Any],
    options: TrainingOptions,
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    make: Callable[[str, TrainingOptions], Any],
    log: Callable[[str], None],
) -> tuple[Forest, NDArray[np.float64], dict[str, float]]:
    """The family with the smallest cross-validated error, fitted to everything, and its out-of-fold values.

    The error is the mean absolute one of the logarithm (throughput) or the share of wrong verdicts (starvation).
    """
    scores: dict[str, float] = {}
    values: dict[str, NDArray[np.float64]] = {}
    for family in options.families:
        log(f"{target}: cross-validating {family}")
        out_of_fold = np.empty(len(y))
        for rest, held_out in folds:
            out_of_fold[held_out] = export(make(family, options).fit(X[rest], y[rest])).values(X[held_out])
        values[family] = out_of_fold
        if make is _regressor:
            scores[family] = float(np.abs(out_of_fold - y).mean())
        else:
            cut = 0.5 if family == "forest" else 0.0
            scores[family] = float(((out_of_fold >= cut) != (y == 1)).mean())
    best = min(scores, key=lambda family: scores[family])
    log(f"{target}: fitting {best} (cross-validated errors {', '.join(f'{k} {v:.4f}' for k, v in scores.items())})")
    return export(make(best, options).fit(X, y)), values[best], scores


def export(model: Any) -> Forest:  # noqa: ANN401
    """Plain arrays of a fitted scikit-learn tree, random forest or histogram gradient boosting.

    Parameters
    ----------
    model : estimator
        A classifier must be binary: the forest's sum is the probability of the second class, that of boosting its
        log-odds.

    Returns
    -------
    Forest
        Whose sum on float32 inputs is the model's prediction, but for the rounding of its leaves to float32.
    """
    if hasattr(model, "_predictors"):
        base = float(np.ravel(model._baseline_prediction)[0])  # noqa: SLF001  # scikit-learn has no public way to the trees
        trees: list[dict[str, NDArray[Any]]] = []
        for (predictor,) in model._predictors:  # noqa: SLF001
            nodes = predictor.nodes
            trees.append(
                {
                    "feature": np.where(nodes["is_leaf"], -1, nodes["feature_idx"]),
                    "threshold": nodes["num_threshold"],
                    "left": nodes["left"],
                    "right": nodes["right"],
                    # The first tree carries the constant that boosting starts from.
                    "value": nodes["value"] + (0.0 if trees else base),
                }
            )
        return forest_from_nodes(trees)
    members = getattr(model, "estimators_", [model])
    return forest_from_nodes(
        [
            {
                "feature": np.where(member.tree_.children_left < 0, -1, member.tree_.feature),
                "threshold": member.tree_.threshold,
                "left": member.tree_.children_left,
                "right": member.tree_.children_right,
                "value": member.tree_.value[:, 0, -1] / len(members),
            }
            for member in members
        ]
    )


def _calibrate(scores: NDArray[np.float64], starved: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ascending (score, probability) table, shape (2, n), from out-of-fold scores."""
    isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, starved)
    # Knots at even quantiles of the undecided scores and at both ends.
    undecided = np.sort(scores[np.abs(isotonic.predict(scores) - 0.5) < 0.4999])
    knots = np.quantile(undecided, np.linspace(0, 1, CALIBRATION_KNOTS)) if len(undecided) else np.median(scores)
    x = np.unique(np.concatenate([[scores.min()], np.atleast_1d(knots), [scores.max()]]))
    slope = (x - x[0]) / max(x[-1] - x[0], 1e-12)
    return np.stack([x, (1 - CALIBRATION_SLOPE) * isotonic.predict(x) + CALIBRATION_SLOPE * slope])


def _distil_throughput(X: NDArray[np.float32], values: NDArray[np.float64], options: TrainingOptions) -> Forest:
    tree = DecisionTreeRegressor(max_leaf_nodes=options.distilled_leaves, min_samples_leaf=5, random_state=options.seed)
    return export(tree.fit(X, values))


def _distil_starvation(X: NDArray[np.float32], soft: NDArray[np.float64], options: TrainingOptions) -> Forest:
    """The best of several monotone trees.

    A tree is grown greedily, and an early split on the wrong input cannot be mended under monotone constraints: so trees
    are grown without some inputs, drawn at random, and the one closest to the full model on other contents is taken.
    """
    generator = np.random.default_rng(options.seed)
    fifth = generator.random(len(X)) < 0.2
    best, least = None, np.inf
    for attempt in range(options.distillation_attempts):
        visible = X.copy()
        if attempt:
            visible[:, generator.random(X.shape[1]) < generator.uniform(0.1, 0.5)] = 0.0
        tree = fit_monotone_tree(visible[~fifth], soft[~fifth], MONOTONE, options.distilled_leaves)
        error = float(((tree.values(visible[fifth]) - soft[fifth]) ** 2).mean())
        if error < least:
            best, least = visible, error
    return fit_monotone_tree(X if best is None else best, soft, MONOTONE, options.distilled_leaves)


def _unlabelled_inputs(profile: ServingProfile, options: TrainingOptions) -> NDArray[np.float32]:
    """Inputs of fresh contents, shape (n, N_INPUTS): the full model labels them for the distilled one."""
    table = profile_table(profile)
    contents = [
        draw_content(content_generator(options.seed + DISTILLATION_SEED_SHIFT, index), profile, table).features()
        for index in range(options.distillation_points)
    ]
    if not contents:
        return np.empty((0, len(INPUT_NAMES)), np.float32)
    inputs, state = inputs_of(table, np.stack(contents))
    usable: NDArray[np.float32] = inputs[state == 0]
    return usable
