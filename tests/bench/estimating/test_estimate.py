"""Step terms and KV capacity of a server that nobody measured, from times and constants given by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.estimating.constants import BY_BYTES, BY_LAYERS, OF_THE_HOST, Constants, version_numbers
from bench.estimating.estimate import RANKS, STEP_ERROR_PCT, ServerShape, kv_capacity, other_terms
from bench.estimating.gpus import GIB, GPUS, MEASURED_CARD
from bench.estimating.shape import load_shape, shipped_shapes
from bench.estimating.steps import GRAPH_TOKENS, fit_kernels
from bench.estimating.transfer import _one_point
from twin import UserError, load_profile
from twin.profile import STEP_TERMS
from twin.profile_files import estimated_profiles

ROOT = Path(__file__).parents[3]
CONSTANTS = Constants(
    host_ms=2.0,
    host_per_request_ms=0.01,
    terms=dict.fromkeys((*BY_LAYERS, *OF_THE_HOST), 0.001) | dict.fromkeys(BY_BYTES, 1e-9),
    load_ms=0.2, disk_ms_per_byte=1e-6, memory_bytes=GIB, logits_bytes=12.0, profiles=(load_profile("llama-3.1-8b"),),
)  # fmt: skip
SERVER = ServerShape(GPUS["h100-80gb"], 1, "bf16", "0.24.0", 1024, 8192, 32768)


def term(values: np.ndarray, name: str) -> float:
    return float(values[STEP_TERMS.index(name)])


def test_times_that_are_linear_are_found_to_the_digit() -> None:
    def times(prefill: int, decodes: int, context: int) -> float:
        tokens = decodes + prefill
        return 5.0 + 0.02 * tokens + 4e-5 * (decodes * context + prefill) + 0.01 * max(0, tokens - GRAPH_TOKENS)

    fit = fit_kernels(times, kv_tokens=10**6)
    for name, value in (("constant", 5.0), ("tokens", 0.02), ("kv_tokens", 4e-5), ("eager_tokens", 0.01)):
        assert term(fit.step_ms, name) == pytest.approx(value, rel=1e-3)
    assert fit.error_pct < 0.01
    assert fit.eager_above_tokens == GRAPH_TOKENS


def test_experts_that_the_first_tokens_touch_are_a_step_up() -> None:
    """128 experts of which a token touches 8: most are read from some dozen tokens on."""

    def times(prefill: int, decodes: int, context: int) -> float:
        touched = 1 - (1 - 8 / 128) ** (decodes + prefill)
        return 3.0 + 12.0 * touched + 0.004 * (decodes + prefill)

    dense, mixture = (fit_kernels(times, kv_tokens=10**6, experts=experts) for experts in (False, True))
    assert mixture.error_pct < dense.error_pct / 2
    assert mixture.eager_above_tokens < GRAPH_TOKENS
    assert term(mixture.step_ms, "eager_step") > 5


def test_the_same_seed_asks_about_the_same_steps() -> None:
    asked: list[tuple[int, int, int]] = []

    def times(prefill: int, decodes: int, context: int) -> float:
        asked.append((prefill, decodes, context))
        return 1.0

    fit_kernels(times, kv_tokens=100_000, seed=3)
    first = list(asked)
    asked.clear()
    fit_kernels(times, kv_tokens=100_000, seed=3)
    assert asked == first
    # No step holds more than the cache, but for a request alone.
    assert all(decodes * context <= 100_000 or decodes == 1 for _, decodes, context in asked)


def test_lora_kernels_take_the_share_of_the_bandwidth_and_the_host_does_not() -> None:
    shape, measured = load_shape("mistral-7b"), other_terms(load_shape("mistral-7b"), MEASURED_CARD, CONSTANTS)
    fast = other_terms(shape, GPUS["h100-80gb"], CONSTANTS)
    assert term(measured, "adapters") == pytest.approx(0.001 * 32)
    assert term(fast, "adapters") == pytest.approx(0.001 * 32 * 2.02 / 3.35)
    assert term(fast, "adapters_x_rank") == pytest.approx(1e-9 * shape.slot_bytes(1) * 2.02 / 3.35)
    for name in ("constant", "running", "loads", "eager_step"):
        assert term(fast, name) == term(measured, name) > 0


def test_the_kv_cache_by_hand() -> None:
    """Nine tenths of the card, less weights, activations, 1 GiB, logits of 1,024 sequences and eight slots of rank 16."""
    shape = load_shape("qwen-2.5-7b")
    kv = kv_capacity(shape, SERVER, CONSTANTS)
    free = 0.9 * 79.19 * GIB - 2 * (shape.linear_weights + shape.vocabulary_weights) - GIB - 12.0 * 1024 * 152064
    free -= 8192 * (2 * 18944 + 4 * 3584) * 2
    expected = (free - 8 * 16 * shape.slot_bytes(1)) / 57344
    assert kv.lookup(8, 16) == pytest.approx(expected, abs=16)
    assert kv.lookup(8, 16) % 16 == 0


@given(model=st.sampled_from(shipped_shapes()), gpu=st.sampled_from(sorted(GPUS)), tp=st.sampled_from([1, 2, 4, 8]))
def test_more_slots_higher_ranks_and_longer_contexts_leave_no_more(model: str, gpu: str, tp: int) -> None:
    server = replace(SERVER, gpu=GPUS[gpu], tp=tp)
    try:
        kv = kv_capacity(load_shape(model), server, CONSTANTS)
    except UserError as error:
        assert "tokens of KV cache are left" in str(error) or "does not divide" in str(error)  # noqa: PT017
        return
    table = np.array(kv.tokens)
    assert (np.diff(table, axis=0) <= 0).all()
    assert (np.diff(table, axis=1) <= 0).all()
    assert kv.max_lora_rank == RANKS[: len(kv.max_lora_rank)]
    assert table.max() < kv.without_lora_tokens


def test_a_model_that_does_not_fit_is_told_with_what_would_be_right() -> None:
    with pytest.raises(
        UserError, match=r"0 tokens of KV cache are left.*more GPUs \(tp\), fp8 or a shorter max_model_len"
    ):
        kv_capacity(load_shape("llama-3.1-70b"), SERVER, CONSTANTS)
    with pytest.raises(UserError, match="tp=3: does not divide"):
        kv_capacity(load_shape("llama-3.1-8b"), replace(SERVER, tp=3), CONSTANTS)


@pytest.mark.parametrize(
    ("text", "numbers"), [("0.24.0", (0, 24, 0)), ("v0.8.5", (0, 8, 5)), ("0.33", (0, 33, 0)), ("1.0rc1", (1, 0, 0))]
)
def test_versions(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(text) == numbers


def test_a_version_that_is_none() -> None:
    with pytest.raises(UserError, match=r"vllm=newest: must be a version such as 0\.24\.0"):
        version_numbers("newest")


def test_one_point_corrects_a_factor_and_nothing_else() -> None:
    measured = np.array([10.0, 20.0, 40.0])
    assert _one_point(measured, 0.5 * measured) == pytest.approx(0.0)
    # Scaled to either of the first two the third is 10 % too high; scaled to the third, both others are 1/11 too low.
    assert _one_point(measured, measured * [1.0, 1.0, 1.1]) == pytest.approx(100 * (0.1 * 2 + 2 / 11) / 6)


@pytest.mark.parametrize("name", estimated_profiles())
def test_a_shipped_estimate_says_what_it_is(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.provenance["estimated"] is True
    assert profile.provenance["step_time_error_pct_estimated"] > 0
    assert profile.provenance["command"].startswith("python -m bench.profile model=")
    assert profile.kv_tokens(8, 16) >= profile.max_model_len


def test_what_is_estimated_of_better_gpus_is_better() -> None:
    l40s, a100, h100, h200 = (
        load_profile(f"llama-3.1-8b/{gpu}") for gpu in ("l40s-48gb", "a100-80gb", "h100-80gb", "h200-141gb")
    )
    constants = [profile.step_coefficients(8, 16)[0] for profile in (l40s, a100, h100, h200)]
    assert constants == sorted(constants, reverse=True)
    assert l40s.kv_tokens(8, 16) < a100.kv_tokens(8, 16) < h200.kv_tokens(8, 16)


def test_the_error_that_estimates_state_is_the_larger_of_those_that_were_measured() -> None:
    measured = pd.read_csv(ROOT / "results/profiles/transfer.csv")
    assert measured.step_error_pct.max().round(1) == STEP_ERROR_PCT
    assert {load_profile(name).provenance["step_time_error_pct_estimated"] for name in estimated_profiles()} == {
        STEP_ERROR_PCT
    }


def test_the_page_says_what_was_measured() -> None:
    page = (ROOT / "docs/profiles.md").read_text()
    for row in pd.read_csv(ROOT / "results/profiles/transfer.csv").itertuples():
        assert (
            f"| {row.runs} | {row.step_error_pct:.1f} % | {row.step_bias_pct:+.1f} % | {row.one_point_error_pct:.1f} % |"
            in page
        )
