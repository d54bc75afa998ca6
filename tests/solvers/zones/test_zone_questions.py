"""What zone bounds ask of the learned models: no content that they accept is ever ruled out, whatever it looks like."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from predictors.features import ACTIVE, N_CLASSES, RATE
from solvers.base import Problem
from solvers.contents.adapter_types import adapter_types
from solvers.exact import Exact
from solvers.limits import Deadline
from solvers.oracles.predictor import PredictorOracle
from solvers.zones.bound import ZoneBound
from solvers.zones.clusters import cluster_types
from solvers.zones.cover import CoverProgramme
from solvers.zones.pricing import FractionalContent
from solvers.zones.questions import LearnedQuestions
from tests.examples import examples
from twin import Workload, workload_from_groups

KINDS = pytest.mark.parametrize("distilled", [False, True], ids=["predictor", "distilled"])


def skewed(n_adapters: int, total_rate: float, seed: int = 0) -> Workload:
    generator = np.random.default_rng(seed)
    rates = generator.lognormal(0, 1.5, n_adapters)
    return Workload(generator.choice([8, 16, 32], n_adapters), rates / rates.sum() * total_rate, duration_s=600.0)


def oracle_of(problem: Problem, workload: Workload, *, distilled: bool) -> PredictorOracle:
    assert problem.predictor is not None
    return PredictorOracle(workload, problem.profile, problem.predictor, distilled=distilled)


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1), min_size=5, max_size=5))
@examples(40)
def test_what_is_taken_for_the_least_sums_is_never_more_than_a_content_has(
    problem: Problem, seed: int, shares: list[float]
) -> None:
    """A content reaches a point that asks for a share of each of its sums; all its other sums then reach what follows."""
    workload = skewed(60, 60.0)
    questions = LearnedQuestions(oracle_of(problem, workload, distilled=True))
    generator = np.random.default_rng(seed)
    content = generator.choice(60, generator.integers(1, 60), replace=False)
    reached = questions.sums[content].sum(axis=0)
    rank = int(generator.choice(np.unique(workload.ranks[content])))
    least = questions.least(rank, reached * np.array(shares)[: len(reached)])
    has = questions.oracle.contributions[content].sum(axis=0)
    assert (least[RATE:] <= has[RATE:] * (1 + 1e-9)).all()
    assert least[:N_CLASSES].sum() <= has[:N_CLASSES].sum() * (1 + 1e-9)
    assert np.flatnonzero(least[:N_CLASSES]).max() <= np.flatnonzero(has[:N_CLASSES]).max()
    assert (np.diff(least[ACTIVE:]) >= 0).all()


def fullest(oracle: PredictorOracle, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """As many adapters of an order as the oracle accepts."""
    low, high = 0, len(order) + 1
    while low + 1 < high:
        middle = (low + high) // 2
        accepted = oracle.find_max_loras(tuple(sorted(order[:middle].tolist()))) is not None
        low, high = (middle, high) if accepted else (low, middle)
    return order[:low]


@KINDS
def test_no_content_that_a_learned_model_accepts_is_cut_off(problem: Problem, distilled: bool) -> None:
    """Contents at the edge of what is accepted: of adapters at random, of busy ones, of idle ones, of each rank first."""
    workload = skewed(240, 150.0)
    oracle = oracle_of(problem, workload, distilled=distilled)
    bound = ZoneBound(oracle)
    bound.run(Deadline.after(60), rounds=10)
    assert len(bound.cuts) > 30
    assert bound.value > 2
    generator = np.random.default_rng(1)
    keys = [np.zeros(240), workload.rates, -workload.rates, workload.ranks, -workload.ranks]
    for trial in range(100):
        weight = keys[trial % 5] / np.abs(keys[trial % 5]).max(initial=1e-12)
        content = fullest(oracle, np.argsort(weight + generator.uniform(0, 0.5 + trial / 100, 240)))
        sums, rank = bound.sums[content].sum(axis=0), workload.ranks[content].max()
        assert not any(least <= rank and (sums >= point).all() for least, point in bound.cuts)
        assert bound.prices[content].sum() <= 1 + 1e-6


@KINDS
@given(seed=st.integers(0, 10**6))
# The second of its contents is accepted with a slot for each of its 25 adapters, and at no other `max_loras`.
@example(seed=108485)
@examples(40)
def test_what_starves_beyond_doubt_is_rejected_with_all_that_asks_for_more(
    problem: Problem, distilled: bool, seed: int
) -> None:
    """Two contents at the edge: where what both have starves, neither is accepted."""
    workload = skewed(80, 100.0)
    oracle = oracle_of(problem, workload, distilled=distilled)
    generator = np.random.default_rng(seed)
    one, other = (generator.permutation(80)[: generator.integers(5, 60)] for _ in range(2))
    common = np.minimum(oracle.contributions[one].sum(axis=0), oracle.contributions[other].sum(axis=0))
    rank = int(min(workload.ranks[one].max(), workload.ranks[other].max()))
    # All adapters that both have count as of the lower of the two largest ranks.
    counted = min(len(one), len(other))
    common[:N_CLASSES] = 0.0
    common[{8: 0, 16: 1, 32: 2}[rank]] = counted
    contents = [tuple(sorted(content.tolist())) for content in (one, other)]
    if oracle.starves_from(rank, common):
        assert all(oracle.find_max_loras(content) is None for content in contents)
    for content in contents:
        assert not oracle.starves(content) or oracle.find_max_loras(content) is None


def fewest_gpus(oracle: PredictorOracle) -> int:
    """By enumeration of all ways to take contents away, counted by type."""
    types = adapter_types(oracle.workload)

    @cache
    def accepted(counts: tuple[int, ...]) -> bool:
        return oracle.find_max_loras(types.contents(np.array(counts))) is not None

    @cache
    def least(left: tuple[int, ...]) -> float:
        if not any(left):
            return 0
        best = np.inf
        first = next(place for place, count in enumerate(left) if count)
        for taken in np.ndindex(*(count + 1 for count in left)):
            if taken[first] and accepted(taken):
                best = min(best, 1 + least(tuple(a - b for a, b in zip(left, taken, strict=True))))
        return best

    return int(least(tuple(types.counts.tolist())))


@KINDS
@given(
    counts=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    kinds=st.sampled_from(list(combinations_with_replacement([(8, 6.0), (32, 9.0), (16, 14.0), (8, 21.0)], 3))),
    scale=st.floats(0.6, 1.4),
)
@examples(20)
def test_a_proof_for_a_learned_model_agrees_with_enumeration(
    problem: Problem, distilled: bool, counts: list[int], kinds: list[tuple[int, float]], scale: float
) -> None:
    workload = workload_from_groups(
        [(count, rank, rate * scale) for count, (rank, rate) in zip(counts, kinds, strict=True)], duration_s=600.0
    )
    small = replace(problem, workload=workload, max_gpus=None, time_limit_s=1.0)
    solution = Exact(oracle="distilled" if distilled else "predictor").run(small)
    fewest = fewest_gpus(oracle_of(problem, workload, distilled=distilled))
    assert solution.placement is not None
    assert solution.lower_bound is not None
    assert solution.lower_bound <= fewest <= solution.placement.n_gpus
    if solution.status == "optimal":
        assert solution.lower_bound == fewest


def test_search_zones_prove_the_optimum_for_adapters_that_all_differ(problem: Problem) -> None:
    different = replace(problem, workload=skewed(100, 100.0), max_gpus=None, time_limit_s=60.0)
    solution = Exact(oracle="distilled").run(different)
    assert solution.status == "optimal"
    assert solution.details["zone_cuts"] > 0
    assert solution.details["monotonicity_violations"] == 0


def test_the_adapters_of_a_type_are_a_cluster_of_their_own(problem: Problem) -> None:
    oracle = oracle_of(problem, problem.workload, distilled=True)
    clusters = cluster_types(adapter_types(problem.workload), oracle.contributions)
    assert sorted(clusters.counts.tolist()) == [6, 12, 24]
    for cluster, members in enumerate(clusters.members):
        assert np.allclose(oracle.contributions[members], clusters.sums[cluster])
        assert (problem.workload.ranks[members] == clusters.ranks[cluster]).all()
        assert (clusters.of[members] == cluster).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_cover_is_the_cheapest_with_the_columns_that_are_kept(seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 9, 6).astype(float)
    columns = [FractionalContent(8, generator.integers(0, 4, 6).astype(float), 0.0) for _ in range(30)]
    programme = CoverProgramme(counts)
    programme.extend(columns[:20])
    programme.solve()
    programme.extend(columns[20:])
    for kept in (columns, columns[::3]):
        programme.keep(kept)
        value, prices, uses = programme.solve()
        matrix = np.vstack([np.eye(6), *(column.amounts for column in kept)])
        answer = linprog(np.ones(len(matrix)), A_ub=-matrix.T, b_ub=-counts)
        assert value == pytest.approx(answer.fun)
        assert prices @ counts == pytest.approx(answer.fun)
        assert (matrix @ prices <= 1 + 1e-7).all()
        assert len(uses) == len(kept)
        # The second solver, for covers that upset the first.
        other, _, _ = programme._solve_otherwise()
        assert other == pytest.approx(value)
