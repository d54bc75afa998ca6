"""Commands, cores, models and adapters of real servers; the servers themselves are started in `tests/vllm`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.vllm.adapters import projection_sizes, write_adapters
from bench.vllm.backends import EngineConfig, find_python, share_cores, versions
from bench.vllm.failures import Kind, ServerError
from bench.vllm.flags import ServerFlags
from bench.vllm.models import SHAPES, TINY_LLAMA, model_shape
from bench.vllm.server import command, running_server, session_processes
from tests.bench.vllm.vllm_standin import write_standin
from twin import UserError, load_profile, shipped_profiles

# A server that has a child, and ends neither for SIGTERM nor by aiohttp's handler of it.
DEAF = """
import functools, signal, subprocess, sys
from aiohttp import web
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
web.run_app = functools.partial(web.run_app, handle_signals=False)
"""
FLAGS = ServerFlags(4, 16, 10, 64, 128, 2048, 32)


def test_the_flags_are_those_of_the_placement() -> None:
    engine = EngineConfig(device="cpu", arguments=["--enforce-eager"])
    line = command(engine, FLAGS, Path("m"), [Path("a"), Path("b")], 8123, "python")
    for flag, value in {
        "--max-loras": "4", "--max-lora-rank": "16", "--max-cpu-loras": "10", "--max-num-seqs": "64", "--port": "8123",
        "--max-num-batched-tokens": "128", "--max-model-len": "2048", "--block-size": "32", "--load-format": "dummy",
    }.items():  # fmt: skip
        assert line[line.index(flag) + 1] == value
    assert line[line.index("--lora-modules") + 1 :] == ["adapter-0=a", "adapter-1=b"]
    assert "--enforce-eager" in line


def test_host_slots_are_never_fewer_than_slots() -> None:
    line = command(EngineConfig(), ServerFlags(8, 8, 2, 64, 128, 2048), Path("m"), [], 1, "python")
    assert line[line.index("--max-cpu-loras") + 1] == "8"


def test_an_adapter_above_the_limit_is_named() -> None:
    FLAGS.check([8, 16])
    with pytest.raises(ServerError, match=r"adapter 1: its rank 32 is above the server's max_lora_rank=16") as caught:
        FLAGS.check([8, 32])
    assert caught.value.kind is Kind.RANK_ABOVE_LIMIT


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    one, two = share_cores(2, 2)
    assert (one.model, two.model) == ((1, 2), (3, 4))
    assert one.others == two.others == (0,)
    assert share_cores(None, 3)[2].model == ()
    with pytest.raises(UserError, match=r"2 server\(s\) need 7 cores with one for HTTP and client, there are 5"):
        share_cores(3, 2)


def test_a_python_without_vllm_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(find_python.cache_clear)
    find_python.cache_clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.vllm.backends.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ServerError, match="run `make vllm`") as caught:
        find_python(None)
    assert caught.value.kind is Kind.NOT_INSTALLED
    beside = tmp_path / ".venv-vllm/bin/python"
    beside.parent.mkdir(parents=True)
    beside.symlink_to(sys.executable)
    assert find_python(None) == str(beside)


def test_versions_are_those_of_the_python_that_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(write_standin(tmp_path, "0.99.1")))
    versions.cache_clear()
    found = versions(sys.executable)
    versions.cache_clear()
    assert found["vllm"] == "0.99.1"
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["hardware"]


def test_a_server_that_hangs_at_its_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its children, which a killed API server leaves behind."""
    standin = write_standin(tmp_path / "standin")
    server = standin / "vllm/entrypoints/openai/api_server.py"
    server.write_text(DEAF + server.read_text())
    monkeypatch.setenv("PYTHONPATH", str(standin))
    monkeypatch.setattr("bench.vllm.server.STOP_S", 0.5)
    shape = model_shape(TINY_LLAMA)
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text(json.dumps(shape))
    session = 0

    async def serve() -> None:
        nonlocal session
        engine = EngineConfig(device="cpu", python=sys.executable, start_timeout_s=60)
        async with running_server(engine, FLAGS, tmp_path / "m", [], tmp_path / "log") as running:
            session = running.process.pid
            assert running.kv_cache_tokens() == 174_752
            assert len(session_processes(session)) >= 2

    asyncio.run(serve())
    deadline = time.monotonic() + 20
    while session_processes(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert session_processes(session) == []


# --- models and adapters


def test_every_shipped_profile_has_a_shape() -> None:
    for name in shipped_profiles():
        shape = model_shape(load_profile(name).model)
        assert shape["hidden_size"] % shape["num_attention_heads"] == 0


def test_a_model_without_a_shape_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model no/such: its shape is unknown; give its config\.json"):
        model_shape("no/such")
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": 64}')
    with pytest.raises(UserError, match="it lacks architectures, num_hidden_layers"):
        model_shape("no/such", str(path))
    path.write_text(json.dumps(SHAPES[TINY_LLAMA]))
    assert model_shape("no/such", str(path)) == SHAPES[TINY_LLAMA]


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        (TINY_LLAMA, {"q_proj": (384, 384), "k_proj": (384, 192), "v_proj": (384, 192), "o_proj": (384, 384)}),
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            {"q_proj": (4096, 4096), "k_proj": (4096, 1024), "v_proj": (4096, 1024), "o_proj": (4096, 4096)},
        ),
        (
            "Qwen/Qwen2.5-7B-Instruct",
            {"q_proj": (3584, 3584), "k_proj": (3584, 512), "v_proj": (3584, 512), "o_proj": (3584, 3584)},
        ),
    ],
)
def test_projections_have_the_published_sizes(model: str, sizes: dict[str, tuple[int, int]]) -> None:
    assert projection_sizes(SHAPES[model]) == sizes


def test_an_adapter_has_its_rank(tmp_path: Path) -> None:
    folders = write_adapters(SHAPES[TINY_LLAMA], [8, 16, 8], tmp_path)
    assert set(folders) == {8, 16}
    data = (folders[16] / "adapter_model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0
    header = json.loads(data[8 : 8 + size])
    assert len(header) == 8 * 4 * 2
    shapes = {tuple(tensor["shape"]) for name, tensor in header.items() if name.endswith("lora_A.weight")}
    assert shapes == {(16, 384)}
    last = max(tensor["data_offsets"][1] for tensor in header.values())
    assert 8 + size + last == len(data)
    begin, end = header["base_model.model.model.layers.3.self_attn.k_proj.lora_B.weight"]["data_offsets"]
    values = np.frombuffer(data[8 + size + begin : 8 + size + end], dtype="<f2").reshape(192, 16)
    assert 0.005 < values.std() < 0.015
    assert json.loads((folders[16] / "adapter_config.json").read_text())["r"] == 16
    # What is there is not made again.
    before = (folders[8] / "adapter_model.safetensors").stat().st_mtime_ns
    write_adapters(SHAPES[TINY_LLAMA], [8], tmp_path)
    assert (folders[8] / "adapter_model.safetensors").stat().st_mtime_ns == before
