"""Trees as plain arrays: they say what scikit-learn's say, and a monotone tree is monotone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeRegressor

from predictors.families import export
from predictors.monotone_tree import fit_monotone_tree
from predictors.trees import forest_value, tree_value
from tests.examples import examples


def sample(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Inputs in [0, 1] and a target that rises with the first, falls with the second and waves with the third."""
    generator = np.random.default_rng(seed)
    X = generator.random((n, 3)).astype(np.float32)
    target = X[:, 0] * (2 - X[:, 1]) + np.sin(9 * X[:, 2]) + 0.1 * generator.standard_normal(n)
    return X, target.astype(np.float64)


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (DecisionTreeRegressor(max_leaf_nodes=40, random_state=0), "predict"),
        (RandomForestRegressor(7, max_leaf_nodes=30, random_state=0), "predict"),
        (RandomForestClassifier(7, max_leaf_nodes=30, random_state=0), "predict_proba"),
        (HistGradientBoostingRegressor(max_iter=12), "predict"),
        (HistGradientBoostingClassifier(max_iter=12), "decision_function"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_exported_trees_say_what_scikit_learn_says(model: object, answer: str) -> None:
    X, target = sample(600)
    model.fit(X, target if answer == "predict" else target > 1.0)  # type: ignore[attr-defined]  # an estimator
    fresh, _ = sample(400, seed=1)
    expected = getattr(model, answer)(fresh)
    expected = expected[:, 1] if answer == "predict_proba" else expected
    np.testing.assert_allclose(export(model).values(fresh), expected, rtol=1e-5, atol=1e-5)


def test_inputs_on_a_threshold_go_left() -> None:
    """Thresholds are rounded down to float32, so that an input equal to one goes where scikit-learn sends it."""
    X, target = sample(600)
    tree = DecisionTreeRegressor(max_leaf_nodes=40, random_state=0).fit(X, target)
    cuts = tree.tree_.threshold[tree.tree_.feature == 0].astype(np.float32)
    on_cuts = np.column_stack([cuts, np.full_like(cuts, 0.5), np.full_like(cuts, 0.5)])
    np.testing.assert_allclose(export(tree).values(on_cuts), tree.predict(on_cuts), rtol=1e-6)


def test_a_forest_is_the_sum_of_its_trees() -> None:
    X, target = sample(300)
    forest = export(RandomForestRegressor(5, max_leaf_nodes=10, random_state=0).fit(X, target))
    each = [tree_value(X[0], root, *forest.arrays[1:]) for root in forest.roots]
    assert forest_value(X[0], *forest.arrays) == pytest.approx(sum(each))
    assert (forest.n_trees, forest.n_leaves) == (5, 50)


def test_the_rules_of_a_tree_can_be_read() -> None:
    X = np.array([[0.0], [1.0]], np.float32)
    tree = export(DecisionTreeRegressor().fit(X, [3.0, 7.0]))
    assert tree.rules(["load"]) == "load <= 0.5: 3\nload > 0.5: 7".replace("load", "  load")


@examples(15)
@given(seed=st.integers(0, 10_000), leaves=st.integers(2, 60))
def test_a_monotone_tree_never_moves_against_its_signs(seed: int, leaves: int) -> None:
    X, target = sample(400, seed)
    noisy = target + np.random.default_rng(seed).standard_normal(400)
    tree = fit_monotone_tree(X, noisy, [1, -1, 0], leaves)
    assert tree.n_leaves <= leaves
    generator = np.random.default_rng(seed + 1)
    low = generator.random((2000, 3)).astype(np.float32)
    step = generator.exponential(0.2, (2000, 2)).astype(np.float32)
    high = low + np.column_stack([step[:, 0], -step[:, 1], np.zeros(2000, np.float32)])
    assert np.all(tree.values(high) >= tree.values(low))


def test_a_monotone_tree_fits_better_than_scikit_learns() -> None:
    X, target = sample(4000)
    fresh, truth = sample(4000, seed=1)
    signs = [1, -1, 0]
    ours = fit_monotone_tree(X, target, signs, 64).values(fresh)
    theirs = DecisionTreeRegressor(max_leaf_nodes=64, min_samples_leaf=5, monotonic_cst=signs).fit(X, target)
    assert np.mean((ours - truth) ** 2) < np.mean((theirs.predict(fresh) - truth) ** 2)
