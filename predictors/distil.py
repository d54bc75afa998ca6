"""One tree in place of a forest, for the inner loops of solvers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from predictors.design import content_generator, draw_content
from predictors.families import export
from predictors.meanfield import INPUT_NAMES, profile_table
from predictors.model import inputs_of
from predictors.monotone_tree import fit_monotone_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from predictors.options import TrainingOptions
    from predictors.trees import Forest
    from twin import ServingProfile

# Streams of distillation contents, away from those of the labelled sample.
SEED_SHIFT = 1_000_003


def distil(
    X: NDArray[np.float32],
    values: NDArray[np.float64],
    options: TrainingOptions,
    signs: tuple[int, ...] | None = None,
) -> Forest:
    """A tree that gives the values of a forest, shape (n,), as well as one tree can; directions to keep to cost it little."""
    tree = DecisionTreeRegressor(
        max_leaf_nodes=options.distilled_leaves, min_samples_leaf=5, random_state=options.seed, monotonic_cst=signs
    )
    return export(tree.fit(X, values))


def distil_monotone(
    X: NDArray[np.float32], values: NDArray[np.float64], signs: tuple[int, ...], options: TrainingOptions
) -> Forest:
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
        tree = fit_monotone_tree(visible[~fifth], values[~fifth], signs, options.distilled_leaves)
        error = float(((tree.values(visible[fifth]) - values[fifth]) ** 2).mean())
        if error < least:
            best, least = visible, error
    return fit_monotone_tree(X if best is None else best, values, signs, options.distilled_leaves)


def unlabelled_inputs(profile: ServingProfile, options: TrainingOptions) -> NDArray[np.float32]:
    """Inputs of fresh contents, shape (n, N_INPUTS): the full models label them for the distilled ones."""
    table = profile_table(profile)
    contents = [
        draw_content(content_generator(options.seed + SEED_SHIFT, index), profile, table).features()
        for index in range(options.distillation_points)
    ]
    if not contents:
        return np.empty((0, len(INPUT_NAMES)), np.float32)
    inputs, state = inputs_of(table, np.stack(contents))
    usable: NDArray[np.float32] = inputs[state == 0]
    return usable
