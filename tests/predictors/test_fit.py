"""Training, on a small sample that the twin labels here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from predictors import Predictor
from predictors.boundary import draw_boundary_content
from predictors.design import content_generator, draw_content, draw_requests
from predictors.errors import LabelledContents, evaluate, missed_starvation, safe_threshold, smape, take
from predictors.families import TREES, Target, compare_families, fit_forest, folds_of
from predictors.features import content_features
from predictors.fit import fit_boundary_model, fit_predictor, with_rates_scaled
from predictors.meanfield import MONOTONE, N_STARVATION_INPUTS, profile_table
from predictors.options import FAMILIES, TrainingOptions
from twin import ServingProfile, UserError, load_profile, simulate_requests

OPTIONS = TrainingOptions(
    trees=5,
    forest_leaves=64,
    boosting_rounds=30,
    svm_rows=150,
    distillation_points=300,
    distillation_attempts=3,
    folds=3,
)


@pytest.fixture(scope="module")
def profile() -> ServingProfile:
    return load_profile("llama-3.1-8b")


@pytest.fixture(scope="module")
def data(profile: ServingProfile) -> LabelledContents:
    """Three hundred contents in windows of five minutes, which label in a second or two."""
    table = profile_table(profile)
    rows, throughput, offered, starved, itl, ttft = [], [], [], [], [], []
    for index in range(300):
        content = replace(draw_content(content_generator(5, index), profile, table), window_s=300.0)
        requests = draw_requests(content_generator(5, index, stream=1), content)
        result = simulate_requests(requests, content.ranks, profile, content.max_loras, duration_s=300.0)
        rows.append(content.features())
        throughput.append(result.throughput)
        offered.append(result.offered_throughput)
        starved.append(result.starved)
        itl.append(result.itl.mean_ms)
        ttft.append(result.ttft.mean_ms)
    n_rows = len(rows)
    share = np.array(throughput) / np.array(offered)
    return LabelledContents(
        np.stack(rows), np.array(throughput), np.array(offered), np.array(starved), np.arange(n_rows) % 2 == 0,
        np.array(itl), np.array(ttft),
        # An overloaded GPU serves what it can: that says about how much less it could be asked for.
        np.where(share < 0.8, share / 0.9, np.nan), np.arange(n_rows),
    )  # fmt: skip


@pytest.fixture(scope="module")
def predictor(data: LabelledContents, profile: ServingProfile) -> Predictor:
    return fit_predictor(data, profile, OPTIONS)


def test_a_small_sample_teaches_something(predictor: Predictor) -> None:
    for part in ("designed", "boundary"):
        for model in ("full", "distilled"):
            figures = predictor.card["test_errors"][part][model]
            assert figures["throughput_smape"] < 12
            assert figures["starvation_macro_f1"] > 0.65
            assert figures["itl_smape"] < 15
            assert figures["ttft_smape"] < 60
            assert figures["feasible_load_smape"] < 25


def test_the_full_model_beats_the_estimate_that_it_starts_from(predictor: Predictor, data: LabelledContents) -> None:
    from predictors.model import inputs_of

    inputs, _ = inputs_of((predictor.table, predictor.flags), data.contents)
    estimate = data.offered * np.minimum(1, 1 / inputs[:, 0])
    assert smape(predictor.predict_throughput(data.contents), data.throughput) < smape(estimate, data.throughput) / 2


def test_the_same_data_make_the_same_predictor(
    predictor: Predictor, data: LabelledContents, profile: ServingProfile
) -> None:
    again = fit_predictor(data, profile, OPTIONS)
    np.testing.assert_array_equal(again.predict_starvation(data.contents), predictor.predict_starvation(data.contents))
    assert again.card == predictor.card


def test_the_card_says_where_the_model_knows_its_way(predictor: Predictor, data: LabelledContents) -> None:
    assert predictor.card["points"] == predictor.card["train"] + predictor.card["test"]
    assert predictor.in_range(data.contents).mean() > 0.99
    assert {region["input"] for region in predictor.card["regions"]} >= {"load", "max_loras", "adapters", "window_s"}


def test_thresholds_fall_with_the_risk(predictor: Predictor) -> None:
    thresholds = [predictor.card["thresholds"][risk] for risk in ("0.001", "0.01", "0.05")]
    assert thresholds == sorted(thresholds)
    assert predictor.starvation_threshold == predictor.card["thresholds"]["0.01"]


def test_every_family_competes_for_every_target(predictor: Predictor) -> None:
    for errors in predictor.card["cross_validation"].values():
        assert set(errors) == {*FAMILIES, "knn, taught", "svm, taught"}
    assert predictor.card["taught"] == [name for name, best in predictor.card["families"].items() if best not in TREES]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_learns_and_comes_as_trees(family: str) -> None:
    generator = np.random.default_rng(2)
    X = generator.random((600, 20)).astype(np.float32)
    y = X[:, 0] + 0.5 * X[:, 1]
    numbers = Target("numbers", X, y.astype(float), np.arange(600))
    classes = Target(
        "classes", X, (y > 0.75).astype(float), np.arange(600), MONOTONE[:N_STARVATION_INPUTS], classes=True
    )
    options = replace(OPTIONS, families=(family,), neighbours=5)
    assert compare_families(numbers, options, lambda _: None)[family] < 0.22
    assert compare_families(classes, options, lambda _: None)[family] < 0.3
    assert np.corrcoef(fit_forest(family, numbers, options).values(X), y)[0, 1] > 0.9
    forest = fit_forest(family, classes, options)
    assert np.corrcoef(forest.values(X), y)[0, 1] > 0.7
    # Whoever teaches, the trees keep to the signs.
    more = X.copy()
    more[:, 0] += 0.3
    assert np.all(forest.values(more) >= forest.values(X))


def test_a_ladder_is_never_on_both_sides_of_a_fold() -> None:
    group = np.repeat(np.arange(50), 4)
    for rest, held_out in folds_of(group, 3, seed=0):
        assert not set(group[rest]) & set(group[held_out])
        assert len(rest) + len(held_out) == 200


def test_rates_are_scaled_in_the_sums_of_a_content() -> None:
    from twin import Lengths

    ranks, rates = np.array([8, 16, 16]), np.array([0.02, 0.3, 1.7])
    content = content_features(ranks, rates, 4, Lengths())
    for shift in (-3, 2):
        expected = content_features(ranks, rates * 2 ** (shift / 2), 4, Lengths())
        np.testing.assert_allclose(with_rates_scaled(content[None], np.array([shift]))[0], expected, rtol=0.25)
    twice = content_features(ranks, rates * 2, 4, Lengths())
    # Exact but at the ends of the grid of times.
    np.testing.assert_allclose(with_rates_scaled(content[None], np.array([2]))[0][:32], twice[:32], rtol=1e-9)


def test_contents_near_the_boundary_are_undecided(data: LabelledContents, profile: ServingProfile) -> None:
    table = profile_table(profile)
    model = fit_boundary_model(data, profile, seed=0)
    aimed = [
        draw_boundary_content(content_generator(1, index), profile, table, starvation=model) for index in range(40)
    ]
    drawn = [draw_content(content_generator(1, index), profile, table) for index in range(40)]
    undecided = [
        np.mean(np.abs(model(np.stack([content.features() for content in some])) - 0.5) < 0.45)
        for some in (aimed, drawn)
    ]
    assert undecided[0] > 2 * undecided[1]


def test_data_of_one_kind_are_too_few(data: LabelledContents, profile: ServingProfile) -> None:
    served = take(data, np.flatnonzero(~data.starved))
    with pytest.raises(UserError, match=r"bench\.dataset"):
        fit_predictor(served, profile, OPTIONS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"families": ("perceptron",)},
        {"families": ()},
        {"risk": 0.0},
        {"test_share": 1.0},
        {"folds": 1},
        {"trees": 0},
        {"boosting_inputs": 0.0},
        {"neighbours": 0},
    ],
)
def test_an_option_out_of_range_is_told(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        TrainingOptions(**wrong)  # type: ignore[arg-type]


def test_smape_has_no_factor_two() -> None:
    assert smape(np.array([3.0, 1.0]), np.array([1.0, 1.0])) == pytest.approx(25.0)
    assert smape(np.array([0.0]), np.array([0.0])) == 0.0


def test_a_safe_threshold_misses_no_more_than_its_risk() -> None:
    generator = np.random.default_rng(0)
    probability, starved = generator.random(1000), generator.random(1000) < 0.5
    for risk in (0.001, 0.01, 0.1):
        threshold = safe_threshold(probability, starved, risk)
        assert missed_starvation(probability, starved, threshold) <= risk
        # One more would be too many.
        assert missed_starvation(probability, starved, np.nextafter(threshold, 1)) > risk - 1 / starved.sum()


def test_errors_of_labels_against_themselves_are_none(predictor: Predictor, data: LabelledContents) -> None:
    chance = predictor.predict_starvation(data.contents)
    own = replace(
        data,
        throughput=predictor.predict_throughput(data.contents),
        starved=chance >= 0.5,
        itl_ms=predictor.predict_itl_ms(data.contents),
    )
    figures = evaluate(predictor, own)["full"]
    assert figures["itl_smape"] == 0.0
    assert figures["throughput_smape"] == 0.0
    assert figures["starvation_macro_f1"] == 1.0
