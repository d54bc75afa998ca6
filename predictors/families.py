"""The scikit-learn families that compete for a target, and the plain arrays of the one that wins.

Every family learns from the same rows, in the same folds. Compiled code walks trees only, and some targets must be
monotone: a family that is not made of trees teaches what it knows to gradient boosting. Its own error is stated, and it
wins if what it taught has the smallest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logit
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer
from sklearn.svm import SVC, SVR

from predictors.trees import Forest, forest_from_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from predictors.options import TrainingOptions

#: Families whose fitted models are trees.
TREES = ("forest", "boosting")
#: Behind the name of a family: the trees that it taught.
TAUGHT = ", taught"
# A teacher's probabilities are kept this far from 0 and 1, so that their logits can be learned: within 7 either way. Chosen by
# hand, as the settings of the families beside the options are; cross-validation says which of them does best.
SURE = 1e-3


@dataclass(frozen=True)
class Target:
    """What a model learns.

    Attributes
    ----------
    name : str
    X : array of shape (n, N_INPUTS), float32
    y : array of shape (n,)
        Numbers, or 0 and 1 for a target of two classes.
    group : array of shape (n,)
        Rows of a group are never on both sides of a fold.
    signs : tuple of int, optional
        Direction in each input that the model must keep to.
    classes : bool
    """

    name: str
    X: NDArray[np.float32]
    y: NDArray[np.float64]
    group: NDArray[np.int64]
    signs: tuple[int, ...] | None = None
    classes: bool = False

    def rows(self, places: NDArray[np.int64]) -> Target:
        """Some of the rows."""
        return replace(self, X=self.X[places], y=self.y[places], group=self.group[places])


def make_model(family: str, target: Target, options: TrainingOptions) -> Any:  # noqa: ANN401  # scikit-learn has no types
    """An unfitted estimator of a family for a target."""
    signs = None if target.signs is None else list(target.signs)
    if family == "forest":
        kind = RandomForestClassifier if target.classes else RandomForestRegressor
        return kind(
            options.trees, max_leaf_nodes=options.forest_leaves, max_features=0.5, n_jobs=-1, monotonic_cst=signs,
            random_state=options.seed,
        )  # fmt: skip
    if family == "boosting":
        kind, loss = HistGradientBoostingClassifier, "log_loss"
        if not target.classes:
            # What is judged is the mean absolute error; but that loss sets the leaves anew, regardless of constraints.
            kind, loss = HistGradientBoostingRegressor, "absolute_error" if signs is None else "squared_error"
        return kind(
            loss=loss, max_iter=options.boosting_rounds, max_leaf_nodes=options.boosting_leaves,
            max_features=options.boosting_inputs, learning_rate=options.learning_rate, monotonic_cst=signs,
            random_state=options.seed, early_stopping=False,
        )  # fmt: skip
    # Distances mean nothing between inputs of such different ranges: each is brought to a normal distribution.
    quantiles = min(200, len(target.y))
    scaled = QuantileTransformer(n_quantiles=quantiles, output_distribution="normal", random_state=options.seed)
    if family == "knn":
        kind = KNeighborsClassifier if target.classes else KNeighborsRegressor
        return make_pipeline(scaled, kind(options.neighbours, weights="distance"))
    return make_pipeline(scaled, SVC(C=10.0) if target.classes else SVR(C=10.0, epsilon=0.02))


def scores_of(model: Any, X: NDArray[np.float32]) -> NDArray[np.float64]:  # noqa: ANN401
    """Predicted numbers, or for two classes: scores above 0 where the second is the likelier."""
    if hasattr(model, "decision_function"):
        return np.asarray(model.decision_function(X), float)
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(X)[:, 1] - 0.5, float)
    return np.asarray(model.predict(X), float)


def folds_of(group: NDArray[np.int64], n_folds: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to learn from and rows to judge by, for each fold; groups are dealt to the folds at random."""
    _, place = np.unique(group, return_inverse=True)
    fold = np.random.default_rng(seed).integers(0, n_folds, place.max() + 1)[place]
    return [(np.flatnonzero(fold != n), np.flatnonzero(fold == n)) for n in range(n_folds)]


def compare_families(target: Target, options: TrainingOptions, log: Callable[[str], None]) -> dict[str, float]:
    """Cross-validated error of each family: mean absolute, or the share of wrong verdicts.

    All learn from the same `comparison_rows` rows at most, and the support vector machine, whose time grows with
    their square, from the first `svm_rows` of each fold.

    Returns
    -------
    dict
        By family; one without trees is there twice, as itself and with `TAUGHT` behind its name.
    """
    some = np.random.default_rng(options.seed).permutation(len(target.y))[: options.comparison_rows]
    part = target.rows(some)
    wrong: dict[str, NDArray[np.float64]] = {}
    for rest, held_out in folds_of(part.group, options.folds, options.seed):
        fold, unseen = part.rows(rest), part.rows(held_out)
        for family in options.families:
            log(f"{target.name}: cross-validating {family}")
            model = _fitted(family, fold, options)
            answers = {family: scores_of(model, unseen.X)}
            if family not in TREES:
                answers[family + TAUGHT] = _teach(family, model, fold, options).values(unseen.X)
            for name, scores in answers.items():
                errors = (scores >= 0) != (unseen.y == 1) if target.classes else np.abs(scores - unseen.y)
                wrong.setdefault(name, np.empty(len(part.y)))[held_out] = errors
    # A forest's trees are summed in the order in which threads end.
    return {name: round(float(errors.mean()), 6) for name, errors in wrong.items()}


def best_family(errors: dict[str, float]) -> str:
    """The family whose trees have the smallest error."""
    trees = {name: error for name, error in errors.items() if name in TREES or name.endswith(TAUGHT)}
    return min(trees, key=lambda name: trees[name]).removesuffix(TAUGHT)


def fit_forest(
    family: str, target: Target, options: TrainingOptions, unlabelled: NDArray[np.float32] | None = None
) -> Forest:
    """Fit a family to a target, as trees.

    Parameters
    ----------
    unlabelled : array of shape (n, N_INPUTS), optional
        Where a family without trees teaches gradient boosting, beside the rows of the target.
    """
    model = _fitted(family, target, options)
    return export(model) if family in TREES else _teach(family, model, target, options, unlabelled)


def _fitted(family: str, target: Target, options: TrainingOptions) -> Any:  # noqa: ANN401
    part = target.rows(np.arange(min(options.svm_rows, len(target.y)))) if family == "svm" else target
    return make_model(family, part, options).fit(part.X, part.y)


def _teach(
    family: str,
    teacher: Any,  # noqa: ANN401
    target: Target,
    options: TrainingOptions,
    unlabelled: NDArray[np.float32] | None = None,
) -> Forest:
    """Gradient boosting that says what another model says."""
    X = target.X if unlabelled is None else np.concatenate([target.X, unlabelled])
    taught = scores_of(teacher, X)
    if target.classes and family == "knn":
        taught = logit(np.clip(taught + 0.5, SURE, 1 - SURE))
    lesson = Target(target.name, X, taught, np.arange(len(X)), target.signs)
    return export(make_model("boosting", lesson, options).fit(X, taught))


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
