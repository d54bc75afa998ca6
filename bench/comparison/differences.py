"""What differs between two runs of the same cells.

Figures that do not depend on the machine are compared exactly, times as ratios to a calibration loop. A candidate whose search
was cut short by time has figures that do depend on it; of these only what no machine explains is held against a change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from bench.comparison.rows import PERCENTILES, TIMEOUT, Row, gap_to
from solvers.base import TIME_BOUND, VOUCHED

Verdict = Literal["worse", "better", "different"]


def _gap(row: Row) -> float | None:
    """Distance to the candidate's own bound, where it has no other."""
    return gap_to(row.best_bound or row.lower_bound, row)


def _placement(row: Row) -> list[Any] | None:
    if row.placement is None:
        return None
    return sorted(json.dumps(plan, sort_keys=True) for plan in json.loads(row.placement))


class Figure(NamedTuple):
    """A deterministic figure of a row.

    Attributes
    ----------
    name : str
        In the report.
    value_of : callable
        Its value in a row.
    direction : int
        What is better: -1 the smaller, 1 the larger, 0 neither.
    later : bool
        Rows of earlier releases do not have it, whereas others with a placement do.
    """

    name: str
    value_of: Callable[[Row], Any]
    direction: int
    later: bool = False


def _percentile(column: str, latency: str, percentile: int) -> Figure:
    return Figure(f"{latency.upper()} p{percentile} ms", lambda row: getattr(row, column), 0, later=True)


#: What makes the answer, and what it is worth: all that is shown of a candidate that was cut short.
ANSWER = (
    Figure("status", lambda row: row.status, 0),
    Figure("feasible", lambda row: row.feasible, 1),
    Figure("GPUs", lambda row: row.gpus, -1),
    Figure("lower bound", lambda row: row.lower_bound, 1),
    Figure("gap", _gap, -1),
)

FIGURES: tuple[Figure, ...] = (
    *ANSWER,
    Figure("failed GPUs", lambda row: row.failed_gpus, -1, later=True),
    Figure("adapters that fail", lambda row: row.failing_adapters, -1, later=True),
    Figure("goodput", lambda row: row.goodput, 1, later=True),
    Figure("worst GPU's goodput", lambda row: row.worst_gpu_goodput, 1, later=True),
    Figure("worst adapter's goodput", lambda row: row.worst_adapter_goodput, 1, later=True),
    Figure("holds on draws", lambda row: row.holds_on, 1),
    Figure("starved GPUs", lambda row: row.starved_gpus, -1),
    Figure("memory errors", lambda row: row.memory_errors, -1),
    Figure("starved adapters", lambda row: row.starved_adapters, -1),
    Figure("head-room", lambda row: row.headroom, 1),
    Figure("oracle calls", lambda row: row.oracle_calls, -1),
    Figure("simulated steps", lambda row: row.simulated_steps, 0),
    Figure("preemptions", lambda row: row.preemptions, 0),
    Figure("adapter loads", lambda row: row.adapter_loads, 0),
    Figure("throughput", lambda row: row.throughput, 0),
    Figure("offered throughput", lambda row: row.offered_throughput, 0),
    Figure("ITL ms", lambda row: row.itl_ms, 0),
    Figure("TTFT ms", lambda row: row.ttft_ms, 0),
    Figure("E2E ms", lambda row: row.e2e_ms, 0),
    *(_percentile(column, latency, percentile) for column, (latency, percentile) in PERCENTILES.items()),
    Figure("placement", _placement, 0),
)

#: Times: name in the report, and value of a row in seconds.
TIMES: tuple[tuple[str, Callable[[Row], float | None]], ...] = (
    ("solve time", lambda row: row.solve_time_s),
    ("score time", lambda row: row.score_time_s),
)

# Sums of the same numbers in another order, on another processor: millions of roundings of 1e-16. By hand, far above them.
# Counts, and ratios of counts, are the same or are not.
_RELATIVE = 1e-9

#: A solver that says nothing of time is taken to be cut short from this share of its limit on. By hand: most stop a little early.
NEAR_LIMIT = 0.9
#: No machine is so busy: a candidate that ended by itself before, and now is cut short after so many times its time by the
#: calibration loop, has become slower. By hand: unchanged solvers were seen to take up to 2.4 times as long by it on cores
#: that seven processes shared.
UNEXPLAINED = 10.0

#: In the report: whether time has cut the candidate short.
CUT_SHORT = "cut short by time"


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
    cut_short : bool
        Of a candidate whose search was cut short by time, in one of the two runs at least.
    """

    workload: str
    seed: int
    solver: str
    figure: str
    before: str
    now: str
    verdict: Verdict
    fails: bool = True
    cut_short: bool = False

    @property
    def line(self) -> str:
        """One line for a terminal or a log."""
        return (
            f"{self.verdict}: {self.solver} on {self.workload} (seed {self.seed}): "
            f"{self.figure} {self.before} -> {self.now}"
        )


def is_cut_short(row: Row) -> bool:
    """Whether time has cut the candidate's search short, so that its figures depend on the machine.

    Solvers that keep time by `solvers.limits.Deadline` say so (`solvers.base.TIME_BOUND`), whichever part of their limit a
    search had; of others all that is known is their status and how near to the limit they ended.
    """
    if row.status in ("time_limit", TIMEOUT) or json.loads(row.details).get(TIME_BOUND) is True:
        return True
    # The time of a searched fleet is that of many calls.
    if row.solve_time_s is None or row.time_limit_s is None or row.fleet_searched:
        return False
    return row.solve_time_s >= NEAR_LIMIT * row.time_limit_s


def either_cut_short(before: Row, now: Row) -> bool:
    """Whether that is so of one of two runs of the same cell; a solver that fails now has no such excuse."""
    return not now.failed and (is_cut_short(before) or is_cut_short(now))


def missing_figures(before: Row) -> list[str]:
    """Names of the figures that an earlier release did not write in its rows; empty for rows without a placement."""
    if before.gpus is None:
        return []
    # Latencies have no percentiles where nothing was finished, which `throughput` tells.
    return [figure.name for figure in FIGURES if figure.later and figure.value_of(before) is None]


def figure_differences(before: Row, now: Row) -> list[Difference]:
    """The deterministic figures that have changed; any change fails, for better or worse.

    Of a candidate that was cut short in either run, see `answer_differences` instead; figures that the reference's release
    did not have are left out (`missing_figures`).
    """
    if either_cut_short(before, now):
        return answer_differences(before, now)
    missing = set(missing_figures(before))
    return _changed(before, now, [figure for figure in FIGURES if figure.name not in missing])


def answer_differences(before: Row, now: Row) -> list[Difference]:
    """What has changed in the answer of a candidate that time has cut short, before or now.

    With less time, or on a busier machine, the same solver finds a worse placement or none, and proves less: that is told and
    does not fail. What does is what no machine explains: a solver that vouches for a placement which does not serve, where it
    had one that did; fewer GPUs than were proven to be needed, or a bound above what has been seen to do; a solver that ended
    by itself before and now goes on until it is cut short, for ten times as long by the calibration loop or longer.
    """
    found = [replace(difference, fails=False) for difference in _changed(before, now, ANSWER)]
    if before.feasible and now.status in VOUCHED and not now.feasible:
        found = [replace(difference, fails=difference.figure == "feasible") for difference in found]
    for proof, placed in ((before, now), (now, before)):
        if _refuted(proof, placed):
            shown = [f"{row.gpus} GPUs, bound {row.lower_bound}" for row in (before, now)]
            found.append(_difference(before, "contradicted bound", shown, "worse"))
    if _unexplained(before, now):
        shown = [f"no, {before.solve_time_s:.3g} s", f"yes, {now.solve_time_s:.3g} s"]
        found.append(_difference(before, CUT_SHORT, shown, "worse"))
    return [replace(difference, cut_short=True) for difference in found]


def _changed(before: Row, now: Row, figures: Sequence[Figure]) -> list[Difference]:
    found = []
    for name, value_of, direction, _ in figures:
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


def _refuted(proof: Row, placed: Row) -> bool:
    """Whether one run's placement, which serves and which its solver vouches for, has fewer GPUs than the other run's bound."""
    if proof.lower_bound is None or placed.gpus is None or not placed.feasible or placed.status not in VOUCHED:
        return False
    return placed.gpus < proof.lower_bound


def _unexplained(before: Row, now: Row) -> bool:
    """Whether only the solver explains that it is cut short now and was not before."""
    if is_cut_short(before) or before.failed or before.solve_time_s is None or now.solve_time_s is None:
        return False
    return now.solve_time_s > UNEXPLAINED * before.solve_time_s * _slowness(before, now)


def _slowness(before: Row, now: Row) -> float:
    """How many times as long the same work takes now, by the calibration loop; 1 where it was not timed."""
    if not before.calibration_s or not now.calibration_s:
        return 1.0
    return now.calibration_s / before.calibration_s


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
    # A limit is in seconds of any machine, and what is scored depends on it.
    if either_cut_short(before, now):
        return []
    found = []
    scale = _slowness(before, now)
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


def faster(first: Row, second: Row) -> Row:
    """The first of two runs of the same cell, with each time as the run has it that was faster by its own calibration.

    Parameters
    ----------
    first, second : Row
        Of machines of different speed, or of one that was busy. The second one's times are brought to the first one's speed.
    """
    if first.failed or second.failed or not first.calibration_s or not second.calibration_s:
        return first
    scale = _slowness(second, first)

    def least(value_of: Callable[[Row], float | None]) -> float | None:
        one, other = value_of(first), value_of(second)
        return one if one is None or other is None else min(one, other * scale)

    return replace(
        first, solve_time_s=least(lambda row: row.solve_time_s), score_time_s=least(lambda row: row.score_time_s)
    )


def verdict(failing: int) -> str:
    """What the gate says of so many regressions."""
    if not failing:
        return "no regression"
    return "1 regression" if failing == 1 else f"{failing} regressions"


def markdown(
    differences: Sequence[Difference], candidates: int, notes: Sequence[str] = (), *, cut_short: int = 0
) -> str:
    """The differences as a section of Markdown, for a pull request or a job summary.

    Parameters
    ----------
    differences : sequence of Difference
    candidates : int
    notes : sequence of str
    cut_short : int
        Candidates that time has cut short; what differs in them is a section of its own.
    """
    failing = sum(difference.fails for difference in differences)
    lines = [f"## Placement benchmark: {verdict(failing)}", ""]
    lines += [f"{candidates} candidates were run again and compared with the reference.", ""]
    lines += _table([difference for difference in differences if not difference.cut_short])
    if cut_short:
        lines += [f"### {cut_short} of them {CUT_SHORT}", ""]
        lines += ["What these find depends on the machine. Only what no machine explains counts as a regression.", ""]
        lines += _table([difference for difference in differences if difference.cut_short])
    lines += [f"- {note}" for note in notes]
    return "\n".join(lines).rstrip() + "\n"


def _table(differences: Sequence[Difference]) -> list[str]:
    if not differences:
        return []
    return [
        "| | solver | workload | seed | figure | reference | now |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {_mark(d)} {d.verdict} | `{d.solver}` | {d.workload} | {d.seed} | {d.figure} "
            f"| {d.before} | {d.now.replace('|', ' ')} |"
            for d in differences
        ),
        "",
    ]


def _mark(difference: Difference) -> str:
    if difference.fails:
        return "❌"
    return "⏱️" if difference.cut_short else "✅"


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
