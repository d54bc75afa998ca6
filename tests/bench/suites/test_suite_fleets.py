"""Instances with fleets: generated as they lie there, cells of their types, and best known costs that only rows can move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.comparison.cell import Cell
from bench.comparison.compare import fleet_json
from bench.comparison.config import BenchConfig
from bench.comparison.rows import Row, read_rows, write_rows
from bench.statistics.costs import best_cost_bounds, cost_gap
from bench.suites.costs import (
    BestCost,
    fleet_fingerprint,
    improved_costs,
    read_best_costs,
    write_best_costs,
)
from bench.suites.generate_fleets import fleets
from bench.suites.instance import Instance, read_instance
from bench.suites.library import instance_path, load_suite, write_instances
from bench.suites.run import suite_cells, with_bounds
from twin import GpuPlan, Placement, UserError, fleet_of, load_profile

INSTANCES = load_suite("fleets")


def test_the_files_are_those_of_the_generator() -> None:
    assert [instance.to_yaml() for instance in INSTANCES] == [instance.to_yaml() for instance in fleets()]
    assert len(INSTANCES) == 30
    assert all(len(instance.fleet) > 1 for instance in INSTANCES)


def test_every_type_knows_every_rank_and_request() -> None:
    for instance in INSTANCES:
        workload = instance.workload()
        for kind in fleet_of(instance.fleet).types:
            kind.profile.check_ranks(workload.ranks)
            assert workload.lengths.max_total_tokens <= kind.profile.max_model_len


def test_every_instance_has_a_cost_and_a_bound_of_todays_profiles() -> None:
    known = read_best_costs()
    assert set(known) == {instance.id for instance in INSTANCES}
    for best in known.values():
        assert best.cost is not None
        assert 0 < best.cost_bound <= best.cost * (1 + 1e-9)


def test_a_cell_has_the_types_and_is_read_again() -> None:
    config = BenchConfig(
        solver={"max_pack": {"_target_": "solvers.max_pack.MaxPack"}},
        objective={"_target_": "solvers.objectives.min_cost.MinCost"},
    )
    (cell,) = suite_cells(config, INSTANCES[:1], {})
    assert [kind["name"] for kind in cell.fleet] == [kind["name"] for kind in INSTANCES[0].fleet]
    assert Cell.from_json(cell.to_json()) == cell
    plain = replace(cell, fleet=())
    assert '"fleet":' not in plain.to_json()


def row(instance: Instance, solver: str, cost: float | None, bound: float | None) -> Row:
    placement = Placement((GpuPlan((0,), 1, gpu_type=instance.fleet[0]["name"]),)).to_json()
    return Row(
        workload=instance.id, instance=instance.id, seed=instance.seed, solver=solver, objective="min_cost",
        profile=load_profile(instance.profile).name, status="feasible", duration_s=instance.duration_s, time_limit_s=5.0,
        feasible=cost is not None, cost=cost, cost_bound=bound, placement=placement if cost else None, gpus=1 if cost else None,
        fleet=fleet_json(fleet_of(instance.fleet)),
    )  # fmt: skip


def test_rows_keep_their_types_in_a_file(tmp_path: Path) -> None:
    rows = [row(INSTANCES[0], "a", 5.0, 4.0)]
    write_rows(rows, tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet") == rows
    assert rows[0].types == [dict(kind) for kind in INSTANCES[0].fleet]
    assert "fleet=" in rows[0].workload_label


def test_the_best_cost_and_the_best_bound_are_kept() -> None:
    one = INSTANCES[0]
    rows = [row(one, "a", 5.0, 4.0), row(one, "b", 6.0, 4.5), row(one, "wrong", 7.0, 5.5)]
    best = improved_costs([one], {}, rows, "the command")[one.id]
    assert (best.cost, best.cost_bound, best.mix) == (5.0, 4.5, f"1 {one.fleet[0]['name']}")
    again = improved_costs([one], {one.id: best}, [row(one, "c", 5.5, 3.0)], "another")[one.id]
    assert again == best
    assert best.gap == pytest.approx(5 / 4.5 - 1)
    stale = replace(best, twin="another")
    assert improved_costs([one], {one.id: stale}, [], "")[one.id].cost is None


def test_a_price_or_a_count_makes_it_another_question() -> None:
    types = INSTANCES[0].fleet
    dearer = ({**types[0], "price": 99.0}, *types[1:])
    assert fleet_fingerprint(types) != fleet_fingerprint(dearer)


def test_gaps_are_of_cost_and_by_bounds_that_stand() -> None:
    one = INSTANCES[0]
    rows = [row(one, "a", 5.0, 4.0), row(one, "wrong", 7.0, 5.5)]
    (bound,) = best_cost_bounds(rows).values()
    assert bound == 4.0
    assert [each.gap for each in with_bounds(rows, {})] == pytest.approx([0.25, 0.75])
    assert cost_gap(row(one, "none", None, None), bound) is None


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    best = BestCost("x", 1.5, "a (5 s)", None, "", "", "cmd", "mark")
    write_best_costs({"x": best}, tmp_path)
    assert read_best_costs(tmp_path) == {"x": best}
    table = tmp_path / "best_known_costs.csv"
    table.write_text(table.read_text().replace("1.5", "cheap"))
    with pytest.raises(UserError, match="line 2: cost_bound='cheap'"):
        read_best_costs(tmp_path)


def test_a_mistake_in_the_fleet_of_a_file_is_named(tmp_path: Path) -> None:
    write_instances(INSTANCES[:1], tmp_path)
    path = instance_path(INSTANCES[0].id, tmp_path, fleet=True)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f"profile: {INSTANCES[0].profile}\n", "profile: llama-3.1-8b\n", 1), encoding="utf-8")
    with pytest.raises(UserError, match="must be that of the first type"):
        read_instance(path)
    path.write_text(text.replace("price: 5.0", "price: -5.0").replace("price: 2.5", "price: -2.5"), encoding="utf-8")
    with pytest.raises(UserError, match="price=-"):
        read_instance(path)
