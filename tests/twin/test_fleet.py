"""Fleets: read from what users type, refused with a line that says what is wrong, and kept by placements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from twin import (
    Fleet,
    GpuPlan,
    GpuType,
    Placement,
    UserError,
    fleet_of,
    load_profile,
    read_fleet,
    score_placement,
    simulate_gpu,
    workload_from_groups,
)

H100, A100 = "llama-3.1-8b/h100-80gb", "llama-3.1-8b/a100-80gb"


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return fleet_of([{"profile": H100, "price": 2.5, "count": 2}, {"profile": A100, "name": "old", "price": 1}])


def test_a_type_is_called_by_its_gpu_unless_it_has_a_name(fleet: Fleet) -> None:
    assert [(kind.name, kind.price, kind.count) for kind in fleet.types] == [("h100-80gb", 2.5, 2), ("old", 1.0, None)]
    assert fleet.is_mixed
    assert fleet.max_gpus is None


def test_yaml_and_csv_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"- {{profile: {H100}, price: 2.5, count: 2}}\n- {{profile: {A100}, name: old}}\n")
    (tmp_path / "b.yaml").write_text(
        f"fleet:\n- {{profile: {H100}, price: 2.5, count: 2}}\n- {{profile: {A100}, name: old}}\n"
    )
    (tmp_path / "c.csv").write_text(f"profile, price, count, name\n{H100}, 2.5, 2,\n{A100},,,old\n")
    fleets = [fleet_of(read_fleet(tmp_path / name)) for name in ("a.yaml", "b.yaml", "c.csv")]
    assert fleets[0] == fleets[1] == fleets[2]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "list of types"),
        ("h100", "list of types"),
        ([{"price": 1}], "profile is missing"),
        ([{"profile": H100, "prise": 1}], "'prise' is not known"),
        ([{"profile": "no-such-model/gpu"}], "entry 1: profile=no-such-model/gpu"),
        ([{"profile": H100, "price": 0}], "price=0 must be a number, above 0"),
        ([{"profile": H100, "price": "two"}], "price='two'"),
        ([{"profile": H100, "count": 0}], "count=0 must be a whole number of GPUs"),
        ([{"profile": H100, "count": 1.5}], "count=1.5"),
        ([{"profile": H100}, {"profile": H100}], "two types are called h100-80gb"),
        ([{"profile": H100}, {"profile": "qwen-2.5-7b/a100-80gb"}], "all types must serve the same"),
        ([{"profile": H100, "name": f"t{n}"} for n in range(13)], "has 13 types"),
        ([{"profile": H100, "name": "a\tb"}], "U+0009"),
    ],
)
def test_a_mistake_is_named(rows: Any, said: str) -> None:  # noqa: ANN401  # whatever a user has typed
    with pytest.raises(UserError, match="fleet") as error:
        fleet_of(rows)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "price\n1\n", "column profile is missing"),
        ("a.csv", "profile,cost\nx,1\n", "column 'cost' is not known"),
        ("a.csv", "profile,price\nx\n", "line 2"),
        ("a.csv", "profile,price\nx,dear\n", "line 2: price='dear' must be a number"),
        ("a.yaml", "3\n", "must hold a fleet"),
        ("a.yaml", "[}\n", "not YAML"),
        ("a.yaml", "", "is empty; it must be a fleet"),
    ],
)
def test_a_file_that_is_no_fleet_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        read_fleet(tmp_path / name)
    assert said in str(error.value)
    assert name in str(error.value)


def test_a_placement_names_types_and_is_read_again_with_them() -> None:
    placement = Placement((GpuPlan((0, 1), 2, gpu_type="old"), GpuPlan((2,), 1)))
    assert Placement.from_json(placement.to_json()) == placement
    assert "gpu_type" not in Placement((GpuPlan((2,), 1),)).to_json()


def test_no_type_is_used_more_often_than_it_is_there(fleet: Fleet) -> None:
    plans = tuple(GpuPlan((adapter,), 1, gpu_type="h100-80gb") for adapter in range(3))
    with pytest.raises(ValueError, match="uses 3 GPUs of type h100-80gb, of which there are 2"):
        fleet.check(Placement(plans))
    with pytest.raises(ValueError, match="GPU 0: type 'b200'"):
        fleet.check(Placement((GpuPlan((0,), 1, gpu_type="b200"),)))
    with pytest.raises(ValueError, match="GPU 0: type None"):
        fleet.check(Placement((GpuPlan((0,), 1),)))


def test_each_gpu_is_simulated_as_its_type_and_costs_its_price(fleet: Fleet) -> None:
    workload = workload_from_groups([(8, 8, 0.5)], duration_s=120.0)
    contents = (tuple(range(4)), tuple(range(4, 8)))
    placement = Placement((GpuPlan(contents[0], 4, gpu_type="old"), GpuPlan(contents[1], 4, gpu_type="h100-80gb")))
    score = score_placement(workload, placement, fleet.types[0].profile, fleet=fleet)
    alone = [
        simulate_gpu(workload, content, load_profile(name), 4)
        for content, name in zip(contents, (A100, H100), strict=True)
    ]
    assert [result.throughput for result in score.results] == [result.throughput for result in alone]
    assert [result.itl.mean_ms for result in score.results] == [result.itl.mean_ms for result in alone]
    assert score.cost == 3.5


def test_a_placement_of_types_is_not_scored_without_its_fleet() -> None:
    workload = workload_from_groups([(2, 8, 0.5)], duration_s=60.0)
    placement = Placement((GpuPlan((0, 1), 2, gpu_type="old"),))
    with pytest.raises(UserError, match="fleet of several types"):
        score_placement(workload, placement, load_profile(H100))


def test_one_type_at_price_one_costs_what_it_counts() -> None:
    workload = workload_from_groups([(4, 8, 0.5)], duration_s=60.0)
    placement = Placement((GpuPlan((0, 1), 2), GpuPlan((2, 3), 2)))
    profile = load_profile(H100)
    with_fleet = score_placement(workload, placement, profile, fleet=Fleet((GpuType("h100", profile),)))
    assert with_fleet.cost == score_placement(workload, placement, profile).cost == 2.0
