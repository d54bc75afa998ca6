"""With what probability a plan holds: the share is that of other draws too, and a wanted one is kept by the fewest GPUs that do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import plan
from bench.planning.adapters import Adapter, Traffic
from bench.planning.chance import Load, chance_of
from twin import INTERACTIVE, PUBLISHED, GpuPlan, Placement, PoissonArrivals, ServiceLevel, fixed_lengths, load_profile

ADAPTERS = [Adapter("a", 8, 12.0), Adapter("b", 16, 10.0), Adapter("c", 16, 8.0)]


def load(profile: str, rate: float, service: ServiceLevel = INTERACTIVE) -> Load:
    loaded = load_profile(profile)
    adapters = [replace(adapter, rate=adapter.rate * rate) for adapter in ADAPTERS]
    traffic = Traffic.of(loaded, lengths=fixed_lengths(200, 100), arrivals=PoissonArrivals(), duration_s=40.0, seed=0)
    return Load(adapters, traffic, loaded, service)


ALONE = Placement((GpuPlan((0, 1, 2), 3),))


@pytest.mark.parametrize(
    ("profile", "rate"), [("mistral-7b/h100-80gb", 3.3), ("llama-3.1-8b", 1.95), ("qwen-2.5-7b/l40s-48gb", 0.9)]
)
def test_the_stated_share_of_other_servers_holds(profile: str, rate: float) -> None:
    """Within two points, near the limit, where it matters."""
    asked = load(profile, rate)
    stated = chance_of(ALONE, asked)
    assert stated is not None
    assert 0.05 < stated.share < 0.999
    for seed in (101, 102):
        other = chance_of(ALONE, asked, samples=1024, seed=seed)
        assert other is not None
        assert abs(other.share - stated.share) <= 0.02


def test_more_load_is_less_likely_to_be_served() -> None:
    shares = []
    for rate in (0.5, 3.3, 8.0):
        found = chance_of(ALONE, load("mistral-7b/h100-80gb", rate, PUBLISHED), samples=64)
        assert found is not None
        shares.append(found.share)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1.0
    assert shares[-1] == 0.0


def test_a_profile_that_does_not_say_gets_no_probability() -> None:
    asked = load("llama-3.1-8b", 0.5)
    assert chance_of(ALONE, replace(asked, profile=replace(asked.profile, uncertainty=None))) is None


def planned(folder: Path, *more: str) -> dict[str, object]:
    (folder / "adapters.csv").write_text(
        "name,rank,rate\n" + "".join(f"{a.name},{a.rank},{a.rate * 1.6}\n" for a in ADAPTERS)
    )
    plan.main([
        f"adapters={folder}/adapters.csv", f"out={folder}/plan", "profile=mistral-7b/h100-80gb", "solver=max_pack", "duration_s=60",
        "published=false", *more,
    ])  # fmt: skip
    found: dict[str, object] = json.loads((folder / "plan" / "plan.json").read_text())
    return found


def test_a_plan_is_as_sure_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = planned(tmp_path)
    sure = planned(tmp_path, "confidence=0.95")
    assert "holds with a probability of" in capsys.readouterr().out
    shares = [each["chance"]["share"] for each in (plain, sure)]  # type: ignore[index]
    assert shares[0] < 0.95 <= shares[1]
    assert plain["gpus"] == 1
    assert sure["gpus"] == 2
    assert sure["slowdown"] > 1.0  # type: ignore[operator]
    # The bound is of the profile itself, so that it is no more than the plain plan has.
    assert (sure["lower_bound"] or 0) <= 1  # type: ignore[operator]


def test_what_cannot_be_had_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        planned(tmp_path, "confidence=0.95", "gpus=1")
    assert end.value.code == 1
    assert "no placement was found that holds with a probability of 95%" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        planned(tmp_path, "confidence=1.5")
    assert end.value.code == 2
    assert "confidence=1.5" in capsys.readouterr().err
