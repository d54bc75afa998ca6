"""Which bound stands, which is refuted, and by whom: at the edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.comparison.rows import Row
from bench.statistics.contradictions import (
    CONTRADICTION,
    LowerBound,
    all_contradictions,
    claims,
    contradictions,
    end_with,
    has_replicas,
    standing_bound,
)
from twin import GpuPlan, Placement

SHARED = Placement((GpuPlan((0,), 1, (0.5,)), GpuPlan((0,), 1, (0.5,)))).to_json()
WHOLE = Placement((GpuPlan((0,), 1), GpuPlan((1,), 1))).to_json()
REPLICAS, NONE = '{"oracle": "twin", "replicas": true}', '{"oracle": "twin", "replicas": false}'


def row(solver: str, gpus: int | None, bound: int | None = None, **more: Any) -> Row:  # noqa: ANN401  # fields of Row
    answer: dict[str, Any] = {"feasible": gpus is not None, "gpus": gpus, "lower_bound": bound, "details": REPLICAS}
    plain = Row(workload="w", seed=0, solver=solver, objective="min_gpus", profile="p", status="feasible")
    return replace(plain, **{**answer, **more})


def test_a_bound_is_refuted_below_it_and_not_at_it() -> None:
    assert contradictions([row("a", 4, 4), row("b", 4)]) == []
    assert contradictions([row("a", 4, 5), row("b", 6)]) == [
        "a has a feasible placement on 4 GPUs, below the bound of 5 by a"
    ]
    assert contradictions([row("a", None, 2), row("b", 1)]) == [
        "b has a feasible placement on 1 GPU, below the bound of 2 by a"
    ]


def test_what_is_not_feasible_or_has_no_placement_refutes_nothing() -> None:
    assert contradictions([row("a", 9, 5), row("b", 4, feasible=False), row("c", None)]) == []


def test_a_bound_of_whole_adapters_is_not_refuted_by_replicas() -> None:
    bound = row("a", 9, 5, details=NONE)
    assert contradictions([bound, row("b", 2, placement=SHARED)]) == []
    assert len(contradictions([bound, row("b", 2, placement=WHOLE)])) == 1
    assert len(contradictions([replace(bound, details=REPLICAS), row("b", 2, placement=SHARED)])) == 1
    assert has_replicas(row("b", 2, placement=SHARED))
    assert not has_replicas(row("b", 2, placement=WHOLE))
    assert not has_replicas(row("b", None))


def test_a_claim_is_for_the_twin_or_for_nobody_named() -> None:
    rows = [
        row("a", 4, 3),
        row("b", 4, 9, details='{"oracle": "predictor"}'),
        row("c", 4, 2, details=None),
        row("d", 4),
    ]
    assert claims(rows) == [LowerBound(3, "a", whole=False), LowerBound(2, "c", whole=True)]
    assert [claim.scope for claim in claims(rows)] == ["any max_loras, any replicas", "one GPU per adapter"]


@pytest.mark.parametrize(
    ("rows", "standing"),
    [
        ([row("a", 4, 3), row("b", 4, 2)], (3, "a")),
        # Refuted by the placement of b.
        ([row("a", 4, 4), row("b", 3, 2)], (2, "b")),
        # One for any replicas goes first, however much less it says.
        ([row("a", 4, 2), row("b", 4, 3, details=NONE)], (2, "a")),
        ([row("b", 4, 3, details=NONE)], (3, "b")),
        # Shared, two GPUs do: what says three of whole adapters says nothing of that fleet.
        ([row("a", 2, 1, placement=SHARED), row("b", 4, 3, details=NONE)], (1, "a")),
        ([row("b", 4, 3, details=NONE), row("a", 2, placement=SHARED)], None),
        # Nobody has a placement.
        ([row("a", None, 7)], (7, "a")),
        ([row("a", 4)], None),
    ],
)
def test_the_bound_that_stands(rows: list[Row], standing: tuple[int, str] | None) -> None:
    found = standing_bound(rows)
    assert (None if found is None else (found.bound, found.by)) == standing


def test_questions_are_kept_apart() -> None:
    """Another seed, service level, profile, objective or workload is another question."""
    bound = row("a", 9, 5)
    for other in (
        {"seed": 1}, {"service": "interactive"}, {"profile": "q"}, {"objective": "min_latency"}, {"workload": "v"},
    ):  # fmt: skip
        assert all_contradictions([bound, row("b", 2, **other)]) == []
    (line,) = all_contradictions([bound, row("b", 2)])
    assert line == "w: b has a feasible placement on 2 GPUs, below the bound of 5 by a"


def test_what_earlier_runs_knew_is_refuted_by_whole_adapters_alone() -> None:
    known = {"best_bound": 4}
    assert all_contradictions([row("a", 4, **known)]) == []
    assert all_contradictions([row("a", 3, placement=SHARED, **known)]) == []
    (line,) = all_contradictions([row("a", 3, placement=WHOLE, **known), row("b", 5, **known)])
    assert line.endswith("below the bound of 4 by an earlier run")
    # One line for one fact.
    (line,) = all_contradictions([row("a", 3, 5, placement=WHOLE, **known)])
    assert line.endswith("below the bound of 5 by a")


def test_a_contradiction_is_said_and_ends_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    end_with([])
    with pytest.raises(SystemExit) as ended:
        end_with(["a is wrong", "b\x1b[2J too"])
    assert ended.value.code == CONTRADICTION == 3
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "CONTRADICTION: a is wrong"
    assert len(said) == 2
    assert "\x1b" not in said[1]
