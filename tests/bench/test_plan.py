"""`python -m bench.plan`: from a list of adapters to an answer and its files."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.comparison.compare import Comparison, compare
from bench.comparison.rows import Row
from bench.plan import main, with_name_quoted
from bench.planning.adapters import Adapter, Traffic, workload_of
from bench.planning.answer import answer
from bench.shared.overrides import CONF
from bench.statistics.contradictions import LowerBound, contradictions, standing_bound
from bench.vllm.placements import read_placed
from solvers.max_pack import MaxPack
from solvers.objectives.min_gpus import MinGpus
from twin import INTERACTIVE, GpuPlan, Placement, load_profile, score_placement, simulate_gpu

PROFILE = load_profile("llama-3.1-8b")
FAST = ["time_limit_s=10", "solver=[exact,max_pack]", "out=plan"]
LISTED = "name,rank,rate,path\nbilling,8,6,/w/billing\nsearch,16,9,/w/search\nidle,32,0,/w/idle\n"

pytestmark = pytest.mark.usefixtures("_in_tmp_path")


def planned(tmp_path: Path, *arguments: str, listed: str = LISTED) -> dict[str, Any]:
    (tmp_path / "a.csv").write_text(listed, encoding="utf-8")
    main(["adapters=a.csv", *FAST, *arguments])
    found: dict[str, Any] = json.loads((tmp_path / "plan" / "plan.json").read_text(encoding="utf-8"))
    return found


def placement_of(found: dict[str, Any], names: list[str]) -> Placement:
    return Placement(
        tuple(
            GpuPlan(tuple(names.index(a["name"]) for a in gpu["adapters"]), gpu["max_loras"])
            for gpu in found["placement"]
        )
    )


def test_the_answer_and_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(tmp_path)
    printed = capsys.readouterr().out
    assert (found["gpus"], found["lower_bound"], found["bound_by"]) == (1, 1, "exact")
    assert found["proved"]
    assert found["contradictions"] == []
    assert (
        "1 GPU for 95% of the requests with TTFT <= 2 s and TPOT <= 100 ms, on each GPU and for each adapter" in printed
    )
    assert "no placement on fewer GPUs: exact proved it (any max_loras, any replicas)" in printed
    assert "3 adapters, 15 requests/s (a.csv)" in printed
    assert "vllm serve meta-llama/Llama-3.1-8B-Instruct --port 8000" in printed
    (gpu,) = found["placement"]
    assert {adapter["name"] for adapter in gpu["adapters"]} == {"billing", "search", "idle"}
    assert (gpu["max_lora_rank"], gpu["max_cpu_loras"]) == (32, max(3, gpu["max_loras"]))
    assert gpu["command"][-4:] == ["--lora-modules", "billing=/w/billing", "search=/w/search", "idle=/w/idle"]
    folder = tmp_path / "plan"
    assert {path.name for path in folder.iterdir()} == {
        "plan.json", "plan.yaml", "placement.csv", "placement.json", "serve-host-0.sh", "values.yaml",
    }  # fmt: skip
    assert yaml.safe_load((folder / "plan.yaml").read_text(encoding="utf-8")) == found
    rows = list(csv.DictReader((folder / "placement.csv").read_text(encoding="utf-8").splitlines()))
    assert {(row["name"], row["gpu"]) for row in rows} == {("billing", "0"), ("search", "0"), ("idle", "0")}
    assert os.access(folder / "serve-host-0.sh", os.X_OK)
    assert len(yaml.safe_load((folder / "values.yaml").read_text())["servingEngineSpec"]["modelSpec"]) == 1


def test_the_figures_are_those_of_the_twin(tmp_path: Path) -> None:
    found = planned(tmp_path, "scale=3")
    assert found["gpus"] > 1
    adapters = [Adapter("billing", 8, 18.0), Adapter("search", 16, 27.0), Adapter("idle", 32, 0.0)]
    workload = workload_of(adapters, Traffic.of(PROFILE), PROFILE)
    score = score_placement(workload, placement_of(found, [a.name for a in adapters]), PROFILE)
    assert score.feasible
    for name in ("ttft_ms", "itl_ms", "e2e_ms", "throughput"):
        assert found["expected"][name] == pytest.approx(getattr(score, name))
    for gpu, result in zip(found["placement"], score.results, strict=True):
        assert gpu["ttft_p99_ms"] == pytest.approx(result.ttft.p99_ms, nan_ok=True)


def test_the_placement_can_be_validated(tmp_path: Path) -> None:
    """`bench.validate` gets the requests that the plan was made with."""
    listed = "name,rank,rate,prompt_tokens\na,8,9,100\nb,16,18,\nc,8,18,400\n"
    found = planned(tmp_path, listed=listed)
    placed = read_placed(str(tmp_path / "plan" / "placement.json"))
    score = score_placement(placed.workload, placed.placement, placed.profile)
    assert found["expected"]["ttft_ms"] == pytest.approx(score.ttft_ms)
    assert found["expected"]["throughput"] == pytest.approx(score.throughput)


def test_the_head_room_is_that_of_the_twin(tmp_path: Path) -> None:
    found = planned(tmp_path, "scale=2")
    (gpu,) = found["placement"]
    adapters = [Adapter(a["name"], a["rank"], a["rate"]) for a in gpu["adapters"]]

    def fails(factor: float) -> bool:
        workload = workload_of(adapters, Traffic.of(PROFILE), PROFILE, ids=[0, 1, 2], factor=factor)
        return simulate_gpu(workload, (0, 1, 2), PROFILE, gpu["max_loras"], service=INTERACTIVE).fails

    assert 1 < gpu["growth"] < 8
    assert not fails(gpu["growth"])
    assert fails(gpu["growth"] + 0.03)


def test_a_reserve_is_kept_on_each_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without, kept = planned(tmp_path, "scale=2"), planned(tmp_path, "scale=2", "reserve=0.4")
    # The bound is one for the load and the reserve.
    assert "for each adapter, 40% in reserve\n" in capsys.readouterr().out
    assert min(gpu["growth"] for gpu in kept["placement"]) >= 1.38
    assert kept["gpus"] >= without["gpus"]
    # The figures are those of the load itself.
    assert sum(gpu["rate"] for gpu in kept["placement"]) == pytest.approx(30)


def test_what_if(tmp_path: Path) -> None:
    found = planned(
        tmp_path, "what_if.rate.a b/c,=2", "what_if.rank.d=16", "what_if.rate.d=3",
        listed='name,rank,rate\n"a b/c,",8,1\nd,8,1\n${seed},8,1\n',
    )  # fmt: skip
    assert [(a["name"], a["rank"], a["rate"]) for gpu in found["placement"] for a in gpu["adapters"]] == [
        ("a b/c,", 8, 2.0),
        ("d", 16, 3.0),
        ("${seed}", 8, 1.0),
    ]


def test_names_reach_hydra_whatever_is_in_them() -> None:
    assert with_name_quoted("gpus=3") == "gpus=3"
    assert with_name_quoted("what_if.rate.a=2") == "++what_if.rate={a: 2}"
    assert with_name_quoted("+what_if.rate.a=b, c=1,2") == r"++what_if.rate={a\=b\,\ c: 1},{a\=b\,\ c: 2}"


def test_one_adapter_that_nobody_asks(tmp_path: Path) -> None:
    found = planned(tmp_path, listed="name,rank,rate\nonly,8,0\n")
    assert (found["gpus"], found["expected"]["ttft_ms"]) == (1, None)
    assert found["placement"][0]["growth"] == 8.0


def test_counted_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = [{"metric": {"model": name}, "value": [0, rate]} for name, rate in (("billing", "3"), ("base", "7"))]
    (tmp_path / "q.json").write_text(
        json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})
    )
    found = planned(tmp_path, "counters=q.json", listed="name,rank\nbilling,8\nsearch,16\n")
    assert {a["name"]: a["rate"] for a in found["placement"][0]["adapters"]} == {"billing": 3.0, "search": 0.0}
    assert "counted but not in a.csv, and left out: base (7 requests/s)" in capsys.readouterr().out


def test_lower_latency_on_a_given_fleet(tmp_path: Path) -> None:
    listed = "name,rank,rate\n" + "".join(f"a{number},8,2\n" for number in range(12))
    few = planned(tmp_path, listed=listed)
    fast = planned(tmp_path, "objective=min_latency", "gpus=3", "solver=[max_pack,latency]", listed=listed)
    assert (few["gpus"], fast["gpus"], fast["solver"]) == (1, 3, "latency")
    assert fast["expected"]["e2e_ms"] < few["expected"]["e2e_ms"]


def test_a_list_too_long_for_the_terminal_is_whole_in_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = "name,rank,rate\n" + "".join(f"adapter-number-{number},8,0.01\n" for number in range(200))
    found = planned(tmp_path, "solver=max_pack", listed=listed)
    assert " characters more in the files)\n" in capsys.readouterr().out
    assert len(found["placement"][0]["command"]) > 200
    assert (tmp_path / "plan" / "serve-host-0.sh").read_text().count("adapter-number-") == 400


# --- when there is no answer


def test_nothing_feasible_is_said_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = "name,rank,rate\na,8,0.1\nheavy one,8,900\n"
    with pytest.raises(SystemExit) as stopped:
        planned(tmp_path, "duration_s=60", "solver=[max_pack]", "solver.max_pack.replicas=false", listed=listed)
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("no placement was found that keeps interactive (95% of ")
    assert "adapter heavy one asks for more than one GPU serves" in said
    assert not (tmp_path / "plan").exists()


def test_too_few_gpus_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        planned(tmp_path, "gpus=1", "scale=3")
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "infeasible on 1 GPU that keeps interactive (95% of the requests with " in said
    assert "by the published rule (throughput alone) 2 GPUs would do, as max_pack finds" in said
    assert "leave gpus out" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["adapters=none.csv"], "adapters=none.csv: no such file"),
        (["reserve=-1"], "reserve=-1.0 must be a share of the load"),
        (["what_if.rate.biling=1"], "what_if.rate.biling: no adapter of this name (did you mean billing?)"),
        (["what_if.rate.billing=much"], "(what_if.rate.billing) must be a number"),
        (["profile=nosuch"], "profile=nosuch: no such serving profile"),
        (["objective=min_latency"], "add gpus=N"),
        (["gpus=0"], "gpus=0 must be 1 or more"),
        (["lengths.max_total_tokens=1000000"], "lengths.max_total_tokens=1000000 exceeds max_model_len"),
        (["arrivals=gamma"], "arrivals"),
        (["workload/arrivals@arrivals=gamma", "arrivals.cv=-1"], "arrivals: cv=-1 must be a number"),
        (["kubernetes.adapters=files"], "kubernetes.adapters=files: must be one of"),
        (["solver=max_pack", "solver.max_pack.order=no"], "order=no"),
        (["counters=none.prom"], "counters=none.prom: no such file"),
        (["service=none"], "service=none: no such service"),
        (["service.ttft_ms=-1"], "service.ttft_ms=-1.0 must be a number of milliseconds"),
        (["+solver.mine._target_=twin.UserError"], "solver.mine: twin.UserError is no solvers.base.Solver"),
        (["out=a.csv"], "out=a.csv must be a folder"),
        (["out=/proc/plan"], "out=/proc/plan: cannot be written to"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        planned(tmp_path, *arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_as_a_process_in_any_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(LISTED)
    call = [sys.executable, "-m", "bench.plan", "adapters=a.csv", "solver=max_pack"]
    environment = {**os.environ, "PYTHONPATH": str(CONF.parent)}
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(list(tmp_path.glob("results/runs/plan/*/*/plan.json"))) == 1


# --- what is promised


def test_the_figures_of_the_service_are_those_of_the_twin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(tmp_path, "scale=3", "service.ttft_ms=500", "solver=max_pack")
    level = replace(INTERACTIVE, name="interactive ttft_ms=500", ttft_ms=500.0)
    assert found["asked"]["service"] == asdict(level)
    adapters = [Adapter("billing", 8, 18.0), Adapter("search", 16, 27.0), Adapter("idle", 32, 0.0)]
    workload = workload_of(adapters, Traffic.of(PROFILE), PROFILE)
    score = score_placement(workload, placement_of(found, [a.name for a in adapters]), PROFILE, service=level)
    assert score.feasible
    assert found["expected"]["goodput"] == score.goodput
    for gpu, result in zip(found["placement"], score.results, strict=True):
        assert result.judgement is not None
        assert (gpu["goodput"], gpu["failing_adapters"]) == (result.judgement.goodput, [])
        assert gpu["ttft_p95_ms"] == pytest.approx(result.ttft.p95_ms, nan_ok=True)
    printed = capsys.readouterr().out
    assert (
        "GPUs for 95% of the requests with TTFT <= 500 ms and TPOT <= 100 ms, on each GPU and for each adapter\n"
        in printed
    )
    assert "p95 ms" in printed
    assert "no lower bound was proven" in printed


def test_what_the_published_rule_would_need_is_said_unless_it_is_not_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A promise of a tenth of a second takes more GPUs than throughput does."""
    tight = ["scale=2", "solver=max_pack", "service.ttft_ms=110"]
    found = planned(tmp_path, *tight)
    need = found["published"]
    assert need["gpus"] < found["gpus"]
    assert need["goodput"] < 0.95
    said = f"by the published rule (throughput alone) {need['gpus']} GPU"
    assert said in capsys.readouterr().out
    assert planned(tmp_path, *tight, "published=false")["published"] is None
    assert said not in capsys.readouterr().out


def test_nothing_is_promised_by_the_published_rule_and_that_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = "name,rank,rate\n" + "".join(f"a{number},8,1.25\n" for number in range(32))
    found = planned(
        tmp_path, "service=published", "solver=max_pack", "solver.max_pack.best_service=false", listed=listed
    )
    printed = capsys.readouterr().out
    assert found["published"] is None
    assert min(gpu["goodput"] for gpu in found["placement"]) < 0.95
    assert printed.index("no latency is promised, and requests wait: one in twenty for ") < printed.index(
        "GPUs for throughput of"
    )


# --- solvers that are not to be trusted


def test_a_limit_of_an_objective_of_ones_own_that_is_missed_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strict_limit.py").write_text(
        "from solvers.objectives.min_gpus import MinGpus\n\n\n"
        "class Strict(MinGpus):\n"
        "    name = 'strict'\n\n"
        "    def missed(self, score):\n"
        "        return '' if score.ttft_ms <= 1 else 'TTFT <= 1 ms'\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    planned(tmp_path, "objective={_target_: strict_limit.Strict}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "MISSED: TTFT <= 1 ms, a limit of objective strict, which no placement found keeps"
    assert lines[3].startswith("1 GPU for")


def test_a_solver_that_dies_takes_nothing_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = ["+solver.bad._target_=tests.bench.misbehaving_solvers.Misbehaving", "+solver.bad.how=segfault"]
    found = planned(tmp_path, "solver=max_pack", *bad)
    assert found["solver"] == "max_pack"
    assert [each["status"] for each in found["candidates"]] == ["feasible", "crash"]
    assert "bad: crash: the solver's process" in capsys.readouterr().out


def test_a_bound_that_a_placement_refutes_is_said_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim = ["+solver.liar._target_=tests.bench.planning.claiming.Claiming", "+solver.liar.bound=2"]
    with pytest.raises(SystemExit) as stopped:
        planned(tmp_path, "solver=max_pack", *claim)
    assert stopped.value.code == 3
    printed = capsys.readouterr()
    assert printed.err == "CONTRADICTION: max_pack has a feasible placement on 1 GPU, below the bound of 2 by liar\n"
    assert "no lower bound was proven; what was claimed is refuted by a placement" in printed.out
    found = json.loads((tmp_path / "plan" / "plan.json").read_text(encoding="utf-8"))
    assert (found["gpus"], found["lower_bound"], found["proved"], len(found["contradictions"])) == (1, None, False, 1)


def test_a_bound_below_the_placement_proves_nothing_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim = ["+solver.timid._target_=tests.bench.planning.claiming.Claiming", "+solver.timid.bound=1"]
    found = planned(tmp_path, "scale=3", "solver=max_pack", *claim)
    assert not found["proved"]
    assert "at least 1 needed, as timid proved (one GPU per adapter); more time" in capsys.readouterr().out


# --- choosing among candidates


def test_the_bound_is_the_largest_that_was_proved() -> None:
    common: dict[str, Any] = {"workload": "", "seed": 0, "objective": "", "profile": "", "status": "feasible"}
    rows = [Row(solver=name, lower_bound=bound, **common) for name, bound in (("a", 2), ("b", None), ("c", 3))]
    assert standing_bound(rows) == LowerBound(3, "c", whole=True)
    assert standing_bound(rows[1:2]) is None
    predicted = replace(rows[2], details=json.dumps({"oracle": "predictor"}))
    assert standing_bound([rows[0], predicted]) == LowerBound(2, "a", whole=True)
    # One that holds for any replicas says more than a larger one that does not.
    shared = replace(rows[0], details=json.dumps({"oracle": "twin", "replicas": True}))
    assert standing_bound([shared, rows[2]]) == LowerBound(2, "a", whole=False)


def test_a_bound_for_whole_adapters_is_refuted_by_these_alone_and_one_for_any_replicas_by_all() -> None:
    common: dict[str, Any] = {"workload": "", "seed": 0, "objective": "", "profile": "", "status": "feasible"}
    bound = Row(solver="a", lower_bound=3, **common)
    single, shared = GpuPlan((0,), 1), GpuPlan((0,), 1, (0.5,))
    placed = Row(solver="b", gpus=2, feasible=True, placement=Placement((single, GpuPlan((1,), 1))).to_json(), **common)
    assert contradictions([bound, placed]) == ["b has a feasible placement on 2 GPUs, below the bound of 3 by a"]
    assert contradictions([bound, replace(placed, feasible=False)]) == []
    assert contradictions([bound, replace(placed, placement=Placement((shared, shared)).to_json())]) == []
    assert contradictions([bound, replace(placed, gpus=3)]) == []
    assert standing_bound([bound, placed, replace(bound, solver="c", lower_bound=2)]) == LowerBound(2, "c", whole=True)
    allowed = replace(bound, details=json.dumps({"oracle": "twin", "replicas": True}))
    assert len(contradictions([allowed, replace(placed, placement=Placement((shared, shared)).to_json())])) == 1


def test_replicas_are_simulated_with_their_shares() -> None:
    adapters = [Adapter("a", 8, 4.0), Adapter("b", 8, 2.0)]
    traffic = Traffic.of(PROFILE)
    comparison = Comparison(workload_of(adapters, traffic, PROFILE), PROFILE, MinGpus())
    (row,) = compare(comparison, {"max_pack": MaxPack})
    placement = Placement((GpuPlan((0, 1), 2, (0.25, 1.0)), GpuPlan((0,), 1, (0.75,))))
    score = score_placement(comparison.workload, placement, PROFILE)
    found = answer([replace(row, placement=placement.to_json())], adapters, traffic, PROFILE)
    assert found is not None
    assert [gpu.rate for gpu in found.gpus] == [3.0, 3.0]
    assert [gpu.throughput for gpu in found.gpus] == [result.throughput for result in score.results]
    assert found.gpus[0].to_dict()["shares"] == (0.25, 1.0)


def test_a_candidate_that_starves_at_the_load_itself_is_not_the_answer() -> None:
    adapters = [Adapter("a", 8, 40.0), Adapter("b", 8, 40.0)]
    traffic = Traffic.of(PROFILE)
    comparison = Comparison(workload_of(adapters, traffic, PROFILE), PROFILE, MinGpus())
    (good,) = compare(comparison, {"max_pack": MaxPack})
    crowded = Placement((GpuPlan((0, 1), 1),)).to_json()
    false = replace(good, solver="false", placement=crowded, objective_key=[0, 0, 0])
    found = answer([false, good], adapters, traffic, PROFILE)
    assert found is not None
    assert found.row.solver == "max_pack"
    assert answer([false], adapters, traffic, PROFILE) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["counters_interval_s=60"], "counters_interval_s=60.0: nothing is counted without counters=FILE"),
        (["counters_label=model"], "counters_label=model: nothing is counted"),
        (["counters=5"], "counters=5: no such file"),
        (["model="], "model='' must be a folder or a repository"),
    ],
)
def test_options_that_go_with_nothing_are_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text("name,rank,rate\na,8,1\n")
    with pytest.raises(SystemExit, match="2"):
        main([f"adapters={tmp_path / 'list.csv'}", *options])
    assert said in capsys.readouterr().err
