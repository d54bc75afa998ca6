"""Plans for fleets of several GPU types: who goes where, what it costs, and what starts on which host."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.comparison.rows import Row
from bench.plan import main
from bench.planning.adapters import Adapter
from bench.planning.fleets import CostBound, cost_bound, for_mixed_fleets, mix_in_words
from bench.planning.kubernetes import TYPE_LABEL, Cluster, helm_values
from bench.planning.vllm_commands import Serving, command_line, script
from bench.vllm.placements import read_placed
from tests.bench.planning.test_plan_files import gpu
from twin import UserError, fleet_of, load_profile

FLEET = "profile,price,count\nllama-3.1-8b/h100-80gb,2.5,1\nllama-3.1-8b/a100-80gb,1.4,8\n"
LISTED = "name,rank,rate\nbilling,8,30\nsearch,16,30\ncode,32,12\nmail,8,12\nidle,16,0\n"

pytestmark = pytest.mark.usefixtures("_in_tmp_path")


def planned(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    (tmp_path / "a.csv").write_text(LISTED, encoding="utf-8")
    (tmp_path / "fleet.csv").write_text(FLEET, encoding="utf-8")
    main(
        [
            "adapters=a.csv",
            "fleet=fleet.csv",
            "service=published",
            "time_limit_s=10",
            "duration_s=300",
            "out=plan",
            *arguments,
        ]
    )
    found: dict[str, Any] = json.loads((tmp_path / "plan" / "plan.json").read_text(encoding="utf-8"))
    return found


def test_who_goes_where_and_what_it_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(tmp_path, "solver=[exact,latency]")
    printed = capsys.readouterr().out
    prices = {"h100-80gb": 2.5, "a100-80gb": 1.4}
    assert found["cost"] == pytest.approx(sum(prices[each["gpu_type"]] for each in found["placement"]))
    assert found["cost_bound"] <= found["cost"] + 1e-9
    assert {each["name"] for each in found["fleet"]} == set(prices)
    assert sum(each["used"] for each in found["fleet"]) == found["gpus"] > 1
    assert found["fleet"][0]["used"] <= 1
    assert found["asked"]["objective"] == "min_cost"
    assert f"at {found['cost']:g} together" in printed
    assert "type a100-80gb: 8 there at 1.4" in printed
    assert "latency" not in {each["solver"] for each in found["candidates"]}
    rows = list(csv.DictReader((tmp_path / "plan" / "placement.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["name"] for row in rows} == {"billing", "search", "code", "mail", "idle"}
    assert {row["type"] for row in rows} <= set(prices)
    with pytest.raises(UserError, match="GPUs of 2 types"):
        read_placed(str(tmp_path / "plan" / "placement.json"))


def test_of_one_type_it_is_the_plan_without_a_fleet(tmp_path: Path) -> None:
    one = "fleet=[{profile:llama-3.1-8b,price:1}]"
    with_fleet = planned(tmp_path, "solver=max_pack", one)
    (tmp_path / "plan" / "plan.json").unlink()
    main(["adapters=a.csv", "service=published", "time_limit_s=10", "duration_s=300", "out=plan", "solver=max_pack"])
    without = json.loads((tmp_path / "plan" / "plan.json").read_text(encoding="utf-8"))
    assert with_fleet["cost"] == with_fleet["gpus"] == without["gpus"]
    assert [each["adapters"] for each in with_fleet["placement"]] == [each["adapters"] for each in without["placement"]]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("fleet=nothing.csv", "fleet=nothing.csv: no such file"),
        ("fleet=[{profile:llama-3.1-8b},{profile:qwen-2.5-7b,name:q}]", "all types must serve the same"),
        ("fleet=[{profile:llama-3.1-8b,price:-1}]", "price=-1"),
        ("fleet=[{profile:llama-3.1-8b,name:'--host=0'}]", "entry 1: name='--host=0' must not begin with -, =, + or @"),
        ("fleet=[{profile:llama-3.1-8b,name:' =1+1'}]", "name=' =1+1' must not begin with"),
        ("fleet=[{profile:llama-3.1-8b,name:'+1'}]", "must not begin with"),
        ("fleet=[{profile:llama-3.1-8b,name:'@SUM(A1)'}]", "must not begin with"),
        ("solver=random", "place on a fleet of several"),
        ("profile=qwen-2.5-7b", "profile=qwen-2.5-7b: fleet= is given"),
        ("++profile=llama-3.1-8b", "profile=llama-3.1-8b: fleet= is given"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str, said: str) -> None:
    with pytest.raises(SystemExit) as end:
        planned(tmp_path, argument)
    assert end.value.code == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_a_fleet_of_one_type_is_given_no_probability(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = "fleet=[{profile:llama-3.1-8b/h100-80gb}]"
    with pytest.raises(SystemExit):
        planned(tmp_path, one, "confidence=0.95")
    said = capsys.readouterr().err.replace("\n", " ")
    assert "fleet= is given" in said
    assert "several" not in said
    planned(tmp_path, one, "solver=max_pack", "duration_s=60")
    said = " ".join(capsys.readouterr().out.split())
    assert "is estimated, nobody measured" in said
    assert "reserve=0.2 plans for a fifth more load" in said
    assert "confidence" not in said


TYPES = fleet_of(
    [
        {"profile": "llama-3.1-8b/h100-80gb", "price": 2.5},
        {"profile": "llama-3.1-8b/h100-80gb-tp2-fp8", "name": "pair", "price": 5},
    ]
)
KINDS = ("h100-80gb", "pair", "h100-80gb", "h100-80gb", "pair", "h100-80gb", "h100-80gb")
SERVING = Serving("org/base", load_profile("llama-3.1-8b/h100-80gb"), gpus_per_host=4, fleet=TYPES, kinds=KINDS)


def test_types_have_hosts_of_their_own() -> None:
    places = [SERVING.place_of(number) for number in range(len(KINDS))]
    # Five single GPUs are on hosts 0 and 1, two pairs on host 2.
    assert places == [(0, 0, 8000), (2, 0, 8000), (0, 1, 8001), (0, 2, 8002), (2, 2, 8001), (0, 3, 8003), (1, 0, 8000)]
    assert SERVING.devices_of(4) == "2,3"
    assert SERVING.devices_of(6) == "0"


def test_a_server_has_the_flags_of_its_type() -> None:
    plans = [replace(gpu(number, Adapter(f"a{number}", 16, 1.0)), gpu_type=kind) for number, kind in enumerate(KINDS)]
    assert "--tensor-parallel-size 2" in command_line(plans[1], SERVING)
    assert "--tensor-parallel-size" not in command_line(plans[0], SERVING)
    assert "# Starts the servers of host 2 (GPUs of type pair): 2 of 7 GPUs" in script(plans, SERVING, 2)
    specs = helm_values(plans, SERVING, Cluster())["servingEngineSpec"]["modelSpec"]
    assert [spec["requestGPU"] for spec in specs] == [2 if kind == "pair" else 1 for kind in KINDS]
    terms = [spec["nodeSelectorTerms"][0]["matchExpressions"][0] for spec in specs]
    assert [term["values"] for term in terms] == [[kind] for kind in KINDS]
    assert {term["key"] for term in terms} == {TYPE_LABEL}
    assert yaml.safe_dump(specs)


def test_hosts_must_hold_the_largest_server_of_the_fleet() -> None:
    with pytest.raises(UserError, match="gpus_per_host=1 must be 2 or more"):
        Serving("org/base", load_profile("llama-3.1-8b"), gpus_per_host=1, fleet=TYPES)


def row(solver: str, cost: float | None, bound: float | None) -> Row:
    return Row(
        workload="w", seed=0, solver=solver, objective="min_cost", profile="p", status="feasible",
        feasible=cost is not None, cost=cost, cost_bound=bound,
    )  # fmt: skip


def test_a_bound_that_a_placement_refutes_is_none() -> None:
    assert cost_bound([row("a", 10.0, 8.0), row("b", 9.0, None)]) == CostBound(8.0, "a")
    assert cost_bound([row("a", 10.0, 9.5), row("b", 9.0, 7.0)]) == CostBound(7.0, "b")
    assert cost_bound([row("a", 10.0, None)]) is None


def test_a_refuted_bound_on_cost_is_told() -> None:
    from bench.statistics.contradictions import contradictions

    (line,) = contradictions([row("a", 10.0, 9.5), row("b", 9.0, 7.0)])
    assert line == "b has a feasible placement that costs 9, below the bound of 9.5 by a"
    assert contradictions([row("a", 10.0, 9.0), row("b", 9.0, 7.0)]) == []


def test_words() -> None:
    assert mix_in_words(["a", "b", "a", None]) == "2 a + 1 b"
    kept, notes = for_mixed_fleets(
        {"max_pack": {"_target_": "solvers.max_pack.MaxPack"}, "random": {"_target_": "solvers.random_gpu.RandomGpu"}}
    )
    assert list(kept) == ["max_pack"]
    assert notes == ["random: left out, on GPUs of one type only"]
