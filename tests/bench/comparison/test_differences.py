"""What the gate calls a difference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.comparison.differences import (
    FIGURES,
    either_cut_short,
    faster,
    figure_differences,
    is_cut_short,
    markdown,
    missing_figures,
    time_differences,
)
from bench.comparison.rows import PERCENTILES, Row

PERCENTILES_MS: dict[str, Any] = dict.fromkeys(PERCENTILES, 100.0)

ROW = Row(
    workload="w",
    seed=3,
    solver="s",
    objective="min_gpus",
    profile="p",
    status="feasible",
    feasible=True,
    gpus=4,
    lower_bound=3,
    starved_gpus=0,
    oracle_calls=100,
    simulated_steps=5000,
    throughput=1000.0,
    offered_throughput=1050.0,
    headroom=0.05,
    failed_gpus=0,
    failing_adapters=0,
    goodput=0.99,
    worst_gpu_goodput=0.98,
    worst_adapter_goodput=0.96,
    **PERCENTILES_MS,
    placement='[{"max_loras": 1, "adapters": [0]}, {"max_loras": 2, "adapters": [1]}]',
    time_limit_s=60.0,
    solve_time_s=0.2,
    score_time_s=0.05,
    calibration_s=0.01,
)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"gpus": 5, "lower_bound": None}, "worse: s on w (seed 3): GPUs 4 -> 5"),
        ({"gpus": 3}, "better: s on w (seed 3): GPUs 4 -> 3"),
        ({"feasible": False}, "worse: s on w (seed 3): feasible yes -> no"),
        ({"lower_bound": 2}, "worse: s on w (seed 3): lower bound 3 -> 2"),
        ({"lower_bound": 2}, "worse: s on w (seed 3): gap 0.333333 -> 1"),
        ({"lower_bound": 4}, "better: s on w (seed 3): lower bound 3 -> 4"),
        ({"oracle_calls": 101}, "worse: s on w (seed 3): oracle calls 100 -> 101"),
        ({"simulated_steps": 5001}, "different: s on w (seed 3): simulated steps 5000 -> 5001"),
        ({"failing_adapters": 1}, "worse: s on w (seed 3): adapters that fail 0 -> 1"),
        ({"failed_gpus": 1}, "worse: s on w (seed 3): failed GPUs 0 -> 1"),
        ({"goodput": 0.989}, "worse: s on w (seed 3): goodput 0.99 -> 0.989"),
        ({"worst_gpu_goodput": 0.981}, "better: s on w (seed 3): worst GPU's goodput 0.98 -> 0.981"),
        ({"worst_adapter_goodput": 0.95}, "worse: s on w (seed 3): worst adapter's goodput 0.96 -> 0.95"),
        ({"headroom": 0.0501}, "better: s on w (seed 3): head-room 0.05 -> 0.0501"),
        ({"headroom": -0.01}, "worse: s on w (seed 3): head-room 0.05 -> -0.01"),
        ({"offered_throughput": 1051.0}, "different: s on w (seed 3): offered throughput 1050 -> 1051"),
        ({"ttft_p95_ms": 100.01}, "different: s on w (seed 3): TTFT p95 ms 100 -> 100.01"),
        ({"tpot_p50_ms": None}, "different: s on w (seed 3): TPOT p50 ms 100 -> none"),
        ({"throughput": 1000.001}, "different: s on w (seed 3): throughput 1000 -> 1000"),
        (
            {"status": "crash", "gpus": None, "message": "died"},
            "worse: s on w (seed 3): status feasible -> crash (died)",
        ),
        ({"status": "optimal"}, "different: s on w (seed 3): status feasible -> optimal"),
        (
            {"placement": '[{"max_loras": 2, "adapters": [0]}, {"max_loras": 2, "adapters": [1]}]'},
            "different: s on w (seed 3): placement 2 GPUs -> 2 GPUs",
        ),
    ],
)
def test_any_changed_figure_fails_with_its_line(change: dict[str, Any], line: str) -> None:
    found = figure_differences(ROW, replace(ROW, **change))
    assert line in [difference.line for difference in found]
    assert all(difference.fails for difference in found)


def test_what_is_the_same_is_no_difference() -> None:
    other_order = '[{"max_loras": 2, "adapters": [1]}, {"adapters": [0], "max_loras": 1}]'
    same = replace(ROW, placement=other_order, throughput=1000.0 * (1 + 1e-12), solve_time_s=9.0, message="x", cell="y")
    assert figure_differences(ROW, same) == []


@pytest.mark.parametrize(
    ("solve_s", "calibration_s", "verdicts"),
    [
        (0.2, 0.01, []),
        (0.24, 0.01, []),
        (0.26, 0.01, ["worse"]),
        (0.4, 0.02, []),  # a machine half as fast
        (0.2, 0.005, ["worse"]),  # as slow as before on a machine twice as fast
        (0.1, 0.01, ["better"]),
        (None, 0.01, []),
        (0.26, None, []),
    ],
)
def test_times_are_compared_by_the_calibration_loop(
    solve_s: float | None, calibration_s: float | None, verdicts: list[str]
) -> None:
    now = replace(ROW, solve_time_s=solve_s, calibration_s=calibration_s, score_time_s=None)
    found = time_differences(ROW, now, margin=0.25, floor_s=0.01)
    assert [difference.verdict for difference in found] == verdicts
    assert [difference.fails for difference in found] == [verdict == "worse" for verdict in verdicts]


@pytest.mark.parametrize("column", PERCENTILES)
def test_every_percentile_is_compared(column: str) -> None:
    change: dict[str, Any] = {column: 100.0 * (1 + 1e-8)}
    (found,) = figure_differences(ROW, replace(ROW, **change))
    assert found.fails


def test_rows_of_an_earlier_release_are_compared_by_what_they_have() -> None:
    lacking: dict[str, Any] = dict.fromkeys(("goodput", "failed_gpus", *PERCENTILES))
    old = replace(ROW, **lacking)
    assert figure_differences(old, ROW) == []
    assert missing_figures(old)[:2] == ["failed GPUs", "goodput"]
    assert len(missing_figures(old)) == 2 + len(PERCENTILES)
    assert missing_figures(ROW) == []
    (found,) = figure_differences(old, replace(ROW, headroom=0.04))
    assert found.figure == "head-room"
    nothing_placed = replace(old, gpus=None, status="infeasible", placement=None)
    assert missing_figures(nothing_placed) == []


def cut_short(row: Row, **change: Any) -> Row:  # noqa: ANN401  # values of any column
    return replace(row, **{"details": '{"time_bound": true}', **change})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, False),
        ({"details": '{"time_bound": true}'}, True),
        ({"details": '{"time_bound": false}'}, False),
        ({"status": "time_limit"}, True),
        ({"status": "timeout"}, True),
        ({"status": "infeasible"}, False),
        # A solver that says nothing of time, at its limit.
        ({"solve_time_s": 53.9}, False),
        ({"solve_time_s": 54.0}, True),
        ({"solve_time_s": 60.2}, True),
        ({"solve_time_s": 60.2, "time_limit_s": 120.0}, False),
        # Many calls, each with a limit of its own.
        ({"solve_time_s": 60.2, "fleet_searched": True}, False),
        ({"solve_time_s": None}, False),
        ({"time_limit_s": None}, False),
    ],
)
def test_who_was_cut_short(change: dict[str, Any], *, expected: bool) -> None:
    row = replace(ROW, **change)
    assert is_cut_short(row) == expected
    assert either_cut_short(ROW, row) == (expected and not row.failed)


@pytest.mark.parametrize(
    ("before", "now", "lines"),
    [
        ({}, {}, []),
        ({}, {"oracle_calls": 7, "throughput": 9.0, "goodput": 0.1, "placement": "[]", "headroom": -1.0}, []),
        ({}, {"gpus": 5}, ["worse: s on w (seed 3): GPUs 4 -> 5", "worse: s on w (seed 3): gap 0.333333 -> 0.666667"]),
        ({}, {"gpus": 3}, ["better: s on w (seed 3): GPUs 4 -> 3", "better: s on w (seed 3): gap 0.333333 -> 0"]),
        (
            {},
            {"status": "time_limit", "gpus": None, "feasible": False},
            ["different: s on w (seed 3): status feasible -> time_limit", "worse: s on w (seed 3): feasible yes -> no"],
        ),
        (
            {"status": "optimal", "lower_bound": 4},
            {"lower_bound": None},
            [
                "different: s on w (seed 3): status optimal -> feasible",
                "different: s on w (seed 3): lower bound 4 -> none",
                "different: s on w (seed 3): gap 0 -> none",
            ],
        ),
        # No word of its own that the placement serves.
        ({}, {"status": "unchecked", "feasible": False, "lower_bound": None}, None),
    ],
)
def test_what_time_explains_is_told_and_does_not_fail(
    before: dict[str, Any], now: dict[str, Any], lines: list[str] | None
) -> None:
    for was, is_now in ((cut_short(ROW), replace(ROW)), (ROW, cut_short(ROW)), (cut_short(ROW), cut_short(ROW))):
        found = figure_differences(replace(was, **before), replace(is_now, **now))
        assert lines is None or [difference.line for difference in found] == lines
        assert not any(difference.fails for difference in found)
        assert all(difference.cut_short for difference in found)


@pytest.mark.parametrize(
    ("before", "now", "figures"),
    [
        ({}, {"feasible": False}, ["feasible"]),
        ({}, {"gpus": 2, "lower_bound": 1}, ["contradicted bound"]),
        ({}, {"gpus": 6, "lower_bound": 5}, ["contradicted bound"]),
        ({}, {"gpus": 3}, []),
        ({}, {"gpus": 6, "lower_bound": 4}, []),
        # Nobody vouches for the placement with fewer GPUs, or it does not serve: no bound is refuted by it.
        ({}, {"gpus": 2, "lower_bound": None, "status": "unchecked"}, []),
        ({"feasible": False}, {"gpus": 2, "lower_bound": None, "feasible": False}, []),
        ({}, {"status": "crash", "gpus": None, "feasible": False}, ["status", "feasible"]),
    ],
)
def test_what_no_machine_explains_fails(before: dict[str, Any], now: dict[str, Any], figures: list[str]) -> None:
    found = figure_differences(cut_short(ROW, **before), cut_short(ROW, **now))
    failing = [difference.figure for difference in found if difference.fails]
    assert [figure for figure in failing if figure != "lower bound"] == figures
    if figures:
        assert {difference.verdict for difference in found if difference.figure in figures} == {"worse"}


@pytest.mark.parametrize(
    ("change", "calibration_s", "fails"),
    [
        ({"solve_time_s": 1.9}, 0.01, False),
        ({"solve_time_s": 2.1}, 0.01, True),
        ({"solve_time_s": 2.1}, 0.02, False),  # a machine half as fast
        ({"solve_time_s": 1.9}, 0.005, True),  # a machine twice as fast
        ({"solve_time_s": 60.0, "details": "{}"}, 0.01, True),
        ({"solve_time_s": 2.1}, None, True),
        ({"solve_time_s": None}, 0.01, False),
    ],
)
def test_a_solver_that_ended_by_itself_must_not_run_into_its_limit(
    change: dict[str, Any], calibration_s: float | None, *, fails: bool
) -> None:
    now = cut_short(ROW, calibration_s=calibration_s, **change)
    found = figure_differences(ROW, now)
    assert [difference.figure for difference in found if difference.fails] == ["cut short by time"] * fails
    assert figure_differences(cut_short(ROW), now) == []


def test_times_of_what_was_cut_short_say_nothing() -> None:
    slower = replace(ROW, solve_time_s=30.0, calibration_s=0.005)
    assert time_differences(ROW, slower, 0.25, 0.01)
    assert time_differences(ROW, cut_short(slower), 0.25, 0.01) == []
    assert time_differences(cut_short(ROW), slower, 0.25, 0.01) == []


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        # (solve time, score time, calibration) of the second run; of the first they are 0.2, 0.05 and 0.01.
        ((0.1, 0.1, 0.01), (0.1, 0.05)),
        ((0.3, 0.08, 0.02), (0.15, 0.04)),  # timed while the machine was half as fast: worth half of it
        ((0.15, 0.04, 0.005), (0.2, 0.05)),  # while it was twice as fast: worth twice of it
        ((0.09, 0.02, 0.005), (0.18, 0.04)),
        ((None, 0.01, 0.01), (0.2, 0.01)),
        ((0.1, 0.01, None), (0.2, 0.05)),
    ],
)
def test_the_faster_of_two_runs_is_so_by_its_own_calibration(
    second: tuple[float | None, float | None, float | None], expected: tuple[float, float]
) -> None:
    solve_s, score_s, calibration_s = second
    best = faster(ROW, replace(ROW, solve_time_s=solve_s, score_time_s=score_s, calibration_s=calibration_s, gpus=9))
    assert (best.solve_time_s, best.score_time_s) == pytest.approx(expected)
    assert (best.gpus, best.calibration_s) == (4, 0.01)


def test_differences_of_milliseconds_are_noise() -> None:
    fast = replace(ROW, solve_time_s=0.001, score_time_s=0.001)
    assert time_differences(fast, replace(fast, solve_time_s=0.009, score_time_s=0.009), 0.25, 0.01) == []
    (found,) = time_differences(fast, replace(fast, score_time_s=0.012), 0.25, 0.01)
    assert found.line == "worse: s on w (seed 3): score time 1.0 ms -> 12.0 ms (12.00 times, calibrated)"


def test_the_markdown_has_a_line_for_each_difference() -> None:
    found = figure_differences(ROW, replace(ROW, gpus=5))
    text = markdown(found, 7, ["a note"])
    assert text.startswith("## Placement benchmark: 2 regressions\n")
    assert "| ❌ worse | `s` | w | 3 | GPUs | 4 | 5 |" in text.splitlines()
    assert text.endswith("- a note\n")
    assert "no regression" in markdown([], 7).splitlines()[0]


def test_the_markdown_has_a_section_of_those_that_were_cut_short() -> None:
    plain = figure_differences(ROW, replace(ROW, gpus=5))
    timed = figure_differences(cut_short(ROW), replace(ROW, gpus=5, solver="slow"))
    lines = markdown([*plain, *timed], 7, cut_short=2).splitlines()
    assert lines[0] == "## Placement benchmark: 2 regressions"
    section = lines.index("### 2 of them cut short by time")
    assert lines.index("| ❌ worse | `s` | w | 3 | GPUs | 4 | 5 |") < section
    assert lines.index("| ⏱️ worse | `s` | w | 3 | GPUs | 4 | 5 |") > section
    unchanged = markdown([], 7, cut_short=1).splitlines()
    assert unchanged[0] == "## Placement benchmark: no regression"
    assert "### 1 of them cut short by time" in unchanged


def test_figures_have_names_of_their_own() -> None:
    names = [figure.name for figure in FIGURES]
    assert len(names) == len(set(names))
