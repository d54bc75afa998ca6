"""A small problem that every solver of the tests can handle in milliseconds, and solvers that misbehave."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from bench.comparison.compare import Comparison
from solvers.base import Problem, Solution, Solver, Tags
from solvers.objectives.min_gpus import MinGpus
from twin import GpuPlan, Placement, load_profile, workload_from_groups


class Alone(Solver):
    """Each adapter on a GPU of its own: always feasible here, never good."""

    name: ClassVar[str] = "alone"

    def solve(self, problem: Problem) -> Solution:
        """One GPU for each."""
        plans = tuple(GpuPlan((adapter,), 1) for adapter in range(problem.workload.n_adapters))
        return Solution("feasible", Placement(plans), oracle_calls=3, details={"order": "given"})


class Crowded(Solver):
    """All adapters on one GPU with a single slot."""

    name: ClassVar[str] = "crowded"

    def solve(self, problem: Problem) -> Solution:
        """One GPU for all."""
        return Solution("feasible", Placement((GpuPlan(tuple(range(problem.workload.n_adapters)), 1),)))


class Dealt(Solver):
    """Deals the adapters to all GPUs of the fleet in turn."""

    name: ClassVar[str] = "dealt"
    tags = Tags(needs_fleet=True)

    def solve(self, problem: Problem) -> Solution:
        """Deal."""
        fleet = problem.max_gpus or 1
        hands = [tuple(range(gpu, problem.workload.n_adapters, fleet)) for gpu in range(fleet)]
        return Solution(
            "feasible", Placement(tuple(GpuPlan(hand, len(hand)) for hand in hands if hand)), oracle_calls=1
        )


class Broken(Solver):
    """Divides by zero."""

    name: ClassVar[str] = "broken"

    def solve(self, problem: Problem) -> Solution:
        """Raise."""
        raise ZeroDivisionError(f"cannot divide {problem.workload.n_adapters} adapters by nothing")


class Forgetful(Solver):
    """Leaves the last adapter out."""

    name: ClassVar[str] = "forgetful"

    def solve(self, problem: Problem) -> Solution:
        """Place all but one."""
        return Solution("feasible", Placement((GpuPlan(tuple(range(problem.workload.n_adapters - 1)), 1),)))


class Resigned(Solver):
    """Says why there is no placement."""

    name: ClassVar[str] = "resigned"

    def solve(self, problem: Problem) -> Solution:
        """Give up."""
        return Solution(
            "infeasible", lower_bound=2, message=f"{problem.workload.n_adapters} adapters are too many for me"
        )


@pytest.fixture
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands write under the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def comparison() -> Comparison:
    """Six adapters of which one GPU with one slot starves most."""
    return Comparison(
        workload=workload_from_groups([(4, 8, 1.0), (2, 16, 2.0)], duration_s=300.0, seed=5, name="tiny"),
        profile=load_profile("llama-3.1-8b"),
        objective=MinGpus(),
        seed=5,
    )


@pytest.fixture
def makers() -> dict[str, Callable[[], Solver]]:
    """All of them."""
    return {solver.name: solver for solver in (Alone, Crowded, Dealt, Broken, Forgetful, Resigned)}


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """What is started in the background of a script ignores SIGINT, and so do its children, unless somebody listens."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
