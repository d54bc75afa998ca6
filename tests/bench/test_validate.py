"""`python -m bench.validate` on a stand-in for vLLM; `tests/vllm` runs it on the real one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench import validate
from bench.comparison.rows import Row, write_rows
from bench.evidence.runs import known_runs
from bench.vllm import session
from bench.vllm.backends import versions
from bench.vllm.client import ClientLoad
from bench.vllm.measurement import Figures, Measurement, figures_of
from bench.vllm.placements import Placed, read_placed, shortened
from bench.vllm.server import session_processes
from bench.vllm.validation import Job, comparison_of, jobs_of
from tests.bench.vllm.vllm_standin import write_standin
from twin import ServiceLevel, UserError, load_profile, simulate_placement

ROOT = Path(__file__).parents[2]
WORKLOAD = {
    "_target_": "twin.builders.groups",
    "groups": [{"count": 4, "rank": 8, "rate": 2.0}, {"count": 2, "rank": 16, "rate": 3.0}],
    "duration_s": 600.0,
    "lengths": {"_target_": "twin.lengths.fixed_lengths", "prompt_tokens": 20, "output_tokens": 10},
    "ignore_eos": True,
    "seed": 3,
}
PLACEMENT = [{"max_loras": 2, "adapters": [0, 1, 4]}, {"max_loras": 3, "adapters": [2, 3, 5]}]


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands find a vLLM that needs no model."""
    folder = write_standin(tmp_path / "standin")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "WARM_UP_SPREAD_S", 0.1)
    versions.cache_clear()
    return folder


def placement_file(folder: Path, **changes: Any) -> Path:  # noqa: ANN401  # JSON
    path = folder / "placement.json"
    content = {"placement": PLACEMENT, "workload": WORKLOAD, "profile": "llama-3.1-8b"} | changes
    path.write_text(json.dumps(content))
    return path


def arguments(path: Path, *more: str) -> list[str]:
    return [
        f"placement={path}", "duration_s=1", f"engine.python={sys.executable}", "engine.model_cores=null",
        "engine.arguments=[]", "out=out", *more,
    ]  # fmt: skip


def test_a_placement_is_replayed_and_compared(
    standin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = placement_file(tmp_path)
    validate.main(arguments(path, "repeats=2"))
    printed = capsys.readouterr().out
    assert "Measured / simulated" in printed
    assert "run-to-run noise" in printed
    summary = pd.read_csv("out/summary.csv")
    assert summary[["gpu", "run"]].to_numpy().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert Path("out/validation.png").stat().st_size > 10_000
    own = known_runs(["out"])
    mine = own[own.run.str.startswith("out")]
    # A window whose load generator was late, as on a busy machine, was asked for less than it seems.
    assert len(mine) == 4 or "the load generator was late" in printed
    assert set(mine.sum_rate) <= {7.0}
    placed = read_placed(str(path), duration_s=1)
    for job in jobs_of(placed, None):
        measured = pd.read_parquet(f"out/gpu-{job.number}/run-1.requests.parquet")
        # Exactly the twin's requests, adapters named by their place on the GPU.
        np.testing.assert_allclose(measured.due_s, job.requests.arrival_s)
        assert measured.prompt_tokens.tolist() == job.requests.prompt_tokens.tolist()
        assert measured.output_tokens.tolist() == job.requests.output_tokens.tolist()
        assert measured.adapter.tolist() == [f"adapter-{a}" for a in job.requests.adapter]
        served = measured[np.isfinite(measured.finish_s)]
        assert len(served) > 0
        assert (served.token_s.map(len) == served.output_tokens).all()
        about = json.loads(Path(f"out/gpu-{job.number}/run-1.json").read_text())
        assert about["vllm"] == "0.32.0"
        assert about["kv_cache_tokens"] == 174_752
        assert about["flags"]["max_loras"] == placed.placement.gpus[job.number].max_loras


def test_what_is_finished_is_not_measured_again(
    standin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = placement_file(tmp_path)
    validate.main(arguments(path, "gpus=[0]"))
    first = Path("out/gpu-0/run-0.json").stat().st_mtime_ns
    validate.main(arguments(path))
    assert "1 windows are in out already, 1 are missing" in capsys.readouterr().out
    assert Path("out/gpu-0/run-0.json").stat().st_mtime_ns == first
    assert Path("out/gpu-1/run-0.json").is_file()
    with pytest.raises(SystemExit):
        validate.main(arguments(placement_file(tmp_path, workload=WORKLOAD | {"seed": 4})))
    assert "was measured with other requests or flags" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("engine_arguments", "says"),
    [
        ("[--no-such-flag]", "does not know the flag --no-such-flag"),
        ("[--says,'torch broke (line 3)']", "the server died (exit code 1); the last lines of its log: torch broke"),
        ("[--says,'RuntimeError: No CUDA GPUs are available']", "vLLM finds no GPU"),
        ("[--dies-after-s,'3.0']", "killed by signal 9"),
    ],
)
def test_a_server_that_fails_is_named(
    standin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine_arguments: str, says: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        validate.main([*arguments(placement_file(tmp_path), f"engine.arguments={engine_arguments}"), "duration_s=30"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert "GPU 0: " in error
    assert len(error.strip().splitlines()) == 1


def test_a_server_out_of_memory_is_a_verdict(standin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "ValueError: No available memory for the cache blocks. Try"
    validate.main(arguments(placement_file(tmp_path), "gpus=[1]", f"engine.arguments=[--says,'{line}']"))
    printed = capsys.readouterr().out
    assert "memory error: out of memory: nothing is left for the KV cache" in printed
    assert "verdicts right in 0 of 1 windows" in printed
    assert pd.read_csv("out/summary.csv").measured_memory_error.tolist() == [True]


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_process_and_keeps_what_is_finished(
    standin: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = placement_file(tmp_path)
    command = [sys.executable, "-m", "bench.validate", *arguments(path), "duration_s=2"]
    paths = os.pathsep.join([str(ROOT), str(standin)])
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        servers: set[int] = set()
        while not (tmp_path / "out/gpu-1/server.log").is_file():
            time.sleep(0.05)
            assert process.poll() is None
        while not (servers := children(process.pid)):
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().endswith("interrupted")
    assert [session_processes(server) for server in servers] == [[]] * len(servers)
    assert (tmp_path / "out/gpu-0/run-0.json").is_file()
    assert not (tmp_path / "out/gpu-1/run-0.json").is_file()


def children(parent: int) -> set[int]:
    """Processes that have this one as their parent."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.add(int(entry.name))
    return found


# --- what is validated


def test_rows_hold_all_that_is_needed(tmp_path: Path) -> None:
    from bench.comparison.cell import Cell

    def row(solver: str, gpus: int, key: float) -> Row:
        cell = Cell(solver=solver, solver_options={}, workload=WORKLOAD, profile="llama-3.1-8b", seed=3)
        plans = PLACEMENT if gpus == 2 else [{"max_loras": 6, "adapters": [0, 1, 2, 3, 4, 5]}]
        return Row(
            workload="groups", seed=3, solver=solver, objective="min_gpus", profile="llama-3.1-8b/h100-64gb",
            status="feasible", feasible=True, gpus=gpus, objective_key=[key], placement=json.dumps(plans),
            cell=cell.to_json(),
        )  # fmt: skip

    path = tmp_path / "rows.parquet"
    write_rows([row("two", 2, 2.0), row("one", 1, 1.0)], path)
    assert read_placed(str(path)).placement.n_gpus == 1
    placed = read_placed(str(path), solver="two")
    assert placed.placement.n_gpus == 2
    assert placed.workload.seed == 3
    with pytest.raises(
        UserError, match=r"no placement of solver=three seed=None; there are solver=one seed=3, solver=two"
    ):
        read_placed(str(path), solver="three")


def test_requests_are_those_of_the_twin(tmp_path: Path) -> None:
    """Replicas included: a request goes where the twin sends it."""
    plans = [
        {"max_loras": 2, "adapters": [0, 1, 4], "shares": [1, 1, 0.5]},
        {"max_loras": 3, "adapters": [2, 3, 5, 4], "shares": [1, 1, 1, 0.5]},
    ]
    placed = read_placed(str(placement_file(tmp_path, placement=plans)))
    jobs = jobs_of(placed, None)
    for job, result in zip(jobs, simulate_placement(placed.workload, placed.placement, placed.profile), strict=True):
        assert len(job.requests) == result.arrived
        assert job.simulated.throughput == result.throughput
    assert sum(len(job.requests) for job in jobs) == len(placed.workload.requests)


def test_a_shorter_window_has_the_first_requests(tmp_path: Path) -> None:
    placed = read_placed(str(placement_file(tmp_path)))
    short = shortened(placed.workload, 50.0)
    whole = placed.workload.requests.arrival_s
    np.testing.assert_array_equal(short.requests.arrival_s, whole[whole < 50])
    with pytest.raises(UserError, match="duration_s=700 must be above 0 and at most the workload's 600 seconds"):
        shortened(placed.workload, 700)


@pytest.mark.parametrize(
    ("changes", "overrides", "says"),
    [
        ({"placement": [{"adapters": [0]}]}, [], "a placement is a JSON list of"),
        ({"placement": PLACEMENT[:1]}, [], "does not fit its workload: adapter 2 is placed 0 times"),
        ({"workload": None}, [], "it has no workload; add one to the file or give workload=NAME"),
        ({"workload": {"groups": []}}, [], "workload must be an object with a _target_"),
        ({"service": [95]}, [], "service=[95] must be an object with the numbers of a service level"),
        ({"service": {"ttft_ms": -1.0}}, [], "service.ttft_ms=-1.0 must be a number of milliseconds"),
        ({}, ["gpus=[7]"], "gpus: no GPU 7; the placement has 2, counted from 0"),
        ({}, ["engine=vllm", "engine.arguments=[]"], "engine=vllm needs a GPU and nvidia-smi shows none"),
        ({}, ["repeats=0"], "repeats=0 must be 1 or more"),
        ({}, ["duration_s=1e6"], "at most the workload's 600 seconds"),
        ({}, ["engine.model_config=none.json"], "engine.model_config=none.json: no such file"),
        ({}, ["engine.python=none"], "engine.python=none: no such file"),
        ({}, ["profile=none"], "no such serving profile"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    standin: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    overrides: list[str],
    says: str,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit) as stopped:
        validate.main([*arguments(placement_file(tmp_path, **changes)), *overrides])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_a_port_in_use_is_named(standin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit):
            validate.main([*arguments(placement_file(tmp_path)), f"engine.port={port}"])
    assert f"engine.port={port} on 127.0.0.1 cannot be used (Address already in use)" in capsys.readouterr().err


# --- service levels

STRICT = {"name": "strict", "ttft_ms": 400.0, "tpot_ms": 50.0, "share": 0.9, "warm_up": 0.1}


def measured_as_simulated(job: Job, placed: Placed, *, late_s: float = 0.0) -> Measurement:
    """A window whose server answered when the twin says, or so much later."""
    count, overhead_s = len(job.requests), placed.profile.request_overhead_ms / 1000
    answers = pd.DataFrame(
        {
            "due_s": job.requests.arrival_s,
            "first_token_s": job.simulated.first_token_s[:count] + overhead_s + late_s,
            "finish_s": job.simulated.finish_s[:count] + overhead_s + late_s,
            "prompt_tokens": job.requests.prompt_tokens,
            "output_tokens": job.requests.output_tokens,
            "error": [""] * count,
        }
    )
    return Measurement(answers, pd.DataFrame(), {"memory_error": "", "client": vars(ClientLoad(0, 0, 0, 0, 0, 0))})


def test_a_server_that_does_what_the_twin_says_has_its_goodput(tmp_path: Path) -> None:
    """And one that answers half a second later keeps nobody's limit."""
    placed = read_placed(str(placement_file(tmp_path, service=STRICT)), duration_s=60)
    assert placed.service == ServiceLevel(**STRICT)  # type: ignore[arg-type]  # numbers and a name
    for job in jobs_of(placed, None):
        # What arrives while the last judged requests are served is sent as well, and counts for nothing else.
        assert job.requests.arrival_s[-1] > 60.0
        assert job.until_s > job.requests.arrival_s[-1]
        same = comparison_of(job, [measured_as_simulated(job, placed)], placed)
        assert same.measured[0].arrived == job.simulated.arrived < len(job.requests)
        assert same.measured[0].throughput == pytest.approx(job.simulated.throughput, rel=0.02)
        assert job.simulated.judgement is not None
        assert same.measured[0].goodput == job.simulated.judgement.goodput
        assert same.measured[0].worst_goodput == same.simulated.worst_goodput
        assert same.verdicts_right == 1
        late = comparison_of(job, [measured_as_simulated(job, placed, late_s=0.5)], placed)
        assert (late.measured[0].goodput, late.measured[0].failing_adapters) == (0.0, 3)
        assert late.measured[0].fails
        assert late.verdicts_right == (1 if job.simulated.fails else 0)


def test_what_failed_has_met_nothing(tmp_path: Path) -> None:
    placed = read_placed(str(placement_file(tmp_path, service=STRICT)), duration_s=60)
    job = jobs_of(placed, [0])[0]
    window = measured_as_simulated(job, placed)
    window.answers["error"] = "connection lost"
    assert comparison_of(job, [window], placed).measured[0].goodput == 0.0


def test_goodput_is_measured_and_written(standin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate.main(arguments(placement_file(tmp_path, service=STRICT | {"ttft_ms": 900.0, "tail_s": 2.0})))
    printed = capsys.readouterr().out
    assert "goodput by strict: 90% of the requests with TTFT <= 900 ms and TPOT <= 50 ms" in printed
    assert "service-level and memory-error verdicts" in printed
    summary = pd.read_csv("out/summary.csv")
    for name in ("goodput", "worst_goodput"):
        for side in ("measured", "simulated"):
            assert summary[f"{side}_{name}"].between(0, 1).all()
    assert summary["measured_fails"].isin([True, False]).all()


# --- figures


def test_figures_of_a_window() -> None:
    answers = pd.DataFrame(
        {
            "due_s": [0.0, 1.0, 2.0],
            "first_token_s": [0.1, 1.3, 2.2],
            "finish_s": [0.5, 2.3, np.nan],
            "prompt_tokens": [10, 20, 30],
            "output_tokens": [5, 6, 7],
        }
    )
    figures = figures_of(answers, 7.8, 10.0)
    # By hand: 10 + 5 + 20 + 6 tokens in 10 s; gaps 4 in 0.4 s and 5 in 1.0 s.
    assert figures.throughput == pytest.approx(4.1)
    assert figures.itl_ms == pytest.approx(1400 / 9)
    assert figures.ttft_ms == pytest.approx(200)
    assert figures.e2e_ms == pytest.approx((500 + 1300) / 2)
    assert (figures.arrived, figures.finished) == (3, 2)
    assert figures.starved
    assert not Figures(9.0, 10.0, False, 1, 1, 0, 0, 0).starved
    assert load_profile("llama-3.1-8b").kv_tokens(8, 8)
