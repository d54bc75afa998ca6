"""The twin as an oracle under a goodput rule: its answers are those of the score, its certainty survives chance."""

from dataclasses import replace

import numpy as np
import pytest

from bench.planning.adapters import Adapter, Traffic, workload_of
from solvers.base import Problem
from solvers.exact import Exact
from solvers.ffd import GuidedFfd
from solvers.ffd_plus import FfdPlus
from solvers.limits import Deadline
from solvers.max_pack import MaxPack
from solvers.objectives.min_gpus import MinGpus
from solvers.oracles.choice import make_oracle
from solvers.oracles.twin import TwinOracle
from solvers.zones.bound import ZoneBound
from twin import (
    BATCH,
    INTERACTIVE,
    PUBLISHED,
    GpuPlan,
    Lengths,
    LogNormalTokens,
    Placement,
    ServiceLevel,
    ServingProfile,
    UserError,
    Workload,
    score_placement,
)
from twin.builders import zipf

LEVELS = (PUBLISHED, INTERACTIVE)


@pytest.fixture(scope="module")
def crowd(profile: ServingProfile) -> Workload:
    return zipf(profile, n_adapters=60, total_rate=26.0, exponent=0.9, ranks=[8, 16], duration_s=120.0, seed=2)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_the_oracle_accepts_what_the_score_calls_feasible(
    crowd: Workload, profile: ServingProfile, level: object
) -> None:
    assert level in LEVELS
    service = INTERACTIVE if level is INTERACTIVE else PUBLISHED
    oracle = TwinOracle(crowd, profile, service=service)
    answers = set()
    generator = np.random.default_rng(0)
    for count in (5, 20, 40, 60):
        for max_loras in (2, 8, 40):
            content = tuple(sorted(generator.choice(60, count, replace=False).tolist()))
            alone = replace(
                crowd, ranks=crowd.ranks[list(content)], rates=crowd.rates[list(content)], ids=np.array(content)
            )
            score = score_placement(
                alone, Placement((GpuPlan(tuple(range(count)), max_loras),)), profile, service=service
            )
            assert oracle.accepts(content, max_loras) == score.feasible
            assert oracle.share(content, max_loras) == pytest.approx(score.headroom + service.share)
            answers.add(score.feasible)
    assert answers == {True, False}


def test_what_fails_beyond_doubt_fails_for_other_draws_too(crowd: Workload, profile: ServingProfile) -> None:
    """A content that no `max_loras` serves interactively: neither do those with the requests of other seeds."""
    oracle = TwinOracle(crowd, profile, service=INTERACTIVE)
    certain = [
        content for content in (tuple(range(count)) for count in (10, 20, 30, 40, 50, 60)) if oracle.starves(content)
    ]
    assert 0 < len(certain) < 6
    for seed in range(3, 8):
        other = TwinOracle(crowd.with_seed(seed), profile, service=INTERACTIVE)
        assert all(other.find_max_loras(content) is None for content in certain)


def test_a_short_window_cuts_nobody_off_under_a_goodput_rule(crowd: Workload, profile: ServingProfile) -> None:
    """Whoever arrives near the window's end is served after it: nothing needs to be asked twice."""
    oracle = TwinOracle(crowd, profile, service=INTERACTIVE)
    assert not oracle.is_cut_off(tuple(range(60)))


@pytest.mark.parametrize("solver", [MaxPack(), FfdPlus(), Exact(oracle="twin")], ids=lambda solver: solver.name)
def test_solvers_plan_for_the_level_that_they_are_given(
    crowd: Workload, profile: ServingProfile, problem: Problem, solver: MaxPack | FfdPlus | Exact
) -> None:
    """Every GPU keeps what was asked for: the published rule, or the promise of latency."""
    for service in LEVELS:
        asked = Problem(crowd, profile, MinGpus(), problem.predictor, time_limit_s=30.0, service=service)
        placement = solver.run(asked).placement
        assert placement is not None
        assert score_placement(crowd, placement, profile, service=service).feasible


@pytest.mark.parametrize(
    "solver", [GuidedFfd(), GuidedFfd(distilled=True), GuidedFfd(twin="unsure"), GuidedFfd(twin="always")],
    ids=["never", "distilled", "unsure", "always"],
)  # fmt: skip
@pytest.mark.parametrize("service", [INTERACTIVE, BATCH], ids=lambda service: service.name)
def test_the_published_greedy_asks_about_the_level_that_it_is_given(
    crowd: Workload, profile: ServingProfile, problem: Problem, solver: GuidedFfd, service: ServiceLevel
) -> None:
    """By the published rule one GPU would do, on which requests wait for a long time."""
    asked = Problem(crowd, profile, MinGpus(), problem.predictor, time_limit_s=60.0, service=service)
    assert asked.predictor is not None
    assert asked.predictor.knows(service)
    placement = solver.run(asked).placement
    assert placement is not None
    assert score_placement(crowd, placement, profile, service=service).feasible


def test_a_level_that_was_not_learned_is_asked_of_the_twin(
    crowd: Workload, profile: ServingProfile, problem: Problem, caplog: pytest.LogCaptureFixture
) -> None:
    odd = replace(INTERACTIVE, name="odd", share=0.9)
    solution = GuidedFfd(twin="outside").run(Problem(crowd, profile, MinGpus(), problem.predictor, service=odd))
    assert "service=odd" in caplog.text
    assert "was not learned; asking the twin instead" in caplog.text
    assert solution.placement is not None
    assert score_placement(crowd, solution.placement, profile, service=odd).feasible


def test_a_level_that_no_predictor_has_learned_is_the_twins(problem: Problem) -> None:
    assert problem.predictor is not None
    odd = replace(problem, service=replace(INTERACTIVE, name="odd", share=0.5))
    assert odd.predictor is problem.predictor
    assert isinstance(make_oracle("auto", odd, "mine"), TwinOracle)
    with pytest.raises(UserError, match="has not learned service=odd"):
        make_oracle("predictor", odd, "mine")


@pytest.mark.parametrize("count", [1, 3, 69, 100, 577])
def test_slots_are_never_more_than_adapters(profile: ServingProfile, count: int) -> None:
    """69 adapters are offered 69 slots, not 64 or 96."""
    workload = Workload(np.full(count, 8), np.full(count, 0.01), duration_s=60.0)
    slots = TwinOracle(workload, profile).slots(tuple(range(count)))
    assert slots[-1] == min(count, profile.largest_max_loras(8))
    assert list(slots) == sorted(set(slots))


def test_what_others_beside_it_make_up_for_is_no_certain_failure(profile: ServingProfile) -> None:
    """Long prompts miss 150 ms on an idle GPU; beside many short ones they are too few to matter, so nothing above them is ruled out."""
    mine = [Adapter(f"long{i}", 8, 0.02, 3000, 100) for i in range(12)]
    others = [Adapter(f"short{i}", 8, 0.025, 200, 100) for i in range(260)]
    fixed = LogNormalTokens(200.0, 0.0, 1, 100_000), LogNormalTokens(100.0, 0.0, 1, 100_000)
    lengths = Lengths(*fixed, max_total_tokens=130_000, correlation=0.0)
    workload = workload_of([*mine, *others], Traffic.of(profile, lengths=lengths, duration_s=600.0, seed=0), profile)
    service = replace(INTERACTIVE, ttft_ms=150.0)
    count = workload.n_adapters
    fleet = Placement(tuple(GpuPlan(tuple(range(gpu, count, 4)), len(range(gpu, count, 4))) for gpu in range(4)))
    assert score_placement(workload, fleet, profile, service=service).feasible
    oracle = TwinOracle(workload, profile, service=service)
    long = tuple(range(12))
    assert oracle.find_max_loras(long) is None
    assert not oracle.starves(long)
    assert not oracle.congested(long, 8)
    for plan in fleet.gpus:
        assert not oracle.congested(plan.adapters, 8)
    zones = ZoneBound(oracle)
    zones.run(Deadline.after(120.0), 12)
    assert zones.value <= 4 + 1e-9
    # Where all requests are drawn alike nobody makes up for anybody, and shares are compared as they are.
    alike = replace(workload, trace=None)
    assert TwinOracle(alike, profile, service=service)._beside == 0
    assert TwinOracle(workload, profile, service=PUBLISHED)._beside == 0
