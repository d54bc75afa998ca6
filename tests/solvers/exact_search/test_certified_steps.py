"""Steps of an exact search whose bounds have a certificate, or say that they have none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench.certificates.adding_up import RefusedError
from bench.certificates.proof import checksum_of, prove
from solvers.base import CERTIFICATE, Problem
from solvers.exact import Exact
from solvers.exact_search.bounds import Bounds
from solvers.exact_search.certificate import certificate, requests_hash
from solvers.exact_search.progress import Progress
from solvers.exact_search.state import SearchState
from solvers.limits import Deadline
from solvers.oracles.twin import TwinOracle
from twin import PUBLISHED, Placement, Workload, workload_from_groups
from twin.placement import GpuPlan


def searched(problem: Problem, workload: Workload) -> tuple[SearchState, TwinOracle]:
    """A search that has done nothing yet but place each adapter on a GPU of its own."""
    ours = replace(problem, workload=workload, max_gpus=None, time_limit_s=300.0)
    oracle = TwinOracle(workload, problem.profile)
    state = SearchState(ours, oracle, Deadline.after(300.0), 1, replicas=True)
    state.progress.keep(Placement(tuple(GpuPlan((adapter,), 1) for adapter in range(workload.n_adapters))))
    return state, oracle


def test_the_bound_of_the_frontier_is_proven_again(problem: Problem) -> None:
    """By its own contents and prices, which the zones take over: nothing else was asked."""
    workload = workload_from_groups([(20, 8, 3.0), (10, 16, 5.0)], duration_s=120.0, seed=3)
    state, oracle = searched(problem, workload)
    bounds = Bounds(state)
    for _ in bounds.by_grains(Deadline.after(300.0)):
        pass
    assert bounds.by_frontier is not None
    assert state.progress.by == "the frontier"
    assert state.progress.lower_bound == bounds.by_frontier.gpus > 2
    text = certificate(oracle, bounds.zones, state.progress)
    assert text is not None
    assert prove(text, workload, problem.profile, PUBLISHED)[0] == state.progress.lower_bound
    # All that it rests on are made-up contents; without one of them nothing is proven.
    values = json.loads(text)
    assert all(content["made_up"] for content in values["contents"])
    kept = [content for content in values["contents"] if not content["cut"]]
    cuts = [content for content in values["contents"] if content["cut"]]
    changed = {**values, "contents": [*kept, *cuts[1:]]}
    with pytest.raises(RefusedError, match="no zone holds"):
        prove(json.dumps({**changed, "checksum": checksum_of(changed)}), workload, problem.profile, PUBLISHED)


def test_one_gpu_for_many_adapters_is_proven_again_by_spans(problem: Problem) -> None:
    """As many values of `max_loras` as there are adapters are not simulated one by one."""
    workload = workload_from_groups([(160, 8, 0.4)], duration_s=60.0, seed=3)
    solution = Exact(workers=1, best_service=False).run(
        replace(problem, workload=workload, max_gpus=1, time_limit_s=60.0)
    )
    assert (solution.status, solution.lower_bound) == ("infeasible", 2)
    assert solution.details["bound_by"] == "one GPU for all"
    text = solution.details[CERTIFICATE]
    bound, how = prove(text, workload, problem.profile, PUBLISHED)
    assert bound == 2
    assert 8 <= int(how.split("(")[1].split()[0]) < 100
    # The same words of a load that one GPU serves are refused.
    light = workload_from_groups([(160, 8, 0.05)], duration_s=600.0, seed=3)
    values = {**json.loads(text), "requests": requests_hash(light)}
    with pytest.raises(RefusedError, match="one GPU serves all adapters at max_loras="):
        prove(json.dumps({**values, "checksum": checksum_of(values)}), light, problem.profile, PUBLISHED)


def test_a_bound_says_what_it_is_from(problem: Problem) -> None:
    """Searching through all assignments leaves no certificate, so that is said by name; a bound of one GPU is from nothing."""
    progress = Progress(None, "twin")
    assert progress.details()["bound_by"] == ""
    progress.raise_whole_bound(3, by="assigning single adapters")
    assert progress.details()["bound_by"] == "assigning single adapters"
    progress.raise_bound(3, by="zones")
    assert progress.details()["bound_by"] == "assigning single adapters"
    progress.keep(Placement((GpuPlan((0,), 1),)))
    assert progress.refuted
    assert progress.details()["bound_by"] == ""
    alone = workload_from_groups([(3, 16, 24.0)], duration_s=120.0, seed=1)
    solution = Exact(workers=1, best_service=False).run(replace(problem, workload=alone, max_gpus=None))
    assert solution.details["bound_by"] in ("one GPU for all", "zones")
