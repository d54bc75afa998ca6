"""Claims of solvers put to the test by brute force on small instances."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench.comparison.build import build_workload
from bench.comparison.rows import Row
from bench.refute import main
from bench.studies.brute_force import BruteForce, GpuTwin
from bench.studies.refutation import drawn, refuted
from bench.studies.small_instances import KINDS, arrivals_of, draw_instance
from twin import INTERACTIVE, PUBLISHED, load_profile, score_placement, simulate_gpu, workload_from_groups

OVERCONFIDENT = "+solver.overconfident._target_=tests.bench.overconfident.Overconfident"


def searched(groups: list[tuple[int, int, float]], below: int | None = None, seconds: float = 20.0) -> BruteForce:
    """A few adapters for three minutes: in less, what comes near the end alone makes a GPU fail."""
    workload = workload_from_groups(groups, duration_s=180.0, seed=1)
    return BruteForce(GpuTwin(workload, load_profile("llama-3.1-8b"), PUBLISHED), below, seconds)


def test_an_instance_is_its_name() -> None:
    """The same whatever else is drawn, and of many kinds."""
    instances = [draw_instance(3, number) for number in range(5)]
    assert [drawn(each.name) for each in instances] == instances
    assert len({each.kind for each in instances}) > 2
    assert {each.kind for each in instances} <= set(KINDS)
    assert {each.service for each in instances} <= {PUBLISHED, INTERACTIVE}
    assert len({arrivals_of(each) for each in instances}) > 1
    for each in instances:
        workload = build_workload(each.workload, load_profile(each.profile))
        assert 60 <= workload.duration_s <= 600
        assert workload.n_adapters >= 5


def test_all_max_loras_are_tried() -> None:
    """Contents that one GPU serves at any number of slots, asked of the twin one by one."""
    workload = workload_from_groups([(2, 32, 9.0), (2, 8, 11.0)], duration_s=30.0, seed=2)
    profile = load_profile("qwen-2.5-7b")
    for service in (PUBLISHED, INTERACTIVE):
        gpu = GpuTwin(workload, profile, service)
        for size in (1, 3, 4):
            for content in itertools.combinations(range(4), size):
                serves = [
                    not simulate_gpu(workload, content, profile, slots, service=service).fails
                    for slots in range(1, size + 1)
                ]
                slots, _ = gpu.serves(content)
                assert (slots > 0) == any(serves)
                assert not slots or serves[slots - 1]


def test_the_fewest_gpus_are_found_and_nothing_is_claimed_beyond() -> None:
    search = searched([(3, 8, 15.0)])
    found = search.solve(None)
    assert found.placement is not None
    workload, profile = search.twin.workload, search.twin.profile
    assert score_placement(workload, found.placement, profile).feasible
    assert search.complete
    assert found.details["whole"] >= found.placement.n_gpus
    # Whoever has as few already hears that there are no fewer.
    again = searched([(3, 8, 15.0)], below=found.placement.n_gpus).solve(None)
    assert again.placement is None
    assert again.details["complete"]


def test_an_adapter_busier_than_a_gpu_is_divided() -> None:
    found = searched([(1, 8, 50.0)]).solve(None)
    assert found.placement is not None
    assert found.placement.has_replicas
    assert found.placement.n_gpus > 1
    assert found.details["whole"] is None


def test_without_time_nothing_is_complete() -> None:
    found = searched([(3, 8, 15.0)], seconds=1e-9).solve(None)
    assert found.placement is None
    assert not found.details["complete"]


ROW = Row(
    workload="w", seed=0, solver="s", objective="min_gpus", profile="p", status="optimal", feasible=True, gpus=3,
    lower_bound=3, details='{"oracle": "twin", "replicas": true}',
)  # fmt: skip
WHOLE = '{"oracle": "twin"}'
BOTH = '{"oracle": "twin", "replicas": true, "lower_bound_without_replicas": 4}'


@pytest.mark.parametrize(
    ("changes", "fewest", "fewest_whole", "expected"),
    [
        ({}, 3, None, ""),
        ({}, None, None, ""),
        ({}, 2, 3, "bound 3 > 2; optimal 3 > 2"),
        ({"details": WHOLE}, 2, 3, ""),
        ({"details": WHOLE}, 2, 2, "bound 3 > 2; optimal 3 > 2"),
        ({"details": BOTH}, 3, 4, ""),
        ({"details": BOTH}, 3, 3, "bound without replicas 4 > 3"),
        ({"status": "feasible"}, 2, 2, "bound 3 > 2"),
        ({"details": '{"oracle": "predictor"}'}, 2, 2, ""),
        ({"status": "infeasible", "gpus": None, "lower_bound": None}, 4, None, "infeasible, but 4"),
        ({"status": "infeasible", "gpus": None, "lower_bound": None, "details": WHOLE}, 4, None, ""),
        ({"status": "infeasible", "gpus": None, "lower_bound": None, "details": WHOLE}, 4, 5, "infeasible, but 5"),
        ({"status": "time_limit", "gpus": None, "lower_bound": None}, 4, 4, ""),
    ],
)
def test_what_a_placement_says_against_a_claim(
    changes: dict[str, object], fewest: int | None, fewest_whole: int | None, expected: str
) -> None:
    assert refuted(replace(ROW, **changes), fewest, fewest_whole) == expected  # type: ignore[arg-type]


@pytest.mark.usefixtures("_in_tmp_path")
def test_a_claim_that_is_too_high_is_told_and_a_run_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["instances=1", "seed=3", "brute_force_s=2", "solver=least_loaded", OVERCONFIDENT]
    options += ["out=rows.parquet", "table=claims.csv"]
    with pytest.raises(SystemExit) as stopped:
        main(options)
    assert stopped.value.code == 3
    assert "CONTRADICTION" in capsys.readouterr().err
    claims = pd.read_csv("claims.csv")
    assert len(claims) == 2
    proud = claims[claims.solver == "overconfident"]
    assert proud.refuted.str.contains("bound").all()
    assert (proud.fewest <= proud.fewest_whole).all()
    assert claims[claims.solver == "least_loaded"].refuted.isna().all()
    written = Path("rows.parquet").read_bytes()

    def again(*_: object) -> None:
        pytest.fail("a finished instance was asked again")

    monkeypatch.setattr("bench.refute.answers", again)
    with pytest.raises(SystemExit):
        main(options)
    assert Path("rows.parquet").read_bytes() == written
    assert len(pd.read_csv("claims.csv")) == 2


@pytest.mark.usefixtures("_in_tmp_path")
@pytest.mark.parametrize("mistake", ["instances=0", "brute_force_s=0", "time_limit_s=-1", "seed=-1"])
def test_a_mistake_is_one_line(mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([mistake])
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert mistake.partition("=")[0] in line
    assert line.count("\n") == 1
