"""Training, on a small sample that the twin labels here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from predictors import Predictor
from predictors.design import content_generator, draw_boundary_content, draw_content, draw_requests
from predictors.errors import LabelledContents, evaluate, missed_starvation, safe_threshold, smape, take
from predictors.fit import TrainingOptions, fit_boundary_model, fit_predictor
from predictors.meanfield import profile_table
from twin import ServingProfile, UserError, load_profile, simulate_requests

OPTIONS = TrainingOptions(
    trees=5, forest_leaves=64, boosting_rounds=30, distillation_points=300, distillation_attempts=3, folds=3
)


@pytest.fixture(scope="module")
def profile() -> ServingProfile:
    return load_profile("llama-3.1-8b")


@pytest.fixture(scope="module")
def data(profile: ServingProfile) -> LabelledContents:
    """Three hundred contents in windows of five minutes, which label in a second or two."""
    table = profile_table(profile)
    rows, throughput, offered, starved = [], [], [], []
    for index in range(300):
        content = replace(draw_content(content_generator(5, index), profile, table), window_s=300.0)
        requests = draw_requests(content_generator(5, index, stream=1), content)
        result = simulate_requests(requests, content.ranks, profile, content.max_loras, duration_s=300.0)
        rows.append(content.features())
        throughput.append(result.throughput)
        offered.append(result.offered_throughput)
        starved.append(result.starved)
    n_rows = len(rows)
    return LabelledContents(
        np.stack(rows), np.array(throughput), np.array(offered), np.array(starved), np.arange(n_rows) % 2 == 0
    )


@pytest.fixture(scope="module")
def predictor(data: LabelledContents, profile: ServingProfile) -> Predictor:
    return fit_predictor(data, profile, OPTIONS)


def test_a_small_sample_teaches_something(predictor: Predictor) -> None:
    for part in ("designed", "boundary"):
        for model in ("full", "distilled"):
            figures = predictor.card["test_errors"][part][model]
            assert figures["throughput_smape"] < 12
            assert figures["starvation_macro_f1"] > 0.75


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
    "wrong", [{"families": ("svm",)}, {"families": ()}, {"risk": 0.0}, {"test_share": 1.0}, {"folds": 1}, {"trees": 0}]
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
    own = LabelledContents(
        data.contents, predictor.predict_throughput(data.contents), data.offered, chance >= 0.5, data.boundary
    )
    figures = evaluate(predictor, own)["full"]
    assert figures["throughput_smape"] == 0.0
    assert figures["starvation_macro_f1"] == 1.0
