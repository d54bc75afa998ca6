"""What the gate compares, on rows: the best of the times by their own calibration, edges, and every figure by its direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from bench.comparison.cell import Cell
from bench.comparison.differences import FIGURES, faster, figure_differences, time_differences
from bench.comparison.execution import Execution
from bench.comparison.machine import processor
from bench.comparison.rows import Row
from bench.regress import RegressConfig, _judges_time, _timed_again

ROW = Row(
    workload="w", seed=3, solver="s", objective="min_gpus", profile="p", status="feasible", feasible=True, gpus=4,
    lower_bound=3, starved_gpus=1, memory_errors=1, starved_adapters=5, oracle_calls=100, simulated_steps=5000,
    preemptions=7, adapter_loads=9, throughput=1000.0, itl_ms=20.0, ttft_ms=300.0, placement="[]",
    solve_time_s=0.2, score_time_s=0.4, calibration_s=0.01, processor=processor(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("field", "figure", "smaller", "larger"),
    [
        ("gpus", "GPUs", "better", "worse"),
        ("lower_bound", "lower bound", "worse", "better"),
        ("starved_gpus", "starved GPUs", "better", "worse"),
        ("memory_errors", "memory errors", "better", "worse"),
        ("starved_adapters", "starved adapters", "better", "worse"),
        ("oracle_calls", "oracle calls", "better", "worse"),
        ("simulated_steps", "simulated steps", "different", "different"),
        ("preemptions", "preemptions", "different", "different"),
        ("adapter_loads", "adapter loads", "different", "different"),
        ("throughput", "throughput", "different", "different"),
        ("itl_ms", "ITL ms", "different", "different"),
        ("ttft_ms", "TTFT ms", "different", "different"),
    ],
)
def test_every_figure_counts_and_has_its_direction(field: str, figure: str, smaller: str, larger: str) -> None:
    before = getattr(ROW, field)
    for now, verdict in ((before - 1, smaller), (before + 1, larger)):
        found = {d.figure: d for d in figure_differences(ROW, replace(ROW, **{field: now}))}
        assert found[figure].verdict == verdict
        assert found[figure].fails


def test_no_figure_is_compared_with_itself_under_two_names() -> None:
    assert len({name for name, *_ in FIGURES}) == len(FIGURES)
    assert figure_differences(ROW, ROW) == []


@pytest.mark.parametrize(("relative", "differs"), [(1e-10, False), (1e-8, True)])
def test_figures_are_the_same_but_for_rounding(relative: float, *, differs: bool) -> None:
    assert bool(figure_differences(ROW, replace(ROW, throughput=1000.0 * (1 + relative)))) == differs


def test_a_gap_is_to_the_instance_s_bound_where_it_has_one() -> None:
    """(4 - 2) / 2 against (4 - 3) / 3."""
    found = {d.figure: d for d in figure_differences(ROW, replace(ROW, best_bound=2))}
    assert (found["gap"].before, found["gap"].now, found["gap"].verdict) == ("0.333333", "1", "worse")
    assert "gap" not in {
        d.figure for d in figure_differences(replace(ROW, best_bound=2), replace(ROW, best_bound=2, lower_bound=1))
    }


@pytest.mark.parametrize(
    ("solve_s", "verdict"),
    [(0.2, None), (0.2499, None), (0.2501, "worse"), (0.1601, None), (0.1599, "better"), (0.05, "better")],
)
def test_a_margin_of_a_quarter_is_five_fourths_and_four_fifths(solve_s: float, verdict: str | None) -> None:
    found = time_differences(ROW, replace(ROW, solve_time_s=solve_s), 0.25, 0.0)
    assert [d.verdict for d in found] == ([verdict] if verdict else [])


@pytest.mark.parametrize(("floor_s", "found"), [(0.1, 0), (0.0999, 1)])
def test_a_difference_of_the_floor_is_noise(floor_s: float, found: int) -> None:
    """In seconds of today's machine, which takes three times as long: 0.6 s are expected, 0.7 is a tenth more."""
    now = replace(ROW, solve_time_s=0.7, score_time_s=1.2, calibration_s=0.03)
    assert len(time_differences(ROW, now, 0.1, floor_s)) == found


def test_a_difference_of_exactly_the_floor_is_noise_too() -> None:
    """Half a second became three quarters."""
    before, now = replace(ROW, solve_time_s=0.5), replace(ROW, solve_time_s=0.75)
    assert time_differences(before, now, 0.1, 0.25) == []
    assert len(time_differences(before, now, 0.1, 0.2499)) == 1


def test_a_time_where_there_was_none_is_endlessly_slower() -> None:
    (found,) = time_differences(replace(ROW, solve_time_s=0.0), ROW, 0.25, 0.01)
    assert found.now.endswith("(inf times, calibrated)")
    assert found.verdict == "worse"


# --- timed again


def test_the_faster_time_is_that_by_its_own_calibration() -> None:
    """The second run had a machine half as fast, so that its 0.3 s are 0.15 of the first's, and its 0.9 s are 0.45."""
    second = replace(ROW, solve_time_s=0.3, score_time_s=0.9, calibration_s=0.02)
    best = faster(ROW, second)
    assert (best.solve_time_s, best.score_time_s) == pytest.approx((0.15, 0.4))
    assert best.calibration_s == 0.01
    # The other way round: in the second's terms 0.2 s of the first are 0.4.
    other = faster(second, ROW)
    assert (other.solve_time_s, other.score_time_s) == pytest.approx((0.3, 0.8))


@pytest.mark.parametrize("change", [{"status": "crash"}, {"calibration_s": None}])
def test_a_run_that_failed_or_was_not_calibrated_is_notfaster(change: dict[str, Any]) -> None:
    second = replace(ROW, solve_time_s=0.001, **change)
    assert faster(ROW, second) == ROW
    assert faster(second, ROW) == second


def test_a_time_that_one_run_lacks_is_the_first_s() -> None:
    assert faster(ROW, replace(ROW, solve_time_s=None)).solve_time_s == 0.2
    assert faster(replace(ROW, solve_time_s=None), ROW).solve_time_s is None


def test_only_what_seems_slower_is_timed_again_and_until_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second candidate is slow twice, then as fast as ever; the others are left alone."""
    asked: list[list[str]] = []
    times = iter([0.5, 0.21])

    def run(cells: Sequence[Cell], _: Execution) -> list[Row]:
        asked.append([cell.solver for cell in cells])
        return [replace(ROW, solve_time_s=next(times)) for _ in cells]

    monkeypatch.setattr("bench.regress.run_cells", run)
    cells = [Cell(solver=name, solver_options={}, workload={}) for name in "abc"]
    rows = [ROW, replace(ROW, solve_time_s=0.6), replace(ROW, solve_time_s=0.1)]
    config = RegressConfig(time_floor_ms=10.0, retries=3)
    best = _timed_again(cells, [ROW] * 3, rows, Execution(show=False), config)
    assert asked == [["b"], ["b"]]
    assert [row.solve_time_s for row in best] == pytest.approx([0.2, 0.21, 0.1])
    assert _timed_again(cells, [ROW] * 3, rows, Execution(show=False), replace(config, retries=0)) == rows


@pytest.mark.parametrize(
    ("change", "options", "judged"),
    [
        ({}, {}, True),
        ({"processor": "another"}, {}, False),
        ({"processor": "another"}, {"time": "always"}, True),
        ({"calibration_s": None}, {"time": "always"}, False),
        ({}, {"check": ["figures"]}, False),
    ],
)
def test_times_are_judged_on_the_reference_s_processor(
    change: dict[str, Any], options: dict[str, Any], *, judged: bool
) -> None:
    """One row of another processor is enough."""
    found, notes = _judges_time([ROW, replace(ROW, **change)], RegressConfig(**options))
    assert found == judged
    assert bool(notes) != judged
    assert math.isclose(RegressConfig().time_margin, 0.25)
