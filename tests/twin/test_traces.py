"""Trace files: the public formats, and what can be wrong with a file. Replay is in test_builders.py."""

from pathlib import Path

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
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "trace"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        read_trace(str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
