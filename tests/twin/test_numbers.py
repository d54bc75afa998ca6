"""Numbers and names at the door: what is no finite number in its range is refused, with the key and what would be right."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.twin.drawn import small_profile
from twin import UserError, fixed_lengths, simulate_requests, workload_from_groups
from twin.inputs import parse_json, plain_text, read_text
from twin.numbers import check_requests, number, seed_number, whole
from twin.profile_files import parse_profile


@given(value=st.one_of(st.floats(), st.integers(), st.booleans(), st.text(), st.none()))
def test_a_number_is_what_it_was_given_or_refused(value: object) -> None:
    allowed = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 10
    if allowed:
        assert number("key", value, at_least=0, at_most=10) == value
    else:
        with pytest.raises(UserError, match=r"key=.* must be a number, 0 or more and at most 10"):
            number("key", value, at_least=0, at_most=10)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, -1, 2**63, 10**400])
def test_a_seed_is_a_whole_number_of_63_bits(value: object) -> None:
    with pytest.raises(UserError, match=r"seed=.* must be a whole number, 0 or more"):
        seed_number("seed", value)


@pytest.mark.parametrize("value", [10**400, -(10**400), math.nan, math.inf])
def test_what_no_float_holds_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="must be a number, not NaN or infinite") as raised:
        number("key", value)
    assert len(str(raised.value)) < 200


def test_whole_numbers_are_handed_through() -> None:
    assert whole("count", 3, at_least=1, at_most=3) == 3


def test_what_does_not_fit_into_memory_is_said_before_it_is_drawn() -> None:
    check_requests("workload", 1e8)
    with pytest.raises(UserError, match=r"about 3.6e\+09 requests \(432 GB\); at most 1e\+08"):
        check_requests("workload", 3.6e9)
    with pytest.raises(UserError, match=r"1e\+09 requests/s for 60 s would draw about 6e\+10 requests"):
        workload_from_groups([(1, 8, 1e9)], duration_s=60.0)
    huge = workload_from_groups([(100, 8, 1e5)], duration_s=600.0)
    with pytest.raises(UserError, match=r"6e\+09 requests"):
        _ = huge.requests


NUMERIC_FIELDS = [
    "min_step_ms", "request_overhead_ms", "generated_fraction", "block_size", "max_num_seqs", "max_num_batched_tokens",
    "max_model_len", "eager_above_tokens", "watermark_blocks", "long_prefill_token_threshold",
]  # fmt: skip
PLACES = [
    *((field,) for field in NUMERIC_FIELDS),
    *(("step_ms", term) for term in ("constant", "tokens", "kv_tokens", "loads", "max_loras_x_rank")),
    *(("scheduler_ms", place) for place in range(4)),
    ("load_ms", 0, 2),
    ("disk_load_ms", 0, 1),
    ("kv", "tokens", 0, 1),
    ("kv", "without_lora_tokens"),
    ("kv", "max_loras", 1),
]


@given(
    place=st.sampled_from(PLACES),
    value=st.one_of(
        st.floats(), st.sampled_from([math.nan, math.inf, -1.0, 0, 1e300, 10**30, 0.5, 1e-300]), st.integers()
    ),
)
def test_a_profile_with_any_number_anywhere_is_refused_or_simulated(place: tuple[str | int, ...], value: float) -> None:
    data = json.loads(small_profile().to_json())
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        profile = parse_profile(json.dumps(data), "mine.json")
        lengths = fixed_lengths(min(30, profile.max_model_len - 1), 1)
    except UserError:
        return
    workload = workload_from_groups([(2, 8, 0.2)], lengths=lengths, duration_s=5.0)
    result = simulate_requests(workload.requests, workload.ranks, profile, 2, duration_s=5.0)
    assert math.isfinite(result.throughput)
    assert result.throughput >= 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ', "not valid JSON"),
        ("1" * 5000, "not valid JSON"),
    ],
)
def test_json_is_understood_or_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"file: .*{message}"):
        parse_json(text, "file", "an object")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe", "not a text file in UTF-8"), (b"a\0b", "NUL bytes"), (b" \n", "is empty"), (None, "is a folder")],
)
def test_a_file_without_text_is_said_to_be_so(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "file"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"rows=.*{message}.*it must be a table"):
        read_text(path, "a table", key="rows")


@pytest.mark.parametrize("name", ["a b", "ünï/код", "quote'\"", "名前", "a-b_c.d"])
def test_names_of_every_script_are_kept(name: str) -> None:
    assert plain_text("name", name) == name


@pytest.mark.parametrize("name", ["", " ", "a\x1b[31m", "a\u202eb", "a\ud800", "a\0", "x" * 201, 5])
def test_names_that_cannot_be_shown_are_refused(name: object) -> None:
    with pytest.raises(UserError, match="name=") as raised:
        plain_text("name", name)
    assert str(raised.value).isprintable()
