"""A search that time has cut short is known as such, whichever part of the limit it had."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ortools.sat.python import cp_model

from solvers.base import TIME_BOUND, Problem, Solution, Solver
from solvers.contents.patterns import cp_solver, whole_cover
from solvers.cut_short import times_cut_short
from solvers.exact import Exact
from solvers.limits import Deadline, OutOfTimeError
from solvers.max_pack import MaxPack
from solvers.objectives.min_gpus import MinGpus
from twin import GpuPlan, Placement, load_profile, workload_from_groups


@pytest.fixture
def problem() -> Problem:
    workload = workload_from_groups([(6, 8, 0.5)], duration_s=600.0, seed=0)
    return Problem(workload, load_profile("llama-3.1-8b"), MinGpus())


class Asking(Solver):
    """Looks at a deadline that was so long ago, or is so far ahead."""

    name = "asking"

    def __init__(self, seconds: float, *, nested: bool = False) -> None:
        self.seconds = seconds
        self.nested = nested

    def solve(self, problem: Problem) -> Solution:
        """See `Solver`."""
        if self.nested:
            Asking(self.seconds).run(problem)
        else:
            _ = Deadline.after(self.seconds).left_s
        return Solution("feasible", Placement((GpuPlan(tuple(range(6)), 6),)), details={"mine": 1})


def test_a_deadline_that_was_found_passed_is_noted() -> None:
    ahead, passed = Deadline.after(600.0), Deadline.after(-1.0)
    before = times_cut_short()
    ahead.check()
    assert ahead.left_s > 0
    assert ahead.leaves(0.5)
    assert times_cut_short() == before
    assert not passed.left_s
    assert times_cut_short() == before + 1
    with pytest.raises(OutOfTimeError):
        passed.check()
    assert times_cut_short() == before + 2


def test_a_share_of_the_time_that_is_no_longer_left_is_noted() -> None:
    late = Deadline(Deadline.after(300.0).end_s, 1000.0)
    before = times_cut_short()
    assert late.leaves(0.2)
    assert times_cut_short() == before
    assert not late.leaves(0.4)
    assert times_cut_short() == before + 1


@pytest.mark.parametrize("nested", [False, True])
def test_the_details_of_a_solution_say_so(problem: Problem, *, nested: bool) -> None:
    assert Asking(-1.0, nested=nested).run(problem).details == {"mine": 1, TIME_BOUND: True}
    # What has happened in this process before is another solver's.
    assert Asking(600.0, nested=nested).run(problem).details == {"mine": 1}


@pytest.mark.parametrize("solver", [Exact(oracle="twin"), MaxPack()])
def test_solvers_say_it_when_their_time_is_up_and_only_then(problem: Problem, solver: Solver) -> None:
    assert TIME_BOUND not in solver.run(replace(problem, time_limit_s=600.0)).details
    assert solver.run(replace(problem, time_limit_s=1e-6)).details[TIME_BOUND] is True


def test_cp_sat_that_ran_into_its_limit_is_noted() -> None:
    before = times_cut_short()
    assert whole_cover([np.array([1, 0]), np.array([0, 1])], np.array([2, 2]), 60.0, 1) == [2, 2]
    model = cp_model.CpModel()
    model.add_bool_or([])
    assert cp_solver(60.0, 1).solve(model) == cp_model.INFEASIBLE
    assert times_cut_short() == before
    # Pigeons and holes: far too hard for a hundredth of a second without symmetries.
    model = cp_model.CpModel()
    sits = [[model.new_bool_var("") for _ in range(40)] for _ in range(41)]
    for row in sits:
        model.add_bool_or(row)
    for column in zip(*sits, strict=True):
        for first in range(41):
            for second in range(first):
                model.add_bool_or(column[first].negated(), column[second].negated())
    solver = cp_solver(0.0, 1)
    solver.parameters.symmetry_level = 0
    solver.parameters.cp_model_presolve = False
    assert solver.solve(model) == cp_model.UNKNOWN
    assert times_cut_short() == before + 1
