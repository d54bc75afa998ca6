"""One sentence on a comparison: who wins, whether that is proven, and how long requests wait."""

from __future__ import annotations

from collections.abc import Sequence

from bench.comparison.rows import Row
from bench.statistics.contradictions import standing_bound
from bench.statistics.instances import cases, ranked
from bench.statistics.paired import GPUS
from bench.statistics.summary import Statistics, by_track, statistics_of, ttft_p95_ms

# Beyond so many winners the verdict counts them: a sentence, by hand.
MOST_NAMED = 4


def verdict(rows: Sequence[Row]) -> str:
    """One sentence on the candidates for one workload and seed."""
    best = ranked(rows)[0]
    if not best.feasible:
        return "No solver has a feasible placement."
    gpus = "1 GPU" if best.gpus == 1 else f"{best.gpus} GPUs"
    several = _named([row.solver_label for row in ranked(rows) if row.feasible and row.gpus == best.gpus])
    known = standing_bound(rows)
    if not best.gpus or best.objective != "min_gpus":
        text = f"{best.solver_label} is the best of {len(rows)} by {best.objective}, on {gpus}"
    elif known is not None and known.bound >= best.gpus:
        text = f"{gpus} are the fewest ({known.scope}), as {known.by} has proven; {several} found them"
    else:
        needed = (
            ""
            if known is None
            else f", and at least {known.bound} are needed ({known.scope}), as {known.by} has proven"
        )
        text = f"{gpus} are the fewest found, by {several}{needed}"
    if best.missed:
        text += f", but it misses {best.missed}"
    if best.ttft_p95_ms is None:
        return f"{text}."
    return (
        f"{text}; on the worst GPU of {best.solver_label} one request in twenty waits {waits(best.ttft_p95_ms)} or more for its "
        "first token."
    )


def overall_verdict(statistics: Statistics) -> str:
    """One sentence on the solvers over all instances of an objective and service level."""
    n, measure = len(statistics.cases), statistics.measure
    most = max(line.best for line in statistics.summaries)
    if not most:
        return f"No solver has a feasible placement on any of {n} instances."
    winners = [line for line in statistics.summaries if line.best == most]
    least = "the fewest GPUs" if measure is GPUS else f"the least {measure.label}"
    solvers = "solver" if len(statistics.summaries) == 1 else "solvers"
    text = (
        f"Of {len(statistics.summaries)} {solvers}, {_named([line.solver for line in winners])} "
        f"{'has' if len(winners) == 1 else 'have'} {least} on {most} of {n} instances"
    )
    if measure is GPUS:
        proven = sum(case.best_known is not None and case.best_known == case.lower_bound for case in statistics.cases)
        text += f" (on {proven or 'none'} the fewest are proven)"
    first = winners[0]
    if first.feasible < n:
        text += f", {first.solver} with a feasible placement on {first.feasible}"
    if first.ttft_p95_s is None:
        return f"{text}."
    wait = f"one request in twenty waits {waits(1000 * first.ttft_p95_s)} or more for its first token"
    return f"{text}; on the worst GPU of {first.solver} {wait}{', in the median' if n > 1 else ''}."


def verdicts(rows: Sequence[Row]) -> list[str]:
    """A sentence on a single instance, or one for each objective and service level."""
    found = cases(rows)
    if len(found) == 1:
        return [verdict(found[0].rows)]
    tracks = by_track(found)
    return [
        f"{f'{track}: ' if len(tracks) > 1 else ''}{overall_verdict(statistics_of(group, samples=1))}"
        for track, group in tracks.items()
    ]


def waited(rows: Sequence[Row]) -> str:
    """The waiting of some candidates in a phrase; empty where it is not known."""
    found_ms = ttft_p95_ms(rows)
    return "" if found_ms is None else f"TTFT p95 {waits(found_ms)}"


def waits(milliseconds: float) -> str:
    """A time for people."""
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"


def _named(solvers: Sequence[str]) -> str:
    return f"{len(solvers)} solvers" if len(solvers) > MOST_NAMED else " and ".join(solvers)
