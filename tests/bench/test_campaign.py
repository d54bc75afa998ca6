"""`python -m bench.campaign` on a stand-in for vLLM, and profiles from campaigns on servers that are the twin."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import calibrate, campaign
from bench.measured.profile_from_campaign import capacity_of, load_times, read_points
from bench.vllm import session
from bench.vllm.backends import versions
from bench.vllm.client import ClientLoad
from bench.vllm.flags import ServerFlags
from bench.vllm.load_points import PointConfig, point_calls
from bench.vllm.measurement import Measurement, write_json
from bench.vllm.server import adapter_name
from tests.bench.vllm.vllm_standin import write_standin
from twin import ServingProfile, engine, load_profile, simulate_requests, workload_from_groups
from twin.profile import STEP_TERMS, KvCapacity


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands find a vLLM that needs no model."""
    folder = write_standin(tmp_path / "standin")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "WARM_UP_SPREAD_S", 0.1)
    versions.cache_clear()
    return folder


ARGUMENTS = [
    f"engine.python={sys.executable}", "engine.model_cores=null", "engine.arguments=[]", "out=c", "point_s=0.5",
    (
        "servers=[{max_loras: 2, max_lora_rank: 8, adapters: 3, points: [two, eight]}, "
        "{max_loras: 4, max_lora_rank: 8, adapters: 3}]"
    ),
]  # fmt: skip


def test_every_point_is_on_disk_at_once_and_not_measured_again(
    standin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign.main(ARGUMENTS)
    folder = Path("c/loras-2_rank-8_adapters-3")
    assert {path.name for path in folder.glob("*.json")} == {"server.json", "two.json", "eight.json"}
    assert [name for name, _ in read_points(Path("c"))] == [f"{folder.name}/eight", f"{folder.name}/two"]
    point = dict(read_points(Path("c")))[f"{folder.name}/eight"]
    assert point.client.most_open == 8
    assert point.about["flags"]["max_loras"] == 2
    assert point.about["vllm"] == "0.32.0"
    assert set(point.answers.adapter) == {adapter_name(k) for k in range(3)}
    assert json.loads(Path("c/loras-4_rank-8_adapters-3/server.json").read_text())["kv_cache_tokens"] == 174_752
    (folder / "two.json").unlink()
    before = (folder / "eight.json").stat().st_mtime_ns
    capsys.readouterr()
    campaign.main(ARGUMENTS)
    assert "1 points on 1 servers are missing" in capsys.readouterr().out
    assert (folder / "two.json").is_file()
    assert (folder / "eight.json").stat().st_mtime_ns == before


def test_a_budget_stops_before_the_next_server(standin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaign.main([*ARGUMENTS, "budget_s=0.1"])
    printed = capsys.readouterr().out
    assert "budget_s=0.1 is spent" in printed
    assert "1 servers have points left; the same command goes on with them" in printed


def test_a_server_out_of_memory_is_measured_as_one(standin: Path) -> None:
    campaign.main([*ARGUMENTS, "engine.arguments=[--says,'torch.OutOfMemoryError: CUDA out of memory. Tried']"])
    about = json.loads(Path("c/loras-4_rank-8_adapters-3/server.json").read_text())
    assert about["kv_cache_tokens"] == 0
    assert "out of memory" in about["error"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("servers=[{max_loras: 2, max_lora_rank: 8, adapters: 3, points: [none]}]", "none is not among the points"),
        ("servers=[]", "a campaign needs at least one"),
        ("point_s=0", "point_s=0.0 must be a positive number"),
        ("points.two.concurrency=0", "points.two: concurrency, adapters and lengths must be 1 or more"),
        ("max_model_len=50", "exceed max_model_len=50"),
        ("engine.device=tpu", "engine.device=tpu must be cpu or gpu"),
        ("engine.arguments=[--no-such-flag]", "does not know the flag --no-such-flag"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    standin: Path, capsys: pytest.CaptureFixture[str], override: str, says: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        campaign.main([*ARGUMENTS, override])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["cpu_tiny_llama", "gpu_llama", "gpu_qwen"])
def test_the_campaigns_that_are_shipped_make_sense(
    standin: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Composed and checked; the budget of nothing keeps all but the first server from being started."""
    short = [f"points.{point}.seconds=0.2" for point in ("hit", "miss")]
    campaign.main([f"load_points={name}", *ARGUMENTS[:4], "point_s=0.2", "budget_s=0", *short])
    assert "servers have points left" in capsys.readouterr().out


def test_calls_are_the_same_for_the_same_seed() -> None:
    point = PointConfig(concurrency=8, adapters=4, prompt_tokens=40, output_tokens=30)
    calls = point_calls(point, 4, 7)
    assert calls == point_calls(point, 4, 7)
    assert calls != point_calls(point, 4, 8)
    assert [call.model for call in calls[:5]] == [adapter_name(k) for k in (0, 1, 2, 3, 0)]
    assert np.mean([call.prompt_tokens for call in calls]) == pytest.approx(40, rel=0.03)
    assert {min(call.output_tokens for call in calls), max(call.output_tokens for call in calls)} == {15, 45}


# --- calibration


def true_profile() -> ServingProfile:
    """A server whose step time is known."""
    terms = {"constant": 16.0, "tokens": 0.36, "rank": 0.04, "tokens_x_rank": 0.027}
    kv = KvCapacity((4, 96), (8, 32), ((50_000, 50_000), (50_000, 50_000)), 50_000)
    return replace(
        load_profile("llama-3.1-8b"),
        name="true/cpu",
        kv=kv,
        step_ms=tuple(terms.get(term, 0.0) for term in STEP_TERMS),
        scheduler_ms=(0.0, 0.0, 0.0, 0.0),
        load_ms=((8, 8, 2.0), (32, 8, 6.0), (32, 32, 6.0)),
        disk_load_ms=((8, 1.0), (32, 3.0)),
        max_num_seqs=64,
        max_num_batched_tokens=128,
        max_model_len=2048,
        block_size=32,
        eager_above_tokens=100_000,
        request_overhead_ms=3.0,
        reserve_full_prompt=True,
    )


def save_point(
    root: Path, name: str, flags: ServerFlags, rate: float, n_adapters: int, prompt: int, output: int
) -> None:
    """A load point, measured on a server that is the twin."""
    from twin import fixed_lengths

    profile = true_profile()
    seconds = 16.0
    workload = workload_from_groups(
        [(n_adapters, flags.max_lora_rank, rate / n_adapters)],
        lengths=fixed_lengths(prompt, output),
        duration_s=seconds,
    )
    result = simulate_requests(
        workload.requests, workload.ranks, profile, flags.max_loras, duration_s=seconds,
        max_lora_rank=flags.max_lora_rank, sample_every_s=0, max_samples=100_000,
    )  # fmt: skip
    steps = result.samples
    end = steps[:, engine.SAMPLE_START] + steps[:, engine.SAMPLE_SECONDS]
    at_s = np.arange(0.0, seconds)
    seen = np.searchsorted(end, at_s)

    def counter(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(values)])[seen]

    state = np.clip(seen, 0, len(steps) - 1)
    running = steps[state, engine.SAMPLE_RUNNING]
    metrics = pd.DataFrame(
        {
            "time_s": at_s,
            "running": running,
            "waiting": steps[state, engine.SAMPLE_WAITING],
            "kv_usage": steps[state, engine.SAMPLE_KV] / 50_000,
            "prompt_tokens": 0.0,
            "generation_tokens": counter(steps[:, engine.SAMPLE_RUNNING]),
            "steps": counter(np.ones(len(steps))),
            "step_tokens": counter(steps[:, engine.SAMPLE_TOKENS]),
        }
    )
    requests = workload.requests
    answers = pd.DataFrame(
        {
            "due_s": requests.arrival_s,
            "sent_s": requests.arrival_s,
            "first_token_s": np.where(result.first_token_s >= 0, result.first_token_s + 0.003, np.nan),
            "finish_s": np.where(result.finish_s >= 0, result.finish_s + 0.003, np.nan),
            "adapter": [adapter_name(a) for a in requests.adapter],
            "prompt_tokens": requests.prompt_tokens,
            "output_tokens": requests.output_tokens,
        }
    )
    about = {
        "point": name,
        "concurrency": 1 if name in ("hit", "miss") else 8,
        "flags": asdict(flags),
        "kv_cache_tokens": 50_000,
        "client": asdict(ClientLoad(1.0, 1.0, 1.0, 0.1, 8, 8)),
    }
    folder = root / f"loras-{flags.max_loras}_rank-{flags.max_lora_rank}_host-{flags.max_cpu_loras}"
    Measurement(answers, metrics, about).save(folder, name)
    write_json({**asdict(flags), "kv_cache_tokens": 50_000}, folder / "server.json")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("campaign")
    for slots, rank in ((4, 8), (96, 32)):
        flags = ServerFlags(slots, rank, 100, 64, 128, 2048, 32)
        save_point(root, "two", flags, 2.0, 2, 10, 60)
        save_point(root, "eight", flags, 8.0, 4, 30, 30)
        save_point(root, "full", flags, 60.0, 4, 10, 40)
        save_point(root, "prompts", flags, 12.0, 4, 100, 6)
        save_point(root, "hit", flags, 2.0, 1, 8, 1)
    flags = ServerFlags(4, 8, 100, 64, 128, 2048, 32)
    save_point(root, "miss", flags, 4.0, 60, 8, 1)
    save_point(root, "churn", flags, 20.0, 12, 30, 20)
    write_json(
        {
            "model": "tiny-llama", "gpu": "cpu", "engine": {"name": "vllm_cpu"}, "max_num_seqs": 64,
            "max_num_batched_tokens": 128, "max_model_len": 2048, "block_size": 32, "reserve_full_prompt": True,
            "async_scheduling": False, "seed": 0, "vllm": "0.32.0", "torch": "2", "transformers": "5", "python": "3",
            "hardware": "none",
        },
        root / "campaign.json",
    )  # fmt: skip
    return root


def test_a_campaign_gives_the_profile_back(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate.main([f"campaign={measured}", f"out={tmp_path}"])
    assert "on points left out of the fit" in capsys.readouterr().out
    profile, truth = load_profile(str(tmp_path / "tiny-llama__cpu.json")), true_profile()
    assert profile.name == "tiny-llama/cpu"
    assert profile.engine_version == "0.32.0"
    assert profile.request_overhead_ms == pytest.approx(3.0, abs=1.5)
    assert profile.load_time_ms(8, 8) == pytest.approx(2.0, abs=1.0)
    for rate, slots, rank, prompt in ((3.0, 4, 8, 20), (9.0, 4, 8, 40), (5.0, 96, 32, 60)):
        from twin import fixed_lengths

        workload = workload_from_groups(
            [(4, rank, rate / 4)], lengths=fixed_lengths(prompt, 30), duration_s=100.0, seed=9
        )
        said, true = (
            simulate_requests(workload.requests, workload.ranks, p, slots, duration_s=100.0) for p in (profile, truth)
        )
        assert said.itl.mean_ms == pytest.approx(true.itl.mean_ms, rel=0.04)
        assert said.throughput == pytest.approx(true.throughput, rel=0.03)


def test_loads_from_disk_are_told_from_those_of_the_host(measured: Path, tmp_path: Path) -> None:
    points = read_points(measured)
    load_ms, disk_ms = load_times(points, (8, 32))
    assert set(load_ms) == {(8, 8), (32, 8), (32, 32)}
    # Only rank 8 was timed: the other takes as long, for want of anything better.
    assert load_ms[32, 32] == load_ms[8, 8] > 0
    assert disk_ms == {8: 0.0, 32: 0.0}
    flags = ServerFlags(4, 8, 4, 64, 128, 2048, 32)
    save_point(tmp_path, "miss", flags, 4.0, 60, 8, 1)
    ((name, from_disk),) = read_points(tmp_path)
    from_disk.answers["first_token_s"] += 0.005
    _, disk_ms = load_times([*points, (name, from_disk)], (8, 32))
    assert disk_ms[8] == pytest.approx(5.0, abs=1.0)


def test_fewer_slots_and_smaller_ranks_have_no_less_kv_cache() -> None:
    servers = [
        {"max_loras": 4, "max_lora_rank": 8, "kv_cache_tokens": 1000},
        {"max_loras": 96, "max_lora_rank": 32, "kv_cache_tokens": 700},
        {"max_loras": 128, "max_lora_rank": 32, "kv_cache_tokens": 0},
    ]
    kv = capacity_of(servers)
    assert kv.lookup(96, 8) == 700
    assert kv.lookup(128, 8) == 0
    assert kv.lookup(4, 8) == 1000
    assert kv.lookup(128, 32) == 0


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("campaign={empty}", "no campaign.json in it; `python -m bench.campaign"),
        ("campaign={empty} runs=x", "give either runs=DIR"),
    ],
)
def test_a_folder_without_a_campaign_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, says: str
) -> None:
    with pytest.raises(SystemExit):
        calibrate.main([*override.format(empty=tmp_path).split(), f"out={tmp_path}"])
    assert says in capsys.readouterr().err
