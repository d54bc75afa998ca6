"""Planning with a reserve: solvers place the adapters for more load than there is, the twin scores what there is.

No solver knows of it: it is handed another workload. A placement for the fewest GPUs fills them up to the limit, and the
twin, which says where the limit is, has an error of its own (`python -m bench.robustness`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from twin import Requests, UserError, Workload

# The stream of what is repeated of a trace; adapters count up from 0, builders down from 2^63 - 2.
_STREAM = 2**63 - 4


def check_reserve(reserve: float) -> None:
    """Refuse what is no share of a load.

    Raises
    ------
    UserError
        If it is negative or not finite.
    """
    if not (math.isfinite(reserve) and reserve >= 0):
        raise UserError(f"reserve={reserve} must be a share of the load, 0 or more")


def with_reserve(workload: Workload, reserve: float) -> Workload:
    """The workload to plan for: every adapter sends `1 + reserve` times as many requests in the same window.

    Requests that are drawn come from the same streams at the higher rates. Those of a trace all stay where they are; each
    comes `reserve` times more on average, at random moments before the next request of the trace. A larger reserve
    repeats what a smaller one does, and more.

    Parameters
    ----------
    workload : Workload
    reserve : float
        0.1 plans for a tenth more load. With 0 the workload itself is returned.

    Raises
    ------
    UserError
        If the reserve is negative or not finite.
    """
    check_reserve(reserve)
    if not reserve:
        return workload
    trace = None if workload.trace is None else _repeated(workload.trace, reserve, workload.duration_s, workload.seed)
    return replace(workload, rates=workload.rates * (1 + reserve), trace=trace)


def _repeated(trace: Requests, reserve: float, duration_s: float, seed: int) -> Requests:
    generator = np.random.Generator(np.random.Philox(key=[seed, _STREAM]))
    count = len(trace)
    whole = int(reserve)
    copies = whole + (generator.random(count) < reserve - whole)
    gap_s = np.maximum(np.diff(trace.arrival_s, append=duration_s), 0.0)
    rows = [np.arange(count)]
    times: list[NDArray[np.float64]] = [trace.arrival_s]
    for number in range(math.ceil(reserve)):
        # All are drawn, so that the moment of a copy does not depend on the reserve.
        moment = trace.arrival_s + generator.random(count) * gap_s
        rows.append(np.flatnonzero(copies > number))
        times.append(moment[rows[-1]])
    source, arrival_s = np.concatenate(rows), np.concatenate(times)
    order = np.argsort(arrival_s, kind="stable")
    return replace(trace.take(source[order]), arrival_s=arrival_s[order])
