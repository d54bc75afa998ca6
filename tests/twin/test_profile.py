"""Serving profiles: their look-ups, and what is said of a file that is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.twin.drawn import STEP_MS, small_profile
from twin import ServingProfile, UserError, load_profile, shipped_profiles
from twin.profile import STEP_TERMS, KvCapacity
from twin.profile_files import parse_profile

PROFILE = small_profile()


def test_json_gives_the_profile_back(tmp_path: Path) -> None:
    profile = small_profile(async_scheduling=True, long_prefill_token_threshold=7, provenance={"source": "none"})
    path = tmp_path / "mine.json"
    profile.save(path)
    assert load_profile(str(path)) == profile
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.json"]


@pytest.mark.parametrize("name", shipped_profiles())
def test_shipped_profiles_load(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert parse_profile(profile.to_json(), "again") == profile
    for rank in profile.ranks:
        largest = profile.largest_max_loras(rank)
        assert profile.kv_tokens(largest, rank) > 0
        assert (profile.step_coefficients(largest, rank)[:1] > 0).all()
    # More slots and larger ranks leave less KV cache.
    table = np.array(profile.kv.tokens)
    assert (np.diff(table, axis=0) <= 0).all()
    assert (np.diff(table, axis=1) <= 0).all()


@pytest.mark.parametrize("name", ["llama-3.1-8b", "h100-64gb/llama-3.1-8b"])
def test_a_profile_is_found_by_its_model_and_in_either_order(name: str) -> None:
    assert load_profile(name) == load_profile("llama-3.1-8b/h100-64gb")


# --- look-ups


@pytest.mark.parametrize(
    ("max_loras", "rank", "tokens"),
    [(1, 8, 4800), (4, 8, 4000), (8, 8, 3200), (2, 8, 4533), (6, 8, 3600), (9, 8, 0), (4, 16, 3200), (5, 16, 0)],
)
def test_kv_cache_is_looked_up_and_interpolated_over_the_slots(max_loras: int, rank: int, tokens: int) -> None:
    assert PROFILE.kv_tokens(max_loras, rank) == tokens


def test_a_rank_between_two_takes_the_larger_ones_cache() -> None:
    assert PROFILE.kv_tokens(4, 9) == PROFILE.kv_tokens(4, 16)


def test_fewer_slots_than_measured_take_the_first_figure() -> None:
    kv = KvCapacity((4, 8), (8,), ((4000, 3200),), 6400)
    assert small_profile(kv=kv).kv_tokens(1, 8) == 4000


def test_without_lora_the_cache_is_larger() -> None:
    assert PROFILE.kv_tokens(0, 8) == 6400


def test_a_cache_too_small_for_the_longest_request_is_a_memory_error() -> None:
    assert small_profile(max_model_len=3200).kv_tokens(8, 8) == 3200
    assert small_profile(max_model_len=3201).kv_tokens(8, 8) == 0


@given(rank=st.sampled_from([8, 16]), max_model_len=st.integers(1, 5000))
def test_the_largest_max_loras_is_the_last_that_starts(rank: int, max_model_len: int) -> None:
    profile = small_profile(max_model_len=max_model_len)
    starts = [value for value in range(1, 12) if profile.kv_tokens(value, rank)]
    assert profile.largest_max_loras(rank) == max(starts, default=0)


def test_a_server_takes_the_smallest_rank_that_serves() -> None:
    assert [PROFILE.server_rank(rank) for rank in (1, 8, 9, 16)] == [8, 8, 16, 16]
    with pytest.raises(UserError, match=r"profile small: rank=17 .* \[8, 16\]"):
        PROFILE.server_rank(17)
    with pytest.raises(UserError, match="rank=32"):
        PROFILE.check_ranks(np.array([8, 32, 16]))
    PROFILE.check_ranks(np.array([], dtype=np.int64))


def test_load_times_are_of_the_server_and_the_adapter() -> None:
    assert (PROFILE.load_time_ms(8, 8), PROFILE.load_time_ms(16, 8), PROFILE.load_time_ms(16, 16)) == (3.0, 4.0, 5.0)
    assert (PROFILE.disk_time_ms(8), PROFILE.disk_time_ms(12)) == (20.0, 30.0)


@given(
    slots=st.integers(0, 8),
    rank=st.sampled_from([8, 16]),
    running=st.integers(0, 20),
    adapters=st.integers(0, 8),
    tokens=st.integers(0, 100),
    kv_tokens=st.integers(0, 5000),
    loads=st.integers(0, 3),
)
def test_folding_the_flags_in_keeps_the_step_time(
    slots: int, rank: int, running: int, adapters: int, tokens: int, kv_tokens: int, loads: int
) -> None:
    # The model as STEP_TERMS states it, written out term by term; without LoRA (no slots) there is no rank either.
    eager = max(0, tokens - PROFILE.eager_above_tokens)
    server = rank if slots else 0
    terms = {
        "constant": 1,
        "running": running,
        "adapters": adapters,
        "tokens": tokens,
        "tokens_x_adapters": tokens * adapters,
        "kv_tokens": kv_tokens,
        "max_loras": slots,
        "rank": server,
        "max_loras_x_rank": slots * server,
        "adapters_x_rank": adapters * server,
        "tokens_x_rank": tokens * server,
        "tokens_x_max_loras": tokens * slots,
        "tokens_x_max_loras_x_rank": tokens * slots * server,
        "eager_step": eager > 0,
        "eager_tokens": eager,
        "loads": loads,
        "loads_x_adapters": loads * adapters,
    }
    assert set(terms) == set(STEP_TERMS)
    expected = sum(STEP_MS[term] * value for term, value in terms.items())
    folded = PROFILE.step_coefficients(slots, rank)
    values = [1, running, adapters, tokens, tokens * adapters, kv_tokens, eager > 0, eager, loads, loads * adapters]
    assert folded @ values == pytest.approx(expected)


# --- files


def changed(**keys: Any) -> str:  # noqa: ANN401  # values of all types
    data = json.loads(PROFILE.to_json())
    for key, value in keys.items():
        if value is ...:
            del data[key]
        else:
            data[key] = value
    return json.dumps(data)


KV = json.loads(PROFILE.to_json())["kv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "a serving profile is a JSON object"),
        (changed(schema_version=99), "schema_version=99 is not 1"),
        (changed(schema_version=...), "schema_version=None"),
        (changed(blok_size=16), "blok_size: no such key; known are name, model"),
        (changed(kv=...), "kv: is missing; needed are name"),
        (changed(step_ms={"constnt": 1.0}), r"step_ms: unknown terms \['constnt'\]; known are constant, running"),
        (changed(step_ms={}), "step_ms={} must have at least one of the terms constant, running"),
        (changed(step_ms=[1.0]), r"step_ms=\[1.0\] must be an object"),
        (changed(step_ms={"constant": "fast"}), r"step_ms.constant='fast' must be a number of milliseconds"),
        (changed(scheduler_ms=[1.0]), r"scheduler_ms=\[1.0\] must be a list of 4 numbers"),
        (changed(kv={}), "kv.max_loras: is missing"),
        (changed(kv=None), "kv=None must be an object"),
        (changed(kv=KV | {"max_loras": 4}), "kv.max_loras=4 must be a list"),
        (changed(kv=KV | {"tokens": [1, 2]}), "kv.tokens: each of its rows must be a list"),
        (changed(load_ms={}), "load_ms={} must be a list of "),
        (changed(load_ms=[[8, 1.0]]), r"load_ms: \[8, 1.0\] must be \[slots, rank, milliseconds\]"),
        (changed(disk_load_ms=[8]), r"disk_load_ms: 8 must be \[rank, milliseconds\]"),
        (changed(kv=KV | {"tokens": [[1, 2, 3]]}), "kv.tokens: one row per max_lora_rank"),
        (changed(kv=KV | {"max_loras": [8, 4, 1]}), r"kv.max_loras=\[8, 4, 1\] must be positive and strictly"),
        (changed(kv=KV | {"max_lora_rank": [0, 8]}), r"kv.max_lora_rank=\[0, 8\]"),
        (changed(kv=KV | {"tokens": [[1, 2, 3], [1, 2, -3]]}), "kv.tokens must not be negative"),
        (changed(block_size=0), "block_size=0"),
        (changed(max_num_seqs="many"), "max_num_seqs='many'"),
        (changed(max_num_seqs=65), "max_num_batched_tokens=64 must be at least max_num_seqs=65"),
        (changed(min_step_ms=-1.0), "min_step_ms=-1.0"),
        (changed(watermark_blocks=-1), "watermark_blocks=-1"),
        (changed(long_prefill_token_threshold=-1), "long_prefill_token_threshold=-1"),
        (changed(generated_fraction=0), "generated_fraction=0"),
        (changed(load_ms=[[8, 8, 1.0]]), r"load_ms: .*\(16, 8\).*missing"),
        (changed(disk_load_ms=[[8, 1.0]]), "disk_load_ms: a value for each"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        load_profile(str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["gpt-2", "llama-3.1-8b/a100", "/nowhere/mine.json"])
def test_a_profile_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"profile={name}: no such"):
        load_profile(name)


@pytest.mark.parametrize("field", ["step_ms", "max_num_seqs", "async_scheduling"])
def test_profiles_that_differ_are_not_equal(field: str) -> None:
    changes: dict[str, Callable[[ServingProfile], object]] = {
        "step_ms": lambda profile: (profile.step_ms[0] + 1, *profile.step_ms[1:]),
        "max_num_seqs": lambda profile: profile.max_num_seqs + 1,
        "async_scheduling": lambda profile: not profile.async_scheduling,
    }
    assert small_profile(**{field: changes[field](PROFILE)}) != PROFILE
