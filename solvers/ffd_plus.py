"""Our greedy: a test at every adapter, topping up, local search, and the twin's word on every GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from solvers.base import Problem, Solution, Solver, Tags
from solvers.contents.divided import DividedWorkload, in_order_of_gpus, with_shares
from solvers.filling.model import Filling, FillModel
from solvers.limits import Deadline, NoPlacementError, OutOfTimeError, check_gpu_limit, no_placement_status
from solvers.mending.best_service import TIME_SHARE, best_service
from solvers.mending.checked import LARGE_FLEET, CheckedPlacement, checked
from solvers.mending.hot import divided_if_hot
from solvers.mending.replicas import with_replicas
from solvers.mixes.answers import MixOptions, mixed_answer
from solvers.oracles.choice import check_oracle_option
from solvers.oracles.draws import check_draws, draws_of, with_draws
from twin import Placement, UserError


class FfdPlus(Solver):
    """First-fit decreasing without the weaknesses of the published one.

    1. GPUs are filled one after the other, with a question to the starvation predictor at every adapter and at any
       `max_loras`; when an adapter does not fit, smaller ones top the GPU up. Once by rank first, once by rate first.
    2. Local search, with incremental features: moves and swaps that empty the lightest GPU, or anneal all adapters onto
       one GPU less. (Not in a fleet of 64 GPUs or more, where one GPU less is little and step 4 says how full GPUs may be.)
    3. The twin checks every GPU; adapters leave those that starve, for others or for one more GPU.
    4. With time left, spreads over fewer GPUs are tried on the twin: the predictor errs on the safe side. Many adapters are
       first looked at with a few values of `max_loras`, then filled once more with all of them. In a large fleet a sample of
       GPUs shows instead how much fuller than predicted they may be.
    5. With time left still, adapters are exchanged between the GPUs of a fleet of one less, every exchange simulated.
    6. An adapter that is too much for one GPU is divided before step 1, and one GPU less is tried with busy adapters divided
       (`solvers.mending.replicas`).
    7. In the end, `max_loras` are chosen and adapters exchanged between the GPUs for the service of the worst one.

    Parameters
    ----------
    oracle : {"predictor", "distilled"}
        Starvation model of steps 1 and 2.
    twin_check : bool
        Steps 3 to 5. Without them the answer is as good as the predictor.
    local_search : bool
        Step 2.
    twin_search : bool
        Step 5.
    replicas : bool
        Step 6; not without the twin's check.
    draws : int
        In steps 3 to 7, a GPU must hold on so many draws of the requests, the workload's own and others.
    best_service : bool
        Step 7; not without the twin's check.
    """

    name: ClassVar[str] = "ffd_plus"

    def __init__(  # noqa: PLR0913  # one switch for each step
        self,
        oracle: str = "predictor",
        *,
        twin_check: bool = True,
        local_search: bool = True,
        twin_search: bool = True,
        replicas: bool = True,
        draws: int = 1,
        best_service: bool = True,
    ) -> None:
        check_oracle_option(oracle, self.name, ("predictor", "distilled"))
        check_draws(draws, self.name)
        if draws > 1 and not twin_check:
            raise UserError(
                f"solver.ffd_plus.draws={draws} with twin_check=false: only the twin tells draws apart; twin_check=true"
            )
        self.oracle = oracle
        self.twin_check = twin_check
        self.local_search = local_search
        self.twin_search = twin_search
        self.replicas = replicas and twin_check
        self.draws = draws
        self.best_service = best_service
        self.tags = Tags(needs_predictor=True, uses_replicas=self.replicas, mixed_fleets=draws == 1)

    def warm_up(self, problem: Problem) -> None:
        """The kernels of the local search, which two adapters do not need."""
        FillModel(problem, distilled=self.oracle == "distilled").compile_all()

    def solve(self, problem: Problem) -> Solution:
        """Fill, search, check; on a mixed fleet all of it on the twin, as predictors know one type."""
        if problem.mixed_fleet is not None:
            return mixed_answer(
                problem,
                MixOptions(search=self.twin_search, replicas=self.replicas, best_service=self.best_service),
            )
        return self._solved(problem)

    def _solved(self, problem: Problem) -> Solution:
        """The answer on GPUs of one type."""
        if not problem.workload.n_adapters:
            return Solution("feasible", Placement(()))
        problem = with_draws(problem, self.draws, self.name)
        deadline = Deadline.after(problem.time_limit_s)
        finishing = self.best_service and self.twin_check
        searching = Deadline.after(problem.time_limit_s * (1 - TIME_SHARE if finishing else 1))
        try:
            placing, parts = divided_if_hot(problem, searching) if self.replicas else (problem, None)
        except OutOfTimeError:
            placing, parts = problem, None
        model = FillModel(placing, distilled=self.oracle == "distilled")
        fillings: list[Filling] = []
        for order in model.orders():
            # Of a hundred thousand adapters each takes a second or more.
            if not fillings or searching.left_s:
                fillings.append(model.filled(order))
        filling = min(fillings, key=lambda filled: filled.n_gpus)
        searched = filling
        if self.local_search and not (self.twin_check and filling.n_gpus >= LARGE_FLEET):
            searched = model.drained(filling, Deadline.after(problem.time_limit_s / 8))
            if filling.n_gpus < LARGE_FLEET:
                searched = model.refilled(searched, Deadline.after(problem.time_limit_s / 8))
        details: dict[str, Any] = {"predicted_gpus": searched.n_gpus, **draws_of(problem)}
        try:
            answer = self._checked(placing, model, filling, searched, searching, parts)
            if self.replicas:
                answer = self._shared(problem, answer, parts, searching)
            check_gpu_limit(answer.placement.n_gpus, problem)
            if finishing and not answer.unchecked_gpus:
                placement, calls = best_service(problem, answer.placement, deadline)
                answer = replace(answer, placement=placement, twin_calls=answer.twin_calls + calls)
        except NoPlacementError as why:
            status = no_placement_status(why)
            return Solution(status, oracle_calls=model.calls, message=str(why), details=details)
        details |= {
            "predictor_calls": model.calls,
            "twin_calls": answer.twin_calls,
            "unchecked_gpus": answer.unchecked_gpus,
        }
        status = "unchecked" if answer.unchecked_gpus else "feasible"
        message = (
            f"the twin had no time to check {answer.unchecked_gpus} of {answer.placement.n_gpus} GPUs"
            if answer.unchecked_gpus
            else ""
        )
        calls = model.calls + answer.twin_calls
        return Solution(status, answer.placement, oracle_calls=calls, message=message, details=details)

    def _shared(
        self, problem: Problem, answer: CheckedPlacement, parts: DividedWorkload | None, deadline: Deadline
    ) -> CheckedPlacement:
        """The placement of adapters that one of parts stands for, and one GPU less with replicas."""
        if answer.unchecked_gpus:
            placement = answer.placement
            if parts is not None:
                placement = with_shares(parts, in_order_of_gpus(parts, placement))
            return replace(answer, placement=placement)
        found = answer.placement if answer.placement.gpus else None
        placement, calls = with_replicas(problem, found, parts, deadline, search=self.twin_search)
        return replace(answer, placement=placement, twin_calls=answer.twin_calls + calls)

    def _checked(  # noqa: PLR0913  # what is filled, and of what
        self,
        problem: Problem,
        model: FillModel,
        filling: Filling,
        searched: Filling,
        deadline: Deadline,
        parts: DividedWorkload | None,
    ) -> CheckedPlacement:
        if self.twin_check:
            try:
                return checked(problem, model, filling, deadline, searched, twin_search=self.twin_search)
            except NoPlacementError:
                if parts is None:
                    raise
                # What cannot be mended may still be shared evenly.
                return CheckedPlacement(Placement(()), 0)
        return CheckedPlacement(searched.placement(problem.workload), 0)
