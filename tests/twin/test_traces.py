"""Trace files: the public formats, and what can be wrong with a file. Replay is in test_builders.py."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twin import UserError, builders, load_profile
from twin.traces import FORMATS, read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:50.0000000,20,2
2023-11-16 18:15:46.5000000,10,1
"""
BURST_GPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118.5,GPT-4,417,276,693,API log
"""
BURST_GPT_WITH_SESSIONS = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log
19440161.0,d5983bf9,2,ChatGPT,36,29,65,Conversation log
"""
MOONCAKE = """{"timestamp": 0, "input_length": 655, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 3052, "input_length": 672, "output_length": 26, "hash_ids": [46]}
{"timestamp": 3052, "input_length": 100, "output_length": 1, "hash_ids": []}
"""


@pytest.mark.parametrize(
    ("content", "arrival_s", "prompt", "output"),
    [
        (AZURE, [0.0, 3.5], [10, 20], [1, 2]),
        (BURST_GPT, [0.0, 113.5], [472, 417], [18, 276]),
        (BURST_GPT_WITH_SESSIONS, [0.0, 51.0], [906, 36], [446, 29]),
        (MOONCAKE, [0.0, 3.052, 3.052], [655, 672, 100], [52, 26, 1]),
        ("timestamp,input_length,output_length\n1000,3,4\n500,5,6\n", [0.0, 0.5], [5, 3], [6, 4]),
    ],
    ids=["azure", "burstgpt", "burstgpt-sessions", "mooncake", "mooncake-csv"],
)
def test_public_formats_are_read(
    tmp_path: Path, content: str, arrival_s: list[float], prompt: list[int], output: list[int]
) -> None:
    path = tmp_path / "trace"
    path.write_text(content)
    read = read_trace(str(path))
    np.testing.assert_allclose(read[0], arrival_s)
    assert (read[1].tolist(), read[2].tolist()) == (prompt, output)


@pytest.mark.parametrize(
    "content",
    [
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00+00:00,1,2\n2024-05-10 00:00:01.5+00:00,3,4\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10T02:00:00.25+02:00,1,2\n2024-05-10T00:00:01.75Z,3,4\n",
        (
            '{"TIMESTAMP": "2024-05-10 00:00:00Z", "ContextTokens": 1, "GeneratedTokens": 2}\n'
            '{"TIMESTAMP": "2024-05-10 00:00:01.5Z", "ContextTokens": 3, "GeneratedTokens": 4}\n'
        ),
    ],
)
def test_dates_may_have_a_utc_offset(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trace"
    path.write_text(content)
    np.testing.assert_allclose(read_trace(str(path)).arrival_s, [0.0, 1.5])


@pytest.mark.parametrize(
    "content", [MOONCAKE, "\n \n" + MOONCAKE, "\ufeff" + MOONCAKE, MOONCAKE.replace("\n", "\r\n\n")]
)
@pytest.mark.parametrize("compressed", [False, True])
def test_blank_lines_marks_and_compression_change_nothing(tmp_path: Path, content: str, *, compressed: bool) -> None:
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    assert read_trace(str(path)).prompt_tokens.tolist() == [655, 672, 100]


SECONDS = "".join(f'{{"timestamp": {n / 7:.3f}, "input_length": 5, "output_length": 2}}\n' for n in range(400))


def test_seconds_are_not_taken_for_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(SECONDS)
    with pytest.raises(UserError, match=r"timestamp has fractions; .* workload.time_unit=s"):
        read_trace(str(path))
    assert read_trace(str(path), time_unit="s").arrival_s[-1] == pytest.approx(57.0)
    assert read_trace(str(path), time_unit="ms").arrival_s[-1] == pytest.approx(0.057)
    path.write_text("".join(f'{{"timestamp": {n}, "input_length": 5, "output_length": 2}}\n' for n in range(1300)))
    with pytest.raises(UserError, match=r"1,001 requests/s for 1.3 s: .* workload.time_unit=s"):
        read_trace(str(path))
    assert read_trace(str(path), time_unit="s").arrival_s[-1] == 1299
    with pytest.raises(UserError, match="time_unit=h: must be one of s, ms"):
        read_trace(str(path), time_unit="h")
    path.write_text(AZURE)
    with pytest.raises(UserError, match="holds dates, which have no unit"):
        read_trace(str(path), time_unit="s")


OWN = "Timestamp,lora_name,Request tokens,Response tokens\n0,b,5,1\n1,a,6,2\n4,b,7,3\n9,b,8,0\n10,a,9,4\n"


def test_a_column_of_adapters_says_who_is_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(OWN)
    options: dict[str, Any] = {
        "path": str(path), "n_adapters": 200, "ranks": [8, 16], "popularity": "zipf", "popularity_parameter": 1.0,
    }  # fmt: skip
    with caplog.at_level("INFO", "twin"):
        workload = builders.trace(load_profile("llama-3.1-8b"), **options)
    assert workload.requests.adapter.tolist() == [1, 0, 1, 0]
    assert workload.ranks.tolist() == [8, 16]
    np.testing.assert_allclose(workload.rates, [0.2, 0.2])
    assert "2 adapters are replayed; n_adapters and popularity are not used" in caplog.text
    assert "4 requests in the columns of BurstGPT traces over 10 s (0.4 requests/s, 2 adapters)" in caplog.text
    drawn = builders.trace(load_profile("llama-3.1-8b"), **options, adapter_column="")
    assert drawn.n_adapters == 200
    tripled = builders.trace(load_profile("llama-3.1-8b"), **options, multiplier=3.0)
    assert np.bincount(tripled.requests.adapter).tolist() == [6, 6]


def test_a_column_of_models_is_not_passed_over_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(BURST_GPT)
    with caplog.at_level("INFO", "twin"):
        assert read_trace(str(path)).adapter is None
    assert "column Model is passed over" in caplog.text
    assert read_trace(str(path), adapter_column="Model").adapter_names == ("ChatGPT", "GPT-4")
    with pytest.raises(UserError, match=r"adapter_column=tenant: .* has the columns Timestamp, Model"):
        read_trace(str(path), adapter_column="tenant")


def test_formats_are_told_apart_by_their_time_column() -> None:
    assert len({each.time for each in FORMATS}) == len(FORMATS)


def test_a_mooncake_trace_is_a_workload(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(MOONCAKE)
    profile = load_profile("llama-3.1-8b")
    workload = builders.trace(
        profile, path=str(path), n_adapters=2, ranks=[8], popularity="zipf", popularity_parameter=1.0
    )
    assert workload.requests.prompt_tokens.tolist() == [655, 672, 100]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "has the columns a, b; .*BurstGPT"),
        ("Timestamp,Request tokens\n1,2\n", "column Response tokens is missing; BurstGPT"),
        ('{"timestamp": 0, "input_length": 1}\n', "column output_length is missing; Mooncake"),
        ('{"timestamp": 0, "input_len', "not a trace"),
        (MOONCAKE.replace("672", '"many"'), "not a trace"),
        (MOONCAKE.replace('"output_length": 26, ', ""), "output_length is empty in line 2"),
        (BURST_GPT.replace("18", "0").replace("276", "0"), "no request"),
        (BURST_GPT.replace("417", "-1"), "Request tokens and Response tokens must not be negative"),
        (MOONCAKE.replace("3052", "0"), "same timestamp"),
        (BURST_GPT.replace("118.5", "inf"), "Timestamp holds inf"),
        (BURST_GPT.replace("118.5", "1e300"), "spans 1e.300 s"),
        (BURST_GPT.replace("417", "9999999999"), "1,000,000,000 tokens or fewer"),
        (BURST_GPT.replace("417", "99999999999999999999"), "not a trace"),
        (MOONCAKE.replace("672", "1" + "0" * 30), "not a trace"),
        ("[" + MOONCAKE.replace("}\n", "}, ") + "]", "holds a JSON list"),
        ('{"a":' * 50_000, "not a trace .*nested too deeply"),
        (MOONCAKE + '{"timestamp":' + "[" * 50_000, "not a trace .*nested too deeply"),
        (MOONCAKE + "7\n", "line 4: '7' is no object"),
        (OWN.replace("1,a,", "1,,"), "column lora_name is empty in line 3"),
        ("\x00\x01\x02", "not a trace|columns"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "trace"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        read_trace(str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


ADAPTERS_CSV = "timestamp,input_length,output_length,{}\n0,1,1,{}\n9000,1,1,{}\n"
ADAPTERS_JSON = '{{"timestamp":0,"input_length":1,"output_length":1,"adapter":{}}}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ADAPTERS_CSV.format("adapter", "a\x1b[31m", "b"), r"column adapter=.* has the character U\+001B"),
        (ADAPTERS_CSV.format("adapter", "a" * 501, "b"), "has 501 bytes; at most 500"),
        (ADAPTERS_CSV.format("adapter,adapter", "a,x", "b,y"), "columns adapter, adapter may say which adapter"),
        (ADAPTERS_CSV.format("adapter,lora", "a,x", "b,y"), "columns adapter, lora .* workload.adapter_column=COLUMN"),
        (ADAPTERS_JSON.format(r'"a\u202eb"'), r"has the character U\+202E"),
        (ADAPTERS_JSON.format('{"a": 1}'), "column adapter holds {'a': 1}, which is no name"),
        (MOONCAKE + '{"timestamp": 1, "timestamp": 2}\n', "the key 'timestamp' is there twice"),
    ],
)
def test_names_of_adapters_and_keys_are_checked(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "trace"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_trace(str(path))


def test_utf_16_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(AZURE.encode("utf-16"))
    with pytest.raises(UserError, match=r"trace.csv: not a text file in UTF-8"):
        read_trace(str(path))


@pytest.mark.parametrize(
    ("path", "message"), [(1, "=1: no such file"), ("/dev/null", "is a device or socket"), ("/", "is a folder")]
)
def test_what_is_no_file_is_told(path: Any, message: str) -> None:  # noqa: ANN401  # what a user gives may be a number
    with pytest.raises(UserError, match=f"workload.path.*{message}; it must be a trace file"):
        read_trace(path)
