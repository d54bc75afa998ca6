"""Planning with a reserve: what solvers get, what is scored, and what may be said of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.__main__ import main
from bench.comparison.cell import Cell
from bench.comparison.compare import Comparison, compare
from bench.comparison.reserve import with_reserve
from bench.comparison.rows import read_rows
from bench.comparison.run import run_cell
from bench.statistics.instances import cases
from solvers.base import Problem, Solution, Solver, Tags
from twin import (
    GpuPlan,
    Placement,
    Requests,
    UserError,
    Workload,
    score_placement,
    workload_from_groups,
)

RESERVES = st.floats(0.0, 3.0)


def trace(arrival_s: list[float]) -> Workload:
    """Requests of two adapters in turn; the prompt length tells which request it is."""
    times = np.sort(np.array(arrival_s, dtype=float))
    count = len(times)
    lengths = np.arange(count) + 1
    requests = Requests(times, np.arange(count) % 2, lengths, lengths, lengths)
    return Workload(np.array([8, 16]), np.array([1.0, 0.5]), duration_s=100.0, seed=3, trace=requests)


def kinds(requests: Requests) -> set[tuple[float, int, int]]:
    columns = (requests.arrival_s, requests.adapter, requests.prompt_tokens)
    return set(zip(*(column.tolist() for column in columns), strict=True))


class Proving(Solver):
    """All on one GPU, and a proof for the load that it was given."""

    name: ClassVar[str] = "proving"
    tags = Tags(exact=True)

    def solve(self, problem: Problem) -> Solution:
        """One GPU for all."""
        plan = GpuPlan(tuple(range(problem.workload.n_adapters)), problem.workload.n_adapters)
        details = {"oracle": "twin", "bounds_over_time_s": [[0.1, 1, 1]], "rate": problem.workload.total_rate}
        return Solution("optimal", Placement((plan,)), lower_bound=1, details=details)


def test_without_a_reserve_nothing_is_changed() -> None:
    workload = trace([1.0, 2.0])
    assert with_reserve(workload, 0.0) is workload


@given(reserve=RESERVES)
def test_every_rate_grows_by_the_reserve(reserve: float) -> None:
    workload = workload_from_groups([(3, 8, 0.5), (1, 16, 0.0)])
    grown = with_reserve(workload, reserve)
    assert grown.rates == pytest.approx(workload.rates * (1 + reserve))
    assert (grown.duration_s, grown.seed, grown.ranks.tolist()) == (600.0, 0, workload.ranks.tolist())


def test_drawn_requests_come_as_much_faster() -> None:
    workload = workload_from_groups([(20, 8, 0.5)])
    more = len(with_reserve(workload, 0.2).requests) / len(workload.requests)
    assert more == pytest.approx(1.2, abs=0.03)


@given(arrival_s=st.lists(st.floats(0.0, 99.0), max_size=40), small=RESERVES, large=RESERVES)
def test_a_larger_reserve_repeats_what_a_smaller_one_does(arrival_s: list[float], small: float, large: float) -> None:
    small, large = sorted((small, large))
    workload = trace(arrival_s)
    first, second = with_reserve(workload, small).requests, with_reserve(workload, large).requests
    assert kinds(workload.requests) <= kinds(first) <= kinds(second)
    for requests in (first, second):
        assert (np.diff(requests.arrival_s) >= 0).all()
        assert (requests.arrival_s <= workload.duration_s).all()
        # Whose a request is goes with its length.
        assert (requests.adapter == (requests.prompt_tokens - 1) % 2).all()


def test_a_trace_is_repeated_as_often_as_the_reserve_says() -> None:
    workload = trace(np.linspace(0, 99, 5000).tolist())
    assert len(with_reserve(workload, 0.25).requests) == pytest.approx(6250, rel=0.02)
    assert len(with_reserve(workload, 2.0).requests) == 15000


@pytest.mark.parametrize("reserve", [-0.1, float("nan"), float("inf")])
def test_what_is_no_share_is_refused(comparison: Comparison, reserve: float) -> None:
    with pytest.raises(UserError, match="must be a share of the load"):
        replace(comparison, reserve=reserve)


def test_the_solver_gets_more_and_the_score_is_of_what_there_is(comparison: Comparison) -> None:
    (row,) = compare(replace(comparison, reserve=0.5), {"proving": Proving})
    assert json.loads(row.details)["rate"] == pytest.approx(1.5 * comparison.workload.total_rate)
    assert row.placement is not None
    score = score_placement(comparison.workload, Placement.from_json(row.placement), comparison.profile)
    assert (row.throughput, row.offered_throughput) == (score.throughput, score.offered_throughput)
    assert row.total_rate == comparison.workload.total_rate
    assert (row.reserve, row.solver_label) == (0.5, "proving reserve=0.5")


def test_a_proof_for_more_load_is_none_for_less(comparison: Comparison) -> None:
    (without,) = compare(comparison, {"proving": Proving})
    (kept,) = compare(replace(comparison, reserve=0.5), {"proving": Proving})
    assert (without.status, without.lower_bound) == ("optimal", 1)
    assert (kept.status, kept.lower_bound) == ("feasible", None)
    assert kept.message == "at 1.5 times the load: at least 1 GPUs are needed"
    details = json.loads(kept.details)
    assert details["planned"]["lower_bound"] == 1
    assert "bounds_over_time_s" not in details
    assert cases([kept])[0].proven_bound is None


def test_a_fleet_is_as_large_as_the_planned_load_asks_for(
    comparison: Comparison, makers: dict[str, Callable[[], Solver]]
) -> None:
    dealt = {"dealt": makers["dealt"]}
    (without,) = compare(comparison, dealt)
    (kept,) = compare(replace(comparison, reserve=7.0), dealt)
    assert (without.gpus or 0) < (kept.gpus or 0)
    planned = with_reserve(comparison.workload, 7.0)
    assert score_placement(planned, Placement.from_json(kept.placement or ""), comparison.profile).feasible
    assert kept.feasible


def test_rows_with_and_without_a_reserve_are_candidates_of_one_instance(comparison: Comparison) -> None:
    rows = [row for reserve in (0.0, 0.5) for row in compare(replace(comparison, reserve=reserve), {"p": Proving})]
    (case,) = cases(rows)
    assert set(case.by_solver) == {"p", "p reserve=0.5"}


def test_a_row_with_a_reserve_can_be_made_again() -> None:
    groups = [{"count": 3, "rank": 8, "rate": 0.5}]
    workload = {"_target_": "twin.builders.groups", "groups": groups, "duration_s": 60.0, "seed": 0, "name": "three"}
    options = {"_target_": "solvers.max_pack.MaxPack"}
    row = run_cell(Cell(solver="max_pack", solver_options=options, workload=workload, reserve=0.1))
    again = run_cell(Cell.from_json(row.cell))
    assert (again.reserve, again.placement, again.solver_label) == (0.1, row.placement, "max_pack reserve=0.1")


@pytest.mark.usefixtures("_in_tmp_path")
def test_reserves_can_be_swept(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["workload=groups", "workload.groups=[{count: 6, rank: 8, rate: 2.0}]", "workload.duration_s=60"]
    main(["-m", *tiny, "solver=max_pack", "reserve=0,0.05", "isolated=false", "cache=false", "out=rows.parquet"])
    rows = read_rows(Path("rows.parquet"))
    assert [row.solver_label for row in rows] == ["max_pack", "max_pack reserve=0.05"]
    assert "max_pack reserve=0.05" in capsys.readouterr().out


@pytest.mark.usefixtures("_in_tmp_path")
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["solver=max_pack", "reserve=-1"])
    assert caught.value.code == 2
    assert "reserve=-1.0 must be" in capsys.readouterr().err
