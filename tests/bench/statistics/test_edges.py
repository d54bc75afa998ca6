"""Statistics at their edges: who counts, which bound is whose, where a test changes its method, who won from either side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.comparison.rows import Row
from bench.statistics.bootstrap import Estimate, estimate, geometric, resampled
from bench.statistics.instances import by_instance, cases, instance, ranked
from bench.statistics.paired import GPUS, Measure, measure_of, paired
from bench.statistics.pairwise import Pair, differences, holm, pairs, signed_rank
from bench.statistics.profiles import performance_profile
from bench.statistics.summary import counted_time_s, gap, statistics_of

INF, NAN = float("inf"), float("nan")
ROW = Row(
    workload="w", seed=0, solver="a", objective="min_gpus", profile="p", status="feasible", feasible=True, gpus=4,
    objective_key=[0.0, 4.0, 0.0], time_limit_s=10.0, solve_time_s=1.0,
)  # fmt: skip


def row(solver: str, gpus: int | None, **more: Any) -> Row:  # noqa: ANN401  # fields of Row
    if gpus is None:
        none = {"status": "infeasible", "feasible": False, "gpus": None, "objective_key": None}
        return replace(ROW, solver=solver, **{**none, **more})
    return replace(ROW, solver=solver, **{"gpus": gpus, "objective_key": [0.0, float(gpus), 0.0], **more})


# --- instances


@pytest.mark.parametrize(
    ("change", "apart"),
    [
        ({"workload": "v"}, True),
        ({"workload_options": "n=3"}, True),
        ({"profile": "q"}, True),
        ({"objective": "min_latency"}, True),
        ({"time_limit_s": 20.0}, True),
        ({"gpu_limit": 3}, True),
        ({"gpu_limit": 3, "fleet_searched": True}, False),
        ({"seed": 1}, True),
        ({"solver_options": "x=1"}, False),
        ({"solve_time_s": 2.0}, False),
    ],
)
def test_what_is_asked_differently_is_another_instance(change: dict[str, Any], *, apart: bool) -> None:
    """A fleet that the harness searched for is an answer, not a part of the question."""
    assert (instance(replace(ROW, **change)) != instance(ROW)) == apart
    assert len(by_instance([ROW, replace(ROW, **change)])) == 1 + apart


def test_a_tie_keeps_the_order_of_the_rows() -> None:
    rows = [row("b", 3), row("c", 2), row("a", 3), row("d", None)]
    assert [r.solver for r in ranked(rows)] == ["c", "b", "a", "d"]


def test_the_bound_is_the_largest_and_the_best_known_the_least() -> None:
    twin = '{"oracle": "twin"}'
    (case,) = cases(
        [
            row("a", 5, lower_bound=2, details=twin),
            row("b", 4, lower_bound=3, details=twin),
            row("c", 6, lower_bound=9, details='{"oracle": "predictor"}'),
        ]
    )
    assert (case.best_known, case.proven_bound, case.lower_bound, case.bound_oracle) == (4, 3, 3, "twin")
    assert not case.bound_refuted
    (known,) = cases([row("a", 5, lower_bound=2, details=twin, best_bound=4)])
    assert (known.proven_bound, known.bound_oracle) == (4, "twin")
    (other,) = cases([row("a", 5, lower_bound=2, details='{"oracle": "predictor"}'), row("b", 5, lower_bound=3)])
    assert (other.proven_bound, other.bound_oracle) == (3, "")
    (none,) = cases([row("a", 5)])
    assert (none.proven_bound, none.lower_bound, none.bound_oracle, none.bound_refuted) == (None, None, "", False)


@pytest.mark.parametrize(("bound", "refuted", "used"), [(4, False, 4), (5, True, 4), (3, False, 3)])
def test_a_bound_at_the_best_placement_is_not_refuted(bound: int, used: int, *, refuted: bool) -> None:
    (case,) = cases([row("a", 4, lower_bound=bound), row("b", None)])
    assert case.bound_refuted == refuted
    assert case.lower_bound == used
    (unplaced,) = cases([row("b", None, lower_bound=bound)])
    assert unplaced.lower_bound == bound


def test_seeds_are_one_cluster_and_time_limits_are_not() -> None:
    first, second, third = cases([row("a", 4), row("a", 4, seed=1), row("a", 4, time_limit_s=20.0)])
    assert first.cluster == second.cluster != third.cluster


# --- the paired table


def test_a_ratio_is_to_the_least_cost_of_the_instance() -> None:
    """Two over two, three over two; nobody feasible is infinite for all; no row is not a number."""
    table = paired(cases([row("a", 2), row("b", 3), row("a", None, seed=1), row("b", None, seed=1)]), GPUS)
    assert table.best.tolist() == [2, INF]
    assert table.ratio.tolist() == [[1, 1.5], [INF, INF]]
    assert table.feasible.tolist() == [[True, True], [False, False]]
    assert table.rank.tolist() == [[1, 2], [1.5, 1.5]]
    assert table.solvers == ("a", "b")
    free = paired(cases([row("a", 0), row("b", 0)]), GPUS)
    assert free.ratio.tolist() == [[1, 1]]


def test_solvers_stand_in_the_order_of_their_mean_ranks() -> None:
    """Ranks 2 and 3 of b, 1 and 2 of a, and 1 of c, which has one row only."""
    rows = [row("b", 3), row("a", 2), row("b", 4, seed=1), row("a", 3, seed=1), row("c", 1, seed=1)]
    assert paired(cases(rows), GPUS).solvers == ("c", "a", "b")


def test_an_infeasible_placement_costs_more_than_any() -> None:
    table = paired(cases([row("a", 9), row("b", 1, feasible=False, objective_key=[1.0, 1.0, 0.0])]), GPUS)
    assert dict(zip(table.solvers, table.cost[0].tolist(), strict=True)) == {"a": 9, "b": INF}


def test_latency_is_measured_by_the_objective_s_second_key() -> None:
    def measured(objective: str) -> Measure:
        return measure_of(cases([replace(ROW, objective=objective)]))

    assert measured("min_latency").of(replace(ROW, objective_key=[0.0, 250.0, 4.0])) == 250.0
    assert measured("min_latency").of(replace(ROW, objective_key=None)) is None
    assert measured("min_gpus") is GPUS
    assert GPUS.whole
    assert not measured("min_latency").whole


# --- bootstrap


def test_an_interval_is_the_middle_ninety_five_of_a_hundred() -> None:
    """Of a thousand samples that hold one of 0, 1, ..., 999 each: from 24.975 to 974.025."""
    values = np.arange(1000.0)
    found = estimate(values, np.eye(1000))
    assert (found.value, found.n) == (499.5, 1000)
    assert found.low == pytest.approx(24.975)
    assert found.high == pytest.approx(974.025)


def test_a_sample_weighs_each_instance_as_often_as_it_holds_it() -> None:
    """Twice 1 and once 4 is 2; a sample of what is not known alone is left out."""
    found = estimate(np.array([1.0, 4.0, NAN]), np.array([[2.0, 1.0, 0.0], [2.0, 1.0, 3.0], [0.0, 0.0, 3.0]]))
    assert found == Estimate(2.5, 2.0, 2.0, 2)


def test_a_geometric_interval_is_of_the_logarithms() -> None:
    found = geometric(np.array([1.0, 16.0]), np.array([[1.0, 1.0]] * 5))
    assert (found.value, found.low, found.high) == pytest.approx((4.0, 4.0, 4.0))


def test_workloads_are_drawn_before_their_seeds() -> None:
    """A workload of three seeds comes whole number of times three, however often it comes."""
    counts = resampled(["a", "a", "a", "b"], 400, 0)
    of_a, of_b = counts[:, :3].sum(axis=1), counts[:, 3]
    assert set((of_a / 3 + of_b).tolist()) == {2.0}
    assert set(of_b.tolist()) == {0.0, 1.0, 2.0}
    assert counts[:, 0].std() > 0.5


# --- pairs


@pytest.mark.parametrize("number", [11, 12, 13, 14])
def test_up_to_twelve_differences_are_enumerated(number: int) -> None:
    """Beyond that a normal approximation will do, with ties between solvers ranked by Pratt."""
    difference = np.append(np.arange(1.0, number + 1) * np.where(np.arange(number) % 3, 1, -1), 0.0)
    approximated = float(stats.wilcoxon(difference, zero_method="pratt", method="asymptotic").pvalue)
    assert (signed_rank(difference) == pytest.approx(approximated, rel=1e-9)) == (number > 12)
    assert signed_rank(difference) == pytest.approx(signed_rank(-difference))


def test_the_least_p_value_of_a_few_differences() -> None:
    """Five on one side: two of thirty-two outcomes are as extreme."""
    assert signed_rank(np.arange(1.0, 6.0)) == 2 / 32
    assert signed_rank(np.array([1.0])) == 1.0


def test_costs_that_are_equal_but_for_rounding_tie() -> None:
    found = differences(np.array([0.1 + 0.2, 3.0, INF, NAN, INF]), np.array([0.3, 3.0, INF, 1.0, 2.0]))
    assert found.tolist()[:3] == [0.0, 0.0, 0.0]
    assert found[3] > 0
    assert differences(np.array([8.0, INF]), np.array([1.0, 1.0])).tolist() == pytest.approx([np.log(8), np.log(8) + 1])


def test_holm_multiplies_by_how_many_are_left() -> None:
    assert holm([0.02, 0.02, 0.02]) == pytest.approx([0.06, 0.06, 0.06])
    assert holm([0.5, 0.01]) == pytest.approx([0.5, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(("p_holm", "significant"), [(0.0499, True), (0.05, False), (0.2, False)])
def test_what_is_significant_is_below_the_level_for_all_pairs_together(p_holm: float, *, significant: bool) -> None:
    assert Pair("a", "b", 1, 0, 0, 0.001, p_holm, Estimate(None, None, None, 0)).significant == significant


def test_a_pair_is_compared_where_both_have_rows() -> None:
    """First over second: two GPUs against four is a half, and a win."""
    table = paired(cases([row("a", 2), row("b", 4), row("a", 5, seed=1)]), GPUS)
    (pair,) = pairs(table, np.ones((3, 2)))
    assert (pair.first, pair.second, pair.wins, pair.ties, pair.losses) == ("a", "b", 1, 0, 0)
    assert (pair.ratio.value, pair.ratio.n) == (0.5, 1)


def test_every_pair_is_corrected_for_all_of_them() -> None:
    rows = [row(f"s{place}", gpus + place, seed=gpus) for place in range(3) for gpus in range(2, 9)]
    found = pairs(paired(cases(rows), GPUS), np.ones((2, 7)))
    assert [(p.first, p.second) for p in found] == [("s0", "s1"), ("s0", "s2"), ("s1", "s2")]
    assert [p.p_holm for p in found] == holm([p.p_value for p in found])
    assert found[0].p_value == 2 / 2**7
    assert found[0].p_holm == 6 / 2**7


# --- the summary


@pytest.mark.parametrize(
    ("change", "time_s"),
    [
        ({}, 1.0),
        ({"gpus": None}, 10.0),
        ({"gpus": None, "solve_time_s": 12.0}, 12.0),
        ({"gpus": None, "solve_time_s": None}, 10.0),
        ({"gpus": None, "time_limit_s": None}, 1.0),
        ({"solve_time_s": None}, None),
    ],
)
def test_without_a_placement_all_the_time_counts(change: dict[str, Any], time_s: float | None) -> None:
    assert counted_time_s(replace(ROW, **change)) == time_s


def test_a_gap_is_of_feasible_placements_with_a_bound() -> None:
    (case,) = cases([row("a", 4, lower_bound=3), row("b", 6)])
    assert gap(case.by_solver["a"], case) == pytest.approx(1 / 3)
    assert gap(case.by_solver["b"], case) == 1.0
    assert np.isnan(gap(row("c", 4, feasible=False), case))
    assert np.isnan(gap(row("c", None), case))
    (unbounded,) = cases([row("a", 4)])
    assert np.isnan(gap(unbounded.by_solver["a"], unbounded))


def test_each_solver_s_wins_are_the_other_s_losses() -> None:
    """a: 2, 3, 3; b: 3, 3, 2; c: 4, none, 1 - from either side of each pair."""
    rows = [
        row("a", 2), row("b", 3), row("c", 4, oracle_calls=10),
        row("a", 3, seed=1), row("b", 3, seed=1), row("c", None, seed=1, oracle_calls=20),
        row("a", 3, seed=2), row("b", 2, seed=2, status="optimal"), row("c", 1, seed=2),
    ]  # fmt: skip
    found = {line.solver: line for line in statistics_of(cases(rows), samples=10).summaries}
    assert {name: (line.wins, line.ties, line.losses) for name, line in found.items()} == {
        "a": (3, 1, 2),
        "b": (3, 1, 2),
        "c": (2, 0, 4),
    }
    assert [found[name].best for name in "abc"] == [2, 1, 1]
    assert [found[name].feasible for name in "abc"] == [3, 3, 2]
    assert [found[name].proven for name in "abc"] == [0, 1, 0]
    assert found["c"].oracle_calls == 15
    assert found["a"].oracle_calls is None
    assert found["a"].ratio.value == pytest.approx(3 ** (1 / 3))
    assert found["c"].ratio.n == 2
    assert found["a"].mean_rank == pytest.approx((1 + 1.5 + 3) / 3)


def test_an_error_is_counted_and_is_no_placement() -> None:
    rows = [row("a", 2), row("b", None, status="error"), row("b", None, seed=1, status="crash"), row("a", 2, seed=1)]
    found = {line.solver: line for line in statistics_of(cases(rows), samples=10).summaries}
    assert (found["b"].errors, found["b"].placed, found["a"].errors) == (2, 0, 0)


def test_a_profile_starts_at_the_best_and_ends_with_the_feasible() -> None:
    """Shares within a factor of the best: edges included."""
    table = paired(cases([row("a", 2), row("b", 3), row("a", 4, seed=1), row("b", 2, seed=1)]), GPUS)
    profile = performance_profile(table)
    assert profile.factors.tolist() == [1, 1.5, 2]
    shares = dict(zip(profile.solvers, profile.share.tolist(), strict=True))
    assert shares == {"a": [0.5, 0.5, 1.0], "b": [0.5, 1.0, 1.0]}


def test_what_is_known_of_nothing_is_nothing() -> None:
    assert estimate(np.array([NAN]), np.ones((2, 1))) == Estimate(None, None, None, 0)


def test_a_users_objective_is_measured_by_the_first_place_that_tells_candidates_apart() -> None:
    """Keys (1, 2, 3) and (1, 4, 0): the second place. Where none does, the first; an infeasible candidate tells nothing."""

    def placed(solver: str, key: list[float], **more: Any) -> Row:  # noqa: ANN401  # fields of Row
        return replace(ROW, solver=solver, objective="theirs", objective_key=key, **more)

    two = [placed("a", [1.0, 2.0, 3.0]), placed("b", [1.0, 4.0, 0.0]), placed("c", [9.0, 9.0, 9.0], feasible=False)]
    assert [measure_of(cases(two)).of(each) for each in two[:2]] == [2.0, 4.0]
    alike = [placed("a", [5.0, 2.0, 3.0]), placed("b", [5.0, 2.0, 3.0])]
    assert [measure_of(cases(alike)).of(each) for each in alike] == [5.0, 5.0]
    at_zero = [placed("a", [0.0, 0.0]), placed("b", [0.0, 3.0])]
    assert [measure_of(cases(at_zero)).of(each) for each in at_zero] == [1.0, 4.0]
    assert measure_of(cases(at_zero)).of(placed("c", [0.0])) is None
