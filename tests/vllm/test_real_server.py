"""Real vLLM servers of the CPU build: a placement is validated, servers are killed and refused.

About six minutes, nearly all of them starts and windows of real servers.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench import validate
from bench.vllm.adapters import write_adapters
from bench.vllm.backends import EngineConfig
from bench.vllm.failures import Kind, ServerError
from bench.vllm.flags import ServerFlags
from bench.vllm.models import TINY_LLAMA, model_shape, write_model
from bench.vllm.server import running_server, session_processes

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).parents[2]
PROFILE = "tiny-llama/cpu"
ARGUMENTS = ["--enforce-eager", "--no-enable-log-requests"]
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}
# GPU 0 has a load that half the machine would serve; GPU 1 one that six such machines would not.
PLACEMENT: dict[str, Any] = {
    "profile": PROFILE,
    "workload": {
        "_target_": "twin.builders.groups",
        "groups": [{"count": 6, "rank": 8, "rate": 0.2}, {"count": 6, "rank": 8, "rate": 15.0}],
        "lengths": {
            "_target_": "twin.lengths.Lengths",
            "prompt": {
                "_target_": "twin.lengths.LogNormalTokens",
                "mean_tokens": 30.0,
                "sigma": 0.6,
                "min_tokens": 4,
                "max_tokens": 120,
            },
            "output": {
                "_target_": "twin.lengths.LogNormalTokens",
                "mean_tokens": 25.0,
                "sigma": 0.6,
                "min_tokens": 2,
                "max_tokens": 100,
            },
            "max_total_tokens": 220,
        },
        "duration_s": 60.0,
        "ignore_eos": True,
        "seed": 5,
    },
    "placement": [{"max_loras": 4, "adapters": [0, 1, 2, 3, 4, 5]}, {"max_loras": 6, "adapters": [6, 7, 8, 9, 10, 11]}],
}


def placement_file(folder: Path) -> Path:
    path = folder / "placement.json"
    path.write_text(json.dumps(PLACEMENT))
    return path


def vllm_processes() -> list[int]:
    """API servers, engines and workers of vLLM that this test's user can see."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if line.startswith("VLLM::") or "vllm.entrypoints.openai.api_server" in line:
                found.append(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def _leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401  # a generator
    monkeypatch.chdir(tmp_path)
    before = set(vllm_processes())
    yield
    assert set(vllm_processes()) - before == set()


def test_a_placement_is_validated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate.main([f"placement={placement_file(tmp_path)}", "out=out", f"engine.python={sys.executable}"])
    with capsys.disabled():
        print(capsys.readouterr().out)  # noqa: T201  # what a user would see
    summary = pd.read_csv("out/summary.csv").set_index("gpu")
    assert summary.measured_starved.tolist() == [False, True]
    assert summary.simulated_starved.tolist() == [False, True]
    assert summary.measured_memory_error.tolist() == [False, False]
    # Half-loaded, a server serves what comes, on any machine: the window's end is all that is lost.
    light = summary.loc[0]
    assert light.measured_throughput == pytest.approx(light.simulated_throughput, rel=0.1)
    for gpu in (0, 1):
        requests = pd.read_parquet(f"out/gpu-{gpu}/run-0.requests.parquet")
        assert requests.error.eq("").all()
        done = requests[np.isfinite(requests.finish_s)]
        assert (done.received_tokens == done.output_tokens).all()
        assert (done.token_s.map(lambda times: bool((np.diff(times) >= 0).all()))).all()
        metrics = pd.read_parquet(f"out/gpu-{gpu}/run-0.metrics.parquet")
        assert len(metrics) >= 2
        assert np.isfinite(metrics[["running", "waiting", "steps", "step_tokens", "generation_tokens"]]).all().all()
        # Between the first and the last sample the engine made the tokens that the client got. When in its page's way a
        # sample was taken is not known; a busy machine takes seconds for a page, and never longer than between two samples.
        generated = metrics.generation_tokens.iloc[-1] - metrics.generation_tokens.iloc[0]
        token_s = np.concatenate([np.asarray(times) for times in requests.token_s if times is not None])
        first, last, page = metrics.time_s.iloc[0], metrics.time_s.iloc[-1], metrics.time_s.diff().max()
        assert last - first > 30.0
        at_least = ((token_s >= first + page) & (token_s <= last - page)).sum()
        at_most = ((token_s >= first - page) & (token_s <= last + page)).sum()
        assert at_least - 50 <= generated <= at_most + 50
        about = json.loads(Path(f"out/gpu-{gpu}/run-0.json").read_text())
        assert about["kv_cache_tokens"] > 100_000
        assert about["vllm"].startswith("0.")
    heavy = pd.read_parquet("out/gpu-1/run-0.metrics.parquet")
    assert heavy.waiting.iloc[-1] > 50


def test_a_server_that_is_killed_is_named(tmp_path: Path) -> None:
    """In its second window: the first one is kept, the error is named, and nothing hangs or stays."""
    command = [
        sys.executable, "-m", "bench.validate", f"placement={placement_file(tmp_path)}", "out=out",
        f"engine.python={sys.executable}", "gpus=[0]", "duration_s=5", "repeats=2",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = set(vllm_processes())
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        killed: list[int] = []

        def kill_after_the_first_window() -> None:
            while process.poll() is None and not Path("out/gpu-0/run-0.json").is_file():
                time.sleep(0.1)
            time.sleep(2.0)
            servers = [pid for pid in set(vllm_processes()) - before if os.getsid(pid) == pid]
            for pid in servers:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

        killer = threading.Thread(target=kill_after_the_first_window)
        killer.start()
        out, said = process.communicate(timeout=300)
        killer.join()
    assert killed
    assert process.returncode == 2
    assert "error: GPU 0: the server died (killed by signal 9)" in said
    assert len(said.strip().splitlines()) == 1
    assert "1 finished windows are kept in out" in out
    assert [session_processes(pid) for pid in killed] == [[]] * len(killed)
    assert Path("out/gpu-0/run-0.requests.parquet").is_file()


@pytest.mark.parametrize(
    ("arguments", "environment", "rank", "kind", "says"),
    [
        (["--no-such-flag"], ENVIRONMENT, 8, Kind.UNKNOWN_FLAG, "--no-such-flag"),
        ([], ENVIRONMENT, 16, Kind.RANK_ABOVE_LIMIT, "rank 16 is above the server's max_lora_rank=8"),
        (["--kv-cache-memory-bytes", "1000000"], {}, 8, Kind.KV_CACHE_TOO_SMALL, "max_model_len=2048"),
        ([], {"VLLM_CPU_KVCACHE_SPACE": "100000"}, 8, Kind.OUT_OF_MEMORY, "out of memory"),
    ],
)
def test_what_vllm_refuses_is_named(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], rank: int, kind: Kind, says: str
) -> None:
    shape = model_shape(TINY_LLAMA)
    model = write_model(shape, tmp_path / "model")
    adapters = write_adapters(shape, [rank], tmp_path / "adapters")
    engine = EngineConfig(
        name="vllm_cpu",
        device="cpu",
        python=sys.executable,
        arguments=[*ARGUMENTS, *arguments],
        environment=environment,
        start_timeout_s=120,
    )
    flags = ServerFlags(2, 8, 2, max_num_seqs=16, max_num_batched_tokens=128, max_model_len=2048, block_size=32)

    async def start() -> None:
        async with running_server(engine, flags, model, [adapters[rank]], tmp_path / "server.log"):
            pass

    with pytest.raises(ServerError) as refused:
        asyncio.run(start())
    assert refused.value.kind is kind, (tmp_path / "server.log").read_text()[-3000:]
    assert says in str(refused.value)
