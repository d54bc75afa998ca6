"""Laws of the online track: no request is lost, nobody sees the future, and a day without change is an offline run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from hydra.utils import instantiate

from bench.changing.serving import _requests, decided, served
from bench.changing.timeline import Timeline
from bench.shared.overrides import CONF
from solvers.controllers.base import Controller
from solvers.controllers.capacity import divided
from solvers.controllers.headroom import Headroom
from solvers.controllers.static_peak import StaticPeak
from tests.bench.changing.days import HOURS_S, LEVEL, PROFILE, Recorded, day, shuffled_after, task
from twin import GpuPlan, Placement, UserError, simulate_placement

NAMES = sorted(path.stem for path in (CONF / "controller").glob("*.yaml"))


def controller(name: str) -> Controller:
    made = instantiate(yaml.safe_load((CONF / "controller" / f"{name}.yaml").read_text(encoding="utf-8")))
    assert isinstance(made, Controller)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_request_goes_to_one_server_that_runs(name: str) -> None:
    of = day(flat=False)
    mine = controller(name)
    assert mine.name == name
    told = task(of, mine.knows)
    seen = np.zeros(len(of.arrival_s), dtype=np.int64)
    for server, stretches in decided(mine, told, of.counts(told.tick_s)).finished(of.end_s):
        adapters = np.array(list(dict.fromkeys(stretch.adapter for stretch in stretches)), dtype=np.int64)
        requests = _requests(of, stretches, adapters)
        assert all(stretch.start_s >= server.ready_s and stretch.end_s <= server.stop_s for stretch in stretches)
        assert (np.diff(requests.arrival_s) >= 0).all()
        for place, adapter in enumerate(adapters):
            block = slice(of.starts[adapter], of.starts[adapter + 1])
            rows = np.searchsorted(of.arrival_s[block], requests.arrival_s[requests.adapter == place])
            seen[block][rows] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_controller_sees_no_future(name: str) -> None:
    of = day(flat=False)
    answers = []
    for change in (False, True):
        recorded = Recorded(controller(name))
        told = task(of, recorded.inner.knows)
        counts = of.counts(told.tick_s)
        decided(recorded, told, shuffled_after(counts, 40) if change else counts)
        answers.append(recorded.answers)
    # The answer at tick 40 rests on the arrivals of ticks 0 to 39.
    assert answers[0][:41] == answers[1][:41]


def test_no_day_can_be_drawn_from_what_a_controller_is_told() -> None:
    of = day(flat=False)
    told = task(of, "start")
    assert told.truth is None
    assert told.workload.seed != of.workload.seed
    assert told.workload.arrivals != of.workload.arrivals


def test_copies_have_the_shared_prompt_of_their_adapter() -> None:
    given = task(day(flat=True), "curves")
    shared = np.arange(24) * 10
    known = replace(given.workload, shared_prompt_tokens=shared)
    given = replace(given, plan_for=replace(given.plan_for, workload=known))
    copies = np.ones(24, dtype=np.int64)
    copies[3] = 2
    parts = divided(given, known.rates, copies)
    found = parts.problem.workload.shared_prompt_tokens
    assert found is not None
    assert found.tolist() == np.repeat(shared, copies).tolist()


def test_a_constant_load_online_is_the_same_as_offline() -> None:
    """Same requests, same figures, to the single request."""
    of = day(flat=True)
    online = served(StaticPeak(), task(of, "peaks"), of)
    placement = Placement(tuple(StaticPeak().begin(task(of, "peaks")).values()))
    offline = simulate_placement(of.workload, placement, PROFILE, service=LEVEL)
    judged = np.zeros(of.workload.n_adapters, dtype=np.int64)
    met = judged.copy()
    for result in offline:
        assert result.judgement is not None
        judged[result.adapter_ids] += result.judgement.judged
        met[result.adapter_ids] += result.judgement.met
    assert online.judged.sum() == of.requests
    assert (online.judged.sum(axis=1) == judged).all()
    assert (online.met.sum(axis=1) == met).all()
    assert online.gpu_hours == pytest.approx(placement.n_gpus * HOURS_S / 3600)
    assert online.moves == 0


@pytest.mark.parametrize("tick_s", [30.0, 120.0])
def test_more_ticks_without_change_move_nobody(tick_s: float) -> None:
    of = day(flat=True)
    told = task(of, "start", tick_s=tick_s)
    steady = np.tile(np.rint(told.workload.rates * tick_s).astype(np.int64), (int(HOURS_S / tick_s), 1))
    timeline = decided(Headroom(), told, steady)
    assert timeline.moves == 0
    assert {server.stop_s for server in timeline.servers} == {float("inf")}


def test_a_new_gpu_serves_after_its_start_up_and_the_old_one_until_then() -> None:
    of = day(flat=True)
    everybody = tuple(range(of.workload.n_adapters))
    timeline = Timeline(of.workload, 120.0, "by hand")
    timeline.ask(0.0, {0: GpuPlan(everybody, 24)}, first=True)
    timeline.ask(600.0, {1: GpuPlan(everybody, 24)})
    (old, before), (new, after) = timeline.finished(of.end_s)
    assert (old.stop_s, new.asked_s, new.ready_s) == (720.0, 600.0, 720.0)
    assert {(s.start_s, s.end_s) for s in before} == {(0.0, 720.0)}
    assert {(s.start_s, s.end_s) for s in after} == {(720.0, of.end_s)}
    assert timeline.moves == of.workload.n_adapters


def test_other_slots_are_another_server_and_nobody_is_without_one() -> None:
    of = day(flat=True)
    everybody = tuple(range(of.workload.n_adapters))
    timeline = Timeline(of.workload, 120.0, "by hand")
    timeline.ask(0.0, {0: GpuPlan(everybody, 24)}, first=True)
    timeline.ask(600.0, {0: GpuPlan(everybody, 12)})
    assert timeline.starting(600.0) == {0}
    timeline.ask(660.0, {0: GpuPlan(everybody, 24)})
    lives = list(timeline.finished(of.end_s))
    # The old server had been given up: what was asked for last is a third one.
    assert [server.max_loras for server, _ in lives] == [24, 12, 24]
    assert not lives[1][1]
    assert sum(s.end_s - s.start_s for _, stretches in lives for s in stretches) == len(everybody) * of.end_s


def test_an_adapter_that_is_placed_nowhere_is_refused() -> None:
    timeline = Timeline(day(flat=True).workload, 120.0, "careless")
    with pytest.raises(UserError, match=r"controller careless: adapter 1 is placed 0 times"):
        timeline.ask(0.0, {0: GpuPlan((0,), 1)}, first=True)
