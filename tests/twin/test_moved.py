"""Profiles drawn from what a profile leaves open: off by as much as it says, and the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.twin.drawn import small_profile
from twin import UserError, load_profile
from twin.moved import FIRST_TERM, MEAN_ABSOLUTE, drawn, measured_uncertainty, moved, slowed
from twin.profile import STEP_TERMS, Uncertainty
from twin.profile_files import estimated_profiles, parse_profile, shipped_profiles

NOTHING = (0.0,) * len(STEP_TERMS)


def uncertain(**change: object) -> Uncertainty:
    return replace(Uncertainty(0.2, (0.1,) * len(STEP_TERMS), 0.05, 0.25, "a guess"), **change)  # type: ignore[arg-type]


def test_without_a_draw_it_is_the_profile_itself() -> None:
    profile = small_profile()
    assert moved(profile, uncertain(), np.zeros((2, FIRST_TERM + len(STEP_TERMS)))) == [profile, profile]


def test_all_steps_move_together_and_the_cache_by_itself() -> None:
    profile = small_profile(uncertainty=uncertain(terms=NOTHING))
    profiles = drawn(profile, 64, 3)
    ratios = np.array([np.array(other.step_ms)[:2] / np.array(profile.step_ms)[:2] for other in profiles])
    np.testing.assert_allclose(ratios[:, 0], ratios[:, 1])
    assert np.log(ratios[:, 0]).std() == pytest.approx(0.2, rel=0.1)
    sizes = np.array([other.kv.without_lora_tokens for other in profiles])
    assert (sizes % profile.block_size == 0).all()
    assert np.log(sizes / profile.kv.without_lora_tokens).std() == pytest.approx(0.05, rel=0.1)
    # Where a server does not start, none starts.
    before = np.array(profile.kv.tokens)
    assert all((np.array(other.kv.tokens)[before == 0] == 0).all() for other in profiles)


def test_the_same_seed_draws_the_same_and_another_others() -> None:
    profile = small_profile(uncertainty=uncertain())
    assert drawn(profile, 16, 1) == drawn(profile, 16, 1)
    assert drawn(profile, 16, 1) != drawn(profile, 16, 2)
    assert all(value >= 0 for other in drawn(profile, 256, 0) for value in other.step_ms)


def test_a_fit_is_off_by_its_error_in_the_states_it_was_measured_in() -> None:
    generator = np.random.default_rng(0)
    terms = generator.uniform(0.0, 3.0, (50, len(STEP_TERMS)))
    step_ms = generator.uniform(0.1, 1.0, len(STEP_TERMS))
    found = measured_uncertainty(terms, step_ms.tolist(), 4.0, "made up")
    profile = small_profile(step_ms=tuple(step_ms.tolist()), uncertainty=found)
    off = [np.abs(terms @ np.array(other.step_ms) / (terms @ step_ms) - 1).mean() for other in drawn(profile, 512, 0)]
    assert np.mean(off) == pytest.approx(0.04, rel=0.05)
    assert found.step_time == pytest.approx(0.04 / MEAN_ABSOLUTE, abs=1e-4)


def test_a_slower_profile_has_a_name_of_its_own() -> None:
    profile = small_profile()
    assert slowed(profile, 1.5).name != profile.name
    np.testing.assert_allclose(slowed(profile, 1.5).step_ms, np.array(profile.step_ms) * 1.5, rtol=1e-5)


def test_every_shipped_profile_says_how_far_it_may_be_off() -> None:
    for name in [*shipped_profiles(), *estimated_profiles()]:
        uncertainty = load_profile(name).uncertainty
        assert uncertainty is not None
        assert 0.02 < uncertainty.step_time < 0.3
        assert bool(uncertainty.all_steps) == (name in estimated_profiles())


def test_it_is_written_and_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    profile = small_profile(uncertainty=uncertain(terms=(0.1, *NOTHING[1:])))
    path = tmp_path_factory.mktemp("profile") / "mine.json"
    profile.save(path)
    assert load_profile(str(path)) == profile
    with pytest.raises(UserError, match="does not say how far"):
        drawn(small_profile(), 8, 0)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"all_steps": 0.2', '"all_steps": -1', r"uncertainty\.all_steps=-1"),
        ('"constant": 0.1', '"constants": 0.1', r"uncertainty\.terms: unknown terms"),
        ('"constant": 0.1', '"constant": 9', r"uncertainty\.terms\.constant=9"),
        ('"kv_cache": 0.05', '"kv": 0.05', r"uncertainty\.kv: no such key"),
        ('"source": "a guess"', '"source": 7', r"uncertainty\.source=7"),
    ],
)
def test_what_is_wrong_in_it_is_named(old: str, new: str, says: str) -> None:
    text = small_profile(uncertainty=uncertain()).to_json()
    assert old in text
    with pytest.raises(UserError, match=says):
        parse_profile(text.replace(old, new), "mine.json")
