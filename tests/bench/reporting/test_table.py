"""Tables: what is compared with what, and how it is put."""

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from bench.comparison.rows import Row
from bench.reporting.table import (
    MOST_ROWS_PRINTED,
    comparison_report,
    overall_table,
    summary_table,
    sweep_report,
)
from bench.reporting.verdict import verdict, verdicts
from bench.statistics.instances import by_instance, cases, ranked
from bench.statistics.summary import by_track, statistics_of

ROW = Row(
    workload="w",
    seed=0,
    solver="a",
    objective="min_gpus",
    profile="p",
    status="feasible",
    feasible=True,
    gpus=3,
    starved_gpus=0,
    throughput=95.0,
    offered_throughput=100.0,
    objective_key=[0.0, 3.0, 0.0],
)


def row(solver: str, gpus: int | None, *, feasible: bool = True, seed: int = 0, **more: object) -> Row:
    if gpus is None:
        cleared = {"gpus": None, "objective_key": None, "throughput": None, "feasible": False, "status": "infeasible"}
        return replace(ROW, solver=solver, seed=seed, **(cleared | more))  # type: ignore[arg-type]
    key = [0.0 if feasible else 1.0, float(gpus), 0.0]
    return replace(ROW, solver=solver, seed=seed, gpus=gpus, feasible=feasible, objective_key=key, **more)  # type: ignore[arg-type]


def text(report: RenderableType) -> str:
    console = Console(file=StringIO(), width=160)
    console.print(report)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def cells(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Cells of the summary by solver."""
    table = summary_table(rows)
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return {solver: [column[i] for column in columns] for i, solver in enumerate(columns[1])}


def test_ranked_by_feasibility_then_by_the_objective() -> None:
    rows = [row("starving", 1, feasible=False), row("none", None), row("four", 4), row("two", 2)]
    assert [r.solver for r in ranked(rows)] == ["two", "four", "starving", "none"]


def test_only_what_had_the_same_problem_is_compared() -> None:
    rows = [
        row("a", 2),
        row("b", 3, workload_options="n_adapters=9"),
        row("c", 2, seed=1),
        row("d", 2, gpu_limit=4),
        row("e", 2, gpu_limit=2, fleet_searched=True),
    ]
    assert [[r.solver for r in group] for group in by_instance(rows).values()] == [["a", "e"], ["b"], ["c"], ["d"]]


def test_the_report_says_why_there_is_no_placement() -> None:
    report = text(comparison_report([row("a", 2), row("b", None, message="adapter 7 starves a GPU alone")]))
    assert "b: infeasible: adapter 7 starves a GPU alone" in report


def test_the_report_owns_up_to_a_searched_fleet() -> None:
    rows = [
        row("spread", 6, gpu_limit=6, fleet_searched=True),
        row("even", 7, gpu_limit=7, fleet_searched=True),
        row("dice", 8, gpu_limit=9, fleet_searched=True, feasible=False, starved_gpus=1),
    ]
    report = text(comparison_report(rows))
    assert "the smallest fleet found at which the twin calls it feasible: spread 6, even 7\n" in report
    assert "no fleet found that the twin calls feasible: dice up to 9" in report


def test_the_report_shows_a_share_and_a_verdict() -> None:
    report = text(comparison_report([row("a", 2), row("b", 2, feasible=False, starved_gpus=1)]))
    assert "95 / 100 (95.0%)" in report
    assert [line.split("│")[2].strip() for line in report.splitlines() if "95 / 100" in line] == ["yes", "no"]


def test_mean_rank_shares_ties() -> None:
    rows = [row("a", 2), row("b", 2), row("c", 3), row("a", 4, seed=1), row("b", 2, seed=1), row("c", 3, seed=1)]
    assert {solver: values[2] for solver, values in cells(rows).items()} == {"b": "1.25", "a": "2.25", "c": "2.50"}


def test_the_summary_counts_and_averages_over_the_seeds() -> None:
    rows = [row("a", 2), row("a", 3, seed=1, feasible=False, failing_adapters=2), row("a", None, seed=2)]
    _, _, _, feasible, gpus, bound, starved, *_ = cells(rows)["a"]
    assert (feasible, gpus, bound, starved) == ("1/3", "2.50 (2-3)", "–", "2")  # noqa: RUF001  # the dash of the table


def test_variants_of_a_solver_are_told_apart() -> None:
    rows = [row("a", 2, solver_options="workers=1"), row("a", 3, solver_options="workers=2")]
    assert set(cells(rows)) == {"a workers=1", "a workers=2"}


@pytest.mark.parametrize(("count", "tables"), [(3, 4), (MOST_ROWS_PRINTED + 1, 1)])
def test_a_big_sweep_prints_its_summary_only(count: int, tables: int) -> None:
    report = text(sweep_report([row("a", 2, seed=seed) for seed in range(count)]))
    assert report.count("┏") == tables


def test_over_all_instances_the_intervals_and_the_score_are_shown() -> None:
    rows = [row("a", 2, seed=seed) for seed in range(3)] + [row("b", gpus, seed=gpus) for gpus in range(3)]
    rows = [r for r in rows if r.gpus]
    (statistics,) = (statistics_of(group) for group in by_track(cases(rows)).values())
    columns = [[str(cell) for cell in column.cells] for column in overall_table(statistics).columns]
    lines = {solver: [column[i] for column in columns] for i, solver in enumerate(columns[0])}
    assert lines["a"][2] == "3/3"
    # One GPU against two on seed 1, two against two on seed 2.
    assert lines["a"][3].startswith("1.260 [")
    assert lines["a"][5] == "0 / 1 / 1"
    assert lines["b"][5] == "1 / 1 / 0"


def test_a_sweep_over_instances_ends_with_the_statistics() -> None:
    rows = [row(solver, 2, seed=seed) for solver in "ab" for seed in (0, 1)]
    assert "all 2 instances, objective min_gpus" in text(sweep_report(rows))
    assert "all 2 instances" not in text(sweep_report(rows[:2]))


def test_limits_of_an_objective_have_a_column_where_somebody_misses_them() -> None:
    kept, missed = row("a", 2), row("b", 4, missed="TTFT p99 <= 1 s")
    report = text(comparison_report([kept, missed, row("c", None)]))
    assert [line.split("│")[3].strip() for line in report.splitlines() if "95 / 100" in line] == ["yes", "no"]
    assert "b: misses TTFT p99 <= 1 s" in report
    assert "limits" not in text(comparison_report([kept]))
    assert "but it misses TTFT p99 <= 1 s" in verdict([missed])


def test_the_verdict_over_instances_says_who_is_best_how_often_and_how_long_requests_wait() -> None:
    rows = [row("a", 2, seed=seed, ttft_p95_ms=1500.0 + 1000 * seed, lower_bound=2 - seed) for seed in (0, 1, 2)]
    rows += [row("b", 3, seed=seed, ttft_p95_ms=90.0) for seed in (0, 1)]
    assert verdicts(rows) == [
        (
            "Of 2 solvers, a has the fewest GPUs on 3 of 3 instances (on 1 the fewest are proven); on the worst GPU of a one request in "
            "twenty waits 2.5 s or more for its first token, in the median."
        )
    ]
    hopeless = [row("a", 2, seed=seed, feasible=False) for seed in (0, 1)]
    assert verdicts(hopeless) == ["No solver has a feasible placement on any of 2 instances."]
    # Each service level by itself.
    both = rows + [replace(one, service="interactive") for one in rows]
    assert [one.partition(":")[0] for one in verdicts(both)] == ["min_gpus, published", "min_gpus, interactive"]


def test_the_verdict_says_who_wins_whether_it_is_proven_and_how_long_requests_wait() -> None:
    proven = [
        row("exact", 3, lower_bound=3, ttft_p95_ms=2500.0),
        row("ffd", 3, ttft_p95_ms=9000.0),
        row("random", 9),
    ]
    assert verdict(proven) == (
        "3 GPUs are the fewest (one GPU per adapter), as exact has proven; exact and ffd found them; on the worst GPU of exact one "
        "request in twenty "
        "waits 2.5 s or more for its first token."
    )
    open_ones = [row("exact", 3, lower_bound=2)]
    assert (
        verdict(open_ones)
        == "3 GPUs are the fewest found, by exact, and at least 2 are needed (one GPU per adapter), as exact has proven."
    )
    assert verdict([row("exact", 3, feasible=False)]) == ("No solver has a feasible placement.")


def test_adapters_that_fail_goodput_and_waits_stand_beside_the_gpus() -> None:
    shown = cells([row("a", 2, failing_adapters=3, goodput=0.5, ttft_p95_ms=31000.0), row("b", 2, starved_adapters=4)])
    assert "3" in shown["a"]
    assert "50.0%" in shown["a"]
    assert "31000" in shown["a"]
    assert "4" in shown["b"], "rows of releases without service levels"


def test_a_bound_that_a_feasible_placement_refutes_proves_nothing() -> None:
    rows = [row("exact", 3, lower_bound=2), row("boastful", 9, lower_bound=9)]
    assert (
        verdict(rows)
        == "3 GPUs are the fewest found, by exact, and at least 2 are needed (one GPU per adapter), as exact has proven."
    )
    assert "boastful: its lower bound of 9 is refuted, 3 will do" in text(comparison_report(rows))


def test_a_bound_for_a_predictor_is_said_to_be_one() -> None:
    rows = [
        row("exact", 3, lower_bound=2, details='{"oracle": "twin"}'),
        row("cp_sat", 4, lower_bound=3, details='{"oracle": "predictor"}'),
    ]
    said = text(comparison_report(rows))
    assert "cp_sat: its lower bound is for its oracle (predictor) and proves nothing for the twin" in said
    assert "exact: its lower bound is for" not in said
    assert (
        verdict(rows)
        == "3 GPUs are the fewest found, by exact, and at least 2 are needed (one GPU per adapter), as exact has proven."
    )
