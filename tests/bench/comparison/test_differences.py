"""What the gate calls a difference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.comparison.differences import figure_differences, markdown, time_differences
from bench.comparison.rows import Row

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
    placement='[{"max_loras": 1, "adapters": [0]}, {"max_loras": 2, "adapters": [1]}]',
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
