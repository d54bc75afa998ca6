"""Bounds proven again from their certificates, and certificates that somebody has changed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest

from bench.certificates.adding_up import RefusedError, Zone, check_cover, exact_bound
from bench.certificates.proof import checksum_of, prove
from solvers.base import CERTIFICATE, Problem
from solvers.exact import Exact
from solvers.objectives.min_gpus import MinGpus
from twin import INTERACTIVE, PUBLISHED, ServiceLevel, Workload, load_profile, workload_from_groups

PROFILE = load_profile("llama-3.1-8b")
WORKLOAD = workload_from_groups([(6, 8, 7.0), (6, 16, 7.0)], duration_s=120.0, seed=3)
ONE_MORE = workload_from_groups([(5, 8, 9.0)], duration_s=120.0, seed=3)


def certified(workload: Workload, service: ServiceLevel = PUBLISHED) -> tuple[int, dict[str, Any]]:
    """A lower bound of `exact` and its certificate."""
    problem = Problem(workload, PROFILE, MinGpus(), time_limit_s=60.0, service=service)
    solver = Exact(oracle="twin", workers=1, best_service=False)
    # Kernels are compiled before the clock starts, as a comparison has it.
    solver.run(replace(problem, time_limit_s=5.0))
    solver.warm_up(problem)
    solution = solver.run(problem)
    assert solution.lower_bound is not None
    certificate: dict[str, Any] = json.loads(solution.details[CERTIFICATE])
    return solution.lower_bound, certificate


@pytest.fixture(scope="module")
def certificate() -> dict[str, Any]:
    """Of three GPUs, by contents of adapters and made-up ones."""
    bound, found = certified(WORKLOAD)
    assert bound == found["bound"] == 3
    assert {content["made_up"] > 0 for content in found["contents"]} == {True, False}
    return found


def text_of(certificate: dict[str, Any]) -> str:
    """As it stands in a row, with a checksum that is right."""
    return json.dumps({**certificate, "checksum": checksum_of(certificate)})


def test_a_bound_is_proven_again(certificate: dict[str, Any]) -> None:
    bound, how = prove(json.dumps(certificate), WORKLOAD, PROFILE, PUBLISHED)
    assert bound == 3
    assert how.startswith(f"{certificate['value']:.4f}")


@pytest.mark.parametrize("service", [PUBLISHED, INTERACTIVE], ids=lambda level: level.name)
def test_one_gpu_for_all_is_simulated_at_every_max_loras(service: ServiceLevel) -> None:
    bound, found = certified(ONE_MORE, service)
    assert bound == 2
    assert found["every_value"]
    assert prove(json.dumps(found), ONE_MORE, PROFILE, service)[0] == 2
    light = workload_from_groups([(5, 8, 0.5)], duration_s=120.0, seed=3)
    with pytest.raises(RefusedError, match="other requests"):
        prove(json.dumps(found), light, PROFILE, service)


def test_a_bound_for_latency_is_proven_again() -> None:
    bound, found = certified(WORKLOAD, INTERACTIVE)
    assert found["service"] == "interactive"
    assert prove(json.dumps(found), WORKLOAD, PROFILE, INTERACTIVE)[0] >= found["bound"] > 2
    assert bound >= found["bound"]


def test_where_no_placement_is_found_the_bound_has_a_certificate_too() -> None:
    """More GPUs are needed than there are: the certificate proves that."""
    problem = Problem(WORKLOAD, PROFILE, MinGpus(), time_limit_s=60.0, max_gpus=1)
    solver = Exact(oracle="twin", workers=1, best_service=False)
    solver.warm_up(problem)
    solution = solver.run(problem)
    assert solution.status == "infeasible"
    assert prove(solution.details[CERTIFICATE], WORKLOAD, PROFILE, PUBLISHED)[0] >= 2


# --- somebody has changed it


def first(certificate: dict[str, Any], *, made_up: bool) -> dict[str, Any]:
    """A content of one of the two kinds."""
    return next(content for content in certificate["contents"] if (content["made_up"] > 0) == made_up)


def tight(certificate: dict[str, Any]) -> dict[str, Any]:
    """The zone whose dearest content costs most of all."""
    zones = certificate["zones"]
    return max(
        zones,
        key=lambda zone: sum(m * (limit or 0) for m, limit in zip(zone["multipliers"], zone["limits"], strict=True)),
    )


def scale(values: list[Any], factor: float) -> None:
    """Every number of a list in place, as many times as large."""
    values[:] = [None if value is None else value * factor for value in values]


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "bound": lambda c: c.update(bound=4),
    "value": lambda c: c.update(value=c["value"] * 1.01),
    "format": lambda c: c.update(format=2),
    "requests": lambda c: c.update(requests="0" * 64),
    "profile": lambda c: c.update(profile="qwen-2.5-7b/h100-64gb"),
    "service": lambda c: c.update(service="batch"),
    "margin": lambda c: c["margins"].update(margin=0.0),
    "sigmas": lambda c: c["margins"].update(sigmas=1.0),
    "every value": lambda c: c.update(every_value=True, bound=3),
    "times": lambda c: scale(c["times_s"], 1e-3),
    "a price up": lambda c: c["prices"].__setitem__(0, c["prices"][0] * 1.1),
    "a price down": lambda c: c["prices"].__setitem__(0, c["prices"][0] * 0.9),
    "a price below nothing": lambda c: c["prices"].__setitem__(0, -0.1),
    "a price less": lambda c: c["prices"].pop(),
    "all prices": lambda c: scale(c["prices"], math.nan),
    "a zone less": lambda c: c["zones"].remove(tight(c)),
    "no zone": lambda c: c["zones"].clear(),
    "limits of a zone up": lambda c: scale(tight(c)["limits"], 1.2),
    "limits of a zone down": lambda c: scale(tight(c)["limits"], 0.9),
    "multipliers up": lambda c: scale(tight(c)["multipliers"], 1.3),
    "multipliers down": lambda c: scale(tight(c)["multipliers"], 0.7),
    "multipliers below nothing": lambda c: scale(tight(c)["multipliers"], -1.0),
    "rank of the zones": lambda c: [zone.update(rank=8) for zone in c["zones"]],
    "a content less": lambda c: c["contents"].remove(first(c, made_up=False)),
    "an adapter less": lambda c: first(c, made_up=False)["adapters"].pop(),
    "fewer sums": lambda c: scale(first(c, made_up=False)["sums"], 0.8),
    "more sums": lambda c: scale(first(c, made_up=False)["sums"], 1.2),
    "another rank": lambda c: first(c, made_up=False).update(rank=99),
    "no cut": lambda c: first(c, made_up=False).update(cut=False),
    "a span less": lambda c: first(c, made_up=False)["spans"].pop(),
    "no span": lambda c: first(c, made_up=False)["spans"].clear(),
    "a span of nothing": lambda c: first(c, made_up=False)["spans"].append([3, 2]),
    "an adapter twice": lambda c: first(c, made_up=False)["adapters"].append(first(c, made_up=False)["adapters"][0]),
    "an adapter that is not there": lambda c: first(c, made_up=False)["adapters"].append(99),
    "made up of more": lambda c: first(c, made_up=True).update(made_up=7),
    "another load": lambda c: first(c, made_up=True).update(load=100.0),
    "no contents": lambda c: c["contents"].clear(),
    "a word": lambda c: c.update(prices="many"),
    "a key less": lambda c: c.pop("zones"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_tampered_certificate_fails(certificate: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    """By its checksum, and by what it says where the checksum was made anew."""
    tampered = json.loads(json.dumps(certificate))
    change(tampered)
    with pytest.raises(RefusedError):
        prove(json.dumps(tampered), WORKLOAD, PROFILE, PUBLISHED)
    with pytest.raises(RefusedError):
        prove(text_of(tampered), WORKLOAD, PROFILE, PUBLISHED)


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"format": 1}', "null", "[" * 100_000])
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(RefusedError):
        prove(text, WORKLOAD, PROFILE, PUBLISHED)


def test_another_service_level_of_the_same_name_is_refused(certificate: dict[str, Any]) -> None:
    """Contents fall short of one level, and not of a lower one."""
    lower = ServiceLevel(**{**asdict(PUBLISHED), "share": 0.5})
    with pytest.raises(RefusedError, match="not short by the margin"):
        prove(json.dumps(certificate), WORKLOAD, PROFILE, lower)


# --- the arithmetic


def test_prices_add_up_exactly() -> None:
    """Half a GPU for each of three adapters, with figures that binary fractions do not have."""
    zone = Zone(8, (0.2, math.inf), (5.0, 0.0))
    sums = np.array([[0.1, 1.0]] * 3)
    value = exact_bound([0.5, 0.5, 0.5], sums, np.array([8, 8, 8]), [zone])
    assert isinstance(value, Fraction)
    assert value == pytest.approx(1.5)
    # What a zone of a smaller rank cannot hold costs nothing in it.
    assert exact_bound([0.5, 0.5, 0.5], sums, np.array([8, 8, 16]), [zone]) == pytest.approx(1.5)


@pytest.mark.parametrize("seed", range(5))
def test_zones_hold_what_cuts_leave(seed: int) -> None:
    """Every point of a grid is ruled out by a cut or lies in a zone; without any one of the zones some point does not."""
    generator = np.random.default_rng(seed)
    points = generator.integers(1, 5, (4, 3)).astype(float)
    left = [
        tuple(float(value) if value < 6 else math.inf for value in limits)
        for limits in product(range(1, 7), repeat=3)
        if not any((np.array(limits) > point).all() for point in points)
    ]
    largest = [one for one in left if not any(one != other and np.greater_equal(other, one).all() for other in left)]
    zones = [Zone(16, one, (0.0, 0.0, 0.0)) for one in largest]
    cuts = [(8, point) for point in points]
    check_cover(cuts, zones, {8, 16})
    for missing in range(len(zones)):
        with pytest.raises(RefusedError, match="no zone holds"):
            check_cover(cuts, zones[:missing] + zones[missing + 1 :], {8, 16})
    with pytest.raises(RefusedError, match="rank 8"):
        # A cut of a larger rank says nothing of contents without it.
        check_cover([(16, point) for point in points], zones, {8, 16})


@pytest.mark.parametrize("times_s", [[], [1e9, 2e9, 4e9], [0.5, 1.0, 2.0], [-1.0, 0.0, 1.0]])
def test_nobody_chooses_when_adapters_are_compared(certificate: dict[str, Any], times_s: list[float]) -> None:
    """With fewer or other times in service a cut would rule out contents that ask for less of what counts."""
    with pytest.raises(RefusedError, match="other times in service"):
        prove(text_of(certificate | {"times_s": times_s}), WORKLOAD, PROFILE, PUBLISHED)
