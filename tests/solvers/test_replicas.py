"""Adapters that GPUs share: where one cannot hold them or fewer do, simulated as they are routed, with bounds for any shares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.base import Problem, Solver
from solvers.contents.divided import divided, in_order_of_gpus, n_adapters_of, parts_of, sent_to, with_shares
from solvers.exact import Exact
from solvers.ffd_plus import FfdPlus
from solvers.max_pack import MaxPack
from solvers.oracles.twin import TwinOracle
from tests.examples import examples
from twin import INTERACTIVE, GpuPlan, Placement, Workload, load_profile, score_placement, workload_from_groups

HOT = {"three at 24": ((3, 16, 24.0), 2), "one at 45": ((1, 16, 45.0), 2), "one at 60": ((1, 16, 60.0), 2)}


@pytest.mark.parametrize("name", HOT)
def test_hot_adapters_are_shared_and_proven(problem: Problem, name: str) -> None:
    group, gpus = HOT[name]
    mine = replace(problem, workload=workload_from_groups([group]), max_gpus=None, time_limit_s=600.0)
    solution = Exact(oracle="twin").run(mine)
    assert solution.placement is not None
    assert (solution.status, solution.placement.n_gpus, solution.lower_bound) == ("optimal", gpus, gpus)
    assert solution.details["replicas"] is True
    assert score_placement(mine.workload, solution.placement, mine.profile).feasible


@pytest.mark.parametrize("solver", [FfdPlus(), MaxPack()], ids=lambda solver: solver.name)
@pytest.mark.parametrize("name", HOT)
def test_greedy_solvers_share_them_too(problem: Problem, solver: Solver, name: str) -> None:
    group, gpus = HOT[name]
    mine = replace(problem, workload=workload_from_groups([group]), max_gpus=None, time_limit_s=600.0)
    placement = solver.run(mine).placement
    assert placement is not None
    assert placement.n_gpus == gpus
    assert score_placement(mine.workload, placement, mine.profile).feasible


def test_without_replicas_a_hot_adapter_is_proven_infeasible(problem: Problem) -> None:
    mine = replace(problem, workload=workload_from_groups([(1, 16, 45.0)]), max_gpus=None, time_limit_s=600.0)
    solution = Exact(oracle="twin", replicas=False).run(mine)
    assert solution.status == "infeasible"
    assert "starves a GPU" in solution.message
    assert MaxPack(replicas=False).run(mine).status == "none_found"


def test_without_replicas_the_bound_is_for_one_gpu_per_adapter(problem: Problem) -> None:
    mine = replace(problem, workload=workload_from_groups([(3, 16, 24.0)]), max_gpus=None, time_limit_s=600.0)
    solution = Exact(oracle="twin", replicas=False).run(mine)
    assert solution.placement is not None
    assert solution.placement.n_gpus == 3
    assert not solution.placement.has_replicas
    assert solution.details["replicas"] is False


def test_a_hot_adapter_among_cold_ones_under_a_goodput_rule(problem: Problem) -> None:
    workload = workload_from_groups([(1, 16, 45.0), (20, 8, 0.1)])
    mine = replace(problem, workload=workload, max_gpus=None, time_limit_s=600.0, service=INTERACTIVE)
    solution = Exact(oracle="twin").run(mine)
    assert solution.placement is not None
    assert solution.placement.n_gpus == solution.lower_bound == 2
    assert score_placement(workload, solution.placement, mine.profile, service=INTERACTIVE).feasible


# --- parts of adapters


@st.composite
def placed_parts(draw: st.DrawFn) -> tuple[Workload, np.ndarray, Placement]:
    counts = np.array(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    gpus = draw(st.integers(1, 3))
    gpu_of = np.array([draw(st.integers(0, gpus - 1)) for _ in range(int(counts.sum()))])
    workload = Workload(
        np.full(len(counts), 8), np.full(len(counts), 6.0), duration_s=30.0, seed=draw(st.integers(0, 9))
    )
    contents = [tuple(np.flatnonzero(gpu_of == gpu).tolist()) for gpu in range(gpus)]
    return workload, counts, Placement(tuple(GpuPlan(content, 1) for content in contents if content))


@examples(40)
@given(drawn=placed_parts())
def test_parts_are_simulated_with_the_requests_that_their_shares_are_routed(
    drawn: tuple[Workload, np.ndarray, Placement],
) -> None:
    workload, counts, placement = drawn
    parts = divided(workload, counts)
    assert len(parts.requests) == len(workload.requests)
    ordered = in_order_of_gpus(parts, placement)
    shared = with_shares(parts, ordered)
    shared.check(workload)
    intervals = shared.routing_intervals(workload.n_adapters)
    for plan, given_, interval in zip(ordered.gpus, shared.gpus, intervals, strict=True):
        requests, ranks = sent_to(parts, parts, plan.adapters)
        routed = workload.requests_of(np.array(given_.adapters), interval)
        assert n_adapters_of(parts, plan.adapters) == len(given_.adapters) == len(ranks)
        assert np.array_equal(requests.arrival_s, routed.arrival_s)
        assert np.array_equal(requests.adapter, routed.adapter)
        assert np.array_equal(requests.prompt_tokens, routed.prompt_tokens)
    again = parts_of(workload, shared)
    assert again is not None
    assert with_shares(*again) == shared


def test_the_oracle_judges_parts_as_the_score_does() -> None:
    """Requests of the window and after it, for a service level that judges them."""
    profile = load_profile("qwen-2.5-7b")
    workload = workload_from_groups([(1, 8, 30.0), (2, 16, 6.0)], duration_s=60.0)
    parts = divided(workload, np.array([5, 1, 3]))
    placement = in_order_of_gpus(parts, Placement((GpuPlan((0, 1, 2, 5), 2), GpuPlan((3, 4, 6, 7, 8), 2))))
    oracle = TwinOracle(parts, profile, service=INTERACTIVE)
    score = score_placement(workload, with_shares(parts, placement), profile, service=INTERACTIVE)
    shares = [oracle.share(plan.adapters, plan.max_loras) for plan in placement.gpus]
    assert min(shares) - INTERACTIVE.share == pytest.approx(score.headroom)
    assert oracle.slots((0, 1, 2, 5)) == (1, 2)


@examples(20)
@given(seed=st.integers(0, 1000), share=st.floats(0.1, 0.9), rate=st.floats(0.5, 30.0))
def test_a_share_of_requests_asks_for_that_share_of_load_and_no_less_of_activity(
    seed: int, share: float, rate: float
) -> None:
    """What bounds for any shares rest on, up to the chance of single requests."""
    from solvers.oracles.served import activity
    from twin.shares import asked_tokens

    workload = Workload(np.array([8]), np.array([rate]), duration_s=600.0, seed=seed)
    whole = workload.requests
    part = workload.requests_of(np.array([0]), np.array([[0.0, share]]))
    chance = 6.0 * np.sqrt(share * (1 - share) / max(len(whole), 1)) * 2.5
    assert asked_tokens(part).sum() == pytest.approx(
        share * asked_tokens(whole).sum(), abs=chance * asked_tokens(whole).sum()
    )
    for time_s in (1.0, 5.0, 20.0):
        of_whole, of_part = (float(activity(each, 1, np.array([time_s]), 600.0)[0, 0]) for each in (whole, part))
        assert of_part >= (share - chance) * of_whole
