"""Models of service levels: limits as inputs, monotone in them and in what a GPU is asked for; as files; as oracles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.training.labels import LEVELS, DatasetOptions, make_dataset, read_dataset, read_level_dataset
from bench.training.level_labels import critical_tpot_ms, drawn_limits
from predictors import Predictor, content_features, load_predictor, save_predictor
from predictors.design import content_generator, draw_content, draw_requests
from predictors.fit_levels import LabelledLevels, fit_levels
from predictors.levels import (
    LIMITED_NAMES,
    PERCENTILES,
    TPOT_LIMITS_MS,
    TTFT_LIMITS_MS,
    LevelModels,
    limited_inputs,
)
from predictors.meanfield import N_STARVATION_INPUTS, profile_table
from predictors.model import inputs_of
from predictors.options import TrainingOptions
from twin import (
    BATCH,
    INTERACTIVE,
    PUBLISHED,
    GpuResult,
    Lengths,
    ServiceLevel,
    ServingProfile,
    UserError,
    load_profile,
    simulate_requests,
)

NAME = "llama-3.1-8b/h100-64gb"
OPTIONS = TrainingOptions(
    boosting_rounds=30, distillation_points=200, distillation_attempts=3, folds=2, distilled_leaves=64
)


@pytest.fixture(scope="module")
def profile() -> ServingProfile:
    return load_profile(NAME)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, profile: ServingProfile) -> Path:
    out = tmp_path_factory.mktemp("data") / "levels.parquet"
    options = DatasetOptions(out=str(out), points=240, workers=1, piece=60, labels=LEVELS)
    assert make_dataset(options, profile, Console(quiet=True)) == out
    return out


@pytest.fixture(scope="module")
def data(sample: Path) -> LabelledLevels:
    return read_level_dataset(sample)[0]


@pytest.fixture(scope="module")
def models(data: LabelledLevels, profile: ServingProfile) -> LevelModels:
    return fit_levels(data, profile, OPTIONS)


@pytest.fixture(scope="module")
def predictor(models: LevelModels) -> Predictor:
    return replace(load_predictor(NAME), levels=models)


def level(ttft_ms: float, tpot_ms: float) -> ServiceLevel:
    return replace(INTERACTIVE, name="mine", ttft_ms=ttft_ms, tpot_ms=tpot_ms)


# --- labels


@pytest.mark.parametrize("index", range(6))
def test_a_label_is_what_the_twin_says_of_every_pair_of_limits(profile: ServingProfile, index: int) -> None:
    """One simulation stands for all: a little less than the critical limit fails, a little more is kept."""
    content = draw_content(content_generator(7, index), profile, profile_table(profile), load=0.8, load_spread=0.2)
    content = replace(content, window_s=120.0)
    generator = content_generator(7, index, 1)
    limits = drawn_limits(generator)
    assert limits[0] == INTERACTIVE.ttft_ms
    assert TTFT_LIMITS_MS[0] <= limits.min() <= limits.max() <= TTFT_LIMITS_MS[1]
    requests = draw_requests(generator, replace(content, window_s=240.0))

    def judged_by(service: ServiceLevel) -> GpuResult:
        return simulate_requests(requests, content.ranks, profile, content.max_loras, duration_s=120.0, service=service)

    long = judged_by(replace(BATCH, e2el_ms=1e6))
    judged = INTERACTIVE.judged(requests, 120.0)
    critical = critical_tpot_ms(long, requests, judged, limits, profile.request_overhead_ms)
    for ttft_ms, least in zip(limits[:4], critical[:4], strict=True):
        tried = least * np.array([0.9, 0.999, 1.001, 1.1]) if 0 < least < np.inf else np.array([30.0, 500.0])
        for tpot_ms in tried:
            assert judged_by(level(ttft_ms, float(tpot_ms))).fails == (tpot_ms < least)


def test_a_sample_for_one_is_not_taken_for_the_other(sample: Path) -> None:
    with pytest.raises(UserError, match="labelled for levels, and labels=starvation are needed"):
        read_dataset(sample)


def test_looser_limits_on_the_first_token_never_need_more_of_the_others(data: LabelledLevels) -> None:
    order = np.argsort(data.ttft_limits_ms, axis=1)
    critical = np.take_along_axis(data.critical_tpot_ms, order, axis=1)
    assert (critical[:, 1:] <= critical[:, :-1]).all()
    assert np.isfinite(critical).any()
    assert np.isinf(critical).any()


# --- models


def test_limits_that_are_given_leave_a_forest_with_the_same_values(models: LevelModels, data: LabelledLevels) -> None:
    X, _ = inputs_of(profile_table(load_profile(NAME)), data.contents)
    for ttft_ms, tpot_ms in ((200.0, 20.0), (2000.0, 100.0), (777.7, 133.3), (10_000.0, 200.0)):
        verdicts = models.verdicts(level(ttft_ms, tpot_ms))
        assert verdicts is not None
        for mine, whole in ((verdicts.forest, models.limited.forest), (verdicts.tree, models.limited.tree)):
            assert mine.feature.max() < len(LIMITED_NAMES)
            # Up to the rounding of a threshold.
            same = np.isclose(mine.values(X), whole.values(limited_inputs(X, ttft_ms, tpot_ms)), atol=1e-6)
            assert same.mean() > 0.98


@given(
    ranks=st.lists(st.sampled_from([8, 16, 32]), min_size=1, max_size=40),
    rates=st.lists(st.floats(0.003, 2.0), min_size=40, max_size=40),
    max_loras=st.integers(1, 64),
    joins=st.tuples(st.sampled_from([8, 16, 32]), st.floats(0.003, 2.0)),
    ttft_ms=st.tuples(st.floats(*TTFT_LIMITS_MS), st.floats(*TTFT_LIMITS_MS)).map(sorted),
    tpot_ms=st.tuples(st.floats(*TPOT_LIMITS_MS), st.floats(*TPOT_LIMITS_MS)).map(sorted),
)
def test_what_is_kept_stays_kept_with_less_to_do_and_with_looser_limits(
    predictor: Predictor,
    ranks: list[int],
    rates: list[float],
    max_loras: int,
    joins: tuple[int, float],
    ttft_ms: list[float],
    tpot_ms: list[float],
) -> None:
    rates = rates[: len(ranks)]
    fewer = content_features(ranks, rates, max_loras, Lengths(), 600.0)[None]
    more = content_features([*ranks, joins[0]], [*rates, joins[1]], max_loras, Lengths(), 600.0)[None]
    strict, loose = (predictor.under(level(*limits)) for limits in zip(ttft_ms, tpot_ms, strict=True))
    for each in (strict, loose, predictor.under(BATCH)):
        assert each.predict_starvation(fewer)[0] <= each.predict_starvation(more)[0] + 1e-9
        assert each.distilled_starvation(fewer)[0] <= each.distilled_starvation(more)[0] + 1e-9
    assert loose.predict_starvation(fewer)[0] <= strict.predict_starvation(fewer)[0] + 1e-9
    assert loose.distilled_starvation(fewer)[0] <= strict.distilled_starvation(fewer)[0] + 1e-9
    # The verdict as well: the threshold is the same whatever the limits.
    assert loose.starvation_threshold == strict.starvation_threshold


def test_models_tell_most_contents_apart(models: LevelModels) -> None:
    """As far as 200 contents teach; the shipped models are held to more."""
    for sample in models.card["test_errors"].values():
        assert sample["full"]["drawn limits"]["macro_f1"] > 0.8
        assert sample["full"]["percentiles"]["itl_p50"] < 30.0


def test_a_higher_percentile_is_never_less(predictor: Predictor, data: LabelledLevels) -> None:
    for distilled in (False, True):
        for what in ("ttft", "itl"):
            values = np.array(
                [predictor.predict_percentile_ms(what, q, data.contents, distilled=distilled) for q in PERCENTILES]
            )
            known = values[:, np.isfinite(values).all(axis=0)]
            assert known.shape[1] > 100
            assert (np.diff(known, axis=0) >= -1e-9 * known[1:]).all()


def test_percentiles_that_were_not_learned_are_refused(predictor: Predictor, data: LabelledLevels) -> None:
    with pytest.raises(UserError, match="percentile=75"):
        predictor.predict_percentile_ms("ttft", 75, data.contents)
    with pytest.raises(UserError, match="knows none"):
        replace(predictor, levels=None).predict_percentile_ms("ttft", 95, data.contents)


# --- which level


@pytest.mark.parametrize(
    "other",
    [
        replace(INTERACTIVE, share=0.9), replace(INTERACTIVE, ttft_ms=100.0), replace(INTERACTIVE, tpot_ms=500.0),
        replace(INTERACTIVE, tpot_ms=None), replace(INTERACTIVE, e2el_ms=1e5), replace(BATCH, e2el_ms=6e4),
        replace(INTERACTIVE, tail_s=0.0), replace(INTERACTIVE, warm_up=0.0),
    ],
    ids=str,
)  # fmt: skip
def test_a_level_that_was_not_learned_is_not_guessed(predictor: Predictor, other: ServiceLevel) -> None:
    assert predictor.under(other) is predictor
    assert not predictor.knows(other)


def test_a_predictor_under_a_level_and_back(predictor: Predictor, data: LabelledLevels) -> None:
    mine = predictor.under(INTERACTIVE)
    assert mine.knows(INTERACTIVE)
    assert mine.under(INTERACTIVE) is mine
    assert mine.under(BATCH).service == BATCH
    assert mine.under(PUBLISHED) is predictor
    assert mine.under(replace(INTERACTIVE, share=0.5)) is predictor
    X = mine.predict_starvation(data.contents)
    assert (predictor.predict_starvation(data.contents) < X).mean() > 0.3
    np.testing.assert_array_equal(mine.predict_throughput(data.contents), predictor.predict_throughput(data.contents))
    assert (
        mine.at_risk(0.1).starvation_threshold >= mine.at_risk(0.01).starvation_threshold == mine.starvation_threshold
    )


# --- files


def test_a_file_with_levels_reads_back(predictor: Predictor, data: LabelledLevels, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    save_predictor(predictor, path)
    again = load_predictor(path)
    assert again.levels is not None
    for service in (PUBLISHED, INTERACTIVE, BATCH):
        ours, theirs = predictor.under(service), again.under(service)
        assert ours.starvation_threshold == theirs.starvation_threshold
        np.testing.assert_array_equal(ours.predict_starvation(data.contents), theirs.predict_starvation(data.contents))
        np.testing.assert_array_equal(
            ours.distilled_starvation(data.contents), theirs.distilled_starvation(data.contents)
        )
    for what in ("ttft", "itl"):
        np.testing.assert_array_equal(
            predictor.predict_percentile_ms(what, 95, data.contents),
            again.predict_percentile_ms(what, 95, data.contents),
        )


def test_what_is_said_of_starvation_sees_no_more_than_before() -> None:
    """Models that were trained before service levels were learned keep their answers."""
    predictor = load_predictor(NAME)
    for forest in (predictor.starvation, predictor.throughput, predictor.starvation_tree, predictor.feasible_load):
        assert forest.feature.max() < N_STARVATION_INPUTS


def test_too_few_contents_are_told(data: LabelledLevels, profile: ServingProfile) -> None:
    with pytest.raises(UserError, match="labels=levels"):
        fit_levels(data.take(np.arange(20)), profile, OPTIONS)
