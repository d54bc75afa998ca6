"""Exact bin packing with OR-Tools: CP-SAT covers the adapters with the GPU contents that the learned model accepts.

The capacity of a GPU is no number here but what the starvation model accepts, at some `max_loras`: all that lies below a
frontier of largest contents (`solvers.filling.frontier`), counted by type of adapter (`adapter_types`) and tabulated by asking. A GPU
holds a part of one of its contents, GPUs are alike, and what is left to decide is one whole number for each: on how many
GPUs it is used, so that all adapters are covered. That is exact, and CP-SAT proves it. With too many types for a table,
types are rounded to classes: up (the busiest adapter of the class stands for all) for a placement, down for a bound. Both
hold for the model; the rounding only keeps them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from predictors import adapter_contributions
from solvers.base import Problem, Solution, Solver, Status, Tags
from solvers.contents.adapter_types import adapter_types
from solvers.contents.orders import describe, sorted_plan, zigzag_order
from solvers.contents.patterns import cp_solver
from solvers.filling.frontier import MOST_CONTENTS, Frontier, StarvationModel, TooLargeError, tabulated
from solvers.filling.test_points import PredictorTest, fill_by_test_points
from solvers.limits import Deadline, OutOfTimeError
from solvers.oracles.choice import check_oracle_option
from twin import Placement, UserError

#: Share of the time limit for one table. By hand: two tables, and as much for CP-SAT.
TABLE_SHARE = 0.2


class CpSat(Solver):
    """Fewest GPUs for the starvation model, by CP-SAT alone, with its bound and status.

    `ffd` asks the same model, so that this is its optimality gap on its own terms; its answer is the hint. The bound is one for the
    model, and says nothing of the twin, which has the last word on the placement as on every other.

    Parameters
    ----------
    oracle : {"predictor", "distilled"}
        The forest, which `ffd` asks, or the single tree that it was distilled to.
    workers : int
        Search threads of CP-SAT.
    """

    name: ClassVar[str] = "cp_sat"
    tags = Tags(exact=True, needs_predictor=True)

    def __init__(self, oracle: str = "predictor", workers: int = 2) -> None:
        check_oracle_option(oracle, self.name, ("predictor", "distilled"))
        if workers < 1:
            raise UserError(f"solver.workers={workers} of solver {self.name}: must be 1 or more")
        self.oracle = oracle
        self.workers = workers

    def check_problem(self, problem: Problem) -> None:
        """As every solver; and the model must have learned the service level.

        Raises
        ------
        UserError
        """
        super().check_problem(problem)
        if problem.predictor is not None and not problem.predictor.knows(problem.service):
            raise UserError(
                f"solver {self.name}: the predictor has not learned service={problem.service.name} "
                f"({problem.service.in_words()}), and no other oracle can be tabulated"
            )

    def solve(self, problem: Problem) -> Solution:
        """Tabulate the frontier, then cover."""
        if not problem.workload.n_adapters:
            return Solution("optimal", Placement(()), lower_bound=0)
        deadline = Deadline.after(problem.time_limit_s)
        model = StarvationModel(problem, distilled=self.oracle == "distilled")
        try:
            return self._solved(problem, model, deadline)
        except OutOfTimeError:
            return Solution("time_limit", oracle_calls=model.calls, message="no placement within the time limit")
        except TooLargeError:
            message = (
                f"the model is too large: no frontier of {problem.workload.n_adapters} adapters with up to "
                f"{MOST_CONTENTS} contents was found in {TABLE_SHARE:.0%} of the time limit"
            )
            return Solution("time_limit", oracle_calls=model.calls, message=message)

    def _solved(self, problem: Problem, model: StarvationModel, deadline: Deadline) -> Solution:
        types = adapter_types(problem.workload)
        for row, members in zip(adapter_contributions(types.ranks, types.rates), types.members, strict=True):
            deadline.check()
            if not model.accepts(row):
                message = f"{describe(problem.workload, int(members[0]))} is predicted to starve a GPU alone"
                return Solution("infeasible", oracle_calls=model.calls, message=message)
        published = _published(problem, distilled=self.oracle == "distilled")
        table_s = TABLE_SHARE * problem.time_limit_s
        above = tabulated(model, types, min(table_s, deadline.left_s), up=True)
        details: dict[str, Any] = {
            "oracle": self.oracle,
            "types": len(types),
            "classes": len(above.types),
            "contents": len(above.contents),
            "hint_gpus": len(published) if published else None,
        }
        exact = len(above.types) == len(types)
        answer = self._covered(problem, above, published, deadline.left_s * (1.0 if exact else 0.5))
        bound = answer.bound
        if not exact:
            # Some adapters need some GPU, whatever there is no time or no table for.
            bound = 1
            with suppress(TooLargeError, OutOfTimeError):
                below = tabulated(model, types, min(table_s, deadline.left_s), up=False)
                bound = max(bound, self._covered(problem, below, None, deadline.left_s).bound)
        if answer.uses is None:
            if answer.impossible and exact:
                message = f"needs more GPUs than the limit of {problem.max_gpus}"
                return Solution("infeasible", oracle_calls=model.calls, message=message, details=details)
            message = "CP-SAT found no placement in time"
            if answer.impossible:
                message = f"none on {problem.max_gpus} GPUs with the adapters rounded up to {len(above.types)} classes"
            return Solution("time_limit", oracle_calls=model.calls, message=message, details=details)
        placement = _placement(problem, model, above, answer)
        bound = min(bound, placement.n_gpus)
        details["gap"] = placement.n_gpus / bound - 1 if bound else None
        status: Status = "optimal" if bound == placement.n_gpus else "feasible"
        return Solution(status, placement, lower_bound=bound, oracle_calls=model.calls, details=details)

    def _covered(
        self, problem: Problem, frontier: Frontier, hint: list[NDArray[np.int64]] | None, seconds: float
    ) -> _Cover:
        """How often each content of a frontier is used, so that all adapters are covered with the fewest."""
        if not seconds:
            raise OutOfTimeError
        contents, counts = frontier.contents, frontier.types.counts
        model = cp_model.CpModel()
        hinted, others, counted = _hinted(frontier, hint or [])
        most = np.where(contents > 0, -(-counts // np.maximum(contents, 1)), 0).max(axis=1)
        uses = [model.new_int_var(0, int(limit), "") for limit in most]
        # A GPU of the hint that only the rounding takes out of the frontier may stay as it is.
        uses += [model.new_bool_var("") for _ in others]
        columns = np.vstack([contents, counted])
        for column, count in zip(columns.T.tolist(), counts.tolist(), strict=True):
            model.add(cp_model.LinearExpr.weighted_sum(uses, column) >= count)
        total = cp_model.LinearExpr.sum(uses)
        if problem.max_gpus is not None:
            model.add(total <= problem.max_gpus)
        model.minimize(total)
        for use, times in zip(uses, [*hinted.tolist(), *(1 for _ in others)], strict=True):
            model.add_hint(use, times)
        solver = cp_solver(seconds, self.workers)
        status = solver.solve(model)
        if status == cp_model.INFEASIBLE:
            return _Cover(None, 0, impossible=True)
        found = solver.best_objective_bound
        bound = max(0, int(np.ceil(found - 1e-6))) if np.isfinite(found) else 0
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            values = np.array([solver.value(use) for use in uses], dtype=np.int64)
            kept = [adapters for adapters, value in zip(others, values[len(contents) :], strict=True) if value]
            return _Cover(values[: len(contents)], bound, kept)
        return _Cover(None, bound)


@dataclass(frozen=True)
class _Cover:
    """What CP-SAT says of a frontier.

    Attributes
    ----------
    uses : array of shape (n_contents,), optional
    bound : int
        Of GPUs.
    kept : sequence of arrays
        Adapters of GPUs beside those.
    impossible : bool
        There are not enough GPUs.
    """

    uses: NDArray[np.int64] | None
    bound: int
    kept: Sequence[NDArray[np.int64]] = ()
    impossible: bool = False


def _published(problem: Problem, *, distilled: bool) -> list[NDArray[np.int64]] | None:
    """What `ffd` puts on each GPU, or None where it fails."""
    predictor = problem.predictor
    assert predictor is not None  # noqa: S101  # Solver.run has checked it
    test = PredictorTest(problem, predictor, distilled=distilled)
    gpus = fill_by_test_points(problem.workload, zigzag_order(problem.workload), test, as_published=True)
    return None if gpus is None else [adapters for adapters, _ in gpus]


def _hinted(
    frontier: Frontier, hint: list[NDArray[np.int64]]
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]], NDArray[np.int64]]:
    """How often each content is used when a hint's GPUs are taken for the first that they are part of.

    Also the GPUs that are part of none, and how many adapters of each type they have, shape (n_gpus, n_types).
    """
    types = frontier.types
    kind_of = np.empty(int(types.counts.sum()), dtype=np.int64)
    for kind, members in enumerate(types.members):
        kind_of[members] = kind
    uses = np.zeros(len(frontier.contents), dtype=np.int64)
    others, counted = [], []
    for adapters in hint:
        content = np.bincount(kind_of[adapters], minlength=len(types))
        whole = np.flatnonzero((frontier.contents >= content).all(axis=1))
        if len(whole):
            uses[whole[0]] += 1
        else:
            others.append(adapters)
            counted.append(content)
    return uses, others, np.array(counted, dtype=np.int64).reshape(-1, len(types))


def _placement(problem: Problem, model: StarvationModel, frontier: Frontier, cover: _Cover) -> Placement:
    """Adapters dealt to the GPUs of a cover, those of each type in proportion to the room for it."""
    assert cover.uses is not None  # noqa: S101  # the caller has looked
    types, room = frontier.types, np.repeat(frontier.contents, cover.uses, axis=0)
    gpus: list[list[int]] = [[] for _ in room]
    for kind, members in enumerate(types.members):
        left = np.setdiff1d(members, np.concatenate([*cover.kept, members[:0]]))
        if len(left):
            ends = np.cumsum(room[:, kind]) * len(left) // int(room[:, kind].sum())
            for gpu, part in enumerate(np.split(left, ends[:-1])):
                gpus[gpu].extend(part.tolist())
    gpus += [adapters.tolist() for adapters in cover.kept]
    rows = adapter_contributions(problem.workload.ranks, problem.workload.rates)
    return Placement(
        tuple(
            sorted_plan(adapters, model.slots(rows[adapters].sum(axis=0), len(adapters)))
            for adapters in gpus
            if adapters
        )
    )
