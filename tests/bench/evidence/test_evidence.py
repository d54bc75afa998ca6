"""What published runs say of a planned GPU: never that it served what a real GPU did not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.evidence.demand import DEMANDS, demand_of, demand_of_gpu, lengths_of
from bench.evidence.runs import (
    COLUMNS,
    NONE,
    OWN,
    _judged,
    _Runs,
    evidence_of,
    known_runs,
    published_runs,
    record,
    write_own,
)
from bench.measured.published import sharegpt_lengths
from twin import GpuPlan, UserError, Workload, load_profile
from twin.arrivals import GammaArrivals

RUNS = published_runs()
PROFILE = load_profile("llama-3.1-8b")


def workload(ranks: list[int], rates: list[float]) -> Workload:
    """With the lengths of the published pool of prompts."""
    lengths = sharegpt_lengths(222.8, 196.4, PROFILE.generated_fraction)
    return Workload(np.array(ranks), np.array(rates), lengths, duration_s=600.0)


def judged(run: pd.Series, factor: float, max_loras: int) -> str:
    mine = RUNS[RUNS.profile == run.profile]
    return _judged(run[list(DEMANDS)].to_numpy(dtype=float) * factor, max_loras, _Runs.of(mine)).kind


@pytest.mark.parametrize("profile", sorted(RUNS.profile.unique()))
def test_no_run_that_starved_is_called_served(profile: str) -> None:
    """Nor is anything that asks for as much or more, with its number of slots."""
    starved = RUNS[(RUNS.profile == profile) & (RUNS.starved | RUNS.memory_error)]
    assert len(starved) > 50
    for _, run in starved.iterrows():
        assert judged(run, 1.0, run.max_loras) != "served"
        assert judged(run, 1.05, run.max_loras) != "served"


def test_what_a_run_served_is_served_and_so_is_less() -> None:
    served = RUNS[~RUNS.starved & ~RUNS.memory_error]
    for _, run in served.iloc[::7].iterrows():
        kinds = [judged(run, factor, run.max_loras) for factor in (1.0, 0.9)]
        # But for one that starved on as much, with as many slots: real runs disagree near the limit.
        assert kinds[0] == "served" or kinds == ["near", "near"] or kinds[1] == "served"


@given(number=st.integers(0, len(RUNS) - 1), factor=st.floats(0.3, 3.0), slots=st.sampled_from([8, 32, 128, 384]))
def test_the_run_that_served_was_asked_for_as_much(number: int, factor: float, slots: int) -> None:
    run = RUNS.iloc[number]
    mine = RUNS[RUNS.profile == run.profile]
    demand = run[list(DEMANDS)].to_numpy(dtype=float) * factor
    found = _judged(demand, slots, _Runs.of(mine))
    if found.kind == "served":
        witness = mine[mine.run == found.run].iloc[0]
        assert not witness.starved
        assert not witness.memory_error
        assert (witness[list(DEMANDS)].to_numpy(dtype=float) >= demand * (1 - 1e-6)).all()
        assert found.max_loras == witness.max_loras


def test_demands_by_hand() -> None:
    demand = dict(zip(DEMANDS, demand_of(np.array([8, 32]), np.array([0.5, 0.0])), strict=True))
    assert demand["n_adapters"] == 2
    assert demand["sum_rate"] == 0.5
    assert demand["max_rank"] == 32
    assert demand["mean_rank"] == 20
    # One of them is active with probability 1 - exp(-rate x time).
    assert demand["active_in_4_s"] == pytest.approx(1 - np.exp(-2.0))


def test_a_replica_asks_for_its_share() -> None:
    asked = workload([8, 16], [1.0, 2.0])
    whole = demand_of_gpu(GpuPlan((0, 1), 2), asked)
    half = demand_of_gpu(GpuPlan((0, 1), 2, (1.0, 0.5)), asked)
    assert half[1] == whole[1] - 1.0
    assert half[0] == whole[0]


def test_a_light_gpu_is_served_and_one_beyond_all_runs_is_not() -> None:
    plans = [GpuPlan(tuple(range(16)), 16)]
    light, heavy = workload([8] * 16, [0.01] * 16), workload([8] * 16, [20.0] * 16)
    assert evidence_of(plans, light, PROFILE)[0].kind == "served"
    assert evidence_of(plans, heavy, PROFILE) == (NONE,)


def test_other_traffic_or_servers_have_no_evidence() -> None:
    plans = [GpuPlan((0, 1), 2)]
    known = workload([8, 8], [0.01, 0.01])
    assert evidence_of(plans, known, PROFILE)[0].kind == "served"
    bursts = replace(known, arrivals=GammaArrivals(cv=3.0))
    long = replace(known, lengths=sharegpt_lengths(600.0, 196.4, 1.0))
    assert lengths_of(bursts) is None
    same_prompt = replace(known, shared_prompt_tokens=np.array([0, 100]))
    assert lengths_of(same_prompt) is None
    assert evidence_of(plans, same_prompt, PROFILE) == (NONE,)
    assert evidence_of(plans, bursts, PROFILE) == (NONE,)
    assert evidence_of(plans, long, PROFILE) == (NONE,)
    assert evidence_of(plans, known, load_profile("mistral-7b/a100-80gb")) == (NONE,)
    assert evidence_of(plans, replace(known, duration_s=7200.0), PROFILE) == (NONE,)


def own_run(profile: str = "mistral-7b/a100-80gb", **changes: object) -> dict[str, object]:
    asked = workload([8, 16], [1.0, 2.0])
    lengths = lengths_of(asked)
    assert lengths is not None
    about = {"run": "gpu-0/run-0", "profile": profile, "window_s": 600.0, "max_loras": 2, "max_lora_rank": 16}
    return (
        record(demand_of_gpu(GpuPlan((0, 1), 2), asked), lengths, (False, False), [1.01, 1.0, 0.9], **about) | changes
    )


def test_own_runs_are_evidence_for_the_profile_they_had(tmp_path: Path) -> None:
    """For less than they served, not for more, not for another profile; and a window that starved is none."""
    profile = load_profile("mistral-7b/a100-80gb")
    write_own([own_run()], tmp_path / "mine" / "deeper")
    known = known_runs([str(tmp_path / "mine")])
    assert len(known) == len(RUNS) + 1
    plans = [GpuPlan((0, 1), 2)]
    asked = workload([8, 16], [0.9, 1.9])
    assert evidence_of(plans, asked, profile) == (NONE,)
    (found,) = evidence_of(plans, asked, profile, known)
    assert found.kind == "served"
    assert found.run.endswith("deeper/gpu-0/run-0")
    assert found.error_pct == pytest.approx(1.0)
    assert evidence_of(plans, workload([8, 16], [3.0, 6.0]), profile, known) == (NONE,)
    assert evidence_of(plans, asked, load_profile("mistral-7b/h100-80gb"), known) == (NONE,)
    assert evidence_of(plans, replace(asked, duration_s=3600.0), profile, known) == (NONE,)
    write_own([own_run(starved=True)], tmp_path / "starved")
    (near,) = evidence_of(plans, asked, profile, known_runs([str(tmp_path / "starved")]))
    assert (near.kind, near.starved) == ("near", 1)


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evidence=.*: no folder with an evidence.csv"):
        known_runs([str(tmp_path)])
    write_own([own_run()], tmp_path / "a")
    path = tmp_path / "a" / OWN
    table = pd.read_csv(path)
    table.drop(columns="max_rank").to_csv(path, index=False)
    with pytest.raises(UserError, match="column max_rank is missing"):
        known_runs([str(tmp_path)])
    for column, value, says in (("sum_rate", "fast", "a number, 0 or more"), ("starved", "perhaps", "True or False")):
        table.astype(object).assign(**{column: value}).to_csv(path, index=False)
        with pytest.raises(UserError, match=f"row 1: {column}={value} must be {says}"):
            known_runs([str(tmp_path)])


def test_what_is_committed_is_what_is_written() -> None:
    assert tuple(RUNS.columns) == COLUMNS
