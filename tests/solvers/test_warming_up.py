"""Nothing is compiled, nor read from Numba's files, once the clock runs: on a busy machine either takes longer than many a time limit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.shared.overrides import CONF

# In a process of its own, in which no other test has compiled anything.
PROGRAM = """
import sys
from importlib import import_module

from numba.core.dispatcher import Dispatcher

from bench.comparison.asked import AskedHere
from bench.comparison.common import Comparison
from solvers.objectives.min_gpus import MinGpus
from solvers.objectives.min_latency import MinLatency
from twin import load_profile, workload_from_groups


def kernels():
    found = set()
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").split(".")[0] in ("twin", "solvers", "predictors"):
            for value in vars(module).values():
                if isinstance(value, Dispatcher):
                    found |= {f"{value.py_func.__qualname__}{signature}" for signature in value.signatures}
    return found


module, name, objective = sys.argv[1:]
workload = workload_from_groups([(40, 8, 0.2), (40, 16, 0.1), (40, 32, 0.05)], duration_s=60.0, seed=3)
solver = getattr(import_module(module), name)()
comparison = Comparison(
    workload,
    load_profile("llama-3.1-8b"),
    MinGpus() if objective == "min_gpus" else MinLatency(),
    gpus=6 if solver.tags.needs_fleet or objective == "min_latency" else None,
    time_limit_s=6.0,
)
asked = AskedHere(comparison, solver)
asked.warm_up()
before = kernels()
assert before
asked.solve(comparison.gpus)
print("\\n".join(sorted(kernels() - before)))
"""


@pytest.mark.parametrize(
    ("solver", "objective"),
    [
        ("solvers.exact Exact", "min_gpus"),
        ("solvers.ffd_plus FfdPlus", "min_gpus"),
        ("solvers.ffd GuidedFfd", "min_gpus"),
        ("solvers.max_pack MaxPack", "min_gpus"),
        ("solvers.vector_packing VectorPacking", "min_gpus"),
        ("solvers.latency_search LatencySearch", "min_latency"),
        ("solvers.balance Balance", "min_latency"),
        ("solvers.min_max_load MinMaxLoad", "min_latency"),
    ],
)
def test_a_solve_compiles_nothing(solver: str, objective: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *solver.split(), objective],
        env={**os.environ, "PYTHONPATH": str(CONF.parent)}, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
