"""What times are measured on: the processor, the library versions, and a fixed loop that says how fast it is just now."""

from __future__ import annotations

import json
import os
import platform
import time
from functools import cache
from importlib import metadata
from pathlib import Path

#: Libraries that placements, scores and times rest on.
LIBRARIES = ("numba", "numpy", "ortools", "scikit-learn", "scipy")

# By hand: interpreted and compiled half of a pass take about as long, some 15 ms together, so that five of them cost nothing
# beside a run and one of them is undisturbed.
_PASSES = 5
_STEPS = 40_000
_VALUES = 60_000


def calibration_s() -> float:
    """Seconds that a fixed piece of work takes now: the least of five passes of some 15 ms each.

    Half of it is interpreted Python, half compiled code that goes through memory, as solvers are. A time divided by this
    one can be compared with the same ratio of another run on a processor of the same kind, whatever else was going on.
    """
    return min(_pass_s() for _ in range(_PASSES))


def _pass_s() -> float:
    import numpy as np

    values = (np.arange(_VALUES, dtype=np.int64) * 2_654_435_761 % 1_000_003).astype(np.float64)
    start = time.perf_counter()
    state, counts = 1, dict.fromkeys(range(1024), 0)
    for _ in range(_STEPS):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        counts[state & 1023] += 1
    np.cumsum(np.sort(values)[np.argsort(values)])
    return time.perf_counter() - start


@cache
def processor() -> str:
    """Processor model and the number of cores that this process may use."""
    return f"{_model()}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@cache
def versions() -> str:
    """JSON object: versions of Python and of `LIBRARIES`."""
    return json.dumps({"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
