"""What differs between two runs of the same cells: deterministic figures exactly, times as ratios to a calibration loop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.comparison.rows import Row, gap_to

Verdict = Literal["worse", "better", "different"]


def _gap(row: Row) -> float | None:
    """Distance to the candidate's own bound, where it has no other."""
    return gap_to(row.best_bound or row.lower_bound, row)


def _placement(row: Row) -> list[Any] | None:
    if row.placement is None:
        return None
    return sorted(json.dumps(plan, sort_keys=True) for plan in json.loads(row.placement))


#: Deterministic figures: name in the report, value of a row, and what is better (-1 the smaller, 1 the larger, 0 neither).
FIGURES: tuple[tuple[str, Callable[[Row], Any], int], ...] = (
    ("status", lambda row: row.status, 0),
    ("feasible", lambda row: row.feasible, 1),
    ("GPUs", lambda row: row.gpus, -1),
    ("lower bound", lambda row: row.lower_bound, 1),
    ("gap", _gap, -1),
    ("starved GPUs", lambda row: row.starved_gpus, -1),
    ("memory errors", lambda row: row.memory_errors, -1),
    ("starved adapters", lambda row: row.starved_adapters, -1),
    ("oracle calls", lambda row: row.oracle_calls, -1),
    ("simulated steps", lambda row: row.simulated_steps, 0),
    ("preemptions", lambda row: row.preemptions, 0),
    ("adapter loads", lambda row: row.adapter_loads, 0),
    ("throughput", lambda row: row.throughput, 0),
    ("ITL ms", lambda row: row.itl_ms, 0),
    ("TTFT ms", lambda row: row.ttft_ms, 0),
    ("placement", _placement, 0),
)

#: Times: name in the report, and value of a row in seconds.
TIMES: tuple[tuple[str, Callable[[Row], float | None]], ...] = (
    ("solve time", lambda row: row.solve_time_s),
    ("score time", lambda row: row.score_time_s),
)

# Sums of the same numbers in another order, on another processor: millions of roundings of 1e-16. By hand, far above them.
_RELATIVE = 1e-9


@dataclass(frozen=True)
class Difference:
    """One figure of one candidate that is not what it was.

    Attributes
    ----------
    workload, solver, figure : str
        Whose.
    seed : int
    before, now : str
        For people.
    verdict : str
        "worse", "better" or "different".
    fails : bool
        Whether the gate must not let it through.
    """

    workload: str
    seed: int
    solver: str
    figure: str
    before: str
    now: str
    verdict: Verdict
    fails: bool = True

    @property
    def line(self) -> str:
        """One line for a terminal or a log."""
        return (
            f"{self.verdict}: {self.solver} on {self.workload} (seed {self.seed}): "
            f"{self.figure} {self.before} -> {self.now}"
        )


def figure_differences(before: Row, now: Row) -> list[Difference]:
    """The deterministic figures that have changed; any change fails, for better or worse."""
    found = []
    for name, value_of, direction in FIGURES:
        old, new = value_of(before), value_of(now)
        if _same(old, new):
            continue
        # Without a placement there is nothing to compare but how that came about.
        if before.gpus is not None and now.gpus is None and name not in ("status", "feasible", "lower bound"):
            continue
        shown = [(_text(name, value)) for value in (old, new)]
        if name == "status" and now.failed:
            shown[1] += f" ({now.message})"
        found.append(_difference(before, name, shown, _verdict(old, new, direction, now)))
    return found


def time_differences(before: Row, now: Row, margin: float, floor_s: float) -> list[Difference]:
    """The times that have changed by more than the margin, as ratios to the calibration loop of their own run.

    Parameters
    ----------
    before, now : Row
        With `calibration_s`; rows without it have no comparable time.
    margin : float
        0.25 for a quarter. Only what is slower fails.
    floor_s : float
        Smaller differences, in seconds of today's machine, are noise.
    """
    if not before.calibration_s or not now.calibration_s or before.failed or now.failed:
        return []
    found = []
    scale = now.calibration_s / before.calibration_s
    for name, value_of in TIMES:
        old, new = value_of(before), value_of(now)
        if old is None or new is None or abs(new - old * scale) <= floor_s:
            continue
        ratio = new / (old * scale) if old else math.inf
        shown = [f"{1000 * old * scale:.1f} ms", f"{1000 * new:.1f} ms ({ratio:.2f} times, calibrated)"]
        if ratio > 1 + margin:
            found.append(_difference(before, name, shown, "worse"))
        elif ratio < 1 / (1 + margin):
            found.append(_difference(before, name, shown, "better", fails=False))
    return found


def markdown(differences: Sequence[Difference], candidates: int, notes: Sequence[str] = ()) -> str:
    """The differences as a section of Markdown, for a pull request or a job summary."""
    failing = sum(difference.fails for difference in differences)
    verdict = f"{failing} regressions" if failing != 1 else "1 regression"
    lines = [f"## Placement benchmark: {verdict if failing else 'no regression'}", ""]
    lines += [f"{candidates} candidates were run again and compared with the reference.", ""]
    if differences:
        lines += [
            "| | solver | workload | seed | figure | reference | now |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {'❌' if d.fails else '✅'} {d.verdict} | `{d.solver}` | {d.workload} | {d.seed} | {d.figure} "
            f"| {d.before} | {d.now.replace('|', ' ')} |"
            for d in differences
        ]
        lines.append("")
    lines += [f"- {note}" for note in notes]
    return "\n".join(lines).rstrip() + "\n"


def _difference(row: Row, figure: str, shown: Sequence[str], verdict: Verdict, *, fails: bool = True) -> Difference:
    workload = row.instance or row.workload_label
    return Difference(workload, row.seed, row.solver_label, figure, shown[0], shown[1], verdict, fails)


def _verdict(old: Any, new: Any, direction: int, now: Row) -> Verdict:  # noqa: ANN401  # figures have many types
    if now.failed:
        return "worse"
    if not direction or old is None or new is None:
        return "different"
    return "better" if (new > old) == (direction > 0) else "worse"


def _same(old: Any, new: Any) -> bool:  # noqa: ANN401  # as above
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=_RELATIVE)
    return bool(old == new)


def _text(name: str, value: Any) -> str:  # noqa: ANN401  # as above
    if value is None:
        return "none"
    if name == "placement":
        return f"{len(value)} GPUs"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
