"""Pieces of the searches that mend placements: what leaves a GPU, what is divided how, which slots serve best."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from solvers.base import Problem
from solvers.limits import Deadline, NoneThereError
from solvers.mending.best_service import BestService
from solvers.mending.checked import QuickTwin, _OneByOne
from solvers.mending.hot import check_each_alone, check_each_starts, divided_if_hot, hot_parts, only, tokens_per_s
from solvers.mending.replicas import PART, _Search, finer
from solvers.objectives.min_gpus import MinGpus
from solvers.oracles.twin import TwinOracle
from twin import ServingProfile, Workload, workload_from_groups
from twin.builders import zipf

# --- what leaves a GPU


@pytest.mark.parametrize(
    ("weights", "leaving"),
    [
        # Four of a hundred: the heaviest that fit in, first come first.
        ([1.0] * 100, {0, 1, 2, 3}),
        ([90.0, 3.0, 2.0, 1.0, 4.0], {4}),
        ([91.0, 3.0, 3.0, 1.0, 2.0], {1, 3}),
        # Nothing is as light: then the lightest.
        ([60.0, 40.0], {1}),
        ([50.0, 50.0], {0}),
    ],
)
def test_what_leaves_a_refused_gpu_is_a_twenty_fifth_of_its_weight(weights: list[float], leaving: set[int]) -> None:
    mender = SimpleNamespace(model=SimpleNamespace(weights=np.array([7.0, *weights])))
    content = tuple(range(1, len(weights) + 1))
    found = _OneByOne._lightened(mender, content)  # type: ignore[arg-type]  # all that it looks at
    assert found == {adapter + 1 for adapter in leaving}


def test_a_quick_twin_gives_up_what_is_far_off_and_takes_the_first_that_serves(problem: Problem) -> None:
    """A few values nearest to the hint, and none where the first falls short by more than neighbours differ."""
    oracle = QuickTwin(problem.workload, problem.profile)
    asked: list[int] = []
    content = tuple(range(40))
    candidates = set(oracle.slots(content))

    def shares(*values: float) -> None:
        asked.clear()
        answers = iter(values)

        def share(_: tuple[int, ...], slots: int) -> float:
            asked.append(slots)
            return next(answers)

        oracle.share = share  # type: ignore[method-assign, assignment]  # names of its own

    shares(0.89, 0.9)
    assert oracle.find_max_loras(content, 8) == asked[1]
    assert asked[0] == 8
    assert set(asked) <= candidates
    shares(0.84)
    assert oracle.find_max_loras(content, 8) is None
    shares(0.86, 0.86, 0.86, 0.86)
    assert oracle.find_max_loras(content, 8) is None
    assert len(asked) == 4
    # A memory error says nothing about fewer slots.
    shares(-1.0, 0.95)
    assert oracle.find_max_loras(content, 8) == asked[1]


# --- what is divided, and how


def with_loads(problem: Problem, shares: list[float], duration_s: float = 60.0) -> Problem:
    """Adapters with so many times the load of a part each, on a profile whose backbone is published."""
    part = PART * 17814.5
    mean = Workload(np.array([8]), np.array([1.0])).lengths.mean_total_tokens
    rates = np.array(shares) * part / mean
    return replace(problem, workload=Workload(np.full(len(shares), 8), rates, duration_s=duration_s))


def test_parts_are_as_few_as_are_no_larger_than_a_twenty_fourth_of_a_gpu(problem: Problem) -> None:
    mine = with_loads(problem, [0.5, 0.99, 1.01, 5.5, 6.5])
    parts = finer(mine, np.array([1, 1, 1, 1, 1]))
    assert parts is not None
    assert parts.counts.tolist() == [1, 1, 2, 6, 7]
    # Four are known to fit: then eight, in which those four are whole numbers.
    parts = finer(mine, np.array([1, 1, 1, 4, 7]))
    assert parts is not None
    assert parts.counts.tolist() == [1, 1, 2, 8, 7]


def test_nothing_is_divided_where_nobody_is_busy_or_there_would_be_too_many_parts(problem: Problem) -> None:
    idle = with_loads(problem, [0.5, 0.9])
    assert finer(idle, np.array([1, 1])) is None
    assert finer(with_loads(problem, [2999.5], duration_s=0.01), np.array([1])) is not None
    assert finer(with_loads(problem, [3000.5], duration_s=0.01), np.array([1])) is None


def test_a_hot_adapter_s_parts_are_the_fewest_that_a_gpu_holds_one_of(problem: Problem) -> None:
    mine = replace(problem, workload=workload_from_groups([(1, 8, 0.1), (1, 16, 60.0)], duration_s=120.0), max_gpus=3)
    deadline = Deadline.after(600.0)
    counts = hot_parts(mine, deadline)
    assert counts[0] == 1
    assert counts[1] > 1
    alone = only(mine.workload, 1)
    assert tokens_per_s(alone).tolist() == tokens_per_s(mine.workload)[1:].tolist()
    assert len(alone.requests) == int((mine.workload.requests.adapter == 1).sum())
    for parts, holds in ((int(counts[1]), True), (int(counts[1]) - 1, False)):
        from solvers.contents.divided import divided

        oracle = TwinOracle(divided(alone, np.array([parts])), mine.profile)
        assert (oracle.find_max_loras((0,)) is not None) == holds
    apart, divided_ = divided_if_hot(mine, deadline)
    assert divided_ is not None
    assert divided_.counts.tolist() == [1, 2 * counts[1]]
    assert apart.max_gpus is None
    cold = replace(problem, workload=workload_from_groups([(4, 8, 0.1)]), max_gpus=3)
    assert divided_if_hot(cold, deadline) == (cold, None)


def test_a_hot_adapter_is_divided_with_its_shared_prompt(problem: Problem) -> None:
    groups = workload_from_groups([(1, 8, 0.1), (1, 16, 60.0)], duration_s=120.0)
    mine = replace(problem, workload=replace(groups, shared_prompt_tokens=np.array([600, 20])))
    alone = only(mine.workload, 1)
    assert alone.requests.shared().tolist() == [20] * len(alone.requests)
    assert tokens_per_s(alone).tolist() == tokens_per_s(mine.workload)[1:].tolist()
    _, parts = divided_if_hot(mine, Deadline.after(600.0))
    assert parts is not None
    assert parts.counts[0] == 1 < parts.counts[1]


def test_who_cannot_be_on_a_gpu_alone_is_named(problem: Problem) -> None:
    mine = replace(problem, workload=workload_from_groups([(1, 8, 0.1), (1, 16, 60.0)], duration_s=600.0))
    with pytest.raises(NoneThereError, match=r"adapter 1 \(rank 16, rate 60 req/s\) starves a GPU"):
        check_each_alone(mine, TwinOracle(mine.workload, mine.profile))
    check_each_starts(mine)
    cold = replace(problem, workload=workload_from_groups([(4, 8, 0.1)]))
    check_each_alone(cold, TwinOracle(cold.workload, cold.profile))


def test_an_order_is_cut_in_proportion_to_the_levels_of_gpus(problem: Problem) -> None:
    """Eight parts of one weight: even levels take four each; at 1 to 3 two and six. A part belongs where its middle lies."""
    mine = with_loads(problem, [4.0, 4.0])
    parts = finer(mine, np.array([1, 1]))
    assert parts is not None
    search = _Search(parts, np.ones(8), TwinOracle(parts, mine.profile), Deadline.after(60.0))
    order = np.array([7, 6, 5, 4, 3, 2, 1, 0])
    assert search._in_turn(order, np.array([1.0, 1.0])) == [(4, 5, 6, 7), (0, 1, 2, 3)]
    assert search._in_turn(order, np.array([1.0, 3.0])) == [(6, 7), (0, 1, 2, 3, 4, 5)]
    assert search._in_turn(order, np.array([1.1, 0.9])) == [(4, 5, 6, 7), (0, 1, 2, 3)]
    assert [len(group) for group in search._in_turn(order, np.ones(3))] == [3, 2, 3]


def test_parts_of_an_adapter_follow_each_other_in_every_order(problem: Problem) -> None:
    """By load busiest and idlest in turn, by rank and then load, by load."""
    workload = replace(with_loads(problem, [2.0, 4.0, 3.0]).workload, ranks=np.array([8, 8, 32]))
    parts = finer(replace(problem, workload=workload), np.ones(3, dtype=np.int64))
    assert parts is not None
    search = _Search(parts, np.ones(9), TwinOracle(parts, problem.profile), Deadline.after(60.0))
    owners = [list(dict.fromkeys(parts.owners[order].tolist())) for order in search._orders()]
    assert owners == [[1, 0, 2], [2, 1, 0], [1, 2, 0]]
    for order in search._orders():
        assert (np.diff(parts.owners[order]) != 0).sum() == 2


# --- the best slots


@pytest.mark.parametrize("start", [1, 3, 24])
def test_the_best_max_loras_is_found_wherever_the_search_starts(profile: ServingProfile, start: int) -> None:
    """Against all values: none serves better by more than a hundredth."""
    workload = zipf(profile, n_adapters=24, total_rate=14.0, exponent=0.6, ranks=[8, 16, 32], duration_s=120.0, seed=2)
    search = BestService(Problem(workload, profile, MinGpus()), Deadline.after(600.0))
    content = tuple(range(24))
    found = search._with_best_slots(content, start, coarse=True)
    keys = {slots: search._key(content, slots)[0] for slots in range(1, 25)}
    best = min(keys.values())
    assert found.key == keys[found.slots]
    assert found.key[0] == best[0] == 0.0
    assert found.key[1] <= 1.01 * best[1]
    assert max(keys.values())[1] > 2 * best[1], "or there would be nothing to find"
