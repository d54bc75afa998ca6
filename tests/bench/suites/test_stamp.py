"""Best known figures are taken over to a changed twin only when that says of placements what the old one said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.comparison.rows import Row, write_rows
from bench.suite import main
from bench.suites.bounds import fingerprint
from bench.suites.instance import Instance
from bench.suites.library import (
    BestKnown,
    load_suite,
    read_best_known,
    write_benchmark,
    write_best_known,
    write_instances,
)
from bench.suites.stamp import stamped
from twin import GpuPlan, Placement, UserError, load_profile, score_placement


@pytest.fixture(scope="module")
def instance() -> Instance:
    return load_suite("collection", ids=["zipf-llama-0008"])[0]


@pytest.fixture(scope="module")
def row(instance: Instance) -> Row:
    """What a run has kept of a placement on one GPU."""
    placement = Placement((GpuPlan(tuple(range(8)), 8),))
    profile = load_profile(instance.profile)
    score = score_placement(instance.workload(), placement, profile)
    return Row(
        workload=instance.id,
        seed=instance.seed,
        solver="ffd",
        objective="min_gpus",
        profile=profile.name,
        status="feasible",
        time_limit_s=5.0,
        duration_s=instance.duration_s,
        feasible=score.feasible,
        gpus=score.gpus,
        starved_gpus=score.starved_gpus,
        memory_errors=score.memory_errors,
        starved_adapters=score.starved_adapters,
        throughput=score.throughput,
        offered_throughput=score.offered_throughput,
        itl_ms=score.itl_ms,
        ttft_ms=score.ttft_ms,
        e2e_ms=score.e2e_ms,
        headroom=score.headroom,
        placement=placement.to_json(),
    )


def of_another_twin(instance: Instance) -> dict[str, BestKnown]:
    return {instance.id: BestKnown(instance.id, 1, "exact (20 s)", 1, "ffd (5 s)", "before", "another twin")}


def test_equal_figures_get_the_stamp_of_today(instance: Instance, row: Row) -> None:
    known = of_another_twin(instance)
    after, shown = stamped([instance], known, [row])
    assert after == {instance.id: replace(known[instance.id], twin=fingerprint(instance.profile))}
    assert (shown.instances, shown.placements) == (1, 1)


@pytest.mark.parametrize(
    ("name", "value"), [("throughput", 1.001), ("ttft_ms", 0.999), ("starved_adapters", None), ("feasible", None)]
)
def test_a_figure_that_moved_is_named_and_nothing_is_stamped(
    instance: Instance, row: Row, name: str, value: float | None
) -> None:
    was = getattr(row, name)
    changes: dict[str, Any] = {name: was * value if value else (not was if name == "feasible" else was + 1)}
    moved = replace(row, **changes)
    with pytest.raises(UserError, match=f"{instance.id}, placement of ffd: {name} was"):
        stamped([instance], of_another_twin(instance), [moved])


def test_rows_of_other_workloads_show_nothing(instance: Instance, row: Row) -> None:
    for other in (replace(row, seed=row.seed + 1), replace(row, workload_options="x=1"), replace(row, placement=None)):
        with pytest.raises(UserError, match=f"no placement on an instance of profile {instance.profile}"):
            stamped([instance], of_another_twin(instance), [other])


def test_rows_of_another_level_show_nothing_either(instance: Instance, row: Row) -> None:
    with pytest.raises(UserError, match="no placement on an instance of profile"):
        stamped([instance], of_another_twin(instance), [replace(row, service="interactive")])


def test_the_command_writes_the_table(
    instance: Instance, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_instances([instance], tmp_path)
    write_benchmark([instance.id], tmp_path)
    write_best_known(of_another_twin(instance), tmp_path)
    write_rows([replace(row, throughput=0.0)], tmp_path / "wrong" / "rows.parquet")
    with pytest.raises(SystemExit) as caught:
        main([f"folder={tmp_path}", "action=stamp", "results=[wrong]"])
    assert caught.value.code == 2
    assert "throughput was 0.0" in capsys.readouterr().err
    assert read_best_known(tmp_path) == of_another_twin(instance)
    write_rows([row], tmp_path / "right" / "rows.parquet")
    main([f"folder={tmp_path}", "action=stamp", "results=[right]"])
    assert (
        "published: 1 placements on 1 instances simulated again: as in the rows. 1 of 1 instances stamped"
        in " ".join(capsys.readouterr().out.split())
    )
    assert read_best_known(tmp_path)[instance.id].twin == fingerprint(instance.profile)


def test_levels_without_rows_keep_their_mark(
    instance: Instance, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_instances([instance], tmp_path)
    write_benchmark([instance.id], tmp_path)
    write_best_known(of_another_twin(instance), tmp_path)
    stale = {name: replace(best, service="interactive") for name, best in of_another_twin(instance).items()}
    write_best_known(stale, tmp_path, "interactive")
    write_rows([row], tmp_path / "right" / "rows.parquet")
    main([f"folder={tmp_path}", "action=stamp", "results=[right]"])
    assert "interactive: no rows of this level" in capsys.readouterr().out
    assert read_best_known(tmp_path, "interactive") == stale
    assert read_best_known(tmp_path)[instance.id].twin == fingerprint(instance.profile)


def test_stamping_needs_rows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["action=stamp"])
    assert caught.value.code == 2
    assert "results must be given" in capsys.readouterr().err
