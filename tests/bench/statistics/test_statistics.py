"""Statistics: paired, feasibility first, and right where the answer is known."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.comparison.rows import Row
from bench.statistics.bootstrap import estimate, geometric, resampled
from bench.statistics.instances import cases, mean_ranks
from bench.statistics.paired import GPUS, measure_of, paired
from bench.statistics.pairwise import differences, holm, pairs, signed_rank
from bench.statistics.profiles import performance_profile
from bench.statistics.summary import by_track, shifted_geometric_mean, statistics_of
from tests.examples import examples

INF, NAN = float("inf"), float("nan")

ROW = Row(workload="w", seed=0, solver="a", objective="min_gpus", profile="p", status="feasible", time_limit_s=10.0)


def row(solver: str, gpus: int | None, *, seed: int = 0, feasible: bool = True, **more: Any) -> Row:  # noqa: ANN401  # fields of Row
    if gpus is None:
        return replace(ROW, solver=solver, seed=seed, status="infeasible", **more)
    key = [0.0 if feasible else 1.0, float(gpus), 0.0]
    answer: dict[str, Any] = {"gpus": gpus, "feasible": feasible, "objective_key": key, "solve_time_s": 1.0}
    return replace(ROW, solver=solver, seed=seed, **(answer | more))


def table(costs: dict[str, list[int | None]]) -> list[Row]:
    """Rows of solvers on seeds 0, 1, ...; None is infeasible."""
    return [row(solver, gpus, seed=seed) for solver, line in costs.items() for seed, gpus in enumerate(line)]


# --- instances


def test_of_several_rows_of_a_solver_the_last_counts() -> None:
    (case,) = cases([row("a", 5), row("b", 4), row("a", 3)])
    assert {r.solver: r.gpus for r in case.rows} == {"a": 3, "b": 4}


def test_the_best_known_is_of_feasible_placements_only() -> None:
    (case,) = cases([row("a", 5), row("b", 1, feasible=False), row("c", None)])
    assert case.best_known == 5


def test_a_bound_for_the_twin_goes_before_one_for_a_predictor() -> None:
    twin, predictor = '{"oracle": "twin"}', '{"oracle": "predictor"}'
    (case,) = cases([row("a", 5, lower_bound=3, details=twin), row("b", 5, lower_bound=4, details=predictor)])
    assert (case.lower_bound, case.bound_oracle) == (3, "twin")


def test_a_bound_that_a_feasible_placement_refutes_is_not_used() -> None:
    (case,) = cases([row("a", 5, lower_bound=5), row("b", 4)])
    assert case.bound_refuted
    assert case.lower_bound == 4


def test_ties_share_the_mean_of_their_ranks() -> None:
    assert mean_ranks([row("a", 2), row("b", 2), row("c", 3), row("d", None)]) == {"a": 1.5, "b": 1.5, "c": 3, "d": 4}


# --- the paired table and its profile


def test_no_placement_and_no_row_are_not_the_same() -> None:
    rows = [*table({"a": [2, 3], "b": [None, 3]}), row("c", 2, seed=0)]
    paired_ = paired(cases(rows), GPUS)
    column = dict(zip(paired_.solvers, paired_.cost.T.tolist(), strict=True))
    assert column["a"] == [2, 3]
    assert column["b"] == [INF, 3]
    assert column["c"][0] == 2
    assert np.isnan(column["c"][1])


def test_a_performance_profile_by_hand() -> None:
    profile = performance_profile(paired(cases(table({"a": [2, 4, 3, 1], "b": [4, 2, 3, None]})), GPUS))
    assert profile.factors.tolist() == [1, 2]
    shares = dict(zip(profile.solvers, profile.share.tolist(), strict=True))
    assert shares == {"a": [0.75, 1.0], "b": [0.5, 0.75]}


def test_an_instance_that_nobody_solves_is_left_out_of_the_profile() -> None:
    profile = performance_profile(paired(cases(table({"a": [2, None], "b": [2, None]})), GPUS))
    assert profile.n == 1
    assert profile.share[:, -1].tolist() == [1, 1]


COSTS = st.lists(st.lists(st.one_of(st.none(), st.integers(1, 9)), min_size=3, max_size=3), min_size=1, max_size=6)


@given(COSTS)
def test_profiles_rise_and_someone_is_always_best(lines: list[list[int | None]]) -> None:
    rows = [row(f"s{place}", gpus, seed=seed) for seed, line in enumerate(lines) for place, gpus in enumerate(line)]
    profile = performance_profile(paired(cases(rows), GPUS))
    assert (np.diff(profile.share, axis=1) >= 0).all()
    if profile.n:
        assert profile.share[:, 0].sum() > 1 - 1e-9
        feasible = [sum(line[place] is not None for line in lines) / profile.n for place in range(3)]
        ends = dict(zip(profile.solvers, profile.share[:, -1].tolist(), strict=True))
        assert [ends[f"s{place}"] for place in range(3)] == pytest.approx(feasible)


# --- bootstrap


def test_the_interval_holds_the_mean_and_is_the_same_again() -> None:
    values = np.array([1.0, 2.0, 3.0, 7.0])
    counts = resampled("abcd", 500, 3)
    found = estimate(values, counts)
    assert found.value == 3.25
    assert found.low is not None
    assert found.high is not None
    assert 1 <= found.low < 3.25 < found.high <= 7
    assert found == estimate(values, resampled("abcd", 500, 3))
    assert found != estimate(values, resampled("abcd", 500, 4))


def test_the_bootstrap_of_independent_instances_has_the_known_spread() -> None:
    values = np.arange(40.0)
    means = resampled(list(range(40)), 20_000, 0) @ values / 40
    assert means.std() == pytest.approx(values.std() / np.sqrt(40), rel=0.03)


def test_seeds_of_one_workload_count_as_one() -> None:
    """Ten equal seeds tell no more of other workloads than one: the interval stays as wide."""
    values = np.repeat([0.0, 1.0], 10)
    together = estimate(values, resampled(["a"] * 10 + ["b"] * 10, 2000, 0))
    apart = estimate(values, resampled(list(range(20)), 2000, 0))
    assert (together.low, together.high) == (0, 1)
    assert apart.low is not None
    assert apart.low > 0.2


def test_each_sample_holds_as_many_instances_as_there_are_in_clusters_of_one_size() -> None:
    assert (resampled(["a", "a", "b", "b"], 50, 1).sum(axis=1) == 4).all()


def test_what_is_not_feasible_has_no_part_in_a_mean() -> None:
    found = geometric(np.array([1.0, 4.0, INF, NAN]), resampled("abcd", 100, 0))
    assert found.value == pytest.approx(2.0)
    assert found.n == 2


def test_no_interval_of_a_single_instance_and_no_mean_of_none() -> None:
    counts = resampled("ab", 10, 0)
    assert estimate(np.array([3.0, NAN]), counts).low is None
    assert estimate(np.array([NAN, NAN]), counts).value is None


# --- pairs


def test_feasible_beats_infeasible_by_more_than_any_ratio() -> None:
    found = differences(np.array([8.0, 1.0, INF, 2.0, NAN]), np.array([1.0, INF, INF, 2.0, 1.0]))
    assert found[2] == found[3] == 0
    assert found[1] < -abs(found[0]) < 0 < found[0]
    assert len(found) == 4


def test_wins_ties_and_losses_by_hand() -> None:
    paired_ = paired(cases(table({"a": [2, 4, 3, 1], "b": [4, 2, 3, None]})), GPUS)
    (pair,) = pairs(paired_, resampled("abcd", 10, 0))
    assert (pair.first, pair.wins, pair.ties, pair.losses) == ("a", 2, 1, 1)
    assert pair.ratio.value == pytest.approx((2 / 4 * 4 / 2 * 1) ** (1 / 3))


@examples(25)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=7).filter(any))
def test_the_exact_test_is_scipys_with_ties_and_zeros(values: list[int]) -> None:
    difference = np.array(values, dtype=float)
    method = stats.PermutationMethod(n_resamples=100_000)
    theirs = stats.wilcoxon(difference, zero_method="pratt", method=method)
    assert signed_rank(difference) == pytest.approx(float(theirs.pvalue))


def test_the_test_by_enumeration_ranks_ties_between_solvers() -> None:
    """Pratt: the two zeros take the two lowest ranks, so that three wins of five weigh 3 + 4 + 5."""
    difference = np.array([0.0, 0.0, -1.0, -2.0, -3.0])
    outcomes = [
        abs(sum(s * r for s, r in zip(signs, (3, 4, 5), strict=True))) for signs in itertools.product((1, -1), repeat=3)
    ]
    assert signed_rank(difference) == np.mean([outcome >= 12 for outcome in outcomes])


def test_many_differences_on_one_side_are_significant_and_balanced_ones_are_not() -> None:
    assert signed_rank(-np.ones(30)) < 1e-6
    assert signed_rank(np.array([1.0, -1.0] * 15)) > 0.9
    assert signed_rank(np.zeros(30)) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(values: list[float]) -> None:
    corrected = holm(values)
    assert all(after >= before for before, after in zip(values, corrected, strict=True))
    assert all(after <= 1 for after in corrected)
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


def test_random_solvers_rarely_differ_significantly() -> None:
    """The level holds over all pairs together: ten equal solvers, forty pairs of five, some thirty repetitions."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(30):
        costs = generator.integers(2, 6, size=(6, 25)).tolist()
        paired_ = paired(cases(table({f"s{n}": line for n, line in enumerate(costs)})), GPUS)
        wrong += any(pair.significant for pair in pairs(paired_, np.ones((2, 25))))
    assert wrong <= 4


# --- the summary


def test_the_shifted_geometric_mean_by_hand() -> None:
    assert shifted_geometric_mean([0.0, 3.0], shift=1.0) == pytest.approx(1.0)
    assert shifted_geometric_mean([]) is None


def test_a_summary_by_hand() -> None:
    rows = table({"a": [2, 4, None], "b": [2, 2, 2]})
    rows += [row("c", 2, seed=0, lower_bound=2, status="optimal")]
    found = {line.solver: line for line in statistics_of(cases(rows), samples=50).summaries}
    a, b, c = found["a"], found["b"], found["c"]
    assert (a.instances, a.feasible, a.placed, a.best) == (3, 2, 2, 1)
    assert a.ratio.value == pytest.approx(2**0.5)
    assert b.best == 3
    assert (c.instances, c.proven) == (1, 1)
    # Only seed 0 has a bound.
    assert (a.gap.value, a.gap.n) == (0, 1)
    # Without a placement the time limit counts: 1, 1 and 10 s.
    assert a.time_s == pytest.approx((2 * 2 * 11) ** (1 / 3) - 1)
    assert (a.wins, a.ties, a.losses) == (0, 2, 2)


def test_each_objective_is_ranked_by_itself() -> None:
    latency = replace(row("a", 4), objective="min_latency", objective_key=[0.0, 250.0])
    groups = by_track(cases([row("a", 2), latency]))
    assert list(groups) == ["min_gpus", "min_latency"]
    statistics = statistics_of(groups["min_latency"], samples=5)
    assert statistics.measure.name == "latency_ms"
    assert statistics.paired.cost.tolist() == [[250.0]]


# --- objectives of users


def of_users(solver: str, key: list[float], seed: int = 0, **more: Any) -> Row:  # noqa: ANN401  # fields of Row
    return replace(row(solver, 2, seed=seed), objective="theirs", objective_key=key, **more)


def test_the_winner_by_a_users_objective_wins_whatever_the_gpus() -> None:
    """Equal GPUs, equal starvation: the third place of the key decides, and ranks, wins and ratios say so."""
    rows = [
        line
        for seed in range(3)
        for line in (of_users("good", [0.0, 2.0, 10.0 + seed], seed), of_users("bad", [0.0, 2.0, 40.0 + seed], seed))
    ]
    statistics = statistics_of(cases(rows), samples=5)
    assert statistics.measure.label == "objective theirs"
    found = {line.solver: line for line in statistics.summaries}
    assert (found["good"].wins, found["good"].losses, found["good"].mean_rank, found["good"].best) == (3, 0, 1.0, 3)
    assert (found["bad"].wins, found["bad"].losses) == (0, 3)
    assert found["bad"].ratio.value == pytest.approx((40 / 10 * 41 / 11 * 42 / 12) ** (1 / 3))


def test_keys_that_are_not_above_zero_are_moved_so_that_they_have_ratios() -> None:
    rows = [of_users("good", [0.0, -5.0]), of_users("bad", [0.0, -2.0]), of_users("none", [1.0, -9.0], feasible=False)]
    measure = measure_of(cases(rows))
    assert [measure.of(line) for line in rows[:2]] == [1.0, 4.0]
    found = {line.solver: line for line in statistics_of(cases(rows), samples=5).summaries}
    assert found["good"].ratio.value == 1.0
    assert found["bad"].ratio.value == 4.0
    assert found["none"].feasible == 0


def test_equal_keys_tie() -> None:
    statistics = statistics_of(cases([of_users("a", [0.0, 7.0]), of_users("b", [0.0, 7.0])]), samples=5)
    assert [(line.wins, line.ties, line.losses) for line in statistics.summaries] == [(0, 1, 0), (0, 1, 0)]
