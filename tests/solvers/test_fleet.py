"""The search for the fewest GPUs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.base import Problem
from solvers.fleet import FleetSolver, fewest_gpus
from solvers.least_loaded import LeastLoaded
from solvers.registry import SolverEntry, list_solvers
from twin import score_placement, workload_from_groups


@given(needed=st.integers(1, 300), most=st.integers(1, 300))
def test_finds_the_fewest_when_more_never_harm(needed: int, most: int) -> None:
    gpus, outcome = fewest_gpus(lambda gpus: gpus >= needed, bool, most)
    assert (gpus, outcome) == (min(needed, most), needed <= most)


@given(good=st.sets(st.integers(1, 64)), most=st.integers(1, 64))
def test_what_it_returns_was_tried_and_is_what_the_attempt_gave(good: set[int], most: int) -> None:
    tried: dict[int, tuple[int, bool]] = {}

    def attempt(gpus: int) -> tuple[int, bool]:
        assert gpus not in tried, "the same fleet twice is wasted work"
        assert 1 <= gpus <= most
        tried[gpus] = (gpus, gpus in good)
        return tried[gpus]

    gpus, outcome = fewest_gpus(attempt, lambda outcome: outcome[1], most)
    assert outcome is tried[gpus]
    assert outcome[1] or not any(succeeded for _, succeeded in tried.values())


def test_few_attempts() -> None:
    calls = []

    def attempt(gpus: int) -> bool:
        calls.append(gpus)
        return gpus >= 700

    fewest_gpus(attempt, bool, 100_000)
    assert len(calls) <= 20


FLEET = [entry for entry in list_solvers() if entry.solver and issubclass(entry.solver, FleetSolver)]


@pytest.mark.parametrize("entry", FLEET, ids=lambda entry: entry.name)
def test_the_search_ends_at_a_feasible_fleet_within_the_limit(entry: SolverEntry, problem: Problem) -> None:
    searching = replace(entry, options={**entry.options, "search": True})
    found = searching.make().run(replace(problem, max_gpus=40))
    assert found.placement is not None
    assert found.status == "feasible"
    assert score_placement(problem.workload, found.placement, problem.profile).feasible
    tried = found.details["fleets_tried"]
    assert max(tried) <= 40
    as_published = entry.make().run(replace(problem, max_gpus=found.placement.n_gpus))
    assert as_published.status in ("unchecked", "feasible")


def test_as_published_the_whole_fleet_is_used(problem: Problem) -> None:
    published, searched = LeastLoaded().run(problem), LeastLoaded(search=True).run(problem)
    assert published.placement is not None
    assert searched.placement is not None
    assert published.placement.n_gpus == problem.max_gpus
    assert searched.placement.n_gpus < published.placement.n_gpus
    # One GPU less starves.
    fewer = LeastLoaded().run(replace(problem, max_gpus=searched.placement.n_gpus - 1))
    assert fewer.placement is not None
    assert not score_placement(problem.workload, fewer.placement, problem.profile).feasible


def test_without_a_limit_the_search_goes_up_to_a_gpu_for_each_adapter(problem: Problem) -> None:
    assert LeastLoaded(search=True).run(replace(problem, max_gpus=None)).status == "feasible"


def test_a_search_in_vain_says_so(problem: Problem) -> None:
    answer = LeastLoaded(search=True).run(replace(problem, max_gpus=1))
    assert answer.status == "none_found"
    assert "up to 1 GPUs" in answer.message
    hopeless = workload_from_groups([(1, 8, 900.0), (1, 8, 0.1)], duration_s=60.0)
    assert LeastLoaded(search=True).run(replace(problem, workload=hopeless, max_gpus=None)).status == "none_found"


def test_a_search_out_of_time_says_so(problem: Problem) -> None:
    assert LeastLoaded(search=True).run(replace(problem, time_limit_s=1e-6)).status == "time_limit"
