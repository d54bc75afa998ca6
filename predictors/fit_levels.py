"""Training of the models of service levels, on contents each of which was judged by many limits (`predictors.levels`)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from predictors.distil import distil, distil_monotone, unlabelled_inputs
from predictors.errors import macro_f1, missed_starvation, safe_threshold, smape
from predictors.families import Target, fit_forest, folds_of
from predictors.features import OUTPUT, WINDOW
from predictors.fit import RISKS, calibrate
from predictors.levels import (
    LIMITED_MONOTONE,
    PERCENTILE_MONOTONE,
    PERCENTILES,
    TPOT_LIMITS_MS,
    TTFT_LIMITS_MS,
    LevelModels,
    Verdicts,
    limited_inputs,
    percentile_inputs,
)
from predictors.meanfield import MONOTONE, SERVICE_INPUT, profile_table
from predictors.model import inputs_of
from twin import INTERACTIVE, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from predictors.options import TrainingOptions
    from predictors.trees import Forest
    from twin import ServingProfile

#: Of the limits on the time to the first token of a content so many are learned from, beside that of `interactive`; each with a
#: limit on the time of each later token drawn from the whole range, and some with one near to the least that would do. By hand.
LIMITS_LEARNED, NEAR_LEARNED = 4, 2
#: How near, as the deviation of its logarithm. By hand.
NEARNESS = 0.15
#: Leaves of the distilled tree for limits that are given, in multiples of those of other distilled trees: it answers for many levels.
LEAVES_OF_LIMITS = 4


@dataclass(frozen=True)
class LabelledLevels:
    """What the twin says of a sample of contents under many service levels.

    Attributes
    ----------
    contents : array of shape (n, N_FEATURES)
    near : array of shape (n,), bool
        Whether the content was drawn near where service levels begin to fail.
    offered : array of shape (n,)
        Tokens per second.
    ttft_limits_ms, critical_tpot_ms : arrays of shape (n, N_TTFT_LIMITS)
        Limits on the time to the first token, that of `interactive` first, and for each the least limit on the mean time of each
        later one with which the content keeps the level.
    keeps_batch : array of shape (n,), bool
    ttft_ms, itl_ms : arrays of shape (n, len(PERCENTILES))
        Percentiles over the requests finished inside the window; NaN where there is none.
    """

    contents: NDArray[np.float64]
    near: NDArray[np.bool_]
    offered: NDArray[np.float64]
    ttft_limits_ms: NDArray[np.float64]
    critical_tpot_ms: NDArray[np.float64]
    keeps_batch: NDArray[np.bool_]
    ttft_ms: NDArray[np.float64]
    itl_ms: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> LabelledLevels:
        """Some of the contents."""
        return LabelledLevels(**{part.name: getattr(self, part.name)[rows] for part in fields(self)})


@dataclass(frozen=True)
class _Questions:
    """Contents with limits, and whether each fails.

    Attributes
    ----------
    content : array of shape (n,)
        Place among the contents.
    ttft_ms, tpot_ms : arrays of shape (n,)
    fails : array of shape (n,), bool
    """

    content: NDArray[np.int64]
    ttft_ms: NDArray[np.float64]
    tpot_ms: NDArray[np.float64]
    fails: NDArray[np.bool_]


def fit_levels(
    data: LabelledLevels, profile: ServingProfile, options: TrainingOptions, log: Callable[[str], None] = lambda _: None
) -> LevelModels:
    """Train on contents that were judged by many limits.

    Gradient boosting alone: of the families it was the best at starvation, which is much the same question.

    Parameters
    ----------
    data : LabelledLevels
    profile : ServingProfile
        The one that the labels were made with.
    options : TrainingOptions
    log : callable
        Told in one line what is being done.

    Returns
    -------
    LevelModels
        With all figures in its card.

    Raises
    ------
    UserError
        If the data are too few or all of one kind.
    """
    table = profile_table(profile)
    inputs, state = inputs_of(table, data.contents)
    usable = np.random.default_rng(options.seed).permutation(np.flatnonzero((state == 0) & (data.offered > 0)))
    test, train = np.split(usable, [int(options.test_share * len(usable))])
    learned, X = data.take(train), inputs[train]
    _check_enough(learned, options)
    extra = unlabelled_inputs(profile, options)
    limited = _fit_limited(learned, X, extra, options, log)
    log("batch: fitting")
    target = Target("batch", X, (~learned.keeps_batch).astype(float), np.arange(len(X)), MONOTONE, classes=True)
    shown = np.concatenate([X, extra])
    batch = _verdicts(target, shown, np.flatnonzero(~learned.near), options, options.distilled_leaves)
    forests = {}
    for what in ("ttft", "itl"):
        log(f"{what} percentiles: fitting")
        forests[what], forests[f"{what}_tree"] = _fit_percentiles(what, learned, X, extra, options)
    models = LevelModels(limited=limited, batch=batch, **forests, card={})
    models.card.update(
        contents=len(usable), train=len(train), test=len(test), near_share=float(data.near[usable].mean()),
        risk=options.risk, seed=options.seed, ttft_limits_ms=list(TTFT_LIMITS_MS), tpot_limits_ms=list(TPOT_LIMITS_MS),
        size={
            "limited": [limited.forest.n_trees, limited.forest.n_leaves], "limited_tree": [1, limited.tree.n_leaves],
            "batch": [batch.forest.n_trees, batch.forest.n_leaves], "batch_tree": [1, batch.tree.n_leaves],
        },
        test_errors={
            name: _errors(models, data.take(test[near]), inputs[test[near]], options)
            for name, near in (("designed", ~data.near[test]), ("boundary", data.near[test])) if near.any()
        },
    )  # fmt: skip
    return models


def _check_enough(learned: LabelledLevels, options: TrainingOptions) -> None:
    fails = learned.critical_tpot_ms[:, 0] > INTERACTIVE.limits["tpot_ms"]
    fewest = min(fails.sum(), (~fails).sum(), learned.keeps_batch.sum(), (~learned.keeps_batch).sum())
    if len(fails) < 20 * options.folds or fewest < 2 * options.folds:
        raise UserError(
            f"data: {len(fails)} contents to train on, {int(fails.sum())} of which fail interactive, are too few; "
            "make more with python -m bench.dataset labels=levels points=..."
        )


def _drawn(data: LabelledLevels, generator: np.random.Generator, *, near: bool) -> _Questions:
    """Questions about contents: with the limits of `interactive`, and with drawn ones, some of them near to where the verdict turns."""
    n, n_limits = data.ttft_limits_ms.shape
    parts = [(np.zeros(n, np.int64), np.full(n, INTERACTIVE.limits["tpot_ms"]))]
    order = 1 + np.argsort(generator.random((n, n_limits - 1)), axis=1)
    parts += [(order[:, number], _drawn_from(generator, TPOT_LIMITS_MS, n)) for number in range(LIMITS_LEARNED)]
    for number in range(NEAR_LEARNED if near else 0):
        column = order[:, -1 - number]
        critical = data.critical_tpot_ms[np.arange(n), column]
        known = np.clip(np.where(np.isfinite(critical), critical, TPOT_LIMITS_MS[1]), *TPOT_LIMITS_MS)
        parts.append((column, np.clip(known * np.exp(NEARNESS * generator.standard_normal(n)), *TPOT_LIMITS_MS)))
    content = np.tile(np.arange(n), len(parts))
    column = np.concatenate([part[0] for part in parts])
    tpot_ms = np.concatenate([part[1] for part in parts])
    return _Questions(
        content, data.ttft_limits_ms[content, column], tpot_ms, data.critical_tpot_ms[content, column] > tpot_ms
    )


def _drawn_from(generator: np.random.Generator, limits: tuple[float, float], count: int) -> NDArray[np.float64]:
    """Log-uniform values between two."""
    low, high = limits
    return low * (high / low) ** generator.random(count)


def _fit_limited(
    learned: LabelledLevels,
    X: NDArray[np.float32],
    extra: NDArray[np.float32],
    options: TrainingOptions,
    log: Callable[[str], None],
) -> Verdicts:
    """The models for limits that are given."""
    generator = np.random.default_rng(options.seed)
    asked = _drawn(learned, generator, near=True)
    log(f"limits: fitting {len(asked.content)} questions")
    limited = limited_inputs(X[asked.content], asked.ttft_ms, asked.tpot_ms)
    target = Target("limited", limited, asked.fails.astype(float), asked.content, LIMITED_MONOTONE, classes=True)
    n_drawn = (1 + LIMITS_LEARNED) * len(X)
    fair = np.flatnonzero(~learned.near[asked.content[:n_drawn]])
    ttft_ms, tpot_ms = (_drawn_from(generator, each, len(extra)) for each in (TTFT_LIMITS_MS, TPOT_LIMITS_MS))
    # Two questions about a content, for the time that a tree takes.
    some = generator.permutation(len(limited))[: 2 * len(X)]
    shown = np.concatenate([limited[some], limited_inputs(extra, ttft_ms, tpot_ms)])
    return _verdicts(target, shown, fair, options, LEAVES_OF_LIMITS * options.distilled_leaves)


def _verdicts(
    target: Target,
    shown: NDArray[np.float32],
    fair: NDArray[np.int64],
    options: TrainingOptions,
    leaves: int,
) -> Verdicts:
    """Forest, distilled tree, calibration and thresholds.

    Parameters
    ----------
    target : Target
    shown : array of shape (n, n_inputs)
        What the tree is distilled on.
    fair : array
        Rows of the target that were not drawn to be hard: probabilities and shares are promised of these.
    leaves : int
        Most of the tree.
    """
    forest = fit_forest("boosting", target, options)
    scores = np.empty(len(target.y))
    for rest, held_out in folds_of(target.group, options.folds, options.seed):
        scores[held_out] = fit_forest("boosting", target.rows(rest), options).values(target.X[held_out])
    fails = target.y[fair] == 1
    calibration = calibrate(scores[fair], fails)
    probability = np.interp(forest.values(shown), *calibration)
    assert target.signs is not None  # noqa: S101  # of both targets
    tree = distil_monotone(shown, probability, target.signs, replace(options, distilled_leaves=leaves))
    by_forest = np.interp(scores[fair], *calibration)
    by_tree = tree.values(target.X[fair])
    return Verdicts(
        forest, tree, calibration, _thresholds(by_forest, fails, options), _thresholds(by_tree, fails, options)
    )


def _thresholds(
    probability: NDArray[np.float64], fails: NDArray[np.bool_], options: TrainingOptions
) -> dict[str, float]:
    return {f"{risk:g}": safe_threshold(probability, fails, risk) for risk in sorted({*RISKS, options.risk})}


def _fit_percentiles(
    what: str, learned: LabelledLevels, X: NDArray[np.float32], extra: NDArray[np.float32], options: TrainingOptions
) -> tuple[Forest, Forest]:
    """Forest and tree of the percentiles of a latency."""
    latency = getattr(learned, f"{what}_ms")
    content, place = np.nonzero(np.isfinite(latency) & (latency > 0))
    step_ms = 1000 * X[:, SERVICE_INPUT] * learned.contents[:, WINDOW] / learned.contents[:, OUTPUT]
    rows = percentile_inputs(X[content], np.array(PERCENTILES)[place])
    y = np.log(latency[content, place] / step_ms[content])
    forest = fit_forest("boosting", Target(what, rows, y, content, PERCENTILE_MONOTONE), options)
    drawn = np.random.default_rng(options.seed).choice(PERCENTILES, len(extra))
    shown = np.concatenate([rows, percentile_inputs(extra, drawn)])
    leaves = replace(options, distilled_leaves=2 * options.distilled_leaves)
    return forest, distil(shown, forest.values(shown), leaves, PERCENTILE_MONOTONE)


def _errors(
    models: LevelModels,
    data: LabelledLevels,
    inputs: NDArray[np.float32],
    options: TrainingOptions,
) -> dict[str, dict[str, dict[str, float]]]:
    """Errors of the full and of the distilled models on contents that were left out: by level, and of the percentiles."""
    asked = _drawn(data, np.random.default_rng(options.seed + 1), near=False)
    named = np.arange(len(data.near))
    limits = INTERACTIVE.limits
    questions = {
        "drawn limits": (
            models.limited,
            limited_inputs(inputs[asked.content], asked.ttft_ms, asked.tpot_ms)[len(named) :],
            asked.fails[len(named) :],
        ),
        "interactive": (
            models.limited, limited_inputs(inputs, limits["ttft_ms"], limits["tpot_ms"]), asked.fails[: len(named)],
        ),
        "batch": (models.batch, inputs, ~data.keeps_batch),
    }  # fmt: skip
    found = {}
    for model, distilled in (("full", False), ("distilled", True)):
        found[model] = {
            level: _verdict_errors(verdicts, X, fails, f"{options.risk:g}", distilled=distilled)
            for level, (verdicts, X, fails) in questions.items()
        }
        found[model]["percentiles"] = _percentile_errors(models, data, inputs, distilled=distilled)
    return found


def _verdict_errors(
    verdicts: Verdicts, X: NDArray[np.float32], fails: NDArray[np.bool_], risk: str, *, distilled: bool
) -> dict[str, float]:
    if distilled:
        probability, threshold = verdicts.tree.values(X), verdicts.distilled_thresholds[risk]
    else:
        probability = np.interp(verdicts.forest.values(X), *verdicts.calibration)
        threshold = verdicts.thresholds[risk]
    refused = probability >= threshold
    return {
        "fails": 100 * float(fails.mean()),
        "macro_f1": macro_f1(probability >= 0.5, fails),
        "safe_macro_f1": macro_f1(refused, fails),
        "missed": 100 * missed_starvation(probability, fails, threshold),
        "refused": 100 * float(refused[~fails].mean()) if not fails.all() else 0.0,
    }


def _percentile_errors(
    models: LevelModels, data: LabelledLevels, inputs: NDArray[np.float32], *, distilled: bool
) -> dict[str, float]:
    """SMAPE (without the factor 2) in %, by latency and percentile."""
    step_ms = 1000 * inputs[:, SERVICE_INPUT] * data.contents[:, WINDOW] / data.contents[:, OUTPUT]
    return {
        f"{what}_p{percentile}": smape(
            step_ms * np.exp(models.percentile(what, percentile, distilled=distilled).values(inputs)),
            getattr(data, f"{what}_ms")[:, place],
        )
        for what in ("ttft", "itl")
        for place, percentile in enumerate(PERCENTILES)
    }
