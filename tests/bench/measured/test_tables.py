"""Tables of measurements: what is no table, or no number, is said with the row; scrapes are read as servers write them."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.measured.profile_from_campaign import profile_from_campaign
from bench.measured.profile_from_scrapes import read_scrape
from bench.measured.published import COLUMNS, read_runs
from twin import UserError

FLAGS: dict[str, int | None] = {"max_loras": 8, "max_lora_rank": 16, "kv_cache_tokens": 100_000, "n_adapters": 10}
HEADER = "time_s,running,waiting,prompt_tokens,generation_tokens,kv_usage"
ROWS = ["0,5,0,0,0,0.5", "10,5,0,1000,900,0.5", "20,6,1,2000,1800,0.4"]


def scrape(folder: Path, rows: list[str], header: str = HEADER) -> str:
    path = folder / "scrape.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_samples_with_gaps_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bench"):
        read = read_scrape(scrape(tmp_path, [*ROWS, "30,NaN,,,,"]), FLAGS)
    assert read.time_s.tolist() == [0, 10, 20]
    assert "1 of 4 samples have gaps" in caplog.text
    assert "3 samples over 20 s, 5.3 requests running in the mean, 90 tokens/s generated" in caplog.text


def test_names_of_adapters_are_counted(tmp_path: Path) -> None:
    rows = [f"{row},{names}" for row, names in zip(ROWS, ['"a,b, c"', "", '"a,a"'], strict=True)]
    adapters = read_scrape(scrape(tmp_path, rows, f"{HEADER},adapters"), FLAGS).adapters
    assert adapters is not None
    assert adapters.tolist() == [3, 0, 1]
    numbers = [f"{row},{number}" for row, number in zip(ROWS, (3, 4, 5), strict=True)]
    again = read_scrape(scrape(tmp_path, numbers, f"{HEADER},adapters"), FLAGS).adapters
    np.testing.assert_array_equal(again, [3, 4, 5])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], "10,5,0,1000,900,37"], "kv_usage goes up to 37; .* divide per cent by 100"),
        ([*ROWS, "30,5,0,10,2000,0.4"], "column prompt_tokens falls in row 5"),
        ([*ROWS, "30,5,0,3000,inf,0.4"], "row 5, column generation_tokens: inf"),
        ([*ROWS, "30,-1,0,3000,3000,0.4"], "row 5, column running: -1"),
        ([ROWS[0]], "at least two times"),
    ],
)
def test_what_a_server_cannot_have_said_is_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_scrape(scrape(tmp_path, rows), FLAGS)


@pytest.mark.parametrize("flag", list(FLAGS))
@pytest.mark.parametrize("value", [-8, 0])
def test_flags_are_counts(tmp_path: Path, flag: str, value: int) -> None:
    with pytest.raises(UserError, match=f"{flag}={value} must be a whole number, 1 or more"):
        read_scrape(scrape(tmp_path, ROWS), FLAGS | {flag: value})


def test_a_column_and_an_option_must_agree(tmp_path: Path) -> None:
    path = scrape(tmp_path, [f"{row},4" for row in ROWS], f"{HEADER},max_loras")
    assert read_scrape(path, FLAGS | {"max_loras": None}).max_loras == 4
    with pytest.raises(UserError, match="column max_loras says 4, the option max_loras=8"):
        read_scrape(path, FLAGS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (bytes(range(256)), "not a text file|NUL"),
        (b"# HELP vllm:num_requests_running Running\nvllm:num_requests_running 3\n", "is a page of Prometheus metrics"),
        (b"a,b\n1,2,3,4\n1,2,3,4,5,6\n", "not a table"),
        (b"running,running\n1,2\n", "column time_s .* is missing"),
    ],
)
def test_what_is_no_table_is_said_to_be_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "scrape.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"scrape.csv: .*({message})"):
        read_scrape(str(path), FLAGS)
    (tmp_path / "scrape.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"scrape.parquet: not a readable Parquet file"):
        read_scrape(str(tmp_path / "scrape.parquet"), FLAGS)


RUN = {
    "model": "llama-3.1-8b-instruct", "family": "dt", "status": "ok", "max_loras": 8, "n_adapters": 3, "max_lora_rank": 16,
    "adapter_ranks": "8-16", "adapter_rates": "0.1-0.2", "rate_counts": "2-1", "total_time_s": 60, "mean_ttft_ms": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "no run in it can be used: model must be one of"),
        ({"max_loras": "many"}, "row 2, column max_loras: 'many'"),
        ({"max_loras": 1.5}, "max_loras=1.5 must be a whole number"),
        ({"n_adapters": 0}, "n_adapters=0 must be a whole number, 1 or more"),
        ({"total_time_s": 0}, "total_time_s=0"),
        ({"mean_ttft_ms": -1}, "row 2, column mean_ttft_ms: -1"),
        ({"adapter_rates": "0.1-fast"}, "numbers joined by hyphens"),
        ({"adapter_ranks": "9"}, "must be ranks that vLLM knows"),
        ({"adapter_ranks": "32"}, "at most max_lora_rank=16"),
    ],
)
def test_a_run_that_cannot_have_been_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "runs.csv"

    def write(run: dict[str, object]) -> None:
        path.write_text(",".join(COLUMNS) + "\n" + ",".join(str(run.get(column, "")) for column in COLUMNS) + "\n")

    write(RUN)
    assert len(read_runs(str(tmp_path))) == 1
    write(RUN | changes)
    with pytest.raises(UserError, match=f"runs.csv: .*{message}"):
        read_runs(str(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]", "{}", "[" * 50_000, '{"max_num_seqs": -1}'])
def test_a_campaign_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "campaign.json").write_text(content)
    with pytest.raises(UserError) as raised:
        profile_from_campaign(str(tmp_path), None, Console())
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_more_adapters_run_than_there_are(tmp_path: Path) -> None:
    rows = [f"{row},{number}" for row, number in zip(ROWS, ("", 11, 5), strict=True)]
    with pytest.raises(UserError, match="column adapters has 11 that run at once; n_adapters=10 must be as many"):
        read_scrape(scrape(tmp_path, rows, f"{HEADER},adapters"), FLAGS)


def test_dates_are_no_seconds(tmp_path: Path) -> None:
    table = pd.read_csv(scrape(tmp_path, ROWS))
    table["time_s"] = pd.to_datetime(table["time_s"], unit="s")
    table.to_parquet(tmp_path / "scrape.parquet")
    with pytest.raises(UserError, match=r"row 2, column time_s: .*1970.* must be a number"):
        read_scrape(str(tmp_path / "scrape.parquet"), FLAGS)
