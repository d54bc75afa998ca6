"""Candidates: what a row says is what the twin says of the placement."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.comparison.asked import AskedHere
from bench.comparison.compare import Comparison, compare, is_user_error
from bench.comparison.rows import Row
from solvers.base import Problem, Solution, Solver
from solvers.objectives.min_latency import MinLatency
from twin import Placement, UserError, score_placement, workload_from_groups

Makers = dict[str, Callable[[], Solver]]


@pytest.fixture
def rows(comparison: Comparison, makers: Makers) -> dict[str, Row]:
    return {row.solver: row for row in compare(comparison, makers)}


def test_every_solver_gets_one_row_in_the_order_given(comparison: Comparison, makers: Makers) -> None:
    assert [row.solver for row in compare(comparison, makers)] == list(makers)


def test_the_row_holds_the_twins_score_of_its_own_placement(comparison: Comparison, rows: dict[str, Row]) -> None:
    for name in ("alone", "crowded", "dealt"):
        row = rows[name]
        assert row.placement is not None
        score = score_placement(comparison.workload, Placement.from_json(row.placement), comparison.profile)
        assert (row.feasible, row.gpus, row.starved_gpus, row.starved_adapters) == (
            score.feasible,
            score.gpus,
            score.starved_gpus,
            score.starved_adapters,
        )
        assert (row.throughput, row.offered_throughput, row.itl_ms) == (
            score.throughput,
            score.offered_throughput,
            score.itl_ms,
        )
        assert [gpu["throughput"] for gpu in row.gpu_figures] == [result.throughput for result in score.results]
        assert {gpu["real_gpu"] for gpu in row.gpu_figures} <= {"served", "near", "none"}


def test_all_candidates_get_the_same_requests(rows: dict[str, Row]) -> None:
    assert rows["alone"].offered_throughput == pytest.approx(rows["crowded"].offered_throughput)


def test_a_starving_placement_is_not_feasible_whatever_the_solver_says(rows: dict[str, Row]) -> None:
    assert rows["crowded"].status == "feasible"
    assert not rows["crowded"].feasible
    assert rows["crowded"].starved_gpus == 1


def test_a_solver_that_raises_becomes_a_row_with_its_reason(rows: dict[str, Row]) -> None:
    row = rows["broken"]
    assert row.status == "error"
    assert row.message == "ZeroDivisionError: cannot divide 6 adapters by nothing"
    assert "in solve" in json.loads(row.details)["traceback"]
    assert not is_user_error(row)


def test_a_malformed_placement_is_an_error_not_a_score(rows: dict[str, Row]) -> None:
    assert rows["forgetful"].status == "error"
    assert rows["forgetful"].gpus is None
    assert "adapter 5 is placed 0 times" in rows["forgetful"].message


def test_no_placement_is_said_with_its_reason_and_bound(rows: dict[str, Row]) -> None:
    row = rows["resigned"]
    assert (row.status, row.feasible, row.gpus, row.lower_bound) == ("infeasible", False, None, 2)
    assert row.message == "6 adapters are too many for me"


def test_a_fleet_solver_without_a_fleet_gets_the_smallest_feasible_one(
    comparison: Comparison, makers: Makers, rows: dict[str, Row]
) -> None:
    row = rows["dealt"]
    assert row.fleet_searched
    assert row.feasible
    assert row.gpus == row.gpu_limit
    smaller = replace(comparison, gpus=row.gpus - 1) if row.gpus and row.gpus > 1 else None
    if smaller:
        (worse,) = compare(smaller, {"dealt": makers["dealt"]})
        assert not worse.feasible


def test_a_fleet_solver_uses_the_fleet_it_is_given(comparison: Comparison, makers: Makers) -> None:
    (row,) = compare(replace(comparison, gpus=5), {"dealt": makers["dealt"]})
    assert (row.gpus, row.gpu_limit, row.fleet_searched) == (5, 5, False)


def test_the_search_counts_the_work_of_all_its_attempts(comparison: Comparison, makers: Makers) -> None:
    """One oracle call each; with a rate that one GPU cannot serve there are at least two attempts."""
    heavy = workload_from_groups([(6, 8, 15.0)], duration_s=120.0, name="heavy")
    (row,) = compare(replace(comparison, workload=heavy), {"dealt": makers["dealt"]})
    assert row.gpus is not None
    assert row.gpus > 1
    assert row.oracle_calls is not None
    assert row.oracle_calls >= 2


def test_the_same_comparison_gives_the_same_rows(comparison: Comparison, makers: Makers) -> None:
    def without_times(row: Row) -> Row:
        return replace(row, solve_time_s=None, score_time_s=None)

    first = [without_times(row) for row in compare(comparison, makers) if row.status != "error"]
    second = [without_times(row) for row in compare(comparison, makers) if row.status != "error"]
    assert first == second


def test_an_empty_workload_needs_no_gpu(comparison: Comparison, makers: Makers) -> None:
    empty = replace(comparison, workload=workload_from_groups([], name="empty"))
    for row in compare(empty, {name: makers[name] for name in ("alone", "dealt")}):
        assert (row.gpus, row.feasible, row.throughput) == (0, True, 0.0)


def test_a_user_error_of_a_solver_is_marked(comparison: Comparison) -> None:
    class Picky(Solver):
        name = "picky"

        def solve(self, problem: Problem) -> Solution:
            raise UserError(f"seed={problem.seed} is not to my taste")

    (row,) = compare(comparison, {"picky": Picky})
    assert is_user_error(row)
    assert row.message == "seed=5 is not to my taste"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpus": 0}, "gpus=0"),
        ({"time_limit_s": 0.0}, "time_limit_s=0.0"),
        ({"threads": 0}, "threads=0"),
        ({"objective": MinLatency()}, "add gpus=N"),
    ],
)
def test_what_cannot_be_compared_is_refused(comparison: Comparison, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(comparison, **change)  # type: ignore[arg-type]  # the fields vary


def test_a_run_that_compiling_cut_short_is_warmed_up_again(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a solver stands in here: the first run takes longer than the limit, the second does not."""
    taken = iter([7.0, 0.0, 0.0])
    now = [0.0]
    calls: list[int] = []

    class Slow(Solver):
        name = "slow"

        def solve(self, problem: Problem) -> Solution:
            calls.append(problem.workload.n_adapters)
            now[0] += next(taken)
            return Solution("none_found")

    asked = AskedHere(replace(comparison, time_limit_s=5.0), Slow())
    with monkeypatch.context() as patched:
        patched.setattr("bench.comparison.asked.time.monotonic", lambda: now[0])
        asked.warm_up()
    assert calls == [2, 2]
