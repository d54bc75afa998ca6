"""Counters of a running server: what is collected is what the server said, and the calibration reads it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from bench import calibrate, collect
from bench.measured.profile_from_scrapes import FLAGS, METRIC_OF_COLUMN, read_scrape
from bench.vllm.collecting import read_page

NO_OPTIONS: dict[str, int | None] = dict.fromkeys(FLAGS)


def page(
    generated: float, *, running: float = 4, prompt: float = 0.0, served_s: float = 0.0, cached: float = 0.0
) -> str:
    """What a vLLM server with two slots, 1000 blocks of 16 tokens and six adapters says."""
    label = '{engine="0",model_name="base"}'
    return "\n".join([
        "# HELP vllm:num_requests_running Number of requests in model execution batches.",
        f"vllm:num_requests_running{label} {running}",
        f"vllm:num_requests_waiting{label} 1.0",
        f"vllm:kv_cache_usage_perc{label} 0.25",
        f"vllm:prompt_tokens_total{label} {prompt}",
        f"vllm:prompt_tokens_cached_total{label} {cached}",
        f"vllm:generation_tokens_total{label} {generated}",
        f"vllm:request_inference_time_seconds_sum{label} {served_s}",
        'vllm:lora_requests_info{max_lora="2",running_lora_adapters="a,b",waiting_lora_adapters="c"} 1.7e+09',
        'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1.0',
    ])  # fmt: skip


class _Server(ThreadingHTTPServer):
    """Serves pages in turn, the last one for ever; a number is the status of an answer without a page."""

    daemon_threads = True

    def __init__(self, pages: list[str | int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = pages
        self.looks = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self) -> str | int:
        self.looks += 1
        return self.pages[min(self.looks, len(self.pages)) - 1]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:  # its name in http.server
        if self.path == "/v1/models":
            models = ['{"id": "base", "parent": null}', *(f'{{"id": "a{k}", "parent": "base"}}' for k in range(6))]
            answer: str | int = f'{{"data": [{", ".join(models)}]}}'
        elif self.path == "/metrics":
            answer = self.server.answer()
        else:
            answer = 404
        text = answer if isinstance(answer, str) else ""
        self.send_response(200 if isinstance(answer, str) else answer)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


Start = Callable[[list[str | int]], _Server]


@pytest.fixture
def serve() -> Iterator[Start]:
    running: list[_Server] = []

    def start(pages: list[str | int]) -> _Server:
        server = _Server(pages)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def collected(server: _Server, folder: Path) -> list[Path]:
    return sorted(folder.glob(f"127.0.0.1-{server.server_address[1]}*.parquet"))


def growing(count: int) -> list[str | int]:
    return [page(100.0 * k, prompt=300.0 * k, cached=100.0 * k) for k in range(count)]


def test_a_server_is_collected_with_its_flags(serve: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = serve(growing(50)), serve(growing(50))
    collect.main(
        [f"url=[{first.url},{second.url}/]", "interval_s=0.1", "duration_s=3", f"out={tmp_path}", "max_lora_rank=16"]
    )
    for server in (first, second):
        (path,) = collected(server, tmp_path)
        scrape = read_scrape(str(path), NO_OPTIONS)
        assert (scrape.max_loras, scrape.max_lora_rank, scrape.kv_cache_tokens, scrape.n_adapters) == (2, 16, 16_000, 6)
        # The page that the server was recognised by is not a sample.
        assert scrape.generation_tokens.tolist() == [100.0 * k for k in range(1, len(scrape.time_s) + 1)]
        # What prefix caching found was not computed.
        assert scrape.prompt_tokens.tolist() == [200.0 * k for k in range(1, len(scrape.time_s) + 1)]
        assert scrape.adapters is not None
        assert (scrape.adapters == 2).all()
    said = capsys.readouterr().out
    assert "metrics=[" in said
    assert "NUMBER" not in said


def test_a_server_that_restarts_begins_a_file_of_its_own(serve: Start, tmp_path: Path) -> None:
    server = serve([*growing(4), *growing(50)[1:]])
    collect.main([f"url={server.url}", "interval_s=0.1", "duration_s=4", f"out={tmp_path}", "max_lora_rank=8"])
    files = collected(server, tmp_path)
    assert len(files) == 2
    for path in files:
        assert (pd.read_parquet(path).generation_tokens.diff().dropna() > 0).all()
        read_scrape(str(path), NO_OPTIONS)


def test_a_look_without_an_answer_is_left_out(serve: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = growing(50)
    server = serve([*pages[:3], 503, 503, "<html>a proxy</html>", *pages[3:]])
    collect.main([f"url={server.url}", "interval_s=0.1", "duration_s=4", f"out={tmp_path}", "max_lora_rank=8"])
    (path,) = collected(server, tmp_path)
    assert len(pd.read_parquet(path)) == server.looks - 4
    assert "3 looks had no answer" in capsys.readouterr().err


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_keeps_what_was_collected(serve: Start, tmp_path: Path) -> None:
    server = serve(growing(1000))
    command = [sys.executable, "-m", "bench.collect", f"url={server.url}", "interval_s=0.1", f"out={tmp_path}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        while server.looks < 10 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (path,) = collected(server, tmp_path)
    assert len(pd.read_parquet(path)) >= 8
    assert "not told by the server: max_lora_rank" in out


def test_two_saved_pages_do_as_well(tmp_path: Path) -> None:
    (tmp_path / "first.prom").write_text(page(1000.0, prompt=500.0, served_s=10.0))
    (tmp_path / "last.prom").write_text(page(13_000.0, running=0, prompt=6500.0, served_s=310.0))
    pages = f"pages=[{tmp_path}/first.prom,{tmp_path}/last.prom]"
    collect.main([pages, "pages_interval_s=60", "max_lora_rank=16", "n_adapters=6", f"out={tmp_path}"])
    frame = pd.read_parquet(tmp_path / "last.parquet")
    assert set(METRIC_OF_COLUMN) <= set(frame)
    # 300 s of service in 60 s: five at a time, whatever ran at the two moments. A step is then 5 * 60 / 12,000 s.
    assert frame.running.tolist() == [5.0, 5.0]
    calibrate.main([f"metrics=[{tmp_path}/last.parquet]", f"out={tmp_path}", "name=two/pages"])
    assert (tmp_path / "two__pages.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give either url="),
        (["url=http://127.0.0.1:1"], "no page of metrics there"),
        (["url='http://host:port'"], "must be the address of a server"),
        (["url=[]"], "name at least one server"),
        (["url=http://a:1", "interval_s=0"], "interval_s"),
        (["url=[http://a:1,a:1/metrics]"], "is there twice"),
        (["url=http://a:1", "max_loras=0"], "max_loras"),
        (["pages=[a.prom]"], "two pages of one server are needed"),
        (["pages=[{0}/late.prom,{0}/early.prom]"], "pages_interval_s must be given"),
        (["pages=[{0}/late.prom,{0}/early.prom]", "pages_interval_s=60"], "are fewer than those of"),
        (["pages=[{0}/none.prom,{0}/early.prom]", "pages_interval_s=60"], "none.prom"),
        (["pages=[{0}/text.prom,{0}/early.prom]", "pages_interval_s=60"], "has no running of vLLM"),
        (["pages=[{0}/two.prom,{0}/two.prom]", "pages_interval_s=60"], "is of 2 engines"),
        (["pages=[{0}/early.prom,{0}/early.prom]", "pages_interval_s=60"], "no token was generated since"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "early.prom").write_text(page(10.0))
    (tmp_path / "late.prom").write_text(page(20.0))
    (tmp_path / "text.prom").write_text("Hello\n")
    (tmp_path / "two.prom").write_text(page(10.0) + "\n" + page(10.0).replace('engine="0"', 'engine="1"'))
    with pytest.raises(SystemExit) as end:
        collect.main([*(argument.format(tmp_path) for argument in arguments), f"out={tmp_path}"])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert says in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('vllm:prompt_tokens_cached_total{engine="0"} foo', "foo"),
        ('vllm:prompt_tokens_cached_total{engine="0"}', "must be a name, labels and a number"),
        ('vllm:num_requests_running{engine="0"}', "must be a name, labels and a number"),
        ("vllm:num_requests_running", "must be a name, labels and a number"),
        ("vllm:generation_tokens_total 1_0", "must be a name, labels and a number"),
        ("vllm:num_requests_running NaN", "vllm:num_requests_running=nan must be a number, 0 or more"),
        ("vllm:num_requests_waiting NaN", "vllm:num_requests_waiting=nan"),
        ("vllm:generation_tokens_total +Inf", "vllm:generation_tokens_total=inf"),
        ("vllm:prompt_tokens_total -1", "vllm:prompt_tokens_total=-1"),
        ("vllm:kv_cache_usage_perc 1.01", "vllm:kv_cache_usage_perc=1.01 must be a number, 0 to 1"),
        ("vllm:prompt_tokens_cached_total NaN", "vllm:prompt_tokens_cached_total=nan"),
        ("vllm:request_inference_time_seconds_sum Inf", "vllm:request_inference_time_seconds_sum=inf"),
    ],
)
def test_a_line_that_is_none_is_one_line_and_nothing_is_written(
    line: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = line.partition(" ")[0].partition("{")[0]
    (tmp_path / "first.prom").write_text(page(10.0))
    kept = [each for each in page(20.0).split("\n") if not each.startswith(name)]
    (tmp_path / "last.prom").write_text("\n".join([*kept, line]))
    with pytest.raises(SystemExit) as end:
        collect.main([f"pages=[{tmp_path}/first.prom,{tmp_path}/last.prom]", "pages_interval_s=60", f"out={tmp_path}"])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip()
    assert says in said
    assert "last.prom" in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.glob("*.parquet"))


def test_a_time_after_a_value_is_not_the_value() -> None:
    timed = "\n".join(line if line.startswith("#") else f"{line} 1764536917000" for line in page(10.0).split("\n"))
    assert read_page(timed, "x") == read_page(page(10.0), "x")


@pytest.mark.parametrize("told", ["\u00b2", "999999999999", "1" * 5000, ""])
def test_a_flag_that_is_no_number_of_blocks_is_not_told(told: str) -> None:
    flags = read_page(page(10.0).replace('"1000"', f'"{told}"'), "x").flags
    assert flags == {"max_loras": 2}


def test_a_page_without_end_is_not_read_to_its_end(
    serve: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.vllm.metrics.MOST_BYTES", 10_000)
    server = serve([page(10.0) + "\n# " + "x" * 20_000])
    with pytest.raises(SystemExit):
        collect.main([f"url={server.url}", "interval_s=0.1", "duration_s=0.3", f"out={tmp_path}"])
    assert "more than 10000 bytes" in capsys.readouterr().err
