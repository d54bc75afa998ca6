"""The two loops that close the last gap, on an oracle that is a formula: what they prove is what enumeration finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from solvers.contents.adapter_types import AdapterTypes, adapter_types
from solvers.exact_search.assignment_loop import AssignmentLoop
from solvers.exact_search.cut_loop import CutLoop, _scaled
from solvers.exact_search.frontier import Boxes
from solvers.exact_search.progress import Progress
from solvers.exact_search.realise import realise
from solvers.limits import Deadline
from tests.examples import examples
from tests.solvers.toy_oracle import ToyOracle, contents, fewest_gpus
from twin import GpuPlan, Lengths, Placement, Requests, Workload, workload_from_groups

EVERYTHING = Boxes(np.array([32]), np.array([math.inf]), np.array([-1]), np.array([math.inf]))
groups = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from([8, 16, 32]), st.sampled_from([0.4, 1.1, 2.3, 3.7])),
    min_size=1,
    max_size=3,
    unique_by=lambda group: group[1:],
)


def alone(oracle: ToyOracle) -> Progress:
    """A placement with a GPU for each adapter."""
    progress = Progress(None, oracle.name)
    progress.keep(Placement(tuple(GpuPlan((adapter,), 1) for adapter in range(oracle.workload.n_adapters))))
    return progress


def cut_loop(oracle: ToyOracle, progress: Progress) -> CutLoop:
    types = adapter_types(oracle.workload)
    return CutLoop(oracle, types, oracle.demands(types), progress, Deadline.after(60), 1)


@examples(15)
@example([(4, 8, 0.4), (2, 32, 3.7), (2, 16, 1.1)])  # the rounded prices of a known column sum to more than one
@given(groups)
def test_cuts_and_columns_alone_end_with_the_optimum_or_below(of: list[tuple[int, int, float]]) -> None:
    """From a box that holds everything and prices that say nothing."""
    oracle = ToyOracle(workload_from_groups(of, duration_s=60.0))
    progress = alone(oracle)
    loop = cut_loop(oracle, progress)
    assume(not progress.proven)
    stopped = loop.run(EVERYTHING, np.ones(len(of)) / sum(count for count, *_ in of))
    fewest = fewest_gpus(oracle)
    assert not progress.refuted
    assert progress.lower_bound <= fewest <= progress.gpus
    assert progress.proven == (stopped == "")
    assert loop.needs <= {"monotonicity"}
    for content in contents(loop.types.counts):
        if loop.cuts.rules_out(content):
            assert oracle.find_max_loras(loop.types.contents(content)) is None
    for pattern in loop.patterns:
        assert oracle.find_max_loras(loop.types.contents(pattern)) is not None


@pytest.mark.parametrize(
    ("of", "fewest"),
    [([(4, 8, 2.3), (4, 32, 1.1)], 3), ([(6, 8, 3.7)], 3), ([(3, 16, 3.7), (4, 8, 2.3), (2, 8, 0.4)], 4)],
)
def test_the_gap_is_closed_on_these(of: list[tuple[int, int, float]], fewest: int) -> None:
    oracle = ToyOracle(workload_from_groups(of, duration_s=60.0))
    assert fewest_gpus(oracle) == fewest
    progress = alone(oracle)
    assert cut_loop(oracle, progress).run(EVERYTHING, np.full(len(of), 1e-3)) == ""
    assert progress.gpus == progress.lower_bound == fewest


def test_only_what_starves_beyond_doubt_is_cut_off() -> None:
    """Contents that are rejected within a fifth of the edge may be rejected by chance, and rule out nothing."""

    class Doubtful(ToyOracle):
        def starves(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:
            index = list(adapters)
            rank = int(self.workload.ranks[index].max())
            return float(self.workload.rates[index].sum()) > 1.2 * self.takes(len(index), rank)

    oracle = Doubtful(workload_from_groups([(6, 8, 1.1), (5, 16, 0.7)], duration_s=60.0))
    loop = cut_loop(oracle, alone(oracle))
    assert loop._learn(np.array([6, 5]))
    assert len(loop.cuts) == 1
    for content in contents(loop.types.counts):
        assert not loop.cuts.rules_out(content) or oracle.starves(loop.types.contents(content))


@pytest.mark.parametrize(("dearest", "bound"), [(4, 3), (5, 2), (10, 1), (3, 4), (0, 10)])
def test_the_bound_of_whole_prices_is_rounded_up(dearest: int, bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All adapters cost ten together: over a dearest content of four that is more than two GPUs."""
    oracle = ToyOracle(workload_from_groups([(5, 8, 1.0)], duration_s=60.0))
    loop = cut_loop(oracle, alone(oracle))
    monkeypatch.setattr(loop.cuts, "dearest", lambda *_: (np.array([1]), dearest))
    assert loop._priced(np.array([2]), EVERYTHING)[1] == bound


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.floats(0.0, 1.0))
def test_a_share_of_a_content_keeps_its_proportions(content: list[int], share: float) -> None:
    exact = np.array(content) * share
    scaled = _scaled(np.array(content), share)
    assert (np.abs(scaled - exact) < 1).all()
    assert abs(scaled.sum() - exact.sum()) <= 0.5 + 1e-9
    assert (_scaled(np.array(content), 1.0) == content).all()


# --- assignments


@examples(15)
@given(st.lists(st.tuples(st.sampled_from([8, 16, 32]), st.sampled_from([0.4, 1.1, 2.3, 3.7])), min_size=1, max_size=7))
def test_assignments_end_with_the_optimum_and_valid_covers(of: list[tuple[int, float]]) -> None:
    """Prices that say nothing: every cover that is learned must hold for all that the oracle accepts."""
    oracle = ToyOracle(workload_from_groups([(1, *adapter) for adapter in of], duration_s=60.0))
    progress = alone(oracle)
    loop = AssignmentLoop(oracle, progress, Deadline.after(60), 1, [oracle.workload.rates / 1000.0])
    loop.run()
    assert progress.proven
    assert progress.gpus == fewest_gpus(oracle)
    for mask in range(1, 2 ** len(of)):
        content = tuple(adapter for adapter in range(len(of)) if mask >> adapter & 1)
        if oracle.find_max_loras(content) is not None:
            assert all(len(set(members) & set(content)) <= most for members, most in loop.covers)


def test_prices_are_limits_as_they_are() -> None:
    """Two adapters of half a GPU each fit, those of a little more do not: rounding lets too much through, never too little."""
    oracle = ToyOracle(workload_from_groups([(2, 8, 1.0)], duration_s=60.0))
    for price, fits in ((0.5, True), (0.5 + 1e-7, True), (0.51, False)):
        loop = AssignmentLoop(oracle, alone(oracle), Deadline.after(60), 1, [np.full(2, price)])
        assert (loop._candidate(1) is not None) == fits


def test_a_content_that_starves_only_by_chance_is_ruled_out_alone() -> None:
    """What is rejected without being beyond doubt says nothing of others."""

    class Doubtful(ToyOracle):
        def starves(self, adapters: tuple[int, ...], hint: int | None = None) -> bool:
            return False

    oracle = Doubtful(workload_from_groups([(1, 8, 4.0), (1, 8, 4.0), (1, 8, 4.1)], duration_s=60.0))
    progress = alone(oracle)
    loop = AssignmentLoop(oracle, progress, Deadline.after(60), 1, [oracle.workload.rates / 1000.0])
    loop.run()
    assert not loop.covers
    assert {(0, 1, 2)} <= loop.excluded
    assert progress.gpus == 2
    assert progress.proven


def offered_and_generated() -> Workload:
    """Four adapters of one type; the first two ask for the most, and the last two are given the most."""
    adapter = np.repeat(np.arange(4), 5)
    asked = np.array([900, 800, 300, 200])[adapter]
    made = np.array([10, 20, 200, 190])[adapter]
    trace = Requests(np.arange(20.0), adapter, np.full(20, 10), made, asked)
    return Workload(np.full(4, 8), np.full(4, 0.25), Lengths(), duration_s=20.0, trace=trace)


def test_what_replayed_adapters_ask_for_is_offered_tokens_and_requests() -> None:
    """Not what the model happened to generate; where requests are not replayed, the rate."""
    workload = offered_and_generated()
    oracle = ToyOracle(workload)
    by_rate = AssignmentLoop(oracle, alone(oracle), Deadline.after(60), 1, [workload.rates])
    assert by_rate._asks.tolist() == [[8] * 4, [0.25] * 4, [0.25] * 4]
    oracle.interchangeable = False
    replayed = AssignmentLoop(oracle, alone(oracle), Deadline.after(60), 1, [workload.rates])
    assert replayed._asks.tolist() == [[8] * 4, [4550, 4050, 1550, 1050], [5] * 4]


# --- patterns dealt to adapters


@examples(40)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_a_cover_is_dealt_to_each_adapter_once(of: list[int], data: st.DataObject) -> None:
    """Patterns that cover more than there is lose the surplus and nothing else."""
    workload = Workload(
        np.repeat(np.array([8, 16, 32])[: len(of)], of),
        np.repeat(np.array([1.0, 0.7, 0.3])[: len(of)], of),
        duration_s=30.0,
    )
    oracle = ToyOracle(workload, capacity=1000.0)
    types = adapter_types(workload)
    patterns = [
        np.array([data.draw(st.integers(0, int(count))) for count in types.counts])
        for _ in range(data.draw(st.integers(0, 3)))
    ]
    patterns.append(types.counts.copy())
    placement, failed = realise(patterns, types, oracle)
    assert placement is not None
    assert not failed
    placement.check(workload)
    assert sum(len(plan.adapters) for plan in placement.gpus) == workload.n_adapters
    assert placement.n_gpus <= len(patterns)


def test_the_busiest_go_where_the_load_is_furthest_below_what_was_expected() -> None:
    """By offered tokens: 900 and 200 for one GPU, 800 and 300 for the other."""
    workload = offered_and_generated()
    placement, _ = realise([np.array([2]), np.array([2])], adapter_types(workload), ToyOracle(workload, 1000.0))
    assert placement is not None
    assert sorted(plan.adapters for plan in placement.gpus) == [(0, 3), (1, 2)]


def test_a_gpu_that_is_rejected_is_told_with_its_pattern() -> None:
    oracle = ToyOracle(workload_from_groups([(4, 8, 4.0)], duration_s=60.0))
    patterns = [np.array([3]), np.array([1])]
    placement, failed = realise(patterns, adapter_types(oracle.workload), oracle)
    assert placement is None
    assert [pattern.tolist() for pattern in failed] == [[3]]


def test_members_that_stand_for_a_type_are_typical_by_what_they_ask_for() -> None:
    """Of four the middle two come first, by offered tokens: 900, 800, 300, 200."""
    types: AdapterTypes = adapter_types(offered_and_generated(), by_requests=True)
    assert sorted(types.members[0][:2].tolist()) == [1, 2]
    swapped = offered_and_generated()
    requests = swapped.requests
    other = Workload(
        swapped.ranks, swapped.rates, Lengths(), duration_s=20.0,
        trace=Requests(
            requests.arrival_s, requests.adapter, requests.prompt_tokens, requests.requested_tokens, requests.output_tokens
        ),
    )  # fmt: skip
    # Offered now what was generated before: 10, 20, 200, 190, of which 20 and 190 are the middle.
    assert sorted(adapter_types(other, by_requests=True).members[0][:2].tolist()) == [1, 3]
